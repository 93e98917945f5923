"""The authorization endpoint: sign-in, consent and redirect."""

from __future__ import annotations

from datetime import timedelta
from html import unescape
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import pytest
from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.http import HttpResponse, QueryDict
from django.test import Client, RequestFactory
from django.utils import timezone
from django.utils.http import MAX_URL_LENGTH
from django.views.debug import SafeExceptionReporterFilter

from accounts.crypto.secrets import code_hash
from accounts.models import Consent, OAuthClient, OAuthGrant, Role, Scope, User
from accounts.oauth import authorize
from accounts.oauth.authorize import AuthorizeView, already_consented, group_scopes
from accounts.oauth.clients import metadata_documents
from accounts.oauth.clients.document_failures import DocumentFailure
from accounts.oauth.redirect_uris import host_of
from tests.accounts.oauth.test_redirect_uris import GOOD
from tests.support.model_rows import events_of
from tests.support.oauth_requests import (
    APP_BACK,
    oauth_client,
    stored_code,
)
from tests.support.users import account, browser_of

pytestmark = pytest.mark.django_db
PATH = "/oauth/authorize"
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
LOCAL_BACK = "http://127.0.0.1:43117/callback"
ELSEWHERE = "https://elsewhere.example/mcp"


@pytest.fixture
def user() -> User:
    return account("alice", "User")


@pytest.fixture
def browser(user: User) -> Client:
    return browser_of(user)


@pytest.fixture
def client() -> OAuthClient:
    return oauth_client()


def address(**changed: Any) -> str:
    """The URL of an authorization request; parameters that are None are left out."""
    known = {
        "response_type": "code",
        "client_id": "app",
        "redirect_uri": APP_BACK,
        "state": "xyz",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
        "scope": "mcp",
    }
    fields = {k: v for k, v in {**known, **changed}.items() if v is not None}
    return f"{PATH}?{urlencode(fields, True)}"


def decide(browser: Client, decision: str = "allow", **changed: Any) -> Any:
    return browser.post(address(**changed), {"decision": decision})


def sent_back(response: Any, uri: str = APP_BACK) -> dict[str, str]:
    """The parameters that a redirect gives to the client."""
    assert response.status_code == 302, response.content.decode()
    assert "no-store" in response["Cache-Control"]
    location = response["Location"]
    assert location.startswith(f"{uri}?")
    pairs = parse_qsl(urlsplit(location).query)
    assert len(pairs) == len(dict(pairs)), "no parameter twice"
    found = dict(pairs)
    assert (found.pop("state"), found.pop("iss")) == ("xyz", settings.ISSUER_URL)
    return found


def give_consent(user: User, client: OAuthClient, **columns: Any) -> Consent:
    known = {"scope": "mcp", "redirect_host": "app.example"}
    row: Consent = Consent.objects.create(
        user=user, client=client, **{**known, **columns}
    )
    return row


def asks(response: Any) -> bool:
    """Whether it is the consent page; if not, it is a redirect with a code."""
    if response.status_code == 302:
        assert "code" in parse_qs(urlsplit(response["Location"]).query)
        return False
    assert response.status_code == 200
    return "asks for access" in response.content.decode()


def test_an_error_report_hides_what_is_allowed(monkeypatch: Any) -> None:
    """The parameters have the code's challenge and the state."""

    def fails(*args: Any) -> None:
        raise OSError

    monkeypatch.setattr(authorize, "lock_unchanged", fails)
    request = RequestFactory().get("/")
    request.user = AnonymousUser()
    with pytest.raises(OSError) as raised:
        AuthorizeView().allow(request, OAuthClient(), [], {"state": "secret"})
    [frame] = [at.frame for at in raised.traceback if at.name == "allow"]
    shown = SafeExceptionReporterFilter().get_traceback_frame_variables(
        request, frame.raw
    )
    assert dict(shown)["credentials"] == SafeExceptionReporterFilter.cleansed_substitute


def nothing_given() -> bool:
    rows = (OAuthGrant.objects, Consent.objects)
    return not any(m.exists() for m in rows) and not events_of("consent.given")


# Sign-in


@pytest.mark.spec("OAuth 2.1 7.12.2: sign in before any redirect")
@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize(
    "changed",
    [{}, {"client_id": "unknown"}, {"scope": "No.Such"}, {"prompt": "none"}],
    ids=str,
)
def test_sign_in_comes_first(
    client: OAuthClient, method: str, changed: dict[str, str]
) -> None:
    response = getattr(Client(), method)(address(**changed))
    assert response.status_code == 302
    target = urlsplit(response["Location"])
    assert target.path == "/accounts/login/"
    back = parse_qs(target.query)["next"][0]
    asked = dict(parse_qsl(urlsplit(address(**changed)).query))
    assert urlsplit(back).path == PATH
    assert dict(parse_qsl(urlsplit(back).query)) == asked
    assert nothing_given()


