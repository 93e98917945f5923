"""The client's address and scheme behind proxies, with forged headers."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import RequestFactory, override_settings

from accounts.checks import settings_are_consistent
from accounts.http.client_address import (
    apply_forwarded,
    client_address,
    client_behind_proxies,
    in_networks,
    normalize_address,
    rate_limit_prefix,
    split_networks,
)

pytestmark = pytest.mark.once
OURS = ["10.0.0.0/8", "2001:db8::1", "unix"]


@pytest.mark.parametrize(
    ("peer", "way", "client"),
    [
        ("203.0.113.7", "", "203.0.113.7"),
        ("203.0.113.7", "6.6.6.6", "203.0.113.7"),
        ("203.0.113.7", "10.0.0.1", "203.0.113.7"),
        ("10.0.0.1", "203.0.113.7", "203.0.113.7"),
        ("10.0.0.1", "6.6.6.6, 203.0.113.7", "203.0.113.7"),
        ("10.0.0.1", "6.6.6.6, 203.0.113.7, 10.9.9.9", "203.0.113.7"),
        ("10.0.0.1", "10.6.6.6, 203.0.113.7, 10.9.9.9", "203.0.113.7"),
        ("10.0.0.1", "10.2.2.2, 10.3.3.3", "10.2.2.2"),
        ("10.0.0.1", "203.0.113.7, unknown", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.7,", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.7, <script>", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.7:4711", "203.0.113.7"),
        ("10.0.0.1", '"[2001:db8::9]:4711"', "2001:db8::9"),
        ("2001:db8::1", "2001:db8::9", "2001:db8::9"),
        ("::ffff:10.0.0.1", "::ffff:203.0.113.7", "203.0.113.7"),
        ("", "203.0.113.7", "203.0.113.7"),
        ("testclient", "203.0.113.7", "203.0.113.7"),
    ],
)
@override_settings(TRUSTED_PROXIES=OURS)
def test_only_trusted_hops_are_counted_from_the_right(
    peer: str, way: str, client: str
) -> None:
    """Clients can write everything left of the first untrusted hop."""
    assert client_behind_proxies(peer, way) == client


def test_without_trusted_proxies_no_header_counts() -> None:
    """This is the default; a peer without an address is trusted only with `unix`."""
    assert client_behind_proxies("127.0.0.1", "203.0.113.7") == "127.0.0.1"
    assert client_behind_proxies("", "203.0.113.7") == ""
    assert normalize_address("fe80::1%eth0") == "fe80::1"
    assert not in_networks("", ["0.0.0.0/0"]) and in_networks(
        "::1", ["10.0.0.0/8", "::1"]
    )


@pytest.mark.parametrize(
    ("network", "wide"),
    [
        *((everybody, True) for everybody in ("0.0.0.0/0", "::/0")),
        *((half, True) for half in ("0.0.0.0/1", "128.0.0.0/1", "8000::/1")),
        *((home, True) for home in ("10.0.0.0/8", "10.1.2.3/7", "172.16.0.0/12")),
        *((home, True) for home in ("192.168.0.0/16", "100.64.0.0/10", "fd00::/8")),
        *((home, True) for home in ("fc00::/7", "fe80::/10", "172.0.0.0/9")),
        *((near, False) for near in ("127.0.0.1", "127.0.0.0/8", "::1", "unix")),
        *((own, False) for own in ("10.0.0.5", "10.0.0.4/30", "172.30.0.2")),
        *((own, False) for own in ("192.168.7.0/24", "fd00:1:2::/64")),
    ],
)
def test_trusted_networks_with_clients_get_a_warning(network: str, wide: bool) -> None:
    """`check --deploy` and doctor name the network (portico.W008)."""
    with override_settings(TRUSTED_PROXIES=["192.0.2.1", network]):
        found = [m for m in settings_are_consistent() if m.id == "portico.W008"]
    assert [network in message.msg for message in found] == [True] * wide


def scope(peer: str, **headers: str) -> dict[str, Any]:
    """An ASGI scope with these headers."""
    pairs = [(n.replace("_", "-").encode(), v.encode()) for n, v in headers.items()]
    return {"client": (peer, 4711), "scheme": "http", "headers": pairs}


@pytest.mark.parametrize(
    ("peer", "proto", "scheme"),
    [
        ("10.0.0.1", "https", "https"),
        ("10.0.0.1", "HTTPS", "https"),
        ("10.0.0.1", "https, http", "https"),
        ("10.0.0.1", "https,http", "https"),
        ("10.0.0.1", "HTTPS ,http,http", "https"),
        ("10.0.0.1", "http, https", "http"),
        ("10.0.0.1", ",https", "http"),
        ("10.0.0.1", "http", "http"),
        ("10.0.0.1", "javascript", "http"),
        ("203.0.113.7", "https", "http"),
        ("203.0.113.7", "https, http", "http"),
    ],
)
@override_settings(TRUSTED_PROXIES=OURS)
def test_the_scheme_is_taken_from_a_trusted_proxy_only(
    peer: str, proto: str, scheme: str
) -> None:
    """The first value is the browser's; a second proxy may append plain http."""
    assert apply_forwarded(_with(peer, proto))["scheme"] == scheme


def _with(peer: str, proto: str) -> dict[str, Any]:
    return scope(peer, x_forwarded_proto=proto, host="h")


