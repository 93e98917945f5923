"""Signed webhooks: the signature, and hosts that must not or do not answer."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import ssl
import threading
import time
from contextlib import suppress
from typing import Any

import pytest
from django.db import transaction

from accounts.http import outbound_calls
from accounts.http.outbound_calls import CallInTransaction
from accounts.notifications import webhooks
from accounts.notifications.webhooks import (
    NotSent,
    post_webhook,
    reason_of,
    signature,
    signed_headers,
)
from accounts.parsing.urls import split_url
from tests.support.silent_hosts import silent_host
from tests.support.webhook_receiver import receiving

pytestmark = pytest.mark.django_db


def test_the_signature_is_that_of_the_published_example() -> None:
    """The example of Standard Webhooks and its libraries."""
    found = signature(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
    )
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_each_attempt_is_signed_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1614265330.9)
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    headers = signed_headers(secret, "msg_1", b"{}")
    assert headers["webhook-id"] == "msg_1"
    assert headers["webhook-timestamp"] == "1614265330"
    expected = signature(secret, "msg_1", 1614265330, b"{}")
    assert headers["webhook-signature"] == expected


def test_a_webhook_is_posted_as_json() -> None:
    with receiving(204) as receiver:
        assert (
            post_webhook(receiver.url, b'{"a":1}', {"webhook-id": "msg_1"})
            == "HTTP 204"
        )
    path, headers, body = receiver.got[0]
    assert path == "/hook?key=of-the-url" and json.loads(body) == {"a": 1}
    assert headers["content-type"] == "application/json"
    assert headers["webhook-id"] == "msg_1"
    assert headers["user-agent"].startswith("Portico/")


@pytest.mark.parametrize("status", [300, 301, 307, 400, 404, 410, 429, 500, 503])
def test_other_statuses_are_failures(status: int) -> None:
    """A redirect is not followed: it may lead inside."""
    with receiving(status) as receiver:
        with pytest.raises(NotSent, match=f"HTTP {status}"):
            post_webhook(receiver.url, b"{}", {})
    assert len(receiver.got) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "169.254.169.254"])
def test_private_addresses_are_not_contacted(settings: Any, host: str) -> None:
    """Also those that a name has: only connecting shows them."""
    settings.ISSUER_URL = "https://portico.example.com"
    with receiving() as receiver:
        with pytest.raises(NotSent, match="UPSTREAM_PRIVATE_NETWORKS"):
            post_webhook(f"http://{host}:{receiver.port}/", b"{}", {})
    assert receiver.got == []


def test_an_allowed_network_is_contacted(settings: Any) -> None:
    settings.ISSUER_URL = "https://portico.example.com"
    settings.UPSTREAM_PRIVATE_NETWORKS = ["127.0.0.0/8"]
    with receiving() as receiver:
        assert post_webhook(receiver.url, b"{}", {}) == "HTTP 200"


def test_a_proxy_of_the_environment_is_not_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would resolve the name itself, so the address could not be checked."""
    monkeypatch.setenv("HTTP_PROXY", "http://192.0.2.1:3128")
    with receiving() as receiver:
        assert post_webhook(receiver.url, b"{}", {}) == "HTTP 200"


def test_a_slow_host_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """One byte now and then does not prolong it."""
    monkeypatch.setattr(webhooks, "SECONDS", 0.3)
    with silent_host(b"HTTP/1.1 200 OK\r\n\r\n") as host:
        with pytest.raises(NotSent, match="did not answer in time"):
            post_webhook(f"http://127.0.0.1:{host.port}/", b"{}", {})


def test_a_closed_port_is_named() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(NotSent, match="accepted no connection"):
        post_webhook(f"http://127.0.0.1:{port}/", b"{}", {})


def test_the_reason_names_no_part_of_the_url() -> None:
    with pytest.raises(NotSent) as raised:
        post_webhook("http://127.0.0.1:1/services/of-the-team?key=k", b"{}", {})
    assert "of-the-team" not in str(raised.value)


def test_an_unknown_name_and_an_untrusted_certificate_are_named() -> None:
    unknown = OSError("x")
    unknown.__cause__ = outbound_calls.NameNotResolved("hook.example")
    assert reason_of(unknown) == "The name of the host cannot be resolved."
    assert "certificate" in reason_of(ssl.SSLCertVerificationError("x"))


