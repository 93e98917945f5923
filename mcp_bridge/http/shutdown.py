"""Graceful shutdown: streams end at once, running calls finish, then the process ends.

On SIGTERM uvicorn stops accepting and waits for open responses. Streams would make it
wait until its timeout, so `shutting_down()` tells them to end.
"""

from __future__ import annotations

import signal
import threading
from typing import Any

_shutting_down = False
"""A plain flag, not a threading.Event: a handler must not take its lock.

A second signal (the terminal's and make's) enters the handler while the first runs in
it.
"""


def shutting_down() -> bool:
    """Whether this process has received SIGTERM or SIGINT."""
    return _shutting_down


def install_signal_handlers() -> None:
    """Set the flag on SIGTERM and SIGINT, then call uvicorn's handler."""
    global _shutting_down
    _shutting_down = False
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGTERM, signal.SIGINT):
        previous = signal.getsignal(number)
        if callable(previous) and not getattr(previous, "portico", False):
            signal.signal(number, _with_flag(previous))


def _with_flag(previous: Any) -> Any:
    def handler(number: int, frame: Any) -> None:
        global _shutting_down
        _shutting_down = True
        previous(number, frame)

    handler.portico = True  # type: ignore[attr-defined]
    return handler