@override_settings(TRUSTED_PROXIES=OURS)
def test_the_forwarding_headers_are_removed() -> None:
    """Later code cannot trust them by mistake."""
    names = dict.fromkeys(
        ("x_forwarded_for", "x_forwarded_host", "x_real_ip", "forwarded"), "6.6.6.6"
    )
    forwarded = apply_forwarded(scope("203.0.113.7", host="h", **names))
    assert forwarded["headers"] == [(b"host", b"h")] and forwarded["scheme"] == "http"
    assert forwarded["client"] == ("203.0.113.7", 0)
    assert apply_forwarded({"client": None, "headers": []})["client"] == ("", 0)


@override_settings(TRUSTED_PROXIES=OURS)
@pytest.mark.parametrize(
    ("peer", "lines", "client"),
    [
        ("10.0.0.1", ["6.6.6.6", "203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["203.0.113.7", "10.9.9.9"], "203.0.113.7"),
        ("10.0.0.1", ["6.6.6.6, 203.0.113.7", "10.2.2.2, 10.9.9.9"], "203.0.113.7"),
        ("203.0.113.9", ["203.0.113.7", "10.9.9.9"], "203.0.113.9"),
        ("", ["6.6.6.6", "203.0.113.7"], "203.0.113.7"),
    ],
)
def test_every_line_of_the_header_counts(
    peer: str, lines: list[str], client: str
) -> None:
    """RFC 9110 5.3: several lines are one list; a client sends the first one."""
    made = scope(peer, host="h")
    made["headers"] += [(b"x-forwarded-for", line.encode()) for line in lines]
    forwarded = apply_forwarded(made)
    assert forwarded["client"] == (client, 0)
    assert forwarded["headers"] == [(b"host", b"h")]


@override_settings(TRUSTED_PROXIES=OURS)
def test_the_first_line_of_the_scheme_counts() -> None:
    made = scope("10.0.0.1")
    made["headers"] = [(b"x-forwarded-proto", v) for v in (b"https", b"http")]
    assert apply_forwarded(made)["scheme"] == "https"
    made["headers"].reverse()
    assert apply_forwarded(made)["scheme"] == "http"
    made["headers"] = [(b"x-forwarded-for", b"203.0.113.7")]
    made["scheme"] = "https"
    assert apply_forwarded(made)["scheme"] == "https"


@override_settings(TRUSTED_PROXIES=["unix"])
def test_a_unix_socket_is_trusted_by_name_only() -> None:
    assert client_behind_proxies("", "203.0.113.7") == "203.0.113.7"
    assert client_behind_proxies("10.0.0.1", "203.0.113.7") == "10.0.0.1"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (" 192.0.2.1 ", "192.0.2.1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:80", "192.0.2.1"),
        ("192.0.2.256", ""),
        ("", ""),
        ("unknown", ""),
    ],
)
def test_an_address_has_one_spelling(text: str, address: str) -> None:
    assert normalize_address(text) == address


@pytest.mark.parametrize(
    ("address", "inside"),
    [
        ("10.1.2.3", True),
        (" 10.1.2.3 ", True),
        ("10.1.2.3:4711", True),
        ("::ffff:10.1.2.3", True),
        ("[::ffff:10.1.2.3]:4711", True),
        ("192.0.2.7", True),
        ("192.0.2.8", False),
        ("11.0.0.0", False),
        ("2001:DB8::9", True),
        ("[2001:db8::9]:4711", True),
        ("2001:db8::9%eth0", True),
        ("2001:db9::9", False),
        ("::ffff:11.0.0.0", False),
        ("10.1.2", False),
        ("unix", False),
        ("", False),
    ],
)
def test_every_spelling_of_an_address_is_found_in_networks(
    address: str, inside: bool
) -> None:
    networks = ["10.0.0.5/8", "192.0.2.7", "2001:db8::/32"]
    assert in_networks(address, networks) == inside
    assert not in_networks(address, [])


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("2001:db8:0:1::1", "2001:db8:0:1::"),
        ("2001:db8:0:1:ffff::1", "2001:db8:0:1::"),
        ("2001:db8:0:2::1", "2001:db8:0:2::"),
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("x", ""),
    ],
)
def test_a_household_of_ipv6_is_one_client(address: str, counted: str) -> None:
    assert rate_limit_prefix(address) == counted


@pytest.mark.parametrize(
    ("address", "inside"),
    [
        ("10.0.0.0", True),
        ("10.0.0.3", True),
        ("10.0.0.4", False),
        ("2001:db8::5", True),
        ("2001:db9::5", False),
        ("", False),
    ],
)
def test_an_address_is_inside_one_of_the_networks(address: str, inside: bool) -> None:
    nets = split_networks("10.0.0.0/30, 2001:db8::/32\n192.0.2.1")
    assert nets == ("10.0.0.0/30", "2001:db8::/32", "192.0.2.1")
    assert in_networks(address, nets) == inside


def test_the_address_of_a_request_is_bounded() -> None:
    request = RequestFactory().get("/", REMOTE_ADDR="x" * 50)
    assert client_address(request) == "x" * 45 and client_address(None) == ""
    del request.META["REMOTE_ADDR"]
    assert client_address(request) == ""
