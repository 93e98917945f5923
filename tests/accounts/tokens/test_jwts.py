"""Signatures, headers, claims and keys of JWTs."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from rest_framework_simplejwt.exceptions import TokenBackendExpiredToken

from accounts.crypto.signing_keys import load_private_key
from accounts.models.signing_keys import KeyState, SigningKey
from accounts.tokens import jwts
from tests.support.accounts import stop_clock
from tests.support.jwt_vectors import VECTORS, GenuineToken, as_json, b64, unb64

pytestmark = pytest.mark.django_db
ISSUER = "https://issuer.example"


@pytest.fixture(autouse=True)
def issuer(settings: Any) -> None:
    settings.ISSUER_URL = ISSUER


def claims(**changed: Any) -> dict[str, Any]:
    """Valid claims of an access token; those that are None are left out."""
    now = int(time.time())
    whole = {
        "iss": ISSUER,
        "sub": "7",
        "jti": "j",
        "token_type": "access",
        "client_id": "c",
        "scope": "mcp",
        "iat": now,
        "exp": now + 60,
        **changed,
    }
    return {name: value for name, value in whole.items() if value is not None}


def signed(**changed: Any) -> str:
    return jwts.sign(claims(**changed))[0]


def header_of(raw: str) -> dict[str, Any]:
    header: dict[str, Any] = json.loads(unb64(raw.split(".")[0]))
    return header


TEXTS = {
    "malformed": {"That is not a token.", "The token names no signing key."},
    "unknown_key": {"The token's signing key is unknown."},
    "expired": {"The token has expired."},
    "wrong_type": {"The token's typ header does not match its token_type claim."},
    "invalid": {"The token is not valid."},
    "odd_claims": {"The claim client_id is not text.", "The claim scope is not text."},
}
"""Reason -> what the client reads."""


def reason(raw: str) -> str:
    """Why the token is refused."""
    with pytest.raises(jwts.TokenRefused) as refused:
        jwts.verify(raw)
    assert str(refused.value) in TEXTS[refused.value.reason]
    return refused.value.reason


@pytest.mark.parametrize(
    ("kind", "typ"), [("access", "at+jwt"), ("refresh", "rt+jwt"), ("other", "JWT")]
)
def test_the_header_names_key_algorithm_and_kind(kind: str, typ: str) -> None:
    key = SigningKey.objects.ensure_active()
    raw, kid = jwts.sign(claims(token_type=kind))
    assert kid == key.kid
    assert header_of(raw) == {"alg": "ES256", "kid": key.kid, "typ": typ}
    assert b" " not in unb64(raw.split(".")[1])


@pytest.mark.parametrize("kind", ["access", "refresh"])
def test_a_signed_token_gives_its_claims(kind: str) -> None:
    given = claims(token_type=kind, aud="https://elsewhere.example", roles=["A"])
    assert jwts.verify(jwts.sign(given)[0]) == given


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA"])
def test_the_same_claims_give_the_same_token(algorithm: str) -> None:
    key = SigningKey.objects.rotate(actor="test", algorithm=algorithm)
    given = claims()
    raw, kid = jwts.sign(given)
    assert kid == key.kid and header_of(raw)["alg"] == algorithm
    assert jwts.sign(given) == (raw, kid)
    assert jwts.verify(raw) == given


def test_a_token_of_another_kind_is_refused() -> None:
    assert reason(signed(token_type="other")) == "wrong_type"


def test_the_header_must_fit_the_claim() -> None:
    key = SigningKey.objects.ensure_active()
    private = load_private_key(key.kid, bytes(key.private_encrypted))
    for typ in ("rt+jwt", "JWT", None):
        header = {"kid": key.kid, "typ": typ}
        raw = jwt.encode(claims(), private, algorithm="ES256", headers=header)
        assert reason(raw) == "wrong_type"


def test_keys_sign_and_verify_by_their_state() -> None:
    first = SigningKey.objects.ensure_active()
    old = jwts.sign(claims())[0]
    second = SigningKey.objects.rotate(actor="test")
    following = SigningKey.objects.get(state=KeyState.NEXT)
    assert jwts.sign(claims())[1] == second.kid != first.kid
    assert jwts.verify(old)["jti"] == "j"
    assert jwts.sign(claims(), kid=first.kid)[1] == first.kid
    early = jwts.sign(claims(), kid=following.kid)[0]
    assert reason(early) == "unknown_key"
    first.refresh_from_db()
    first.move(KeyState.RETIRED)
    assert reason(old) == "unknown_key"


@pytest.mark.parametrize("which", ["retired", "unknown"])
def test_a_key_without_its_private_part_does_not_sign(which: str) -> None:
    key = SigningKey.objects.ensure_active()
    SigningKey.objects.rotate(actor="test")
    key.refresh_from_db()
    key.move(KeyState.RETIRED)
    kid = key.kid if which == "retired" else "unknown"
    with pytest.raises(jwts.TokenRefused) as refused:
        jwts.sign(claims(), kid=kid)
    assert refused.value.reason == "retired_key"
    assert str(refused.value) == "That signing key is retired."


def test_the_algorithm_is_that_of_the_key() -> None:
    """RFC 8725 3.1."""
    key = SigningKey.objects.ensure_active()
    header = {"kid": key.kid, "typ": "at+jwt"}
    raw = jwt.encode(claims(), "k" * 40, algorithm="HS256", headers=header)
    assert reason(raw) == "unknown_key"


def test_an_expired_token_is_refused_or_accepted_on_request() -> None:
    raw = signed(exp=int(time.time()))
    with pytest.raises(jwts.TokenExpired) as refused:
        jwts.verify(raw)
    assert refused.value.reason == "expired"
    assert isinstance(refused.value, TokenBackendExpiredToken)
    assert jwts.verify(raw, allow_expired=True)["jti"] == "j"
    assert jwts.verify(signed(exp=int(time.time()) + 5))["jti"] == "j"
    old = signed(exp=int(time.time()) - 36_000)
    assert reason(old) == "expired", "not only within the leeway"
    assert jwts.verify(old, allow_expired=True)["jti"] == "j"


def test_a_token_ends_at_its_second(monkeypatch: pytest.MonkeyPatch) -> None:
    end = int(time.time()) + 30
    raw = signed(exp=end)
    for now, ended in ((end - 0.001, False), (end, True), (end + 0.001, True)):
        stop_clock(monkeypatch, datetime.fromtimestamp(now, UTC))
        if ended:
            assert reason(raw) == "expired"
        else:
            assert jwts.verify(raw)["exp"] == end


def test_only_the_algorithms_of_keys_sign() -> None:
    """ES256 is that with the deterministic nonces; PyJWT's own is replaced."""
    signer = jwts._signer()
    assert set(signer.get_algorithms()) == set(SigningKey.Algorithm.values)
    own = signer.get_algorithm_by_name("ES256")
    assert isinstance(own, jwts.DeterministicES256)
    assert own.hash_alg is jwt.algorithms.ECAlgorithm.SHA256
    assert own.expected_curve is ec.SECP256R1