@pytest.mark.parametrize("method", ["head", "put", "delete", "patch"])
def test_other_methods_are_refused(browser: Client, method: str) -> None:
    """Django answers HEAD with `get`, which may issue a code."""
    response = getattr(browser, method)(address())
    assert (response.status_code, response["Allow"]) == (405, "GET, POST, OPTIONS")


@pytest.mark.parametrize(
    ("state", "reason"), [(["a", "b"], "more than once"), ("\x00", "NUL")], ids=str
)
def test_a_malformed_query_gets_a_page(state: Any, reason: str) -> None:
    response = Client().get(address(state=state))
    assert response.status_code == 400
    page = response.content.decode()
    assert reason in page and "invalid_request" in page
    assert "no-store" in response["Cache-Control"]


def query_of_length(length: int) -> str:
    """The URL of a request that has this length when its parameters are sorted."""
    rest = len(address(state=""))
    return address(state="s" * (length - rest))


@pytest.mark.parametrize(("longer", "stored"), [(0, False), (1, True)])
def test_a_request_too_long_for_a_url_is_stored(
    client: OAuthClient, user: User, longer: int, stored: bool
) -> None:
    """Django does not redirect back to longer URLs."""
    url = query_of_length(MAX_URL_LENGTH + longer)
    browser = Client()
    back = parse_qs(urlsplit(browser.get(url)["Location"]).query)["next"][0]
    assert back.startswith(f"{PATH}?oauth_question=") is stored
    assert stored or len(back) == MAX_URL_LENGTH
    assert ("oauth_question" in browser.session) is stored
    requests = browser.session.get("oauth_question", {})
    assert list(requests.values()) == ([urlsplit(url).query] if stored else [])


def test_a_stored_request_is_read_from_the_session(
    client: OAuthClient, browser: Client
) -> None:
    session = browser.session
    session["oauth_question"] = {"k": urlsplit(address(state="stored")).query}
    session.save()
    page = browser.get(f"{PATH}?oauth_question=k&state=other&client_id=other")
    assert asks(page)
    response = browser.post(f"{PATH}?oauth_question=k", {"decision": "deny"})
    assert "state=stored" in response["Location"]


@pytest.mark.parametrize("stored", [None, {}, {"other": "x"}, "an older release's"])
def test_a_stored_request_of_nobody_is_an_error(browser: Client, stored: Any) -> None:
    session = browser.session
    session["oauth_question"] = stored
    session.save()
    page = browser.get(f"{PATH}?oauth_question=k")
    assert page.status_code == 400 and "Start again" in page.content.decode()


def test_each_tab_has_its_own_request(client: OAuthClient, user: User) -> None:
    """Two tabs with long requests; the oldest of more than four is dropped."""
    browser = Client()
    filler = "s" * MAX_URL_LENGTH
    backs = []
    for number in (1, 2, 1, 3, 4, 5):
        url = address(state=f"{number}{filler}")
        back = parse_qs(urlsplit(browser.get(url)["Location"]).query)["next"][0]
        backs.append(back)
    assert backs[0] == backs[2] and len(set(backs)) == 5
    browser.force_login(user)
    for number, back in zip((2, 1, 3, 4, 5), backs[1:], strict=True):
        response = browser.post(back, {"decision": "deny"})
        if number == 2:
            assert response.status_code == 400
        else:
            assert f"state={number}s" in response["Location"]


@pytest.mark.spec("RFC 7591 3.2.1: a registered redirect URI works")
@pytest.mark.parametrize("uri", GOOD, ids=lambda uri: uri[:40])
def test_every_uri_that_may_be_registered_gets_its_code(
    browser: Client, uri: str
) -> None:
    oauth_client(redirect_uris=uri)
    assert decide(browser, redirect_uri=uri)["Location"].startswith(f"{uri}")


@pytest.mark.parametrize("decision", ["allow", "deny"])
def test_the_clients_own_query_comes_back_unchanged(
    browser: Client, decision: str
) -> None:
    """RFC 6749 3.1.2"""
    uri = f"{APP_BACK}?a=%20b&c=d%2Fe"
    oauth_client(redirect_uris=uri)
    location = decide(browser, decision, redirect_uri=uri)["Location"]
    own, name = f"{uri}&", {"allow": "code=", "deny": "error="}[decision]
    assert location.startswith(f"{own}{name}") and location.count("iss=") == 1


