"""Shutdown handles a signal that arrives during another signal's handler."""

from __future__ import annotations

import pytest

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
