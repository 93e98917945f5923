"""Rows of upstream servers: their URLs and their texts."""

from __future__ import annotations

import pytest
from django.core.exceptions import ValidationError

from mcp_bridge.models import UpstreamCredential, UpstreamStatus
from mcp_bridge.models.upstream_servers import http_url

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    "url",
    [
        "https://a.example/mcp",
        "http://127.0.0.1:9/x?y=1",
        "http://[::1]:9/",
        "https://a.example/@scope/mcp",
        "https://a.example/mcp?for=a@b.example",
    ],
)
def test_urls_of_servers(url: str) -> None:
    http_url(url)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("ftp://a.example/", "is not a URL such as"),
        ("a.example/mcp", "is not a URL such as"),
        ("https:///mcp", "is not a URL such as"),
        ("https://user:secret@a.example/", "into its own fields"),
        ("https://secret@a.example:9/mcp", "into its own fields"),
        ("https://a.example/mcp#part", "no #fragment"),
        ("https://a.example/#", "no #fragment"),
    ],
)
def test_other_urls_are_refused(url: str, text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        http_url(url)


def test_texts_name_no_secret() -> None:
    assert str(UpstreamCredential(upstream_id=7)) == "credential of 7"
    assert str(UpstreamStatus(server_name="Acme", server_version="2")) == "Acme 2"
    assert str(UpstreamStatus(server_name="Acme", error="It failed.")) == "It failed."
    assert str(UpstreamStatus()) == ""
