"""Shutting down hears of a signal that comes while it hears of another."""

from __future__ import annotations

import pytest

from tests.support.subprocess_python import printed

pytestmark = pytest.mark.once
NESTED = """
import signal, sys
from mcp_bridge.http import shutdown as draining

heard = []
signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
draining.listen()

def again(frame, event, argument):
    if len(heard) < 20:
        heard.append(event)
        signal.raise_signal(signal.SIGTERM)

sys.setprofile(again)
signal.raise_signal(signal.SIGTERM)
sys.setprofile(None)
print(draining.begun(), heard.count(signal.SIGTERM) > 1)
"""
"""A second signal at every call and return on the way of the first."""


def test_a_signal_within_a_signal_does_not_stop_it_for_ever() -> None:
    """Ctrl-C under make is two of them, and the second finds the first."""
    assert printed(NESTED) == "True True\n"
