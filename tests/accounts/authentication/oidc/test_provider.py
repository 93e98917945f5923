"""What Portico accepts of an OpenID provider's documents."""

from __future__ import annotations

import base64
import json
import time
from types import SimpleNamespace
from typing import Any

import jwt
import pytest
from allauth.socialaccount.models import SocialAccount, SocialApp
from allauth.socialaccount.providers.oauth2.client import OAuth2Error
from django.conf import settings
from django.core.cache import cache
from django.http import Http404
from django.test import RequestFactory

from accounts.authentication.oidc import provider
from accounts.authentication.oidc.adapter import SocialAccountAdapter
from accounts.authentication.oidc.provider import (
    MAX_SUB_LENGTH,
    OIDCAdapter,
    OIDCProvider,
    refuse_other_issuer,
    refuse_unsigned,
    safe_username,
    same_issuer,
    text_of,
)
from tests.support.users import account


def theirs() -> Any:
    return OIDCProvider.__new__(OIDCProvider)


@pytest.mark.parametrize("sub", ["1", "x" * MAX_SUB_LENGTH, "user one"])
def test_a_subject_is_text(sub: str) -> None:
    """OIDC Core 2; UserInfo's is compared elsewhere."""
    documents = {"id_token": {"sub": sub}, "userinfo": {"sub": "other"}}
    assert theirs().extract_uid(documents) == sub


@pytest.mark.parametrize("sub", [None, "", 7, ["x"], "x" * 192, "a\nb", "a\x00"])
def test_other_subjects_are_refused(sub: Any) -> None:
    assert MAX_SUB_LENGTH == 191
    with pytest.raises(OAuth2Error, match="The sub"):
        theirs().extract_uid({"id_token": {"sub": sub}})


def test_fields_of_a_new_account() -> None:
    """UserInfo goes before the ID token; only text, and a verified address."""
    verified = {"email": "Erin@Corp.example", "email_verified": True}
    documents = {
        "id_token": {"name": "old", "given_name": "Erin", "family_name": ["x"]},
        "userinfo": {"name": "new", "preferred_username": "erin", **verified},
    }
    assert theirs().extract_common_fields(documents) == {
        "name": "new",
        "first_name": "Erin",
        "last_name": "",
        "username": "erin",
        "email": "erin@corp.example",
    }
    documents["userinfo"]["email_verified"] = "true"  # type: ignore[index]
    assert theirs().extract_common_fields(documents)["email"] == ""
    assert theirs().extract_email_addresses(documents) == []


@pytest.mark.parametrize(
    ("preferred", "name"),
    [
        ("erin", "erin"),
        ("erin.7_x@corp", "erin.7_x@corp"),
        ("ｅrin", "erin"),
        ("c\u0430rol", ""),
        ("\u0430\u0431", "\u0430\u0431"),
        ("", ""),
    ],
)
def test_a_name_of_two_alphabets_is_not_used(preferred: str, name: str) -> None:
    assert safe_username(preferred) == name


@pytest.mark.parametrize(
    ("claim", "text"), [("a", "a"), (None, ""), (7, ""), (["a"], ""), ("a\nb", "")]
)
def test_claims_are_printable_text(claim: Any, text: str) -> None:
    assert text_of(claim) == text


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://a", "https://a", True),
        ("https://a/", "https://a", True),
        ("https://a", "https://a/", True),
        ("https://a/r", "https://a/r/.well-known/openid-configuration", True),
        ("https://a", "https://b", False),
        ("https://a/r", "https://a", False),
        (None, "https://a", False),
        (["https://a"], "https://a", False),
    ],
)
def test_issuers_are_compared(one: Any, other: str, same: bool) -> None:
    """OpenID Connect Discovery 4.3."""
    assert same_issuer(one, other) == same


@pytest.mark.parametrize("token", [None, "", "x", "a.b.c", 7])
def test_an_id_token_is_required(token: Any) -> None:
    with pytest.raises(OAuth2Error, match="missing or malformed"):
        refuse_unsigned(token)