@pytest.mark.parametrize("url", ["", "x", "https://", "http://a b/"])
def test_text_that_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(NotSent):
        post_webhook(url, b"{}", {})


def test_nothing_is_sent_in_a_transaction() -> None:
    with transaction.atomic(), pytest.raises(CallInTransaction):
        post_webhook("https://hook.example/", b"{}", {})


def test_an_attempt_is_one_connection() -> None:
    """The outbox repeats it later; the receiver may have taken it."""
    accepted: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)

        def close_each() -> None:
            with suppress(OSError):
                while True:
                    connection, _address = server.accept()
                    accepted.append(1)
                    connection.close()

        thread = threading.Thread(target=close_each, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        with pytest.raises(NotSent):
            post_webhook(url, b"{}", {})
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert accepted == [1]


@pytest.mark.parametrize("key", [b"\xb2\x1b\x1e\x78", b"\xc2\x1b\x1e", b"\x72\xc7"])
def test_a_secret_that_begins_like_its_prefix_is_kept(key: bytes) -> None:
    """Base64 may begin with any of the prefix's letters."""
    secret = f"whsec_{base64.b64encode(key).decode()}"
    digest = hmac.new(key, b"msg_1.7.{}", hashlib.sha256).digest()
    expected = f"v1,{base64.b64encode(digest).decode()}"
    assert signature(secret, "msg_1", 7, b"{}") == expected


class Pool:
    """A connection pool that sends nothing; keeps how it was made and used."""

    def __init__(self, **made: Any) -> None:
        self.made, self.status, self.closed = made, 200, []  # type: ignore[var-annotated]

    def urlopen(self, method: str, target: str, **options: Any) -> Any:
        self.method, self.target, self.options = method, target, options
        return self

    def close(self) -> None:
        self.closed.append("closed")


@pytest.mark.parametrize(
    ("url", "port", "target"),
    [
        ("http://hook.example", 80, "/"),
        ("https://hook.example/a?b=c", 443, "/a?b=c"),
        ("http://hook.example:8080/a/", 8080, "/a/"),
        ("https://hook.example:80?b", 80, "/?b"),
    ],
)
def test_a_url_says_where_to_post(
    monkeypatch: pytest.MonkeyPatch, url: str, port: int, target: str
) -> None:
    """Only HTTPS has a TLS context; the response and its connection are closed."""
    pools: list[Pool] = []

    def pool(**made: Any) -> Pool:
        pools.append(Pool(**made))
        return pools[-1]

    monkeypatch.setattr(outbound_calls, "POOLS", {"http": pool, "https": pool})
    parts = split_url(url)
    assert parts is not None
    assert webhooks.exchange(parts, b"{}", {"webhook-id": "m"}, 3.5) == 200
    (used,) = pools
    assert (used.made["host"], used.made["port"]) == ("hook.example", port)
    assert used.made["timeout"] == 3.5
    assert ("ssl_context" in used.made) is url.startswith("https:")
    assert (used.method, used.target) == ("POST", target)
    assert used.options["headers"]["webhook-id"] == "m"
    assert used.options["redirect"] is used.options["retries"] is False
    assert used.closed == ["closed", "closed"]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (TimeoutError("x"), webhooks.TOO_LATE),
        (ConnectionResetError("x"), webhooks.NO_ANSWER),
        (OSError("x"), webhooks.NO_ANSWER),
    ],
)
def test_a_cause_is_found_however_it_was_passed_on(error: OSError, text: str) -> None:
    """Raised from it, or while it was handled."""
    assert reason_of(error) == text
    cause, context = ValueError("a"), ValueError("b")
    cause.__cause__ = context.__context__ = error
    assert reason_of(cause) == reason_of(context) == text


def test_what_fails_after_the_time_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the library calls it."""

    def resets(*args: Any) -> int:
        time.sleep(0.003)
        raise ConnectionResetError("reset")

    monkeypatch.setattr(webhooks, "exchange", resets)
    with pytest.raises(NotSent, match="accepted no connection"):
        post_webhook("https://hook.example/", b"{}", {})
    monkeypatch.setattr(webhooks, "SECONDS", 0.002)
    with pytest.raises(NotSent, match="did not answer in time"):
        post_webhook("https://hook.example/", b"{}", {})
