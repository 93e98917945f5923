"""Which addresses Portico contacts for the URLs of others."""

from __future__ import annotations

from typing import Any

import pytest

from accounts.http import outbound_calls
from accounts.http.private_addresses import (
    AddressRefused,
    address_in,
    is_inside,
    is_loopback_url,
    may_contact,
)

INSIDE = (
    "10.1.2.3",
    "192.168.1.1",
    "172.16.0.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",  # noqa: S104
    "224.0.0.1",
    "::1",
    "fe80::1%eth0",
    "fd00::1",
    "::ffff:10.0.0.1",
)


@pytest.fixture(autouse=True)
def public_portico(settings: Any) -> None:
    settings.ISSUER_URL = "https://portico.example.com"
    settings.UPSTREAM_PRIVATE_NETWORKS = []


@pytest.mark.parametrize("address", INSIDE)
def test_addresses_inside_are_refused(address: str) -> None:
    assert not may_contact(address)
    assert not may_contact("127.0.0.1")


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1"])
def test_public_addresses_are_allowed(address: str) -> None:
    assert may_contact(address)


def test_networks_of_the_setting_are_allowed(settings: Any) -> None:
    settings.UPSTREAM_PRIVATE_NETWORKS = ["10.0.0.0/8", "fd00::/8"]
    assert may_contact("10.1.2.3") and may_contact("fd00::1")
    assert not may_contact("192.168.1.1")


@pytest.mark.parametrize("issuer", ["http://localhost:8000", "http://127.0.0.1:8000"])
def test_loopback_is_allowed_while_portico_is_there(settings: Any, issuer: str) -> None:
    settings.ISSUER_URL = issuer
    assert may_contact("127.0.0.1") and may_contact("::1")
    assert not may_contact("10.1.2.3")


def test_an_address_in_a_url_is_found() -> None:
    assert address_in("https://10.1.2.3:8443/x") == "10.1.2.3"
    assert address_in("https://[::1]/x") == "::1"
    assert address_in("https://localhost/x") == ""


@pytest.mark.parametrize("host", ["10.0.0.1", "siem", "siem.internal", "localhost"])
def test_hosts_inside_are_known_by_their_names(host: str) -> None:
    assert is_inside(host)
    assert not is_inside("siem.example.com") and not is_inside("1.1.1.1")


@pytest.mark.django_db
def test_a_guarded_call_connects_to_no_forbidden_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of the addresses of a name, one forbidden address is enough to refuse it."""
    found = [(2, 1, 6, "", (one, 80)) for one in ("1.1.1.1", "10.1.2.3")]
    monkeypatch.setattr(outbound_calls, "resolve", lambda *args: found)
    with outbound_calls.call(1, guarded=True) as call:
        with pytest.raises(AddressRefused, match=r"10\.1\.2\.3"):
            call.connect("both.example", 80)


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("localhost", True),
        ("127.0.0.9", True),
        ("[::1]", True),
        ("notlocalhost", False),
        ("a.localhost", False),
        ("localhost.example", False),
        ("192.0.2.7", False),
        ("", False),
    ],
)
def test_a_url_names_this_computer(host: str, here: bool) -> None:
    assert is_loopback_url(f"http://{host}/x") is here
