"""Ports for the servers of tests and benchmarks."""

from __future__ import annotations

import secrets
import socket

PORTS = range(12_000, 32_000)
"""Below those that Linux gives to connections (from 32768): one of these could take
the port of a server that has not started, or is just being started anew."""
given: set[int] = set()
"""Ports given out: a server that starts has not taken its own yet."""


def free_port() -> int:
    """A port nobody listens on and nobody was given."""
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
