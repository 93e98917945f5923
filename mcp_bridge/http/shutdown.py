"""Shutting down gently: streams end at once, calls under way finish, then the process.

uvicorn stops accepting on SIGTERM and waits for what is open; streams would keep it
waiting until it cuts them, so they are told here.
"""

from __future__ import annotations

import signal
import threading
from typing import Any

_told = False
"""A plain name and no threading.Event: its lock is not one to be taken in a handler,
which a second signal (a terminal's and make's own) enters while the first is in it."""


def shutting_down() -> bool:
    """Whether this process is about to end."""
    return _told


def install_signal_handlers() -> None:
    """Hear of SIGTERM and SIGINT, before uvicorn does what it does about them."""
    global _told
    _told = False
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGTERM, signal.SIGINT):
        theirs = signal.getsignal(number)
        if callable(theirs) and not getattr(theirs, "portico", False):
            signal.signal(number, _first(theirs))


def _first(theirs: Any) -> Any:
    def handler(number: int, frame: Any) -> None:
        global _told
        _told = True
        theirs(number, frame)

    handler.portico = True  # type: ignore[attr-defined]
    return handler
