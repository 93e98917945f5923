"""Client assertions and the keys that sign them (RFC 7523)."""

from __future__ import annotations

import json
import re
import time
from datetime import timedelta
from typing import Any
from unittest.mock import Mock

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from django.conf import settings
from django.utils import timezone

from accounts.tokens.assertions import (
    ASSERTION_ALGORITHMS,
    MAX_ASSERTION_LIFETIME,
    MAX_KEYS,
    issuer_of,
    names_key,
    public_keys,
    published_keys,
    verify_assertion,
)
from accounts.tokens.jwts import TokenRefused
from tests.support.accounts import stop_clock
from tests.support.jwt_vectors import b64

pytestmark = pytest.mark.once
HERE = ["https://issuer.example", "https://issuer.example/oauth/token"]
EC, OTHER = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
WIDE = ec.generate_private_key(ec.SECP384R1())
RSA = rsa.generate_private_key(65537, 2048)
ED = ed25519.Ed25519PrivateKey.generate()


def jwk(key: Any, algorithm: str, **more: Any) -> dict[str, Any]:
    """The public JWK of a private key."""
    made = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True)
    return {**made, **more}


def private_jwk(key: Any, algorithm: str) -> dict[str, Any]:
    made: Any = jwt.get_algorithm_by_name(algorithm).to_jwk(key, as_dict=True)
    return dict(made)


KEYS = {"keys": [jwk(EC, "ES256", kid="one")]}


def claims(**changed: Any) -> dict[str, Any]:
    now = int(time.time())
    whole = {"iss": "c", "sub": "c", "jti": "j", "aud": HERE[0], "exp": now + 60}
    whole |= changed
    return {name: value for name, value in whole.items() if value is not None}


def assertion(
    key: Any = EC, algorithm: Any = "ES256", kid: Any = "one", **changed: Any
) -> str:
    headers = {"kid": kid} if kid else {}
    payload = json.dumps(claims(**changed)).encode()
    return jwt.api_jws.encode(payload, key, algorithm, headers)


INVALID = "The assertion is not valid."
UNPRINTABLE = "The assertion's iss, sub or jti is not printable text."
TOO_LATE = "The assertion expires later than in 600 seconds."


def refused(raw: str, keys: Any = KEYS, *texts: str) -> None:
    with pytest.raises(TokenRefused) as error:
        verify_assertion(raw, keys, HERE)
    assert str(error.value) in (texts or (INVALID,))
    assert error.value.reason == "assertion"


NO_LIST = "it has to have a list of `keys`."
NOT_PUBLIC = "it has to contain public keys (RSA, EC, OKP) only."
NO_KEY = "it has no public key (RSA, EC, OKP) for signatures."


def exactly(text: str) -> str:
    return f"^{re.escape(text)}$"


def test_public_keys_are_stored_without_other_members() -> None:
    keys = [jwk(EC, "ES256"), jwk(RSA, "RS256"), jwk(ED, "EdDSA")]
    assert public_keys({"keys": keys, "more": 1}) == {"keys": keys}


@pytest.mark.parametrize(
    "jwks", [None, [], "x", {}, {"keys": None}, {"keys": []}, {"keys": {"a": 1}}]
)
def test_a_key_set_has_a_list_of_keys(jwks: Any) -> None:
    with pytest.raises(ValueError, match=exactly(NO_LIST)):
        public_keys(jwks)


@pytest.mark.parametrize(
    "key",
    [
        private_jwk(EC, "ES256"),
        private_jwk(RSA, "RS256"),
        private_jwk(ED, "EdDSA"),
        {"kty": "oct", "k": b64(b"k" * 32)},
        {"kty": "oct", "k": b64(b"k" * 32), "alg": "HS256"},
        {"kty": "EC", "crv": "P-256"},
        {"kty": "EC", "crv": "P-1", "x": "a", "y": "b"},
        {"kty": 1},
        {},
        {**jwk(EC, "ES256"), "alg": "none"},
        {**jwk(EC, "ES256"), "x": 1},
        "text",
        None,
    ],
    ids=lambda key: "-".join(key) if isinstance(key, dict) else str(key),
)
def test_one_key_that_is_not_public_refuses_the_set(key: Any) -> None:
    for keys in ([key], [jwk(EC, "ES256"), key], [key, jwk(EC, "ES256")]):
        with pytest.raises(ValueError, match=exactly(NOT_PUBLIC)):
            public_keys({"keys": keys})


UNUSED = {
    "of an unknown kind": {"kty": "later", "x": "a"},
    "for encryption": {**jwk(EC, "ES256"), "use": "enc"},
    "not printable": {**jwk(EC, "ES256"), "kid": "a\x00"},
    "without a curve": {"kty": "EC", "x": "a", "y": "b"},
}