def decoded(monkeypatch: pytest.MonkeyPatch, **changed: Any) -> Any:
    """The claims of an ID token that the provider has just sent."""
    now = time.time()
    claims = {"iss": "https://corp", "aud": "portico", "sub": "1", "iat": now}
    claims |= {"exp": now + 60, **changed}
    raw = jwt.encode(claims, "k" * 32, "HS256")
    config = property(lambda self: {"issuer": "https://corp"})
    monkeypatch.setattr(OIDCAdapter, "openid_config", config)
    adapter = OIDCAdapter(RequestFactory().get("/"), "corp")
    return adapter._decode_id_token(SocialApp(client_id="portico"), raw)


@pytest.mark.parametrize(
    "times", [{"exp": -20}, {"iat": 20}, {"nbf": 20, "iat": 20}], ids=str
)
def test_the_clock_of_a_provider_may_differ(
    monkeypatch: pytest.MonkeyPatch, times: dict[str, int]
) -> None:
    """RFC 7519 4.1.4; the values are seconds from now."""
    changed = {name: time.time() + value for name, value in times.items()}
    assert decoded(monkeypatch, **changed)["sub"] == "1"


@pytest.mark.parametrize(
    "changed",
    [
        {"exp": 1_000_000_000},
        {"exp": None},
        {"exp": float("inf")},
        {"iss": "https://other"},
        {"aud": "other"},
    ],
    ids=str,
)
def test_an_id_token_of_another_time_or_place_is_refused(
    monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any]
) -> None:
    """OpenID Connect Core 3.1.3.7"""
    with pytest.raises(OAuth2Error, match="Invalid id_token"):
        decoded(monkeypatch, **changed)


def test_the_clock_of_a_provider_differs_a_little_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    late = time.time() - settings.CLOCK_LEEWAY.total_seconds() - 5
    with pytest.raises(OAuth2Error, match="Invalid id_token"):
        decoded(monkeypatch, exp=late)


def test_an_id_token_is_used_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it has an id."""
    cache.clear()
    for _token in range(2):
        assert decoded(monkeypatch)["sub"] == "1"
    assert decoded(monkeypatch, jti="one")["jti"] == "one"
    with pytest.raises(OAuth2Error, match="already used"):
        decoded(monkeypatch, jti="one")


def test_an_id_token_is_signed() -> None:
    """OIDC Core 3.1.3.7: TLS does not replace the signature."""
    refuse_unsigned(jwt.encode({"sub": "1"}, "k" * 32, "HS256"))
    with pytest.raises(OAuth2Error, match="not signed"):
        refuse_unsigned(jwt.encode({"sub": "1"}, "", "none"))


def with_header(**header: Any) -> str:
    """An ID token with this header, which the library would not write."""
    signed = jwt.encode({"sub": "1"}, "k" * 32, "HS256")
    first = base64.urlsafe_b64encode(json.dumps(header).encode()).decode()
    return f"{first.rstrip('=')}.{signed.partition('.')[2]}"


@pytest.mark.parametrize(
    "header", [{}, {"alg": "none"}, {"alg": "None"}, {"alg": "NONE"}, {"typ": "JWT"}]
)
def test_an_id_token_names_its_algorithm(header: dict[str, str]) -> None:
    """RFC 7518 3.6: also not "none" in another spelling."""
    refuse_unsigned(with_header(alg="HS256"))
    with pytest.raises(OAuth2Error, match="not signed"):
        refuse_unsigned(with_header(**header))


@pytest.mark.parametrize("raw", [None, "", "a.b.c", "no token", 7, b""])
def test_an_id_token_that_cannot_be_read_is_refused(raw: Any) -> None:
    with pytest.raises(OAuth2Error, match="missing or malformed"):
        refuse_unsigned(raw)


@pytest.mark.parametrize(
    ("stored", "refused"),
    [
        ({"id_token": {"iss": "https://one"}}, False),
        ({"id_token": {"iss": "https://two"}}, True),
        ({"id_token": None}, False),
        ({}, False),
    ],
)
def test_an_identity_keeps_its_issuer(
    db: None, stored: dict[str, Any], refused: bool
) -> None:
    """OIDC Core 5.7: `sub` is unique per issuer only."""
    SocialAccount.objects.create(
        user=account("erin"), provider="corp", uid="1", extra_data=stored
    )
    token = {"id_token": {"iss": "https://one"}}
    for slug, uid in (("corp", "2"), ("guests", "1")):
        refuse_other_issuer(SocialAccount(provider=slug, uid=uid, extra_data=token))
    same = SocialAccount(provider="corp", uid="1", extra_data=token)
    if not refused:
        refuse_other_issuer(same)
        return
    with pytest.raises(OAuth2Error, match="another issuer"):
        refuse_other_issuer(same)


ISSUER = "https://corp.example"


class Documents:
    """A session with a provider that answers with these, by the end of the path."""

    def __init__(self, **documents: Any) -> None:
        self.documents = documents
        self.authorization: list[str] = []

    def __enter__(self) -> Documents:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing is open."""

    def get(self, url: str, headers: dict[str, str] | None = None) -> Any:
        self.authorization.append((headers or {}).get("Authorization", ""))
        found = self.documents[url.rpartition("/")[2].replace("-", "_")]
        return SimpleNamespace(raise_for_status=lambda: None, json=lambda: found)