@pytest.mark.parametrize(
    ("scope", "shown"),
    [("openid profile email mcp", "mcp"), ("openid email", "mcp")],
)
def test_scopes_of_openid_connect_are_no_error(
    client: OAuthClient, browser: Client, scope: str, shown: str
) -> None:
    sent_back(decide(browser, scope=scope))
    assert OAuthGrant.objects.get().scope == shown


# The consent page


@pytest.mark.spec("MCP BP consent UI: client, scopes, redirect")
def test_the_page_shows_client_user_scopes_and_host(user: User) -> None:
    oauth_client(name="Notes <b>", registration_source="dcr")
    response = browser_of(user).get(address(scope="mcp User.Write"))
    page = response.content.decode()
    assert asks(response) and "Notes &lt;b&gt;" in page
    assert "<dd>alice</dd>" in page and "<dd>app</dd>" in page
    assert "<dd>app.example</dd>" in page and "could not verify" in page
    assert "Use the tools that your roles allow." in page and "(mcp)" in page
    assert "Change data." in page and "(User.Write)" in page
    action = address(scope="mcp User.Write")
    assert f'<form method="post" action="{action}">' in unescape(page)
    assert nothing_given()


def test_a_verified_client_is_called_so(browser: Client, client: OAuthClient) -> None:
    page = browser.get(address()).content.decode()
    assert "could not verify" not in page
    assert "Registered by your administrator." in page


@pytest.mark.spec("MCP SEC Localhost Redirects: the redirect's host is shown")
@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        (APP_BACK, "<dd>app.example</dd>"),
        (LOCAL_BACK, "127.0.0.1 (this computer)"),
        ("http://[::1]:8342/cb", "::1 (this computer)"),
        ("cursor://claude.ai/cb", "<dd>cursor:</dd>"),
    ],
)
def test_the_page_shows_the_redirect_and_its_form_may_lead_there(
    browser: Client, uri: str, shown: str
) -> None:
    oauth_client(redirect_uris=uri)
    response = browser.get(address(redirect_uri=uri))
    assert shown in response.content.decode()
    rules = response["Content-Security-Policy"].split("; ")
    policy = dict(rule.partition(" ")[::2] for rule in rules)
    assert policy["script-src"] == policy["connect-src"] == "'none'"
    assert "<script" not in response.content.decode()
    assert set(settings.SECURE_CSP) - set(policy) == {"form-action"}
    assert "no-store" in response["Cache-Control"]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_host_is_that_of_the_requested_redirect(
    browser: Client, place: int
) -> None:
    """Not of another redirect that the client has registered."""
    uris = [APP_BACK, LOCAL_BACK, "https://third.example/cb"]
    shown = ["app.example", "127.0.0.1 (this computer)", "third.example"]
    oauth_client(redirect_uris=" ".join(uris))
    page = browser.get(address(redirect_uri=uris[place])).content.decode()
    assert [text for text in shown if f"<dd>{text}</dd>" in page] == [shown[place]]


def test_scopes_are_grouped_under_headings() -> None:
    names = ["Docs.Write", "mcp", "tool:x", "User.Read", "Docs.Read", "Write", "a.b"]
    groups = group_scopes([(name, f"about {name}") for name in names])
    assert [(words, [name for name, _ in items]) for words, items in groups] == [
        ("Use your tools, except sensitive ones", ["mcp"]),
        ("Read data, including sensitive data", ["User.Read", "Docs.Read"]),
        ("Change data, including sensitive data", ["Docs.Write", "Write"]),
        ("Use single tools, including sensitive ones", ["tool:x", "a.b"]),
    ]
    assert groups[0][1] == [("mcp", "about mcp")]
    assert group_scopes([]) == []


# The decision


@pytest.mark.spec("OAuth 2.1 4.1.2")
def test_an_allowed_client_gets_a_code(
    client: OAuthClient, user: User, browser: Client
) -> None:
    before = timezone.now()
    response = decide(browser, scope="User.Read mcp", resource=settings.RESOURCE_URL)
    found = sent_back(response)
    [grant] = OAuthGrant.objects.all()
    assert set(found) == {"code"} and len(found["code"]) >= 27
    assert grant.code == code_hash(found["code"])
    assert (grant.user, grant.application) == (user, client)
    assert (grant.scope, grant.redirect_uri) == ("User.Read mcp", APP_BACK)
    assert grant.code_challenge == CHALLENGE
    assert (grant.code_challenge_method, grant.resource) == ("S256", [])
    assert grant.auth_digest == user.auth_digest and grant.redeemed_at is None
    lifetime = grant.expires - before
    assert timedelta(seconds=60) <= lifetime < timedelta(seconds=70)
    [consent] = Consent.objects.all()
    assert (consent.user, consent.client) == (user, client)
    assert (consent.scope, consent.redirect_host) == ("User.Read mcp", "app.example")
    [event] = events_of("consent.given")
    assert (event.actor, event.actor_id) == ("alice", user.pk)
    assert (event.object, event.client_id) == ("client App", "app")
    assert (event.via, event.address) == ("User.Read mcp", "127.0.0.1")
    assert event.subject == f"user:{user.pk}"
    assert not events_of("consent.denied")


