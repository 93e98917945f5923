"""The header by which Portico authenticates to an upstream server.

Every mode fails closed: without a usable credential the call is not sent. The caller's
own Authorization header is never forwarded (MCP basic/authorization).
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import quote_plus, urlencode
from uuid import uuid4
from weakref import WeakKeyDictionary

from django.conf import settings

from accounts.crypto.encrypted_columns import UPSTREAM_CREDENTIALS
from accounts.crypto.encryption import KeyUnreadable, seal, unseal
from accounts.parsing.text import one_line
from accounts.tokens import jwts
from accounts.tokens.principal import Principal
from mcp_bridge.access.catalogue import Upstream
from mcp_bridge.db import in_database
from mcp_bridge.models import CredentialMode, UpstreamCredential
from mcp_bridge.upstreams.addresses import check_url
from mcp_bridge.upstreams.http_client import (
    client_for,
    import_client,
    no_connection,
    read_limited,
)
from mcp_bridge.upstreams.problems import UpstreamProblem

PURPOSE = UPSTREAM_CREDENTIALS.purpose
ASSERTION_SECONDS = 120
RENEW_BEFORE = 30.0
"""Seconds before the end of a token at which the next one is requested."""
TOKEN_SECONDS = 10.0
LONGEST_TOKEN = 86_400.0
"""Seconds after which a token is fetched again, whatever its end is."""


def set_secret(credential: UpstreamCredential, secret: str) -> None:
    """Store the secret encrypted, in a credential whose server is saved.

    A new version ends the use of what was fetched with the old secret.
    """
    about = str(credential.upstream_id).encode()
    sealed = seal(PURPOSE, secret.encode(), about)
    credential.secret_encrypted = base64.b64encode(sealed).decode()
    credential.version += 1
    credential.state = UpstreamCredential.State.VALID
    credential.save()


@lru_cache(maxsize=256)
def _unsealed(text: str, about: bytes, key: str) -> str:
    raw = base64.b64decode(text)
    return unseal(PURPOSE, raw, about).decode()


def secret_of(credential: UpstreamCredential) -> str:
    """The secret in clear. An unsaved credential has it in `secret`.

    Raises KeyUnreadable.
    """
    unsaved: str | None = getattr(credential, "secret", None)
    if unsaved is not None:
        return unsaved
    if not credential.secret_encrypted:
        return ""
    about = str(credential.upstream_id).encode()
    return _unsealed(credential.secret_encrypted, about, settings.KEY_ENCRYPTION_KEY)


def missing(upstream: Upstream) -> UpstreamProblem:
    """The problem of a server whose credential cannot be used."""
    text = (
        f"The credential for the upstream server {upstream.name} is missing or cannot "
        "be read. An administrator must enter it again."
    )
    return UpstreamProblem("credential", text)


@dataclass(slots=True)
class Held:
    """A token and the time.monotonic() until which it may be used."""

    value: str
    until: float


_tokens: dict[tuple[Any, ...], Held] = {}
_locks: WeakKeyDictionary[
    asyncio.AbstractEventLoop, dict[tuple[Any, ...], asyncio.Lock]
] = WeakKeyDictionary()
"""By event loop: a page looks at a server in another one."""


async def credential_headers(
    upstream: Upstream, principal: Principal | None
) -> dict[str, str]:
    """The headers to send. Raises UpstreamProblem if there is no usable credential."""
    mode = upstream.row.credential_mode
    if mode == CredentialMode.NONE:
        return {}
    if mode == CredentialMode.SIGNED_ASSERTION:
        return {"Authorization": f"Bearer {await assertion(upstream, principal)}"}
    credential = upstream.credential
    if credential is None:
        raise missing(upstream)
    try:
        secret = secret_of(credential)
    except KeyUnreadable as error:
        raise missing(upstream) from error
    if mode == CredentialMode.STATIC_HEADER and secret:
        return {credential.header or "Authorization": secret}
    if mode == CredentialMode.CLIENT_CREDENTIALS:
        token = await client_token(upstream, credential, secret)
        return {"Authorization": f"Bearer {token}"}
    raise missing(upstream)


def forget_token(upstream: Upstream) -> None:
    """Forget the fetched tokens of a server that answered 401."""
    # A copy: a page looks at servers in another thread.
    for key in [key for key in list(_tokens) if key[1] == upstream.pk]:
        _tokens.pop(key, None)


async def assertion(upstream: Upstream, principal: Principal | None) -> str:
    """A short JWT about the user, signed like an access token (RFC 7519).

    `aud` is the server's URL, so no other server accepts it.
    """
    user = "" if principal is None else str(principal.user_id)
    credential = upstream.credential
    audience = (credential.audience if credential else "") or upstream.row.url
    key = ("assertion", upstream.pk, audience, user)
    held = _tokens.get(key)
    if held is not None and held.until > time.monotonic():
        return held.value
    now = int(time.time())
    claims = {
        "iss": settings.ISSUER_URL,
        "aud": audience,
        "sub": user or "portico",
        "preferred_username": principal.username if principal else "portico",
        "client_id": principal.client_id if principal else "portico",
        "iat": now,
        "exp": now + ASSERTION_SECONDS,
        "jti": uuid4().hex,
        "token_type": "upstream",
    }
    raw, _kid = await in_database(jwts.sign, claims)
    if len(_tokens) > 10_000:
        _tokens.clear()
    _tokens[key] = Held(raw, time.monotonic() + ASSERTION_SECONDS / 2)
    return raw


async def client_token(
    upstream: Upstream, credential: UpstreamCredential, secret: str
) -> str:
    """A token by client credentials (RFC 6749 4.4); one request for all who wait."""
    key = ("client", upstream.pk, credential.pk, credential.version, secret)
    held = _tokens.get(key)
    if held is not None and held.until > time.monotonic():
        return held.value
    locks = _locks.setdefault(asyncio.get_running_loop(), {})
    async with locks.setdefault(key, asyncio.Lock()):
        held = _tokens.get(key)
        if held is None or held.until <= time.monotonic():
            held = await request_token(upstream, credential, secret)
            _tokens[key] = held
    return held.value


async def request_token(
    upstream: Upstream, credential: UpstreamCredential, secret: str
) -> Held:
    """Ask the token endpoint. Raises UpstreamProblem."""
    url, name = credential.token_url, upstream.name
    form = {
        "grant_type": "client_credentials",
        "resource": credential.audience or upstream.row.url,
    }
    if credential.scope:
        form["scope"] = credential.scope
    headers = {"Accept": "application/json"}
    method = credential.client_authentication
    kinds = UpstreamCredential.ClientAuthentication
    if method == kinds.BASIC:
        pair = f"{quote_plus(credential.client_id)}:{quote_plus(secret)}"
        headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    elif method == kinds.POST:
        form |= {"client_id": credential.client_id, "client_secret": secret}
    else:
        form |= {
            "client_id": credential.client_id,
            "client_assertion_type": (
                "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
            ),
            "client_assertion": await client_assertion(credential),
        }
    check_url(name, url)
    headers["Content-Type"] = "application/x-www-form-urlencoded"
    await import_client()
    import aiohttp

    try:
        async with (
            asyncio.timeout(TOKEN_SECONDS),
            client_for(upstream).post(
                url, data=urlencode(form), headers=headers, allow_redirects=False
            ) as response,
        ):
            body, status = await read_limited(response, name), response.status
    except aiohttp.ClientConnectorError as error:
        raise no_connection(f"{name} (token endpoint)", error) from error
    except (OSError, TimeoutError, aiohttp.ClientError) as error:
        text = f"The token endpoint of the upstream server {name} does not answer."
        raise token_problem(text) from error
    return held_token(name, status, body)


def held_token(name: str, status: int, body: bytes) -> Held:
    """The token of an answer (RFC 6749 5.1). Raises UpstreamProblem.

    Only a refusal of the client says something about the credential.
    """
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    answer = answer if isinstance(answer, dict) else {}
    if status in (400, 401, 403):
        reason = one_line(str(answer.get("error") or ""), 60)
        text = (
            f"The token endpoint of the upstream server {name} refused Portico "
            f"(HTTP {status} {reason}). An administrator must check the credential."
        )
        raise UpstreamProblem("credential", text)
    if status != 200:
        text = (
            f"The token endpoint of the upstream server {name} failed (HTTP {status})."
        )
        raise token_problem(text)
    token, kind = answer.get("access_token"), answer.get("token_type", "Bearer")
    usable = isinstance(token, str) and token.isascii() and token.isprintable()
    if not usable or not token or str(kind).lower() != "bearer":
        text = f"The token endpoint of the upstream server {name} gave no bearer token."
        raise token_problem(text)
    return Held(token, time.monotonic() + seconds_of(answer.get("expires_in", 300)))


def token_problem(text: str) -> UpstreamProblem:
    """The problem of a token endpoint that does not work; nothing was sent."""
    return UpstreamProblem("token_endpoint", text, breaks=True)


def seconds_of(expires_in: Any) -> float:
    """Seconds for which a token is used; at least one, so that no loop begins."""
    try:
        seconds = float(expires_in)
    except (TypeError, ValueError):
        seconds = 300.0
    return max(1.0, min(seconds, LONGEST_TOKEN) - RENEW_BEFORE)


async def client_assertion(credential: UpstreamCredential) -> str:
    """RFC 7523 client authentication with Portico's own signing key."""
    now = int(time.time())
    claims = {
        "iss": credential.client_id,
        "sub": credential.client_id,
        "aud": credential.token_url,
        "iat": now,
        "exp": now + ASSERTION_SECONDS,
        "jti": uuid4().hex,
        "token_type": "client_assertion",
    }
    raw, _kid = await in_database(jwts.sign, claims)
    return raw
