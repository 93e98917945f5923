"""Signs and posts webhooks (https://www.standardwebhooks.com)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import ssl
import time
from collections.abc import Iterator, Mapping
from urllib.parse import SplitResult

import urllib3
from django.conf import settings
from django.utils.translation import gettext_noop

from accounts.http import outbound_calls
from accounts.http.private_addresses import AddressRefused
from accounts.models.notifications.channels import SECRET_PREFIX
from accounts.parsing.urls import split_url

SECONDS = 10.0
"""For one attempt: DNS, connection and response."""
NO_ANSWER = gettext_noop(
    "The host accepted no connection, or closed it without an answer."
)
TOO_LATE = gettext_noop("The host did not answer in time.")


class NotSent(Exception):
    """An attempt failed; the text says why, without the URL."""


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """`v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`."""
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    content = f"{message_id}.{timestamp}.".encode() + body
    digest = hmac.new(key, content, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def signed_headers(secret: str, message_id: str, body: bytes) -> dict[str, str]:
    """The headers of Standard Webhooks; the time is that of this attempt."""
    now = int(time.time())
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(now),
        "webhook-signature": signature(secret, message_id, now, body),
    }


def post_webhook(url: str, body: bytes, headers: Mapping[str, str]) -> str:
    """POST JSON; returns `HTTP 204` or the like. Raises NotSent, CallInTransaction.

    Follows no redirect and reads no body: both could show what is behind a firewall.
    """
    parts = split_url(url)
    if parts is None:
        raise NotSent("The URL is not valid.")
    began = time.monotonic()
    try:
        with outbound_calls.call(SECONDS, guarded=True) as call:
            status = exchange(parts, body, headers, call.left)
    except (OSError, urllib3.exceptions.HTTPError) as error:
        late = time.monotonic() - began >= SECONDS
        raise NotSent(TOO_LATE if late else reason_of(error)) from error
    if not 200 <= status < 300:
        raise NotSent(f"HTTP {status}")
    return f"HTTP {status}"


def exchange(
    parts: SplitResult, body: bytes, headers: Mapping[str, str], seconds: float
) -> int:
    """The status of the response. Raises urllib3's errors."""
    tls = {"ssl_context": ssl.create_default_context()} if is_https(parts) else {}
    pool = outbound_calls.POOLS[parts.scheme](
        host=parts.hostname or "",
        port=parts.port or (443 if is_https(parts) else 80),
        timeout=seconds,
        maxsize=1,
        **tls,
    )
    about = {
        "Content-Type": "application/json",
        "User-Agent": f"Portico/{settings.VERSION}",
    }
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        response = pool.urlopen(
            "POST",
            target,
            body=body,
            headers={**about, **headers},
            retries=False,
            redirect=False,
            preload_content=False,
        )
        status: int = response.status
        response.close()
        return status
    finally:
        pool.close()


def is_https(parts: SplitResult) -> bool:
    return parts.scheme == "https"


def reason_of(error: BaseException) -> str:
    """Why a receiver was not reached, for the log of deliveries."""
    causes = list(causes_of(error))
    for cause in causes:
        if isinstance(cause, AddressRefused):
            return (
                f"The host has a private address ({cause}). If it is meant, add its "
                "network to UPSTREAM_PRIVATE_NETWORKS."
            )
    for kind, text in REASONS:
        if any(isinstance(cause, kind) for cause in causes):
            return text
    return NO_ANSWER


REASONS = (
    (
        ssl.SSLCertVerificationError,
        gettext_noop("The certificate of the host is not trusted."),
    ),
    (
        outbound_calls.NameNotResolved,
        gettext_noop("The name of the host cannot be resolved."),
    ),
    (TimeoutError, TOO_LATE),
    (urllib3.exceptions.ReadTimeoutError, TOO_LATE),
)


def causes_of(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
