"""Shutdown handles a signal that arrives during another signal's handler."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from mcp_bridge.http import shutdown
from tests.support.subprocess_python import python_output

pytestmark = pytest.mark.once
NESTED = """
import signal, sys
from mcp_bridge.http import shutdown as draining

heard = []
signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
draining.install_signal_handlers()

def again(frame, event, argument):
    if len(heard) < 20:
        heard.append(event)
        signal.raise_signal(signal.SIGTERM)

sys.setprofile(again)
signal.raise_signal(signal.SIGTERM)
sys.setprofile(None)
print(draining.shutting_down(), heard.count(signal.SIGTERM) > 1)
"""
"""Sends a second signal at every call and return of the first one's handler."""


def test_a_nested_signal_does_not_block_shutdown() -> None:
    """Ctrl-C under make sends two signals, and the second interrupts the first."""
    assert python_output(NESTED) == "True True\n"


@pytest.fixture
def heard() -> Iterator[list[Any]]:
    """What a server's own handlers, which are set before, hear."""
    calls: list[Any] = []
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        signal.signal(number, lambda *given: calls.append(given))
    yield calls
    for number, handler in before.items():
        signal.signal(number, handler)
    shutdown._shutting_down = False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_sets_the_flag_and_reaches_the_server(
    heard: list[Any], number: signal.Signals
) -> None:
    shutdown.install_signal_handlers()
    assert not shutdown.shutting_down()
    signal.raise_signal(number)
    assert shutdown.shutting_down()
    assert [given[0] for given in heard] == [number] and heard[0][1] is not None


def test_installing_twice_calls_the_server_once(heard: list[Any]) -> None:
    """The second time clears the flag: the process serves again."""
    shutdown.install_signal_handlers()
    signal.raise_signal(signal.SIGTERM)
    installed = signal.getsignal(signal.SIGTERM)
    shutdown.install_signal_handlers()
    assert signal.getsignal(signal.SIGTERM) is installed, "handlers do not pile up"
    assert not shutdown.shutting_down()
    signal.raise_signal(signal.SIGTERM)
    assert shutdown.shutting_down() and len(heard) == 2


def test_a_signal_without_a_handler_stays_ignored(heard: list[Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    shutdown.install_signal_handlers()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_another_thread_installs_nothing(heard: list[Any]) -> None:
    """Python allows handlers in the main thread only."""
    thread = threading.Thread(target=shutdown.install_signal_handlers)
    thread.start()
    thread.join()
    signal.raise_signal(signal.SIGTERM)
    assert len(heard) == 1 and not shutdown.shutting_down()