def test_a_consent_grows_and_others_consents_stay(
    client: OAuthClient, user: User, browser: Client
) -> None:
    bob, other = account("bob"), oauth_client("other")
    kept = [give_consent(bob, client), give_consent(user, other)]
    give_consent(user, client, scope="mcp User.Write", redirect_host="old.example")
    sent_back(decide(browser, scope="mcp User.Read"))
    consent = Consent.objects.get(user=user, client=client)
    assert consent.scope == "User.Read User.Write mcp"
    assert consent.redirect_host == "app.example"
    for row in kept:
        row.refresh_from_db()
        assert (row.scope, row.redirect_host) == ("mcp", "app.example")
    assert events_of("consent.given")[0].via == "mcp User.Read"


@pytest.mark.spec("OAuth 2.1 3.3: the granted scope may be smaller")
@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        ("mcp Admin.Write User.Read", "mcp User.Read"),
        ("mcp mcp", "mcp"),
        ("User.Read User.Read", "User.Read"),
        ("offline_access", "mcp"),
        (None, "mcp"),
    ],
)
def test_no_more_is_granted_than_the_roles_give(
    client: OAuthClient, browser: Client, asked: str | None, granted: str
) -> None:
    sent_back(decide(browser, scope=asked))
    assert OAuthGrant.objects.get().scope == granted
    assert Consent.objects.get().scope == " ".join(sorted(granted.split()))


def test_a_user_without_roles_may_still_allow_mcp(client: OAuthClient) -> None:
    """Such a token can do nothing until a role is granted."""
    sent_back(decide(browser_of(account("bob"))))
    assert OAuthGrant.objects.get().scope == "mcp"


@pytest.mark.spec("OAuth 2.1 4.1.2.1: access_denied")
@pytest.mark.parametrize("decision", ["deny", "", "ALLOW", "allowed"])
def test_any_other_decision_denies(
    client: OAuthClient, user: User, browser: Client, decision: str
) -> None:
    found = sent_back(decide(browser, decision, scope="mcp User.Read"))
    assert found == {"error": "access_denied"}
    assert nothing_given()
    [event] = events_of("consent.denied")
    assert (event.actor, event.actor_id) == ("alice", user.pk)
    assert (event.object, event.client_id) == ("client App", "app")
    assert event.via == "mcp User.Read"


def test_many_scopes_fit_into_the_record(client: OAuthClient, browser: Client) -> None:
    names = [f"Scope.{n}{'x' * 60}" for n in range(6)]
    Role.objects.get(name="User").scopes.set(
        [Scope.objects.create(name=name) for name in names]
    )
    sent_back(decide(browser, scope=" ".join(names)))
    assert events_of("consent.given")[0].via == " ".join(names)[:255]


def test_more_scopes_than_one_token_holds_are_refused(
    client: OAuthClient, browser: Client
) -> None:
    """Before the question, and only if the person's roles grant them."""
    names = [f"{number:03}{'x' * 80}" for number in range(100)]
    rows = Scope.objects.bulk_create(Scope(name=name) for name in names)
    wanted = {"scope": " ".join(["mcp", *names])}
    assert browser.get(address(**wanted)).status_code == 200
    Role.objects.get(name="User").scopes.add(*rows)
    response = browser.get(address(**wanted))
    page = response.content.decode()
    assert response.status_code == 400 and "too long for one token" in page
    assert "error=invalid_scope" in link_of(page)
    decide(browser, **wanted)
    assert nothing_given()


@pytest.mark.spec("MCP BP consent UI: CSRF")
def test_a_decision_needs_the_forms_csrf_token(client: OAuthClient, user: User) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(user)
    assert decide(strict).status_code == 403
    assert nothing_given()


@pytest.mark.parametrize("uri", [LOCAL_BACK, "cursor://any/cb", "com.example.app:/cb"])
def test_the_client_gets_the_code_at_its_own_scheme(browser: Client, uri: str) -> None:
    oauth_client(redirect_uris=uri)
    assert "code" in sent_back(decide(browser, redirect_uri=uri), uri)
    shown = urlsplit(uri).hostname if uri == LOCAL_BACK else urlsplit(uri).scheme + ":"
    assert Consent.objects.get().redirect_host == shown


