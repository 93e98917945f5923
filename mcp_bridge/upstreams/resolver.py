"""Refuses forbidden addresses of upstream servers at each look-up.

Imports aiohttp, so it is imported late (http_client.py).
"""

from __future__ import annotations

import socket

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from accounts.http.private_addresses import AddressRefused, may_contact


class GuardedResolver(AbstractResolver):
    """Resolves names in threads; raises AddressRefused for forbidden addresses."""

    def __init__(self) -> None:
        self.inner = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Every address of the host; one forbidden address refuses the name."""
        found = await self.inner.resolve(host, port, family)
        for result in found:
            if not may_contact(result["host"]):
                raise AddressRefused(f"{host} is {result['host']}")
        return found

    async def close(self) -> None:
        await self.inner.close()
