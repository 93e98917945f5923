"""Which addresses Portico may contact for others: protection against SSRF.

Upstream servers and webhooks have URLs that people enter. The address that is checked
is the one that is connected to. A second look-up could return another one (DNS
rebinding).
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from urllib.parse import urlsplit

from django.conf import settings

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
LOOPBACK_NETWORKS = ("127.0.0.0/8", "::1/128")

PRIVATE_NAMES = (".local", ".internal", ".lan", ".home.arpa", ".localhost")
"""Ends of names that are resolved inside a network (RFC 6762, RFC 8375, RFC 6761)."""


class AddressRefused(OSError):
    """A name has an address that Portico must not contact."""


def private_networks() -> tuple[str, ...]:
    """UPSTREAM_PRIVATE_NETWORKS; loopback as well while Portico itself runs there."""
    configured = tuple(settings.UPSTREAM_PRIVATE_NETWORKS)
    near = is_loopback_url(settings.ISSUER_URL)
    return configured + (LOOPBACK_NETWORKS if near else ())


@lru_cache(maxsize=16)
def is_loopback_url(url: str) -> bool:
    """Whether the host of a URL is this computer, by its name."""
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


@lru_cache(maxsize=1024)
def address_in(url: str) -> str:
    """The host of a URL if it is an address; empty if it is a name."""
    host = urlsplit(url).hostname or ""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return ""
    return host


def is_inside(host: str) -> bool:
    """Whether a host is in a private network, as far as its name tells."""
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return "." not in host or host.endswith(PRIVATE_NAMES)
