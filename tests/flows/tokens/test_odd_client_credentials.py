"""Odd client credentials and assertions: none is answered by a 5xx."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from django.core.management import CommandError
from jwt.algorithms import get_default_algorithms

from accounts.oauth.request_parameters import RESERVED_PARAMETERS
from accounts.tokens.assertions import ASSERTION_ALGORITHMS
from tests.flows.oauth.test_device_and_assertion import present_assertion
from tests.support.mcp_client import HTTP
from tests.support.oauth_client import (
    authorize_url,
    command_line_client,
    error_of,
    redeem,
    register_client,
)
from tests.support.server import Portico
from tests.support.users import make_user
from tests.support.visitor import Visitor, callback

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("default_users")]
FITS = {
    "P-256": ["ES256"],
    "P-384": ["ES384"],
    "RSA": ["RS256", "PS256", "RS512"],
    "Ed25519": ["EdDSA"],
}
"""Key -> the algorithms it may sign with."""
WRONG: list[Any] = ["\ud800", "\x00", "", float("inf"), float("nan"), 10**400, -1]
WRONG += [True, None, [], {}, ["a"], {"a": 1}, "²"]


def pair(kind: str) -> tuple[Any, dict[str, Any]]:
    """A private key, and its public half as a JWK."""
    if kind == "RSA":
        key: Any = rsa.generate_private_key(65537, 2048)
    elif kind == "Ed25519":
        key = ed25519.Ed25519PrivateKey.generate()
    else:
        key = ec.generate_private_key(
            ec.SECP256R1() if "256" in kind else ec.SECP384R1()
        )
    algorithm: Any = get_default_algorithms()[FITS[kind][0]]
    public: dict[str, Any] = algorithm.to_jwk(key.public_key(), as_dict=True)
    return key, public | {"kid": "k1"}


def signing_client(folder: Path, public: dict[str, Any]) -> str:
    """The id of a client with this key and a service account."""
    make_user("robot", "User")
    path = folder / "jwks.json"
    path.write_text(json.dumps({"keys": [public]}))
    return command_line_client(
        "signer", "--service-account", "robot", "--jwks", str(path)
    )["client_id"]


def claims_of(client_id: str, server: Portico, **changed: Any) -> dict[str, Any]:
    about = {"iss": client_id, "sub": client_id, "aud": server.url}
    return {**about, "jti": uuid4().hex, "exp": int(time.time()) + 60, **changed}


def forged_assertion(header: dict[str, Any], claims: dict[str, Any]) -> str:
    """An assertion with an invalid signature."""
    parts = [json.dumps(header).encode(), json.dumps(claims).encode(), bytes(64)]
    return ".".join(base64.urlsafe_b64encode(p).rstrip(b"=").decode() for p in parts)


@pytest.mark.parametrize("kind", FITS)
def test_an_assertion_is_verified_by_the_type_of_the_key(
    server: Portico, tmp_path: Path, kind: str
) -> None:
    """RFC 7515 10.7, RFC 8725 3.1: its header may name any algorithm."""
    key, public = pair(kind)
    client_id = signing_client(tmp_path, public)
    for algorithm in [*ASSERTION_ALGORITHMS, "ES512", "HS256", "none", "made-up"]:
        claims = claims_of(client_id, server)
        if algorithm in FITS[kind]:
            header = {"kid": "k1"}
            raw = jwt.encode(claims, key, algorithm=algorithm, headers=header)
            assert present_assertion(server, raw).status_code == 200, algorithm
        raw = forged_assertion({"alg": algorithm, "kid": "k1", "typ": "JWT"}, claims)
        assert error_of(present_assertion(server, raw)) == (401, "invalid_client"), (
            algorithm
        )


def test_odd_claims_and_headers_of_assertions_are_refused(
    server: Portico, tmp_path: Path
) -> None:
    """RFC 7523 3: with a valid signature and without."""
    key, public = pair("P-256")
    client_id = signing_client(tmp_path, public)
    for value in WRONG:
        for name in ("iss", "sub", "aud", "exp", "jti", "nbf", "iat"):
            claims = claims_of(client_id, server, **{name: value})
            raw = jwt.PyJWS().encode(json.dumps(claims).encode(), key, "ES256")
            found = present_assertion(server, raw).status_code
            either = name in ("jti", "nbf", "iat")
            assert found == 401 or (either and found == 200), (name, value)
        for name in ("alg", "kid", "typ", "crit", "b64", "jwk"):
            header = {"alg": "ES256", "kid": "k1", name: value}
            raw = forged_assertion(header, claims_of(client_id, server))
            assert present_assertion(server, raw).status_code == 401, (name, value)


def with_authorization(server: Portico, value: bytes, **form: str) -> httpx2.Response:
    url, data = f"{server.url}/oauth/revoke", {"token": "x", **form}
    return HTTP.post(url, data=data, headers=[(b"authorization", value)])


@pytest.mark.parametrize(
    "value", [b"\xc3\xa9", b"\xff\xfe", b"!", b"YQ", b"//79", b"Og==", b"=", b"ADpi"]
)
def test_odd_basic_credentials_are_refused(server: Portico, value: bytes) -> None:
    """RFC 7617 2: not ASCII, no base64, no UTF-8, no colon, NUL."""
    answer = with_authorization(server, b"Basic " + value)
    assert error_of(answer) == (401, "invalid_client")
    basic = base64.b64encode(b"somebody:secret")
    answer = with_authorization(server, b"Basic " + basic, encoding="nonsense")
    assert error_of(answer) == (401, "invalid_client")


def test_no_parameter_overrides_internal_attributes(server: Portico) -> None:
    """OAuth 2.1 3.1: unknown parameters are ignored, whatever their names."""
    client_id = register_client(server)["client_id"]
    names = {
        *RESERVED_PARAMETERS,
        "client",
        "grant",
        "user",
        "scopes",
        "encoding",
        "headers",
    }
    names |= {"uri", "body", "validator_log", "decoded_body", "_params", "__class__"}
    with Visitor(server.url, "alice") as visitor:
        for name in sorted(names):
            url, raw = authorize_url(server, client_id, **{name: "odd"})
            code = callback(visitor.visit(url))["code"]
            answer = redeem(server, client_id, code, raw, **{name: "odd"})
            assert answer.status_code == 200, (name, answer.text)
            assert answer.json()["scope"] == "mcp"


@pytest.mark.parametrize(
    "changed",
    [
        {"alg": "none"},
        {"alg": ["ES256"]},
        {"kty": ["EC"]},
        {"kty": "oct"},
        {"crv": [1]},
        {"x": None},
        {"x": "\ud800"},
        {"d": "secret"},
    ],
)
def test_odd_keys_of_clients_are_an_error(
    rows: None, tmp_path: Path, changed: dict[str, Any]
) -> None:
    """RFC 7517 4: tested by command; the admin's form calls the same method."""
    _key, public = pair("P-256")
    with pytest.raises(CommandError, match="not a JWK Set"):
        signing_client(tmp_path, public | changed)