def test_a_redirect_replaces_an_issuer_of_the_client(browser: Client) -> None:
    uri = f"{APP_BACK}?iss=https://evil.example&keep=1"
    oauth_client(redirect_uris=uri)
    for decision, answer in (("allow", "code"), ("deny", "error")):
        found = sent_back(decide(browser, decision, redirect_uri=uri))
        assert set(found) == {"keep", answer}


# Access that ends meanwhile


def deactivated(user: User, client: OAuthClient) -> None:
    User.objects.filter(pk=user.pk).update(is_active=False)


def sessions_ended(user: User, client: OAuthClient) -> None:
    User.objects.filter(pk=user.pk).update(session_epoch=7)


def blocked(user: User, client: OAuthClient) -> None:
    OAuthClient.objects.filter(pk=client.pk).update(blocked=True)


@pytest.mark.parametrize("ending", [deactivated, sessions_ended, blocked])
def test_access_that_ends_during_the_request_gives_no_code(
    client: OAuthClient, user: User, browser: Client, monkeypatch: Any, ending: Any
) -> None:
    """The request authenticated before; the account is read again under its lock."""
    validated = AuthorizeView.validated_request

    def ended_meanwhile(self: AuthorizeView, request: Any) -> Any:
        result = validated(self, request)
        ending(user, client)
        return result

    monkeypatch.setattr(AuthorizeView, "validated_request", ended_meanwhile)
    response = decide(browser)
    assert response.status_code == 302
    assert response["Location"].startswith("/accounts/login/?next=")
    assert nothing_given()


def test_a_code_is_stored_only_with_its_consent(
    client: OAuthClient, browser: Client, monkeypatch: Any
) -> None:
    def fails(*args: Any) -> None:
        raise OSError("no consent")

    monkeypatch.setattr(AuthorizeView, "store_consent", fails)
    with pytest.raises(OSError, match="no consent"):
        decide(browser)
    assert nothing_given()


# Earlier consent


@pytest.mark.spec("MCP BP Confused Deputy: consent per client")
def test_a_consent_answers_the_next_request(
    client: OAuthClient, user: User, browser: Client
) -> None:
    give_consent(user, client, scope="mcp User.Read")
    assert set(sent_back(browser.get(address(scope="User.Read")))) == {"code"}
    assert OAuthGrant.objects.get().scope == "User.Read"
    assert Consent.objects.get().scope == "User.Read mcp"
    assert [e.via for e in events_of("consent.given")] == ["User.Read"]


@pytest.mark.parametrize(
    "changed", [{"prompt": "consent"}, {"scope": "mcp User.Read"}], ids=str
)
def test_a_consent_does_not_answer_more(
    client: OAuthClient, user: User, browser: Client, changed: dict[str, str]
) -> None:
    give_consent(user, client)
    assert asks(browser.get(address(**changed)))
    assert not OAuthGrant.objects.exists()


def test_a_consent_is_for_one_user_client_and_host(
    client: OAuthClient, user: User, browser: Client
) -> None:
    bob, other = account("bob", "User"), oauth_client("other")
    give_consent(user, client)
    assert not asks(browser.get(address()))
    assert asks(browser_of(bob).get(address()))
    assert asks(browser.get(address(client_id=other.client_id)))
    Consent.objects.update(redirect_host="other.example")
    assert asks(browser.get(address()))


@pytest.mark.spec("RFC 8252 8.6: always ask for a shared redirect")
@pytest.mark.parametrize(
    ("source", "approved", "uri", "silent"),
    [
        ("manual", False, LOCAL_BACK, True),
        ("dcr", True, LOCAL_BACK, True),
        ("dcr", False, LOCAL_BACK, False),
        ("dcr", False, "cursor://any/cb", False),
        ("dcr", False, APP_BACK, True),
    ],
)
def test_an_unverified_client_with_a_shared_redirect_is_always_asked(
    user: User, browser: Client, source: str, approved: bool, uri: str, silent: bool
) -> None:
    client = oauth_client(
        registration_source=source, approved=approved, redirect_uris=uri
    )
    give_consent(user, client, redirect_host=host_of(uri))
    assert asks(browser.get(address(redirect_uri=uri))) is not silent


def test_no_consent_covers_nothing(client: OAuthClient) -> None:
    assert already_consented(None, client, [], APP_BACK) is False


# prompt


