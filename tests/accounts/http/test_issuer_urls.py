"""Absolute URLs start with the issuer, whatever the Host header says."""

from __future__ import annotations

from typing import Any

import pytest
from django.http import HttpResponse
from django.test import RequestFactory

from accounts.http.issuer_urls import IssuerMiddleware, is_other_host

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def issuer(settings: Any) -> None:
    settings.ISSUER_URL = "https://portico.example:8443"
    settings.ALLOWED_HOSTS = ["*"]


def test_absolute_urls_start_with_the_issuer() -> None:
    """The attribute is Django's own; this fails if Django renames it."""

    def view(request: Any) -> HttpResponse:
        return HttpResponse(request.build_absolute_uri("/x"))

    request = RequestFactory().get("/", headers={"host": "evil.example"})
    answer = IssuerMiddleware(view)(request)
    assert answer.content == b"https://portico.example:8443/x"


@pytest.mark.parametrize(
    ("host", "other"),
    [
        ("portico.example:8443", False),
        ("portico.example", False),
        ("PORTICO.example:1", False),
        ("www.portico.example", True),
        ("127.0.0.1:8443", True),
        ("[::1]:8443", True),
    ],
)
def test_ports_are_not_compared(host: str, other: bool) -> None:
    """Proxies drop them, and cookies ignore them."""
    request = RequestFactory().get("/", headers={"host": host})
    assert is_other_host(request) == other


@pytest.mark.parametrize(
    ("path", "host"),
    [
        ("/healthz", "portico.example"),
        ("/readyz", "portico.example"),
        ("/healthz/", "10.0.0.7"),
        ("/admin/", "10.0.0.7"),
    ],
)
def test_probes_may_use_the_address_of_a_process(path: str, host: str) -> None:
    """Other paths keep their Host, which ALLOWED_HOSTS then checks."""
    request = RequestFactory().get(path, headers={"host": "10.0.0.7:8000"})
    IssuerMiddleware(lambda request: HttpResponse())(request)
    assert request.get_host().partition(":")[0] == host
