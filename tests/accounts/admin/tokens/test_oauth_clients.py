"""OAuth clients in the admin: forms, actions and document hosts."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.contrib import admin
from django.contrib.auth.hashers import check_password, identify_hasher
from django.utils import timezone

from accounts.crypto.signing_keys import generate_key_pair
from accounts.models import (
    AuditEvent,
    Consent,
    DocumentHost,
    IssuedToken,
    OAuthAccessToken,
    OAuthClient,
    OAuthGrant,
    OAuthIDToken,
    OAuthRefreshToken,
    RevokedToken,
    SigningKey,
    User,
)
from accounts.tokens.jwts import public_jwk
from tests.support.admin_browser import (
    AdminBrowser,
    add_token,
    events_by,
    is_live,
    list_url,
    newest_event,
    row_url,
    staff_member,
)
from tests.support.users import account

pytestmark = pytest.mark.django_db
PAGE: Any = admin.site.get_model_admin(OAuthClient)
ADD = "/admin/accounts/oauthclient/add/"
NOW = timezone.now()


@pytest.fixture
def mallory() -> AdminBrowser:
    """May change clients and hosts, and has the role Guest."""
    verbs = ("view", "add", "change", "delete")
    names = [f"{v}_{m}" for v in verbs for m in ("oauthclient", "documenthost")]
    return AdminBrowser(staff_member("mallory", *names, roles=("Guest",)))


@pytest.fixture
def carol() -> User:
    return account("carol", is_staff=True, is_superuser=True)


def client(client_id: str = "app", **columns: Any) -> OAuthClient:
    fields = {
        "name": client_id,
        "client_type": "public",
        "registration_source": "dcr",
        "grant_types": ["authorization_code"],
        "redirect_uris": "https://app.example/cb",
    }
    row: OAuthClient = OAuthClient.objects.create(
        client_id=client_id, **{**fields, **columns}
    )
    return row


def confidential(client_id: str, **columns: Any) -> OAuthClient:
    kind = {"client_type": "confidential"}
    method = {"token_endpoint_auth_method": "client_secret_basic"}
    return client(client_id, **kind, **method, **columns)


def pending_code(user: User, row: OAuthClient) -> OAuthGrant:
    code: OAuthGrant = OAuthGrant.objects.create(
        user=user,
        application=row,
        code=uuid4().hex,
        expires=NOW + timedelta(hours=1),
    )
    return code


def jwks(private: bool = False) -> str:
    pair = generate_key_pair("EdDSA")
    key = SigningKey(kid=pair.kid, algorithm="EdDSA", public_pem=pair.public_pem)
    jwk = dict(public_jwk(key))
    if private:
        jwk["d"] = jwk["x"]
    return json.dumps({"keys": [jwk]})


def test_the_tables_of_the_toolkit_have_no_page() -> None:
    for model in (OAuthAccessToken, OAuthIDToken, OAuthRefreshToken):
        assert not admin.site.is_registered(model)


@pytest.mark.parametrize(
    ("method", "kind", "secret"),
    [
        ("none", "public", False),
        ("client_secret_basic", "confidential", True),
        ("client_secret_post", "confidential", True),
        ("private_key_jwt", "confidential", False),
    ],
)
def test_a_client_is_added_with_an_id_and_a_secret(
    root: AdminBrowser, method: str, kind: str, secret: bool
) -> None:
    keys = jwks() if method == "private_key_jwt" else "{}"
    uris = "https://reports.example/cb http://127.0.0.1/cb"
    fields = {"redirect_uris": uris, "client_jwks": keys, "name": "Reports"}
    root.save(ADD, token_endpoint_auth_method=method, **fields)
    row = OAuthClient.objects.get()
    assert len(row.client_id) == 32 and row.client_type == kind
    assert row.registration_source == "manual" and row.verified
    assert row.authorization_grant_type == "authorization-code"
    assert row.grant_types == ["authorization_code", "refresh_token"]
    assert row.redirect_uris == uris
    marker = "Secret of Reports, shown only once: "
    assert (f'data-value="{row.client_id}"' in root.page.text) == secret
    assert (marker in root.page.text) == secret
    if secret:
        shown = root.page.text.split(marker)[1].split("<")[0].strip()
        assert len(shown) == 64 and check_password(shown, row.client_secret)
        assert shown not in root.open(row_url(OAuthClient, row)).page.text
        assert shown not in str(newest_event("client.added").changes)
    elif kind == "public":
        assert check_password("", row.client_secret)
    assert newest_event("client.added").object == "Reports"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"redirect_uris": "http://evil.example/cb"}, "use https"),
        ({"redirect_uris": "https://a.example https://b.example/#x"}, "fragment"),
        ({"grant_types": []}, "This field is required"),
        ({"grant_types": ["password"]}, "password is not one of the"),
        (
            {"token_endpoint_auth_method": "private_key_jwt"},
            "private_key_jwt needs public keys.",
        ),
        ({"client_jwks": '{"keys": [{"kty": "x"}]}'}, "client_jwks"),
        ({"redirect_uris": ""}, "authorization_code needs a redirect URI."),
        ({"grant_types": ["client_credentials"]}, "so it cannot use client_credent"),
        ({"grant_types": ["client_credentials"]}, "needs a service account."),
        ({"max_idle": "299"}, "greater than or equal to 300"),
        ({"networks": "10.0.0.0/99"}, "10.0.0.0/99"),
    ],
)
def test_the_rules_of_registration_apply(
    root: AdminBrowser, fields: dict[str, Any], text: str
) -> None:
    whole = {"name": "x", "redirect_uris": "https://x.example/cb", **fields}
    assert text in root.refused_save(ADD, **whole)
    assert not OAuthClient.objects.exists() and events_by(root.user) == []


@pytest.mark.parametrize("is_service_account", [True, False])
def test_a_client_of_a_service_account_is_changed(
    root: AdminBrowser, is_service_account: bool
) -> None:
    """It keeps its account, also one that a command chose."""
    robot = account("robot", is_service_account=is_service_account)
    row = confidential(
        "machine",
        service_account=robot,
        grant_types=["client_credentials"],
        authorization_grant_type="authorization-code",
        redirect_uris="",
    )
    root.save(row_url(OAuthClient, row), name="Machine")
    row.refresh_from_db()
    assert (row.name, row.service_account) == ("Machine", robot)
    text = root.refused_save(
        row_url(OAuthClient, row), token_endpoint_auth_method="none"
    )
    assert "has no secret" in text
    assert "Add this grant type" in root.refused_save(
        row_url(OAuthClient, row), grant_types=["refresh_token"]
    )


def test_a_refused_redirect_uri_is_not_missing_too(root: AdminBrowser) -> None:
    text = root.refused_save(ADD, name="x", redirect_uris="http://evil.example/cb")
    assert "needs a redirect URI" not in text


def test_private_keys_are_refused_once(root: AdminBrowser) -> None:
    """The missing keys are not reported beside the wrong ones."""
    text = root.refused_save(
        ADD,
        redirect_uris="https://x.example/cb",
        token_endpoint_auth_method="private_key_jwt",
        client_jwks=jwks(private=True),
    )
    assert "private_key_jwt needs public keys." not in text
    assert not OAuthClient.objects.exists()


def test_the_grants_offered_are_those_of_registration(root: AdminBrowser) -> None:
    text = root.open(ADD).page.text
    for grant in ("authorization_code", "refresh_token", "client_credentials"):
        assert f'value="{grant}"' in text
    assert 'value="password"' not in text and 'value="implicit"' not in text


def test_a_changed_client_keeps_its_id_and_secret(root: AdminBrowser) -> None:
    row = confidential("app", client_secret="s3cret", registration_source="manual")
    before = OAuthClient.objects.get().client_secret
    root.save(row_url(OAuthClient, row), name="New name")
    row.refresh_from_db()
    assert (row.client_id, row.client_secret) == ("app", before)
    assert newest_event("client.changed").changes == {"name": ["app", "New name"]}
    assert "shown only once" not in root.page.text
    root.save(row_url(OAuthClient, row), token_endpoint_auth_method="none")
    row.refresh_from_db()
    assert row.client_type == "public"


def test_the_button_of_a_clients_page_blocks_it(root: AdminBrowser) -> None:
    """It asks first, with numbers; the form has no such field."""
    alice = account("alice")
    row, other = client(), client("other")
    token, kept = add_token(alice, client_id="app"), add_token(alice, client_id="other")
    pending_code(alice, row)
    code = pending_code(alice, other)
    root.save(row_url(OAuthClient, row), name="still")
    root.open(row_url(OAuthClient, row))
    assert "blocked" not in root.form("_save").fields and is_live(token)
    root.submit(root.form("_selected_action"), "action")
    assert "revokes 1 active token" in root.page.text and is_live(token)
    root.submit(root.form("confirmed"))
    assert not is_live(token) and is_live(kept)
    assert list(OAuthGrant.objects.all()) == [code]
    assert [e for e in events_by(root.user) if e[2]] == [
        ("code.revoked", "authorization code of alice", "client blocked"),
        ("token.revoked", "access token of alice", "client blocked"),
    ]
    late = add_token(alice, client_id="app")
    root.save(row_url(OAuthClient, row), name="again")
    assert is_live(late) and OAuthClient.objects.get(pk=row.pk).blocked
    root.open(row_url(OAuthClient, row))
    root.submit(root.form("_selected_action"), "action")
    assert not OAuthClient.objects.get(pk=row.pk).blocked


@pytest.mark.parametrize("way", ["form", "action"])
def test_a_deleted_client_loses_its_access_first(root: AdminBrowser, way: str) -> None:
    alice, row = account("alice"), client()
    token, kept = add_token(alice, client_id="app"), add_token(alice)
    Consent.objects.create(user=alice, client=row, scope="mcp")
    pending_code(alice, row)
    if way == "form":
        root.delete(OAuthClient, row)
    else:
        root.run(OAuthClient, "delete_selected", row)
    assert not OAuthClient.objects.exists() and not OAuthGrant.objects.exists()
    assert not is_live(token) and is_live(kept)
    assert events_by(root.user) == [
        ("code.revoked", "authorization code of alice", "client deleted"),
        ("token.revoked", "access token of alice", "client deleted"),
        ("client.deleted", "app", ""),
    ]


def test_the_permission_to_delete_a_client_covers_its_rows(
    mallory: AdminBrowser,
) -> None:
    row = client()
    bert = account("bert", "Guest")
    Consent.objects.create(user=bert, client=row, scope="mcp")
    mallory.delete(OAuthClient, row)
    assert not OAuthClient.objects.exists()
    nobody = staff_member("nobody", "view_oauthclient")
    request: Any = type("Request", (), {"user": nobody})()
    _rows, _counts, needed, _kept = PAGE.get_deleted_objects([client()], request)
    assert needed == {"OAuth client"}


def test_a_client_with_tokens_of_users_above_is_not_deleted(
    mallory: AdminBrowser, carol: User
) -> None:
    row = client()
    token = add_token(carol, client_id="app")
    assert mallory.delete(OAuthClient, row).status_code == 403
    IssuedToken.objects.filter(pk=token.pk).update(expires_at=timezone.now())
    assert mallory.delete(OAuthClient, row).status_code == 200
    assert not OAuthClient.objects.exists()
    request: Any = type("Request", (), {"user": staff_member("vera")})()
    assert not PAGE.has_delete_permission(request)
    assert not PAGE.has_delete_permission(request, client("b"))


def test_switches_are_recorded_once_per_client(root: AdminBrowser) -> None:
    app, done = client(), client("done", blocked=True, approved=True)
    other = client("other")
    chosen = (app, done)
    assert "0 tokens revoked." in root.run(OAuthClient, "block", *chosen)
    root.run(OAuthClient, "approve", *chosen)
    for row in (app, done, other):
        row.refresh_from_db()
        assert row.blocked == row.approved == (row is not other)
    assert events_by(root.user) == [
        ("client.changed", "app", ""),
        ("client.approved", "app", ""),
    ]
    assert newest_event("client.changed").changes == {"blocked": [False, True]}
    root.run(OAuthClient, "unblock", *chosen, other)
    assert not OAuthClient.objects.filter(blocked=True).exists()
    assert newest_event("client.changed").changes == {"blocked": [True, False]}
    assert AuditEvent.objects.filter(action="client.changed").count() == 3


@pytest.mark.parametrize(
    ("action", "title"),
    [("block", "Block clients"), ("revoke_tokens", "Revoke tokens")],
)
def test_the_end_of_access_is_confirmed_with_a_reason(
    root: AdminBrowser, action: str, title: str
) -> None:
    app = client("app", name="Reports")
    token = add_token(account("alice"), client_id="app")
    page = root.run(OAuthClient, action, app, confirmed="no")
    for text in (title, "Reports", "1 active token", 'name="reason"'):
        assert text in page
    assert not RevokedToken.objects.filter(jti=token.jti).exists()
    root.run(OAuthClient, action, app, reason=" leaked ")
    assert RevokedToken.objects.get(jti=token.jti).reason == "leaked"


@pytest.mark.parametrize("action", ["block", "revoke_tokens"])
def test_access_through_the_selected_clients_ends(
    root: AdminBrowser, action: str
) -> None:
    alice, app, other = account("alice"), client(), client("other")
    token, kept = add_token(alice, client_id="app"), add_token(alice, client_id="other")
    pending_code(alice, app)
    code = pending_code(alice, other)
    assert "1 token revoked." in root.run(OAuthClient, action, app)
    assert not is_live(token) and is_live(kept)
    assert list(OAuthGrant.objects.all()) == [code]
    reason = "client blocked" if action == "block" else "client ended"
    assert events_by(root.user)[:2] == [
        ("code.revoked", "authorization code of alice", reason),
        ("token.revoked", "access token of alice", reason),
    ]
    app.refresh_from_db()
    assert app.blocked == (action == "block")


@pytest.mark.parametrize("action", ["block", "revoke_tokens"])
def test_tokens_of_users_above_stay(
    mallory: AdminBrowser, carol: User, action: str
) -> None:
    app = client()
    above = add_token(carol, client_id="app")
    below = add_token(account("bert", "Guest"), client_id="app")
    page = mallory.run(OAuthClient, action, app)
    assert "1 token belongs to a user with more permissions" in page
    assert "1 token revoked." in page and is_live(above) and not is_live(below)


@pytest.mark.parametrize("action", PAGE.actions)
def test_a_client_of_a_user_above_stays_unchanged(
    mallory: AdminBrowser, carol: User, action: str
) -> None:
    acting = confidential("robot", service_account=carol, blocked=action == "unblock")
    plain = confidential("plain", blocked=action == "unblock")
    token = add_token(account("bert", "Guest"), client_id="robot")
    before = OAuthClient.objects.filter(pk=acting.pk).values().get()
    page = mallory.run(OAuthClient, action, acting, plain)
    assert "robot: The client acts as carol, who has more permissions than you" in page
    assert OAuthClient.objects.filter(pk=acting.pk).values().get() == before
    assert is_live(token)
    named = {event[1] for event in events_by(mallory.user)}
    assert named == (set() if action == "revoke_tokens" else {"plain"})
    assert mallory.post(row_url(OAuthClient, acting), name="x").status_code == 403


def test_secrets_are_rotated_for_clients_that_have_one(root: AdminBrowser) -> None:
    public, secret = client("public"), confidential("secret")
    nameless = confidential("nameless", name="")
    page = root.run(OAuthClient, "rotate_secret", public, secret, nameless)
    for known in ("secret", "nameless"):
        shown = page.split(f"Secret of {known}, shown only once: ")[1]
        row = OAuthClient.objects.get(client_id=known)
        assert check_password(shown.split("<")[0].strip(), row.client_secret)
        assert identify_hasher(row.client_secret)
    assert "Secret of public" not in page
    found = sorted(events_by(root.user))
    assert [event[0] for event in found] == ["client.secret_rotated"] * 2


LIMITS = [
    ("networks", "10.0.0.0/8", "10.1.0.0/16", False),
    ("networks", "10.0.0.0/8", "10.0.0.0/8", False),
    ("networks", "10.0.0.0/8", "", True),
    ("networks", "10.0.0.0/8", "10.0.0.0/8 192.0.2.0/24", True),
    ("networks", "", "10.0.0.0/8", False),
    ("max_idle", 900, "900", False),
    ("max_idle", 900, "899", False),
    ("max_idle", 900, "901", True),
    ("max_idle", 900, "", True),
    ("max_idle", None, "900", False),
]


@pytest.mark.parametrize(("name", "before", "after", "looser"), LIMITS)
def test_limits_are_loosened_by_users_above_its_people(
    mallory: AdminBrowser,
    root: AdminBrowser,
    name: str,
    before: Any,
    after: str,
    looser: bool,
) -> None:
    """carol has a token of the client; tightening needs no rank."""
    row = client(**{name: before})
    add_token(account("carol", is_superuser=True), client_id="app")
    path = row_url(OAuthClient, row)
    if looser:
        text = mallory.refused_save(path, **{name: after})
        assert "Users with more permissions than you have tokens of this" in text
        row.refresh_from_db()
        assert getattr(row, name) == before
        root.save(path, **{name: after})
    else:
        mallory.save(path, **{name: after})
    row.refresh_from_db()
    assert str(getattr(row, name) or "") == after


def test_limits_of_clients_without_people_above_may_be_loosened(
    mallory: AdminBrowser,
) -> None:
    row = client(networks="10.0.0.0/8", max_idle=900)
    add_token(account("bert", "Guest"), client_id="app")
    mallory.save(row_url(OAuthClient, row), networks="", max_idle="")
    row.refresh_from_db()
    assert (row.networks, row.max_idle) == ("", None)


def test_service_accounts_within_ones_rights_are_offered(
    mallory: AdminBrowser, root: AdminBrowser
) -> None:
    account("alice", "Guest")
    account("weak", "Guest", is_service_account=True)
    account("strong", "User", is_service_account=True)
    for browser, offered in ((mallory, {"weak"}), (root, {"weak", "strong"})):
        text = browser.open(ADD).page.text
        names = {n for n in ("alice", "weak", "strong") if f">{n}</option>" in text}
        assert names == offered


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        ({"blocked": True, "approved": True}, "bad blocked"),
        ({"approved": True}, "good verified"),
        ({"registration_source": "manual"}, "good verified"),
        ({}, "warn unverified (self-registered)"),
    ],
)
def test_the_status_is_that_of_the_consent_page(
    columns: dict[str, Any], shown: str
) -> None:
    look, text = shown.split(" ", 1)
    badge = PAGE.standing(client(**columns))
    assert badge == f'<span class="badge {look}">{text}</span>'
    assert PAGE.standing(OAuthClient(approved=True)) == "-"


def test_names_and_addresses_of_clients_are_escaped(root: AdminBrowser) -> None:
    evil = "<script>alert(1)</script>"
    row = client(name=evil, redirect_uris=f"app:/{evil} https://x.example/cb")
    text = root.open(list_url(OAuthClient)).page.text
    assert evil not in text and "&lt;script&gt;" in text
    assert PAGE.returns_to(row).count("<br>") == 1
    assert PAGE.returns_to(OAuthClient(redirect_uris="")) == (
        '<span class="badge ">-</span>'
    )


def test_the_list_counts_and_links_the_people(root: AdminBrowser) -> None:
    row, other = client(), client("other")
    for name in ("alice", "bob"):
        Consent.objects.create(user=account(name), client=row, scope="mcp")
    rows = {row.client_id: row for row in PAGE.get_queryset(None)}
    link = PAGE.people(rows["app"])
    query = f"client__id__exact={row.pk}"
    assert link == f'<a href="{list_url(Consent)}?{query}">2</a>'
    assert PAGE.people(rows["other"]) == "0" == PAGE.people(other)
    assert "alice" in root.open(f"{list_url(Consent)}?{query}").page.text


HOSTS = "/admin/accounts/documenthost/"


def documented(host: str = "agents.example", **columns: Any) -> OAuthClient:
    path = f"https://{host}/client.json"
    return client(path, registration_source="cimd", **columns)


@pytest.mark.parametrize("trusted", ["on", None])
def test_a_refused_host_ends_the_access_of_its_clients(
    root: AdminBrowser, trusted: str | None
) -> None:
    alice = account("alice")
    row, other = documented(), documented("other.example")
    token, kept = (add_token(alice, client_id=c.client_id) for c in (row, other))
    pending_code(alice, row)
    root.save(f"{HOSTS}add/", host="Agents.Example.", trusted=trusted)
    host = DocumentHost.objects.get()
    assert (host.host, host.trusted) == ("agents.example", trusted == "on")
    assert is_live(kept) and is_live(token) == (trusted == "on")
    assert OAuthGrant.objects.exists() == (trusted == "on")
    found = events_by(root.user)
    assert found[-1][:2] == ("document_host.added", "agents.example")
    assert {e[2] for e in found[:-1]} == ({"host refused"} if not trusted else set())
    root.save(row_url(DocumentHost, host), trusted=None)
    assert not is_live(token) and is_live(kept)


@pytest.mark.parametrize("host", ["AGENTS.example", "agents.example."])
def test_a_host_of_a_client_of_a_user_above_is_refused(
    mallory: AdminBrowser, carol: User, host: str
) -> None:
    documented(service_account=carol)
    for trusted in ("on", None):
        text = mallory.refused_save(f"{HOSTS}add/", host=host, trusted=trusted)
        assert "The client acts as carol" in text
    assert not DocumentHost.objects.exists()
    row = DocumentHost.objects.create(host="agents.example")
    assert mallory.post(row_url(DocumentHost, row), host="x").status_code == 403
    assert mallory.delete(DocumentHost, row).status_code == 403
    free = DocumentHost.objects.create(host="free.example")
    text = mallory.refused_save(row_url(DocumentHost, free), host=host)
    assert "The client acts as carol" in text
    mallory.save(row_url(DocumentHost, free), host="freer.example")
    mallory.delete(DocumentHost, free)
    assert list(DocumentHost.objects.all()) == [row]
    assert [event[:2] for event in events_by(mallory.user)] == [
        ("document_host.changed", "freer.example"),
        ("document_host.deleted", "freer.example"),
    ]


@pytest.mark.parametrize("model", [Consent, OAuthGrant])
def test_consents_and_codes_are_viewed_only(root: AdminBrowser, model: Any) -> None:
    alice, app = account("alice"), client()
    Consent.objects.create(user=alice, client=app, scope="mcp")
    pending_code(alice, app)
    row = model.objects.get()
    assert root.open(f"{list_url(model)}?q=alice").page.status_code == 200
    assert root.open(row_url(model, row)).page.status_code == 200
    assert "alice" in root.page.text
    code = OAuthGrant.objects.get().code
    assert code not in root.page.text
    assert root.delete(model, row).status_code == 403
    page: Any = admin.site.get_model_admin(model)
    assert "code" not in {*(page.fields or ()), *page.list_display}


def test_only_service_accounts_are_limited(root: AdminBrowser) -> None:
    account("alice")
    request: Any = type("Request", (), {"user": root.user, "GET": {}})()
    for name, count in (("service_account", 0), ("user", 2)):
        field = PAGE.formfield_for_foreignkey(
            OAuthClient._meta.get_field(name), request
        )
        assert field.queryset.count() == count, name


def test_a_client_needs_a_name_and_what_its_grants_need(root: AdminBrowser) -> None:
    """Nothing is saved that nobody could use."""
    assert "This field is required." in root.refused_save(ADD, name=" ")
    fields = {"name": "x", "grant_types": ["client_credentials"]}
    text = root.refused_save(ADD, **fields)
    assert "client_credentials needs a service account." in text
    assert not OAuthClient.objects.exists()
    nameless = confidential("self", name="", registration_source="dcr")
    root.save(row_url(OAuthClient, nameless), redirect_uris="https://a.example/cb")
