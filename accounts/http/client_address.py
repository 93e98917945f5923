"""Where a request comes from, seen through TRUSTED_PROXIES and no other proxies.

The one place that reads X-Forwarded-For and X-Forwarded-Proto. It runs in front of
everything, so that Django's REMOTE_ADDR and the `client` and `scheme` of an ASGI scope
are true for the lock-out, the limits, the audit and the tokens alike.
"""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Any

from django.conf import settings
from django.http import HttpRequest

UNIX = "unix"
"""In TRUSTED_PROXIES: whoever may open our Unix socket."""

FOR, PROTO = b"x-forwarded-for", b"x-forwarded-proto"
HOP_HEADERS = frozenset({FOR, PROTO, b"x-forwarded-host", b"x-real-ip", b"forwarded"})
"""What claims to know the way; dropped once read, so that nothing else believes it."""

WIDE = {4: 8, 6: 32}
"""Prefixes this short are networks of many parties."""

PRIVATE = ("172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16")
"""Ranges that are private as a whole, beside those that are wide."""


@lru_cache(maxsize=4096)
def normalize_address(text: str) -> str:
    """An address without port, brackets, zone and IPv4-in-IPv6; empty if it is none."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return ""
    mapped = getattr(found, "ipv4_mapped", None)
    return str(mapped or found)


def rate_limit_prefix(address: str) -> str:
    """What is counted as one address: in IPv6 the /64 one household has."""
    found = normalize_address(address)
    if ":" not in found:
        return found
    return str(ip_network(f"{found}/64", strict=False).network_address)


def in_networks(address: str, networks: Iterable[str]) -> bool:
    """Whether the address lies in one of these CIDR networks; no address does not."""
    found = normalize_address(address)
    if not found:
        return False
    return any(ip_address(found) in parse_network(net) for net in networks)


@lru_cache(maxsize=1024)
def parse_network(network: str) -> Any:
    """A network, or one address as a network. Raises ValueError."""
    return ip_network(network, strict=False)


def too_wide(network: str) -> bool:
    """Whether so many addresses are hardly all proxies.

    Loopback may be listed as a whole: clients of other hosts cannot have it.
    """
    if network == UNIX or parse_network(network).is_loopback:
        return False
    net = parse_network(network)
    wide = net.prefixlen <= WIDE[net.version]
    return wide or (
        net.version == 4 and any(map(net.supernet_of, map(parse_network, PRIVATE)))
    )


def split_networks(text: str) -> tuple[str, ...]:
    """Networks as people write them in one field: blanks, commas or lines between."""
    return tuple(text.replace(",", " ").split())


@lru_cache(maxsize=1024)
def _trusted(address: str, proxies: tuple[str, ...]) -> bool:
    if not address:
        return UNIX in proxies
    return in_networks(address, [net for net in proxies if net != UNIX])


def is_trusted_proxy(address: str) -> bool:
    """Whether this peer is a proxy of ours, whose word counts."""
    return _trusted(address, tuple(settings.TRUSTED_PROXIES))


def client_behind_proxies(peer: str, forwarded_for: str) -> str:
    """The client's address: the first from the right that no trusted proxy has.

    What stands left of it was written by somebody we do not know.
    """
    address = normalize_address(peer)
    hops = forwarded_for.split(",") if forwarded_for else []
    while hops and is_trusted_proxy(address):
        hop = normalize_address(hops.pop())
        if not hop:
            break
        address = hop
    return address


def apply_forwarded(scope: MutableMapping[str, Any]) -> dict[str, Any]:
    """The ASGI scope with its true `client` and `scheme`, without the hop headers."""
    claims = [pair for pair in scope["headers"] if pair[0] in HOP_HEADERS]
    peer = (scope.get("client") or ("", 0))[0]
    believed = claims and is_trusted_proxy(normalize_address(peer))
    way = b",".join(value for name, value in claims if name == FOR)
    client = client_behind_proxies(peer, way.decode("latin-1") if believed else "")
    told = {**scope, "client": (client, 0)}
    if claims:
        told["headers"] = [p for p in scope["headers"] if p[0] not in HOP_HEADERS]
    schemes = [value for name, value in claims if name == PROTO] if believed else []
    if schemes:
        last = schemes[-1].rpartition(b",")[2].strip().lower()
        told["scheme"] = "https" if last == b"https" else "http"
    return told


def client_address(request: HttpRequest | None) -> str:
    """The address the request came from, empty without a request."""
    return str(request.META.get("REMOTE_ADDR") or "")[:45] if request else ""
