"""Which header carries a credential, and where a stored secret may go."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ValidationError

from mcp_bridge.models import UpstreamCredential, UpstreamServer
from mcp_bridge.upstreams.registration.servers import (
    RESERVED,
    check_header,
    save_credential,
    secret_goes_to,
    url_origin,
    whole_header,
)


@pytest.mark.once
@pytest.mark.parametrize("name", ["Authorization", "X-API-Key", "x", "Mcp", "Hosts"])
def test_other_headers_carry_a_credential(name: str) -> None:
    check_header(name, "Bearer s3cr3t")
    check_header(name, "~" * 8192)


@pytest.mark.once
@pytest.mark.parametrize(
    "name",
    [*RESERVED, "COOKIE", "Host", "Mcp-Session-Id", "MCP-X", "", "A b", "A:", "A\n"],
)
def test_headers_of_the_connection_carry_none(name: str) -> None:
    with pytest.raises(ValidationError, match="cannot carry a credential"):
        check_header(name, "x")


@pytest.mark.once
@pytest.mark.parametrize("value", ["é", "a\nb", "a\x00", "\x7f", "x" * 8193])
def test_a_credential_is_one_line_of_printable_ascii(value: str) -> None:
    with pytest.raises(ValidationError, match="one line of printable ASCII"):
        check_header("Authorization", value)


@pytest.mark.once
@pytest.mark.parametrize(
    ("name", "value", "sent"),
    [
        ("Authorization", "s3cr3t", "Bearer s3cr3t"),
        ("AUTHORIZATION", " s3cr3t\n", "Bearer s3cr3t"),
        ("Authorization", "Basic s3cr3t", "Basic s3cr3t"),
        ("Authorization", " ", ""),
        ("X-API-Key", " s3cr3t ", "s3cr3t"),
    ],
)
def test_a_token_alone_is_a_bearer_token(name: str, value: str, sent: str) -> None:
    assert whole_header(name, value) == sent


@pytest.mark.once
@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://A.example/mcp", ("https", "a.example")),
        ("https://a.example:444/mcp?x", ("https", "a.example:444")),
        ("http://a.example", ("http", "a.example")),
    ],
)
def test_an_origin_is_scheme_and_authority(url: str, origin: tuple[str, str]) -> None:
    assert url_origin(url) == origin


SERVER = {"url": "https://a.example/mcp", "credential_mode": "client_credentials"}
CREDENTIAL = {"client_id": "me", "token_url": "https://id.example/token"}


def goes_to(**changes: Any) -> Any:
    server = UpstreamServer(**{k: changes.get(k, v) for k, v in SERVER.items()})
    columns = {k: changes.get(k, v) for k, v in CREDENTIAL.items()}
    return secret_goes_to(server, UpstreamCredential(**columns))


@pytest.mark.once
@pytest.mark.parametrize(
    ("mode", "changes", "moves"),
    [
        ("client_credentials", {"client_id": "you"}, True),
        ("client_credentials", {"token_url": "https://other.example/token"}, True),
        ("client_credentials", {"token_url": "http://id.example/token"}, True),
        ("client_credentials", {"token_url": "https://id.example/new"}, False),
        ("client_credentials", {"url": "https://b.example/mcp"}, False),
        ("client_credentials", {"credential_mode": "static_header"}, True),
        ("static_header", {"url": "https://b.example/mcp"}, True),
        ("static_header", {"url": "http://a.example/mcp"}, True),
        ("static_header", {"url": "https://a.example/new"}, False),
        ("static_header", {"client_id": "you"}, False),
        ("static_header", {"credential_mode": "none"}, True),
    ],
)
def test_a_secret_moves_with_what_it_is_sent_to(
    mode: str, changes: dict[str, str], moves: bool
) -> None:
    before = goes_to(credential_mode=mode)
    assert (goes_to(**{"credential_mode": mode, **changes}) != before) is moves


@pytest.mark.django_db
@pytest.mark.parametrize("secret", ["", "s3cr3t"])
def test_a_saved_credential_is_a_new_version(secret: str) -> None:
    """What was fetched by the old one is forgotten."""
    server = UpstreamServer.objects.create(name="shop", url="https://a.example/mcp")
    row = UpstreamCredential(header="X-API-Key")
    save_credential(server, row, secret)
    first = UpstreamCredential.objects.get()
    assert first.upstream == server and bool(first.secret_encrypted) is bool(secret)
    save_credential(server, row, secret)
    assert UpstreamCredential.objects.get().version > first.version
