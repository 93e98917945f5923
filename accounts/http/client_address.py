"""The client address of a request; only TRUSTED_PROXIES may state another one.

Only this module reads X-Forwarded-For and X-Forwarded-Proto. It runs before all other
middleware, so REMOTE_ADDR and the ASGI scope's `client` and `scheme` hold the real
values for lockout, rate limits, audit and tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Any

from django.conf import settings
from django.http import HttpRequest

UNIX = "unix"
"""The entry of TRUSTED_PROXIES that means: any process that opens our Unix socket."""

FORWARDED_FOR, FORWARDED_PROTO = b"x-forwarded-for", b"x-forwarded-proto"
HOP_HEADERS = frozenset(
    {FORWARDED_FOR, FORWARDED_PROTO, b"x-forwarded-host", b"x-real-ip", b"forwarded"}
)
"""Headers about proxies. They are dropped once read, so no other code trusts them."""

WIDE_PREFIXES = {4: 8, 6: 32}
"""IP version -> prefix length; networks this wide belong to many parties."""

PRIVATE_RANGES = ("172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16")
"""Private ranges that are narrower than WIDE_PREFIXES."""


@lru_cache(maxsize=4096)
def normalize_address(text: str) -> str:
    """Return the bare IP address, IPv4-mapped IPv6 as IPv4; empty if it is invalid."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return ""
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def rate_limit_prefix(address: str) -> str:
    """Return the address to count; for IPv6 the /64 that one household has."""
    client = normalize_address(address)
    if ":" not in client:
        return client
    return str(ip_network(f"{client}/64", strict=False).network_address)


def in_networks(address: str, networks: Iterable[str]) -> bool:
    """Whether the address lies in one of these CIDR networks; an invalid one never."""
    client = normalize_address(address)
    if not client:
        return False
    return any(ip_address(client) in parse_network(net) for net in networks)


@lru_cache(maxsize=1024)
def parse_network(network: str) -> Any:
    """Parse a network, or one address as a network. Raises ValueError."""
    return ip_network(network, strict=False)


def too_wide(network: str) -> bool:
    """Whether the network is too large to hold proxies only.

    The whole loopback network is allowed: clients on other hosts cannot use it.
    """
    if network == UNIX or parse_network(network).is_loopback:
        return False
    net = parse_network(network)
    wide = net.prefixlen <= WIDE_PREFIXES[net.version]
    return wide or (
        net.version == 4
        and any(map(net.supernet_of, map(parse_network, PRIVATE_RANGES)))
    )


def split_networks(text: str) -> tuple[str, ...]:
    """Split networks that spaces, commas or line breaks separate."""
    return tuple(text.replace(",", " ").split())


@lru_cache(maxsize=1024)
def _trusted(address: str, proxies: tuple[str, ...]) -> bool:
    if not address:
        return UNIX in proxies
    return in_networks(address, [net for net in proxies if net != UNIX])


def is_trusted_proxy(address: str) -> bool:
    """Whether TRUSTED_PROXIES lists this peer."""
    return _trusted(address, tuple(settings.TRUSTED_PROXIES))


def client_behind_proxies(peer: str, forwarded_for: str) -> str:
    """Return the first address from the right that is no trusted proxy.

    An unknown sender wrote the entries to the left of it, so they are ignored.
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
    """Return the ASGI scope with real `client` and `scheme`, without hop headers."""
    claims = [pair for pair in scope["headers"] if pair[0] in HOP_HEADERS]
    peer = (scope.get("client") or ("", 0))[0]
    trusted = claims and is_trusted_proxy(normalize_address(peer))
    hops = b",".join(value for name, value in claims if name == FORWARDED_FOR)
    client = client_behind_proxies(peer, hops.decode("latin-1") if trusted else "")
    forwarded = {**scope, "client": (client, 0)}
    if claims:
        forwarded["headers"] = [p for p in scope["headers"] if p[0] not in HOP_HEADERS]
    schemes = [v for name, v in claims if name == FORWARDED_PROTO] if trusted else []
    if schemes:
        first = schemes[0].partition(b",")[0].strip().lower()
        forwarded["scheme"] = "https" if first == b"https" else "http"
    return forwarded


def client_address(request: HttpRequest | None) -> str:
    """Return REMOTE_ADDR, cut to 45 characters; empty without a request."""
    return str(request.META.get("REMOTE_ADDR") or "")[:45] if request else ""
