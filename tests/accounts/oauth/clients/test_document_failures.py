"""Why a document cannot be used, in words."""

from __future__ import annotations

import ssl

import pytest
import urllib3
from django.utils import translation
from oauth2_provider.cimd import CIMDError

from accounts.http.outbound_calls import LookUpTimeout, NameNotResolved
from accounts.oauth.clients.document_failures import (
    DocumentFailure,
    FetchFailed,
    failure_of,
    network_failure,
    sentences,
)

HOST = "c.example:443"
KINDS = [
    (NameNotResolved("x"), "unresolved"),
    (LookUpTimeout("x"), "unresolved"),
    (TimeoutError("x"), "timeout"),
    (urllib3.exceptions.ReadTimeoutError(None, "", "x"), "timeout"),  # type: ignore[arg-type]
    (urllib3.exceptions.ConnectTimeoutError("x"), "timeout"),
    (urllib3.exceptions.SSLError(ssl.SSLCertVerificationError("x")), "certificate"),
    (urllib3.exceptions.ProtocolError("reset"), "unreachable"),
    (OSError("no route"), "unreachable"),
]


@pytest.mark.parametrize(("error", "kind"), KINDS, ids=str)
def test_each_network_error_has_its_kind(error: Exception, kind: str) -> None:
    failure = network_failure(HOST, error).failure
    assert (failure.kind, failure.host) == (kind, "c.example")
    assert failure.unavailable and "c.example" in failure.text()
    assert failure.reason.startswith(f"{kind}: c.example:443 did not answer: ")


@pytest.mark.parametrize("status", [403, 408, 425, 429, 500, 502, 503, 530])
def test_these_statuses_say_nothing_about_the_document(status: int) -> None:
    assert DocumentFailure("status", "c.example", "", status).unavailable


@pytest.mark.parametrize("status", [204, 301, 302, 400, 401, 404, 410, 451])
def test_other_statuses_are_the_hosts_answer(status: int) -> None:
    failure = DocumentFailure("status", "c.example", "", status)
    assert not failure.unavailable
    assert failure.text() == f"c.example answered with HTTP status {status}."
    assert failure.advice() == "The publisher of the client must correct its document."


def test_a_document_that_breaks_a_rule_is_invalid() -> None:
    failure = failure_of(CIMDError("client_name is missing."), HOST)
    assert (failure.kind, failure.host) == ("invalid", "c.example")
    assert not failure.unavailable
    text = "The client's document is not valid: client_name is missing."
    assert failure.text() == text
    known = DocumentFailure("timeout", "d.example")
    assert failure_of(FetchFailed(known), HOST) is known


def test_a_host_keeps_an_unusual_port() -> None:
    assert network_failure("c.example:8443", OSError("x")).failure.host[-5:] == ":8443"


@pytest.mark.parametrize("kind", ["off", "private", "unreachable"])
def test_a_copy_may_do_where_nothing_is_fetched(kind: str) -> None:
    failure = DocumentFailure(kind, "c.example")
    assert failure.unavailable and "reach c.example, or paste" in failure.advice()


def test_a_reason_fits_into_the_audit() -> None:
    failure = DocumentFailure("invalid", "c.example", "x" * 300)
    assert failure.reason == f"invalid: {'x' * 246}"


@pytest.mark.parametrize("kind", ["host_blocked", "client_blocked"])
def test_a_block_is_no_failure_of_the_host(kind: str) -> None:
    failure = DocumentFailure(kind, "c.example")
    assert not failure.unavailable and "unblock" in failure.advice()


def test_the_advice_names_the_host_or_the_copy() -> None:
    assert (
        "reach c.example, or paste" in DocumentFailure("timeout", "c.example").advice()
    )
    off = DocumentFailure("timeout", "c.example", copy_off=True)
    assert off.text().endswith("The copy of the client's document is switched off.")
    assert off.advice() == "An administrator can switch the copy on in the admin."


def test_every_sentence_is_translated() -> None:
    english = sentences()
    with translation.override("ko"):
        assert not set(english.values()) & set(sentences().values())
    values = {"host": "h", "detail": "d", "status": 1}
    assert all(text % values for text in english.values())
