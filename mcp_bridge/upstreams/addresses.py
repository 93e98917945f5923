"""Which addresses an upstream server may have: protection against SSRF.

The addresses that are checked are the ones that are connected to. A second look-up
could return others (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
import socket
from functools import lru_cache
from urllib.parse import urlsplit

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from django.conf import settings

from mcp_bridge.upstreams.problems import UpstreamProblem

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
LOOPBACK = ("127.0.0.0/8", "::1/128")


class AddressRefused(OSError):
    """A name has an address that Portico must not contact."""


def private_networks() -> tuple[str, ...]:
    """UPSTREAM_PRIVATE_NETWORKS; loopback as well while Portico itself runs there."""
    configured = tuple(settings.UPSTREAM_PRIVATE_NETWORKS)
    return configured + (LOOPBACK if _is_local(settings.ISSUER_URL) else ())


@lru_cache(maxsize=16)
def _is_local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@lru_cache(maxsize=1024)
def _may_contact(text: str, networks: tuple[str, ...]) -> bool:
    address: Address = ipaddress.ip_address(text.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    address = mapped or address
    if address.is_global and not address.is_multicast:
        return True
    found = [ipaddress.ip_network(network, strict=False) for network in networks]
    return any(address in network for network in found)


def may_contact(address: str) -> bool:
    """Whether the address is public or in UPSTREAM_PRIVATE_NETWORKS."""
    return _may_contact(address, private_networks())


def check_url(name: str, url: str) -> None:
    """Raises UpstreamProblem for a URL whose host is a forbidden address."""
    host = _address_in(url)
    if host and not may_contact(host):
        raise private_address(name, host)


@lru_cache(maxsize=1024)
def _address_in(url: str) -> str:
    """The host of a URL if it is an address; empty if it is a name."""
    host = urlsplit(url).hostname or ""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return ""
    return host


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
