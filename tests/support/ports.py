"""Ports for the servers of tests and benchmarks."""

from __future__ import annotations

import secrets
import socket

PORTS = range(12_000, 32_000)
"""Below Linux' ephemeral ports (from 32768): a connection could take one of those
before a server starts or restarts on it."""
given: set[int] = set()
"""Ports returned before: their servers may not listen yet."""


def free_port() -> int:
    """A free port that was not returned before."""
    while True:
        port = secrets.choice(PORTS)
        if port not in given and not taken(port):
            given.add(port)
            return port


def taken(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False
