"""One spelling per host, so that a list of hosts refuses all of its spellings."""

from __future__ import annotations

import pytest
from django.core.exceptions import ValidationError
from django.db import transaction

from accounts.models import DocumentHost
from accounts.parsing.host_names import (
    HostField,
    canonical_host,
    host_of_document,
    is_document_at,
)

LABEL = "a" * 63
UMLAUT = "xn--bcher-kva.example"
LONGEST = ".".join([LABEL, LABEL, LABEL, "b" * 61])
"""253 characters."""

SPELLINGS = {
    "claude.ai": ["claude.ai", "CLAUDE.AI", "claude.ai.", "Claude.Ai."],
    "a_b.example": ["a_b.example"],
    "a-b.example": ["A-B.example"],
    UMLAUT: ["bücher.example", "BÜCHER.example", UMLAUT],
    "example.com": ["example.com", "ｅｘａｍｐｌｅ.com", "example。com"],
    "localhost": ["localhost", "LOCALHOST."],
    "127.0.0.1": ["127.0.0.1", "127.1", "0x7f000001", "0X7F.1", "2130706433", "0177.1"],
    "0.0.0.1": ["1", "0x1", "0.0.0.1."],
    "1.example": ["1.example"],
    "1.0x1g": ["1.0x1g"],
    "::1": ["::1", "[::1]", "0:0:0:0:0:0:0:1"],
    "2001:db8::1": ["2001:DB8::1", "[2001:0db8:0::1]"],
    "192.0.2.1": ["::ffff:192.0.2.1", "192.0.2.1"],
    LONGEST: [LONGEST, f"{LONGEST}.", LONGEST.upper()],
    f"{LABEL}.example": [f"{LABEL}.example"],
}


@pytest.mark.once
@pytest.mark.parametrize(
    ("host", "canonical"),
    [(host, name) for name, hosts in SPELLINGS.items() for host in hosts],
)
def test_each_spelling_gives_one_name(host: str, canonical: str) -> None:
    assert canonical_host(host) == canonical


REFUSED = [
    "",
    ".",
    "..",
    "a..b",
    ".a",
    "a b",
    "a/b",
    "a@b",
    "*.example",
    "-a.example",
    "a-.example",
    "a\n",
    "a.example\n",
    "a%2eb",
    f"{LABEL}a.example",
    f"{LONGEST}c",
    f"{LONGEST}c.",
    f"{LONGEST}..",
    ".".join(["ü" * 20] * 12),
    "256.1.1.1",
    "1.2.3.4.5",
    "a.1",
    "1.2.3.0x1ffffffff",
    "0x",
    "0x1ffffffff",
    "a.example:80",
    "fe80::1%eth0",
    "::g",
    "1::2::3",
    "http://a.example",
]


@pytest.mark.once
@pytest.mark.parametrize("host", REFUSED)
def test_other_text_is_no_host(host: str) -> None:
    with pytest.raises(ValueError):
        canonical_host(host)


@pytest.mark.once
@pytest.mark.parametrize(
    ("host", "text"),
    [
        (f"{LONGEST}cd", "too long"),
        (f"{LONGEST}c", "no host name"),
        ("1.2.3.4.5", "no IPv4 address"),
        ("fe80::1%eth0", "no zone"),
        ("a b", "no host name"),
    ],
)
def test_the_error_says_what_is_wrong(host: str, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        canonical_host(host)


@pytest.mark.once
@pytest.mark.parametrize(
    ("client_id", "host"),
    [
        ("https://a.example/c.json", "a.example"),
        ("https://A.Example.:8443/c.json", "a.example"),
        ("https://user@a.example/", "a.example"),
        ("https://[::1]/c", "::1"),
    ],
)
def test_the_host_of_a_document(client_id: str, host: str) -> None:
    assert host_of_document(client_id) == host
    assert is_document_at(client_id, host)
    assert not is_document_at(client_id, "b.example")


@pytest.mark.once
@pytest.mark.parametrize(
    "client_id", ["", "portico", "https:///c", "https://[::1/c", "a.example/c"]
)
def test_other_clients_have_no_document(client_id: str) -> None:
    with pytest.raises(ValueError):
        host_of_document(client_id)
    assert not is_document_at(client_id, "a.example")
    assert not is_document_at(client_id, "")


@pytest.mark.once
def test_a_field_names_the_text_that_is_no_host() -> None:
    field = HostField(max_length=255)
    assert field.to_python("") == "" and field.to_python(None) is None
    assert field.to_python("Claude.AI") == "claude.ai"
    with pytest.raises(ValidationError) as refused:
        field.to_python("a b" + "c" * 200)
    assert refused.value.code == "invalid"
    text = "a b" + "c" * 77
    assert refused.value.messages[0].startswith(f"{text} is not a host name.")


@pytest.mark.django_db
@pytest.mark.parametrize("spelling", ["Bücher.Example.", "xn--bcher-kva.example"])
def test_a_host_is_stored_and_found_in_its_one_spelling(spelling: str) -> None:
    host = DocumentHost(host=spelling)
    host.save()
    assert host.host == "xn--bcher-kva.example"
    host.refresh_from_db()
    assert host.host == "xn--bcher-kva.example"
    assert DocumentHost.objects.get(host="BÜCHER.EXAMPLE") == host


@pytest.mark.django_db
def test_a_host_that_is_none_is_not_stored() -> None:
    with pytest.raises(ValidationError), transaction.atomic():
        DocumentHost.objects.create(host="a b")
    assert not DocumentHost.objects.exists()
