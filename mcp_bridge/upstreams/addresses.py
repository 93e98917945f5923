"""Refuses forbidden addresses of upstream servers, before and at each look-up."""

from __future__ import annotations

import socket

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from accounts.http.private_addresses import AddressRefused, address_in, may_contact
from mcp_bridge.upstreams.problems import UpstreamProblem


def check_url(name: str, url: str) -> None:
    """Raises UpstreamProblem for a URL whose host is a forbidden address."""
    host = address_in(url)
    if host and not may_contact(host):
        raise private_address(name, host)


def private_address(name: str, host: str) -> UpstreamProblem:
    """The problem of a private address; names the setting that allows it."""
    text = (
        f"The upstream server {name} has a private address ({host}). If it is meant, "
        "add its network to UPSTREAM_PRIVATE_NETWORKS, for example 10.0.0.0/8."
    )
    return UpstreamProblem("private_address", text)


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