@pytest.mark.parametrize("kind", ["access", "refresh"])
@pytest.mark.parametrize("name", ["iat", "nbf"])
def test_the_clock_of_the_host_that_signed_may_be_ahead(
    settings: Any, kind: str, name: str
) -> None:
    """RFC 7519 4.1.5; but no leeway makes a token last longer."""
    later = int(time.time()) + 20
    raw = signed(**{name: later, "exp": later + 60, "token_type": kind})
    assert jwts.verify(raw)[name] == later
    settings.CLOCK_LEEWAY = timedelta(seconds=5)
    assert reason(raw) == "invalid"
    settings.CLOCK_LEEWAY = timedelta(seconds=300)
    assert reason(signed(exp=int(time.time()) - 1)) == "expired"


@pytest.mark.parametrize("name", ["exp", "iat", "iss", "jti", "sub"])
def test_a_required_claim_is_not_left_out(name: str) -> None:
    assert reason(signed(**{name: None})) == "invalid"


@pytest.mark.parametrize(
    "changed",
    [
        {"iss": f"{ISSUER}/"},
        {"iss": "https://other.example"},
        # Hours, because the test may run long after it was collected.
        {"nbf": int(time.time()) + 36_000},
        {"iat": int(time.time()) + 36_000},
    ],
)
def test_another_issuer_or_a_later_start_is_refused(changed: dict[str, Any]) -> None:
    assert reason(signed(**changed)) == "invalid"