@pytest.mark.spec("OIDC Core 3.1.2.1: prompt")
@pytest.mark.parametrize(
    ("prompt", "rest"), [("login", None), ("login consent", "consent")]
)
def test_prompt_login_requires_a_new_sign_in_once(
    client: OAuthClient, user: User, browser: Client, prompt: str, rest: str | None
) -> None:
    give_consent(user, client)
    response = browser.get(address(prompt=prompt))
    assert response.status_code == 302
    target = urlsplit(response["Location"])
    back = parse_qs(target.query)["next"][0]
    query = dict(parse_qsl(urlsplit(back).query))
    assert target.path == "/accounts/login/" and query.get("prompt") == rest
    assert query["client_id"] == "app" and query["state"] == "xyz"
    assert "_auth_user_id" not in browser.session
    assert not OAuthGrant.objects.exists()


@pytest.mark.spec("OIDC Core 3.1.2.6: interaction_required")
@pytest.mark.parametrize(
    "changed", [{"scope": "mcp User.Read"}, {"prompt": "none consent"}], ids=str
)
def test_prompt_none_tells_a_known_client_that_it_must_ask(
    client: OAuthClient, user: User, browser: Client, changed: dict[str, str]
) -> None:
    give_consent(user, client)
    response = browser.get(address(**{"prompt": "none", **changed}))
    assert sent_back(response) == {
        "error": "interaction_required",
        "error_description": "The user must give consent.",
    }
    assert not OAuthGrant.objects.exists()


def test_prompt_none_with_a_consent_gives_a_code(
    client: OAuthClient, user: User, browser: Client
) -> None:
    give_consent(user, client)
    assert "code" in sent_back(browser.get(address(prompt="none")))


def test_prompt_none_does_not_redirect_to_a_client_without_consent(
    client: OAuthClient, browser: Client
) -> None:
    """That would be an open redirect."""
    give_consent(account("bob"), client)
    response = browser.get(address(prompt="none"))
    assert response.status_code == 400
    page = response.content.decode()
    assert "interaction_required" in page and "The user must give consent." in page
    assert link_of(page).startswith(f"{APP_BACK}?error=interaction_required")


# Wrong requests


def link_of(page: str) -> str:
    """The link back to the client; empty if there is none."""
    _, found, rest = page.partition('<p><a href="')
    return unescape(rest.partition('"')[0]) if found else ""


FATAL: list[dict[str, Any]] = [
    {"client_id": "unknown"},
    {"client_id": None},
    {"client_id": "blocked"},
    {"redirect_uri": f"{APP_BACK}/"},
    {"redirect_uri": f"{APP_BACK}?x=1"},
    {"redirect_uri": f"{APP_BACK}#f"},
    {"redirect_uri": "https://app.example.evil/cb"},
    {"redirect_uri": "https://evil.app.example/cb"},
    {"redirect_uri": "https://app.example:444/cb"},
    {"redirect_uri": "http://app.example/cb"},
    {"redirect_uri": "https://u@app.example/cb"},
]


@pytest.mark.spec("OAuth 2.1 4.1.2.1: no redirect to unknown clients or URIs")
@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("changed", FATAL, ids=str)
def test_an_unknown_client_or_uri_gets_a_page_without_a_link(
    client: OAuthClient, browser: Client, changed: dict[str, Any], method: str
) -> None:
    oauth_client("blocked", blocked=True)
    url = address(**changed)
    response = (
        browser.get(url)
        if method == "get"
        else browser.post(url, {"decision": "allow"})
    )
    page = response.content.decode()
    assert response.status_code == 400 and "Authorization failed" in page
    assert "invalid_request" in page
    assert link_of(page) == "" and nothing_given()


@pytest.mark.spec("RFC 8252 7.3: any loopback port")
@pytest.mark.spec("OAuth 2.1 2.3.1: exact redirect match, no fragment")
@pytest.mark.parametrize(
    ("asked", "good"),
    [
        ("http://127.0.0.1:50001/callback", True),
        ("http://localhost:50001/cb", True),
        ("http://[::1]:50001/cb", True),
        ("cursor://anysphere.cursor-mcp/oauth/callback", True),
        ("https://app.example/cb?keep=1", True),
        ("http://localhost:50001/callback", False),
        ("http://127.0.0.2:50001/callback", False),
        ("https://127.0.0.1:50001/callback", False),
        ("http://127.0.0.1:50001/callback?x=1", False),
        ("http://127.0.0.1:50001/callback/", False),
        ("http://127.0.0.1:50001/x/../callback", False),
        ("cursor://evil/oauth/callback", False),
        ("https://app.example:444/cb?keep=1", False),
        ("https://app.example/cb?keep=1&more=2", False),
        (None, False),
    ],
)
def test_redirect_uris_match_exactly(
    browser: Client, asked: str | None, good: bool
) -> None:
    """OAuth 2.1 2.3.1, 8.4.2: exact match, except for a loopback port."""
    uris = [
        "http://127.0.0.1/callback",
        "http://localhost:1234/cb",
        "http://[::1]/cb",
        "https://app.example/cb?keep=1",
        "cursor://anysphere.cursor-mcp/oauth/callback",
    ]
    oauth_client(redirect_uris=" ".join(uris))
    response = decide(browser, redirect_uri=asked)
    if good:
        assert "code" in sent_back(response, str(asked).partition("?")[0])
    else:
        assert response.status_code == 400 and nothing_given()