@pytest.mark.parametrize("kind", UNUSED)
def test_a_published_key_that_is_not_for_signatures_is_left_out(kind: str) -> None:
    """RFC 7517 5."""
    used = [jwk(EC, "ES256", kid="one"), jwk(ED, "EdDSA", use="sig")]
    more = [{**key, "x5c": ["certificate"], "other": 1} for key in used]
    assert published_keys({"keys": [UNUSED[kind], *more]}) == {"keys": used}
    with pytest.raises(ValueError, match=exactly(NO_KEY)):
        published_keys({"keys": [UNUSED[kind]]})


def test_every_member_of_a_published_key_that_verifies_is_kept() -> None:
    key = jwk(RSA, "RS256", kid="r", use="sig", alg="RS256")
    assert {"n", "e", "alg", "use", "kid"} < key.keys()
    kept = published_keys({"keys": [{**key, "key_ops": ["verify"]}]})
    assert kept == {"keys": [{k: v for k, v in key.items() if k != "key_ops"}]}


@pytest.mark.parametrize(
    ("jwks", "text"),
    [
        (None, NO_LIST),
        ([], NO_LIST),
        ({}, NO_LIST),
        ({"keys": {"a": 1}}, NO_LIST),
        ({"keys": [jwk(EC, "ES256"), "text"]}, NO_LIST),
        ({"keys": []}, NO_KEY),
        ({"keys": [jwk(EC, "ES256"), private_jwk(OTHER, "ES256")]}, NOT_PUBLIC),
        ({"keys": [jwk(EC, "ES256"), {"kty": "oct", "k": "a"}]}, NOT_PUBLIC),
        ({"keys": [jwk(EC, "ES256")] * (MAX_KEYS + 1)}, "it has more than 50 keys."),
    ],
    ids=[
        *("nothing", "list", "empty", "object", "text"),
        *("no key", "private", "secret", "many"),
    ],
)
def test_a_published_set_that_is_odd_is_refused(jwks: Any, text: str) -> None:
    with pytest.raises(ValueError, match=exactly(text)):
        published_keys(jwks)


def test_a_published_set_may_have_fifty_keys() -> None:
    keys = [jwk(EC, "ES256", kid=str(number)) for number in range(50)]
    assert published_keys({"keys": keys}) == {"keys": keys}


@pytest.mark.parametrize(
    ("raw", "issuer"),
    [
        (assertion(iss="https://c.example"), "https://c.example"),
        (assertion(OTHER, iss="anybody"), "anybody"),
        (assertion(iss="a\x00"), ""),
        (assertion(iss=1), ""),
        (assertion(iss=None), ""),
        ("", ""),
        ("a.b.c", ""),
        (f"{b64(b'[' * 100_000)}.e30.e30", ""),
        (f"{b64(b'{}')}.{b64(b'[' * 100_000)}.e30", ""),
        ("é", ""),
    ],
    ids=range(10),
)
def test_the_issuer_is_read_without_the_key(raw: str, issuer: str) -> None:
    assert issuer_of(raw) == issuer


@pytest.mark.parametrize("audience", [*HERE, [HERE[1]], ["x", HERE[0]]])
def test_a_signed_assertion_gives_its_claims(audience: Any) -> None:
    raw = assertion(aud=audience)
    expected = {"iss": "c", "sub": "c", "jti": "j", "aud": audience}
    found = verify_assertion(raw, KEYS, HERE)
    assert {**expected, "exp": found["exp"]} == found


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (EC, "ES256"),
        (WIDE, "ES384"),
        (RSA, "RS256"),
        (RSA, "PS256"),
        (RSA, "RS512"),
        (ED, "EdDSA"),
    ],
)
def test_every_algorithm_of_the_list_verifies(key: Any, algorithm: str) -> None:
    keys = {"keys": [jwk(key, algorithm, kid="one")]}
    assert verify_assertion(assertion(key, algorithm), keys, HERE)["sub"] == "c"
    assert algorithm in ASSERTION_ALGORITHMS and len(ASSERTION_ALGORITHMS) == 6


@pytest.mark.parametrize("algorithm", ["RS384", "PS384", "PS512"])
def test_other_algorithms_do_not_verify(algorithm: str) -> None:
    keys = {"keys": [jwk(RSA, algorithm, kid="one")]}
    refused(assertion(RSA, algorithm), keys)


def test_a_shared_secret_is_no_key() -> None:
    keys = {"keys": [{"kty": "oct", "k": b64(b"k" * 32), "kid": "one"}]}
    refused(assertion("k" * 32, "HS256"), keys)