def test_a_changed_signature_or_payload_is_refused() -> None:
    head, body, signature = signed().split(".")
    wide = b64(as_json(claims(scope="mcp Admin.Write")))
    assert reason(f"{head}.{wide}.{signature}") == "invalid"
    other = "A" if signature[0] != "A" else "B"
    assert reason(f"{head}.{body}.{other}{signature[1:]}") == "invalid"


@pytest.mark.parametrize("name", ["exp", "iat"])
@pytest.mark.parametrize(
    "value", [True, 1.5, 0, -1, "1", None, [], jwts.LATEST_TIMESTAMP + 1]
)
def test_times_are_whole_numbers_of_this_calendar(name: str, value: Any) -> None:
    with pytest.raises(jwts.TokenRefused, match=f"claim {name} is not a time") as error:
        jwts.check_claims({**claims(), name: value})
    assert error.value.reason == "odd_claims"


@pytest.mark.parametrize("value", [1, jwts.LATEST_TIMESTAMP])
def test_the_first_and_the_last_second_are_times(value: int) -> None:
    jwts.check_claims(claims(exp=value, iat=value))


@pytest.mark.parametrize(
    "name", ["iss", "sub", "jti", "token_type", "client_id", "scope"]
)
@pytest.mark.parametrize("value", [None, True, 1, ["a"], {}])
def test_names_are_text(name: str, value: Any) -> None:
    with pytest.raises(jwts.TokenRefused, match=f"claim {name} is not text") as error:
        jwts.check_claims({**claims(), name: value})
    assert error.value.reason == "odd_claims"


@pytest.mark.parametrize("name", ["client_id", "scope"])
def test_verify_checks_the_types_of_claims(name: str) -> None:
    assert reason(signed(**{name: 1})) == "odd_claims"


@pytest.mark.parametrize("name", VECTORS)
def test_a_hostile_token_is_refused(name: str) -> None:
    """RFC 8725, RFC 7515: one reason each, and no other exception."""
    raw = signed()
    pem = SigningKey.objects.ensure_active().public_pem
    hostile = VECTORS[name](GenuineToken(raw, pem))
    assert reason(hostile) in {"malformed", "unknown_key", "invalid", "wrong_type"}
    assert jwts.verify(raw)


def with_header(header: Any) -> str:
    return f"{b64(as_json(header))}.{b64(b'{}')}.{b64(b'x')}"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({"alg": "ES256", "kid": "k" * 64}, "unknown_key"),
        ({"alg": "ES256", "kid": "aZ0_.:-"}, "unknown_key"),
        ({"alg": "ES256", "kid": "k" * 65}, "malformed"),
        ({"alg": "ES256", "kid": ""}, "malformed"),
        ({"alg": "ES256", "kid": "a b"}, "malformed"),
        ({"alg": "ES256", "kid": "a\n"}, "malformed"),
        ({"alg": "ES256", "kid": "é"}, "malformed"),
        ({"alg": "ES256", "kid": 1}, "malformed"),
        ({"alg": "ES256"}, "malformed"),
        ({"alg": None, "kid": "k"}, "malformed"),
        ({"kid": "k"}, "malformed"),
    ],
)
def test_the_header_names_a_key(header: Any, expected: str) -> None:
    assert reason(with_header(header)) == expected