@pytest.mark.parametrize(
    "changed",
    [
        {"resource": ""},
        {"resource": [settings.RESOURCE_URL, f"{settings.RESOURCE_URL}/"]},
        {"scope": "offline_access", "prompt": "consent"},
        {"scope": "mcp mcp", "prompt": "", "response_mode": "query"},
    ],
    ids=str,
)
def test_empty_and_repeated_parameters_are_accepted(
    client: OAuthClient, browser: Client, changed: dict[str, Any]
) -> None:
    """OAuth 2.1 3.1; RFC 8707 2; SEP-2207: `mcp` is the default scope."""
    assert asks(browser.get(address(**changed)))
    assert "code" in sent_back(decide(browser, **changed))
    assert Consent.objects.get().scope == "mcp"


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"response_type": "token"}, "unauthorized_client", "not allowed for it"),
    ({"response_type": "code token"}, "unauthorized_client", "grant types"),
    ({"response_type": None}, "invalid_request", "Missing response_type"),
    ({"code_challenge": None}, "invalid_request", "Code challenge required"),
    ({"code_challenge_method": "plain"}, "invalid_request", "must be S256"),
    ({"code_challenge_method": None}, "invalid_request", "must be S256"),
    ({"code_challenge": "a" * 42}, "invalid_request", "43 characters"),
    ({"code_challenge": "a" * 44}, "invalid_request", "43 characters"),
    ({"code_challenge": "a" * 42 + "="}, "invalid_request", "43 characters"),
    ({"code_challenge": "a" * 43 + "\n"}, "invalid_request", "43 characters"),
    ({"response_mode": "fragment"}, "invalid_request", "must be query"),
    ({"response_mode": "form_post"}, "invalid_request", "must be query"),
    ({"resource": ELSEWHERE}, "invalid_target", settings.RESOURCE_URL),
    ({"resource": f"{settings.RESOURCE_URL}/x"}, "invalid_target", "only"),
    ({"scope": "mcp No.Such"}, "invalid_scope", "Unknown scope: No.Such."),
    ({"scope": "Zed Abe mcp"}, "invalid_scope", "Unknown scope: Abe, Zed."),
    ({"scope": "Admin.Write"}, "invalid_scope", "Your roles include none"),
]


@pytest.mark.spec("OAuth 2.1 7.12: no redirect without the user's decision")
@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize(("changed", "error", "text"), WRONG, ids=str)
def test_a_wrong_request_gets_a_page_with_a_link(
    client: OAuthClient,
    user: User,
    browser: Client,
    changed: dict[str, Any],
    error: str,
    text: str,
    method: str,
) -> None:
    """Also for a client that the user allowed before."""
    consent = give_consent(user, client)
    response = getattr(browser, method)(address(**changed))
    page = unescape(response.content.decode())
    assert response.status_code == 400 and "Authorization failed" in page
    assert f'<p class="note">{error}</p>' in page and text in page
    link = link_of(response.content.decode())
    query = dict(parse_qsl(urlsplit(link).query))
    assert link.startswith(f"{APP_BACK}?") and link.count("iss=") == 1
    assert (query["error"], query["iss"]) == (error, settings.ISSUER_URL)
    assert query["state"] == "xyz"
    assert not OAuthGrant.objects.exists()
    consent.refresh_from_db()
    assert consent.scope == "mcp"
    policy = response["Content-Security-Policy"]
    assert "script-src 'none';" in f"{policy};"
    assert "no-store" in response["Cache-Control"]


def test_a_registered_uri_that_is_no_longer_allowed_gets_no_link(
    browser: Client,
) -> None:
    uri = "http://app.example/cb"
    oauth_client(redirect_uris=uri)
    response = browser.get(address(redirect_uri=uri))
    page = response.content.decode()
    assert response.status_code == 400 and "use https" in page
    assert link_of(page) == ""


def test_an_unknown_scope_is_shown_on_one_line(
    client: OAuthClient, browser: Client
) -> None:
    response = browser.get(address(scope="a\x1bb"))
    assert "Unknown scope: a b." in response.content.decode()