@pytest.fixture
def corp(monkeypatch: pytest.MonkeyPatch) -> Documents:
    """The documents of an honest provider, which `adapter` reads."""
    metadata = {"issuer": ISSUER, "userinfo_endpoint": f"{ISSUER}/userinfo"}
    told = Documents(
        openid_configuration=metadata, userinfo={"sub": "1", "email": "a@b.example"}
    )
    app = SocialApp(provider="openid_connect", provider_id="corp", client_id="portico")
    app.settings = {"server_url": ISSUER}
    monkeypatch.setattr(SocialAccountAdapter, "get_requests_session", lambda self: told)
    monkeypatch.setattr(
        OIDCAdapter, "get_provider", lambda self: OIDCProvider(self.request, app=app)
    )
    return told


def complete(**changed: Any) -> Any:
    """allauth's login with an ID token of these claims."""
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": "portico", "sub": "1", "iat": now, "exp": now + 60}
    raw = jwt.encode({**claims, **changed}, "k" * 32, "HS256")
    adapter = OIDCAdapter(RequestFactory().get("/"), "corp")
    app, token = adapter.get_provider().app, SimpleNamespace(token="t-1")
    return adapter.complete_login(
        adapter.request, app, token, response={"id_token": raw}
    )


def test_a_login_has_the_subject_and_no_address_to_look_up(
    db: None, corp: Documents
) -> None:
    """allauth would find accounts by the address."""
    corp.documents["userinfo"]["email_verified"] = True
    login = complete()
    assert (login.account.uid, login.account.provider) == ("1", "corp")
    assert login.email_addresses == []
    assert set(login.account.extra_data) == {"userinfo", "id_token"}
    assert corp.authorization[-1] == "Bearer t-1"


@pytest.mark.parametrize("config", [{"issuer": "https://other"}, {}, [], "text", 7])
def test_a_discovery_document_names_the_issuer(corp: Documents, config: Any) -> None:
    """OpenID Connect Discovery 4.3."""
    corp.documents["openid_configuration"] = config
    with pytest.raises(OAuth2Error, match="The discovery document"):
        complete()


@pytest.mark.parametrize("userinfo", [{"sub": "2"}, {}, ["sub"], "1", None], ids=str)
def test_userinfo_is_about_the_same_subject(
    db: None, corp: Documents, userinfo: Any
) -> None:
    """OpenID Connect Core 5.3.2."""
    corp.documents["userinfo"] = userinfo
    with pytest.raises(OAuth2Error, match="UserInfo"):
        complete()


def test_a_login_is_refused_at_another_issuer(db: None, corp: Documents) -> None:
    """The identity was linked before, when the provider had another issuer."""
    linked = {"id_token": {"iss": "https://before.example"}}
    SocialAccount.objects.create(
        user=account("erin"), provider="corp", uid="1", extra_data=linked
    )
    with pytest.raises(OAuth2Error, match="another issuer"):
        complete()


def test_a_login_needs_a_signed_token(db: None, corp: Documents) -> None:
    adapter = OIDCAdapter(RequestFactory().get("/"), "corp")
    unsigned = {"id_token": jwt.encode({"sub": "1"}, "", "none")}
    for response in ({}, unsigned):
        with pytest.raises(OAuth2Error, match="The ID token"):
            adapter.complete_login(adapter.request, None, None, response=response)
    assert corp.authorization == []


@pytest.mark.parametrize("view", [provider.login, provider.callback])
def test_an_unknown_provider_is_not_found(db: None, view: Any) -> None:
    with pytest.raises(Http404):
        view(RequestFactory().get("/"), "nowhere")