@pytest.mark.parametrize(
    "raw", ["", "a", "a.b", "é.é.é", "....", "ab.ab", "\ud800.a.a", "e30=.e30.e30"]
)
def test_text_that_is_no_token_is_malformed(raw: str) -> None:
    assert reason(raw) == "malformed"


@pytest.mark.parametrize(
    ("part", "canonical"),
    [
        ("", True),
        ("abcX", True),
        ("YQ", True),
        ("-_-_", True),
        ("YR", False),
        ("YQ==", False),
        ("ab+/", False),
        ("a", False),
    ],
)
def test_a_part_has_one_spelling(part: str, canonical: bool) -> None:
    assert jwts._canonical(part) is canonical


def test_base64_has_one_spelling() -> None:
    """RFC 7515 2, RFC 4648 3.5."""
    raw = signed()
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = raw[:-1] + last[last.index(raw[-1]) + 1]
    for spelling in (other, f"{raw}==", f"{raw}\n", raw.replace(".", "=.", 1)):
        assert reason(spelling) == "malformed"


def test_the_published_keys_are_public_and_not_retired() -> None:
    first = SigningKey.objects.ensure_active()
    second = SigningKey.objects.rotate(actor="test", algorithm="EdDSA")
    following = SigningKey.objects.get(state=KeyState.NEXT)
    keys = {key["kid"]: key for key in jwts.public_jwks()["keys"]}
    assert keys.keys() == {first.kid, second.kid, following.kid}
    assert keys[first.kid] == {
        **{"kty": "EC", "crv": "P-256", "kid": first.kid, "alg": "ES256", "use": "sig"},
        "x": keys[first.kid]["x"],
        "y": keys[first.kid]["y"],
    }
    assert keys[second.kid] == {
        **{"kty": "OKP", "crv": "Ed25519", "kid": second.kid, "alg": "EdDSA"},
        **{"use": "sig", "x": keys[second.kid]["x"]},
    }
    first.refresh_from_db()
    first.move(KeyState.RETIRED)
    kids = {key["kid"] for key in jwts.public_jwks()["keys"]}
    assert kids == {second.kid, following.kid}


def test_an_rsa_key_is_published_without_operations() -> None:
    public = rsa.generate_private_key(65537, 2048).public_key()
    kind = serialization.PublicFormat.SubjectPublicKeyInfo
    key = SigningKey(kid="r", algorithm="RS256")
    key.public_pem = public.public_bytes(serialization.Encoding.PEM, kind).decode()
    jwk = jwts.public_jwk(key)
    assert jwk.keys() == {"kty", "n", "e", "kid", "alg", "use"}
    assert jwk["alg"] == "RS256" and jwk["e"] == "AQAB"


def test_simplejwt_signs_with_the_issuer_and_always_verifies() -> None:
    backend = jwts.SigningKeyBackend()
    given = claims(iss=None)
    raw = backend.encode(given)
    assert backend.decode(raw) == {"iss": ISSUER, **given}
    assert backend.decode(raw.encode())["jti"] == "j"
    expired = signed(exp=int(time.time()) - 5)
    assert backend.decode(expired, verify=False)["jti"] == "j"
    with pytest.raises(jwts.TokenExpired):
        backend.decode(expired)
    with pytest.raises(jwts.TokenRefused):
        backend.decode(raw[:-4] + "AAAA", verify=False)


@pytest.mark.parametrize(
    ("value", "printable"),
    [("a b", True), ("é", True), ("a\x00", False), ("\ud800", False), (1, False)],
)
def test_text_for_the_database_is_printable(value: Any, printable: bool) -> None:
    assert jwts.is_printable(value) is printable
    assert jwts.is_printable(None) is False