@pytest.mark.spec("RFC 6749 4.1.2.1: error_description is ASCII")
@pytest.mark.parametrize(
    "changed",
    [
        {"response_mode": "fragment"},
        {"scope": "Admin.Write"},
        {"resource": ELSEWHERE},
    ],
    ids=str,
)
def test_the_page_is_translated_but_the_link_is_not(
    client: OAuthClient, browser: Client, changed: dict[str, str]
) -> None:
    korean = browser.get(address(**changed), HTTP_ACCEPT_LANGUAGE="ko")
    page = korean.content.decode()
    described = dict(parse_qsl(urlsplit(link_of(page)).query))["error_description"]
    assert described.isascii()
    english = browser.get(address(**changed), HTTP_ACCEPT_LANGUAGE="en")
    assert described in unescape(english.content.decode())
    assert described not in unescape(page.partition("<h1>")[2].partition("<a ")[0])


FIXES: list[tuple[dict[str, Any], str]] = [
    ({"client_id": "nobody"}, "add it again"),
    ({"redirect_uri": ELSEWHERE}, "did not register the address"),
    ({"code_challenge": None}, "a fault of the app"),
    ({"state": ["a", "b"]}, "a fault of the app"),
]


@pytest.mark.parametrize(("changed", "fix"), FIXES, ids=str)
def test_the_page_says_what_to_do(
    client: OAuthClient, browser: Client, changed: dict[str, Any], fix: str
) -> None:
    """The descriptions of the libraries name the fault only."""
    assert fix in browser.get(address(**changed)).content.decode()


# Client metadata documents


def test_a_document_is_fetched_for_signed_in_users_only(
    client: OAuthClient, browser: Client, monkeypatch: Any
) -> None:
    fetched: list[str] = []
    monkeypatch.setattr(
        metadata_documents,
        "refresh",
        lambda name, request: fetched.append(name),
    )
    Client().get(address())
    assert fetched == []
    browser.get(address())
    browser.get(address(client_id=None))
    assert fetched == ["app", ""]


def refuse(monkeypatch: Any, failure: DocumentFailure) -> None:
    monkeypatch.setattr(metadata_documents, "refresh", lambda name, request: failure)


def test_the_page_names_the_failed_fetch(browser: Client, monkeypatch: Any) -> None:
    """The person reads the cause and what an administrator can do."""
    refuse(monkeypatch, DocumentFailure("certificate", "c.example", "x"))
    response = browser.get(address(client_id="https://c.example/<b>.json"))
    page = unescape(response.content.decode())
    assert response.status_code == 400 and "<b>" not in response.content.decode()
    assert "cannot identify the client https://c.example/<b>.json." in page
    assert "This server does not trust the certificate of c.example." in page
    assert "An administrator can allow this server to reach c.example" in page
    assert "invalid_client" in page and "script-src 'none'" in str(response.headers)
    assert "<script" not in page


def test_a_decision_without_a_document_is_refused_too(
    browser: Client, monkeypatch: Any
) -> None:
    refuse(monkeypatch, DocumentFailure("client_blocked", ""))
    response = browser.post(address(), {"decision": "allow"})
    assert response.status_code == 400
    assert "An administrator has blocked this client." in response.content.decode()


# Small parts


def test_a_redirect_to_a_client_is_not_cached(client: OAuthClient) -> None:
    response = AuthorizeView().redirect_to_client(f"{APP_BACK}?code=c", client)
    assert response["Cache-Control"] == "no-store"


def test_an_anonymous_visitor_has_no_consents(client: OAuthClient, user: User) -> None:
    give_consent(user, client)
    request = RequestFactory().get(PATH)
    request.user = AnonymousUser()
    assert authorize.signed_in_user_id(request) == 0
    assert authorize.consent_of(request, client) is None
    request.user = user
    assert authorize.signed_in_user_id(request) == user.pk
    assert authorize.consent_of(request, client) is not None


def test_pages_without_scripts_keep_the_other_directives() -> None:
    response: Any = authorize.without_scripts(HttpResponse())
    policy = response._csp_config
    assert policy["script-src"] == policy["connect-src"] == ["'none'"]
    assert policy["style-src"] == settings.SECURE_CSP["style-src"]


def test_a_valid_request_has_no_objection() -> None:
    credentials = {"code_challenge": CHALLENGE, "code_challenge_method": "S256"}
    for query in ("", "response_mode=query", f"resource={settings.RESOURCE_URL}"):
        assert authorize.request_objection(QueryDict(query), credentials)[1] == ""


def test_a_code_of_another_client_does_not_matter_here(
    client: OAuthClient, user: User, browser: Client
) -> None:
    kept, _raw = stored_code(user, oauth_client("other"))
    sent_back(decide(browser))
    assert OAuthGrant.objects.filter(code=code_hash(kept), redeemed_at=None).exists()