def test_the_key_is_found_by_its_id_or_tried() -> None:
    both = {"keys": [jwk(OTHER, "ES256", kid="two"), *KEYS["keys"]]}
    assert verify_assertion(assertion(kid="one"), both, HERE)
    assert verify_assertion(assertion(kid=None), both, HERE)
    assert verify_assertion(assertion(OTHER, kid=None), both, HERE)
    refused(assertion(kid="two"), both)
    refused(assertion(kid="three"), both)
    refused(assertion(WIDE, "ES384", kid=None), both)
    refused(assertion(), {"keys": []})
    refused(assertion(), {})


@pytest.mark.parametrize("name", ["exp", "iss", "sub", "jti", "aud"])
def test_every_claim_is_required(name: str) -> None:
    refused(assertion(**{name: None}))


@pytest.mark.parametrize(
    "audience", ["https://other.example", [], ["x"], f"{HERE[0]}/"]
)
def test_an_assertion_for_another_server_is_refused(audience: Any) -> None:
    refused(assertion(aud=audience))


@pytest.mark.parametrize("name", ["iss", "sub", "jti"])
def test_names_are_printable_text(name: str) -> None:
    refused(assertion(**{name: "a\x00"}), KEYS, UNPRINTABLE)
    refused(assertion(**{name: 1}), KEYS, UNPRINTABLE, INVALID)


def test_an_assertion_lasts_ten_minutes_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """RFC 7523 3."""
    assert MAX_ASSERTION_LIFETIME == 600
    now = stop_clock(monkeypatch, timezone.now().replace(microsecond=0))
    latest = int((now + timedelta(seconds=600) + settings.CLOCK_LEEWAY).timestamp())
    assert verify_assertion(assertion(exp=latest), KEYS, HERE)["exp"] == latest
    assert verify_assertion(assertion(exp=latest - 0.5), KEYS, HERE)
    refused(assertion(exp=latest + 1), KEYS, TOO_LATE)
    refused(assertion(exp=str(latest - 5)), KEYS, TOO_LATE)


@pytest.mark.parametrize(
    ("changed", "seconds"),
    [
        ({"iat": 19}, 20),
        ({"iat": 59.5, "nbf": 59}, 60),
        ({"nbf": 20}, 20),
        ({"exp": -19}, 20),
        ({"iat": 3, "nbf": 3, "exp": 663}, 63),
    ],
    ids=str,
)
def test_the_clock_of_a_client_may_differ_by_the_leeway(
    monkeypatch: pytest.MonkeyPatch, settings: Any, changed: Any, seconds: int
) -> None:
    """RFC 7519 4.1.4, 4.1.5; the values are seconds from now."""
    settings.CLOCK_LEEWAY = timedelta(seconds=seconds)
    moment = stop_clock(monkeypatch, timezone.now().replace(microsecond=0))
    monkeypatch.setattr(jwt.api_jwt, "datetime", Mock(now=lambda tz: moment))
    now = moment.timestamp()
    raw = assertion(**{name: now + value for name, value in changed.items()})
    assert verify_assertion(raw, KEYS, HERE)["sub"] == "c"
    settings.CLOCK_LEEWAY = timedelta(0)
    refused(raw, KEYS, INVALID, TOO_LATE)


@pytest.mark.parametrize("changed", [{"iat": 90}, {"nbf": 90}, {"exp": -30}], ids=str)
def test_a_difference_beyond_the_leeway_is_refused(changed: dict[str, int]) -> None:
    assert settings.CLOCK_LEEWAY == timedelta(seconds=30)
    now = time.time()
    refused(assertion(**{name: now + value for name, value in changed.items()}))


@pytest.mark.parametrize("end", [-31, -60, float("inf"), float("nan"), [], "x"])
def test_an_expired_or_odd_end_is_refused(end: Any) -> None:
    at = end if isinstance(end, str | list) else time.time() + end
    refused(assertion(exp=at))


@pytest.mark.parametrize(
    "raw", ["", "a.b.c", f"{b64(b'[' * 100_000)}.e30.e30", "é", "..."]
)
def test_text_that_is_no_token_is_refused(raw: str) -> None:
    refused(raw)


@pytest.mark.parametrize(
    ("kid", "known", "named"),
    [
        ("a", ["a", "b"], True),
        ("a", ["b"], False),
        ("a", [], False),
        (None, ["a"], False),
    ],
)
def test_a_key_set_has_the_key_of_an_assertion(
    kid: str | None, known: list[str], named: bool
) -> None:
    """Keys are fetched again only for a key that the set lacks."""
    headers = None if kid is None else {"kid": kid}
    raw = jwt.encode({"iss": "c"}, EC, "ES256", headers=headers)
    keys = [{"kid": one} for one in known]
    assert names_key(raw, {"keys": [*keys, {"kty": "EC"}]}) is named
    assert not names_key(raw, {}) and not names_key(raw, {"keys": []})
    assert names_key("no jwt", {"keys": keys}), "no other key can verify it either"
