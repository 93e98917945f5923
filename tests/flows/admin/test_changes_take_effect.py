"""A change saved in the admin applies to the next message of an open client."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone

from accounts.models import (
    AuditEvent,
    IssuedToken,
    RevokedToken,
    Role,
    RoleAssignment,
    Scope,
    SigningKey,
    User,
)
from mcp_bridge.models import Primitive
from tests.support.html_browser import CHEAP, Browser
from tests.support.mcp_client import ERAS_ONCE, McpClient, mcp_client
from tests.support.server import Portico
from tests.support.users import PASSWORD, make_user, public_client

pytestmark = [pytest.mark.postgresql, pytest.mark.usefixtures("default_users")]
USERS, ROLES = "/admin/accounts/user/", "/admin/accounts/role/"
TOKENS, REVOKED = "/admin/accounts/issuedtoken/", "/admin/accounts/revokedtoken/"
KEYS, PRIMITIVES = "/admin/accounts/signingkey/", "/admin/mcp_bridge/primitive/"


@pytest.fixture(scope="module")
def browser(server: Portico) -> Iterator[Browser]:
    with server.in_process() as opened:
        yield opened


@pytest.fixture
def carol(browser: Browser, default_users: None) -> Browser:
    """carol, signed in to the admin; once, unless a test has signed her out."""
    if "/login/" in str(browser.open(CHEAP).page.url):
        browser.sign_in("carol")
        assert "Signing keys" in browser.open("/admin/").page.text
    return browser


@pytest.fixture(params=ERAS_ONCE)
def client(request: Any, server: Portico, default_users: None) -> McpClient:
    """alice's client, connected before the changes."""
    connected = mcp_client(server, "alice", request.param)
    assert connected.allowed("look")
    return connected


def user_page(name: str) -> str:
    """The admin page of a user."""
    return f"{USERS}{User.objects.get(username=name).pk}/change/"


def primitive_page(name: str) -> str:
    """The admin page of a primitive."""
    return f"{PRIMITIVES}{Primitive.objects.get(name=name).pk}/change/"


def inline(prefix: str, **fields: Any) -> dict[str, Any]:
    """Fields of one line of the roles on a user's page."""
    return {f"role_assignments-{prefix}-{name}": v for name, v in fields.items()}


def test_a_user_deactivated(carol: Browser, client: McpClient) -> None:
    """Valid tokens stop working and stay revoked after reactivation."""
    carol.save(user_page("alice"), is_active=None)
    assert client.call("look").status_code == 401
    carol.save(user_page("alice"), is_active="on")
    assert client.call("look").status_code == 401, "deactivating revokes"


def test_an_assignment_removed(carol: Browser, client: McpClient) -> None:
    """Without a role the tokens end too."""
    carol.save(user_page("alice"), **inline("0", DELETE="on"))
    assert client.call("look").status_code == 401
    assert not RoleAssignment.objects.filter(user__username="alice").exists()


def test_one_of_two_assignments_removed(carol: Browser, server: Portico) -> None:
    """The token stays valid; the tool disappears."""
    make_user("erin", "Admin", "User")
    client = mcp_client(server, "erin")
    assert client.allowed("rule") and client.allowed("look")
    carol.save(user_page("erin"), **inline("0", DELETE="on"))
    assert "Unknown tool: rule" in client.call("rule").text
    assert client.allowed("look")


def test_an_assignment_added(carol: Browser, client: McpClient) -> None:
    assert not client.allowed("rule") and "rule" not in client.tools()
    admin = str(Role.objects.get(name="Admin").pk)
    carol.save(
        user_page("alice"),
        **{"role_assignments-TOTAL_FORMS": "2"},
        **inline("1", role=admin, reason="stand-in", id=""),
    )
    assert client.allowed("rule") and "rule" in client.tools()
    assignment = RoleAssignment.objects.get(user__username="alice", role__name="Admin")
    assert assignment.granted_by == User.objects.get(username="carol")
    assert assignment.reason == "stand-in"


def test_an_assignment_that_ends(carol: Browser, client: McpClient) -> None:
    """An assignment ends on time without a write."""
    past = timezone.now() - timedelta(hours=1)
    end = inline("0", expires_at_0=f"{past:%Y-%m-%d}", expires_at_1=f"{past:%H:%M:%S}")
    carol.save(user_page("alice"), **end)
    assert "Unknown tool: look" in client.call("look").text
    later = past + timedelta(days=2)
    end = inline("0", expires_at_0=f"{later:%Y-%m-%d}", expires_at_1="00:00:00")
    carol.save(user_page("alice"), **end)
    assert client.allowed("look")


def test_a_scope_removed_from_a_role(carol: Browser, client: McpClient) -> None:
    role = Role.objects.get(name="User")
    before = [str(pk) for pk in role.scopes.values_list("pk", flat=True)]
    read = str(Scope.objects.get(name="User.Read").pk)
    page = f"{ROLES}{role.pk}/change/"
    carol.save(page, scopes=[pk for pk in before if pk != read])
    assert "Unknown tool: look" in client.call("look").text
    carol.save(page, scopes=before)
    assert client.allowed("look")


def test_required_scopes_of_a_primitive(carol: Browser, client: McpClient) -> None:
    look = Primitive.objects.get(name="look")
    before = [str(pk) for pk in look.required_scopes.values_list("pk", flat=True)]
    admin = str(Scope.objects.get(name="Admin.Write").pk)
    carol.save(primitive_page("look"), required_scopes=[admin])
    assert "Unknown tool: look" in client.call("look").text
    carol.save(primitive_page("look"), required_scopes=[])
    assert "Unknown tool: look" in client.call("look").text
    carol.save(primitive_page("look"), required_scopes=before)
    assert client.allowed("look")


def test_a_primitive_disabled(carol: Browser, client: McpClient) -> None:
    carol.save(primitive_page("look"), enabled=None)
    assert "Unknown tool: look" in client.call("look").text
    assert "look" not in client.tools()
    carol.save(primitive_page("look"), enabled="on")
    assert client.allowed("look") and "look" in client.tools()


def test_a_primitive_made_sensitive(carol: Browser, client: McpClient) -> None:
    carol.save(primitive_page("look"), sensitive="on")
    assert client.call("look").status_code == 403
    carol.save(primitive_page("look"), sensitive=None)
    assert client.allowed("look")


def test_primitives_disabled_by_an_action(carol: Browser, client: McpClient) -> None:
    key = Primitive.objects.get(name="look").pk
    carol.act(PRIMITIVES, "disable", key)
    assert not client.allowed("look")
    carol.act(PRIMITIVES, "enable", key)
    assert client.allowed("look")


def test_a_token_revoked_in_the_list(
    carol: Browser, client: McpClient, server: Portico
) -> None:
    """The token stops working at once; other tokens are unaffected."""
    other = mcp_client(server, "alice")
    jti = jti_of(client)
    carol.act(TOKENS, "revoke", IssuedToken.objects.get(jti=jti).pk)
    assert "1 token revoked" in carol.page.text
    assert client.call("look").status_code == 401
    assert other.allowed("look")


def jti_of(client: McpClient) -> str:
    """The id of a client's token."""
    with client.server.settings():
        from accounts.tokens.jwts import verify

        return str(verify(client.token)["jti"])


@pytest.mark.parametrize("pasted", ["token", "jti"])
def test_a_token_revoked_by_pasting(
    carol: Browser, client: McpClient, pasted: str
) -> None:
    """The form accepts a token or its id."""
    text = {"token": f"Bearer {client.token}", "jti": jti_of(client)}[pasted]
    carol.save(f"{REVOKED}add/", token_or_id=text, reason="leaked")
    assert client.call("look").status_code == 401
    row = RevokedToken.objects.get(jti=jti_of(client))
    assert (row.revoked_by, row.reason) == ("carol", "leaked")
    for words, shown in ((row.jti[:12], True), ("carol", True), ("nobody", False)):
        assert (row.jti in carol.open(f"{REVOKED}?q={words}").page.text) is shown


@pytest.mark.parametrize("text", ["nonsense", "0" * 32, "a.b.c"])
def test_pasting_an_invalid_token_is_explained(carol: Browser, text: str) -> None:
    """The error keeps the entered text."""
    with pytest.raises(AssertionError, match="token"):
        carol.save(f"{REVOKED}add/", token_or_id=text, reason="kept")
    assert 'value="kept"' in carol.page.text


def test_all_tokens_matching_the_filter_revoked(
    carol: Browser, server: Portico
) -> None:
    make_user("frank", "User")
    clients = [mcp_client(server, "frank") for _ in range(3)]
    bystander = mcp_client(server, "alice")
    one = IssuedToken.objects.get(jti=jti_of(clients[0])).pk
    carol.act(f"{TOKENS}?q=frank", "revoke", one, everything=True)
    assert [c.call("look").status_code for c in clients] == [401] * 3
    assert bystander.allowed("look")


@pytest.mark.parametrize(
    "action", ["revoke_families", "revoke_users", "revoke_clients"]
)
def test_tokens_revoked_by_what_they_share(
    carol: Browser, server: Portico, action: str
) -> None:
    """Covers a user, a client and a refresh family."""
    make_user("grace", "User")
    pair = server.issued("grace", client_id=public_client("shared-client"))
    client = McpClient(server, pair.access)
    assert client.allowed("look")
    assert pair.refresh_row is not None
    carol.act(TOKENS, action, pair.refresh_row.pk)
    assert client.call("look").status_code == 401


def test_all_tokens_of_users_revoked(carol: Browser, client: McpClient) -> None:
    carol.act(USERS, "revoke_tokens", User.objects.get(username="alice").pk)
    assert client.call("look").status_code == 401


def test_users_deactivated_by_an_action(carol: Browser, client: McpClient) -> None:
    carol.act(USERS, "deactivate", User.objects.get(username="alice").pk)
    assert client.call("look").status_code == 401


def test_a_user_deleted(carol: Browser, server: Portico) -> None:
    """The list keeps the tokens of a deleted account."""
    heidi = make_user("heidi", "User")
    client = mcp_client(server, "heidi")
    carol.open(f"{USERS}{heidi.pk}/delete/").submit(carol.form("post"), post="yes")
    assert not User.objects.filter(username="heidi").exists()
    assert client.call("look").status_code == 401
    row = IssuedToken.objects.get(jti=jti_of(client))
    assert (row.username, row.state) == ("heidi", "revoked")


def test_a_password_changed(carol: Browser, server: Portico) -> None:
    """All access of the account ends, and the audit names the actor."""
    ivan = make_user("ivan", "User")
    client = mcp_client(server, "ivan")
    carol.open(f"{USERS}{ivan.pk}/password/")
    form = carol.form("password1")
    carol.submit(form, password1="another-horse-8", password2="another-horse-8")
    assert client.call("look").status_code == 401
    event = AuditEvent.objects.filter(action="user.password_changed")[0]
    assert (event.actor, event.object) == ("carol", "ivan")
    assert event.address == "127.0.0.1"


def test_a_signing_key_rotated_and_retired(carol: Browser, server: Portico) -> None:
    """Rotation keeps old tokens, retiring a key ends them."""
    client = mcp_client(server, "alice")
    old = SigningKey.objects.get(state="active")
    carol.open(KEYS)
    rotate = next(f for f in carol.forms if f.action.endswith("/rotate/"))
    carol.submit(rotate)
    assert SigningKey.objects.get(kid=old.kid).state == "retiring"
    assert client.allowed("look") and mcp_client(server, "alice").allowed("look")
    kids = {k["kid"] for k in carol.http.get("/oauth/jwks.json").json()["keys"]}
    assert old.kid in kids
    carol.act(KEYS, "retire", SigningKey.objects.get(state="active").pk)
    assert "Rotate the key first" in carol.page.text
    carol.act(KEYS, "retire", old.pk)
    assert client.call("look").status_code == 401
    kids = {k["kid"] for k in carol.http.get("/oauth/jwks.json").json()["keys"]}
    assert old.kid not in kids


@pytest.mark.once
def test_admin_changes_are_audited(carol: Browser, client: McpClient) -> None:
    """The event has actor, old and new value."""
    carol.save(primitive_page("look"), sensitive="on")
    carol.save(primitive_page("look"), sensitive=None)
    event = AuditEvent.objects.filter(action="primitive.changed")[1]
    assert (event.actor, event.changes) == ("carol", {"sensitive": [False, True]})
    carol.save(user_page("alice"), **inline("0", reason="because"))
    event = AuditEvent.objects.filter(action="role.extended")[0]
    assert (event.actor, event.object) == ("carol", "alice has User")


@pytest.mark.once
def test_sign_ins_are_audited(server: Portico) -> None:
    with Browser(server.url) as browser:
        browser.sign_in("carol", "wrong")
        browser.sign_in("carol")
    last = AuditEvent.objects.filter(action__startswith="user.sign")[:2]
    assert [(e.action, e.object) for e in last] == [
        ("user.signed_in", "carol"),
        ("user.sign_in_failed", "carol"),
    ]


READ_ONLY = [
    (TOKENS, IssuedToken),
    ("/admin/accounts/auditevent/", AuditEvent),
    (KEYS, SigningKey),
]


@pytest.mark.once
@pytest.mark.parametrize(("path", "model"), READ_ONLY)
def test_tokens_keys_and_events_cannot_be_edited(
    carol: Browser, client: McpClient, path: str, model: Any
) -> None:
    key = model.objects.order_by("pk").first().pk
    for page in (f"{path}add/", f"{path}{key}/delete/"):
        assert carol.open(page).page.status_code == 403
    carol.open(f"{path}{key}/change/")
    assert carol.page.status_code == 200
    assert all("_save" not in [b[0] for b in form.buttons] for form in carol.forms)
    token = carol.http.cookies.get("csrftoken")
    headers = {"referer": f"{client.server.url}{path}", "x-csrftoken": token or ""}
    post = carol.http.post(f"{path}{key}/change/", data={"_save": "1"}, headers=headers)
    assert post.status_code == 403


def test_every_list_and_page_of_the_admin_opens(
    carol: Browser, server: Portico
) -> None:
    """Search and filters are included; none answers 500."""
    assert mcp_client(server, "alice").allowed("look")
    index = carol.open("/admin/").page.text
    links = [p for p in index.split('"') if p.startswith("/admin/")]
    lists = {p for p in links if p.count("/") == 4 and p.endswith("/")}
    assert len(lists) >= 8
    for path in lists:
        for query in ("?q=alice&o=1", "?e=1"):
            assert carol.open(path + query).page.status_code == 200, path + query
    for query in ("state=active", "state=revoked", "state=expired", "kind=refresh"):
        assert carol.open(f"{TOKENS}?{query}").page.status_code == 200
    for path in (f"{USERS}add/", f"{ROLES}add/", user_page("alice")):
        assert carol.open(path).page.status_code == 200


@pytest.mark.once
def test_staff_without_permission_cannot_revoke(server: Portico) -> None:
    from django.contrib.auth.models import Permission

    judy = make_user("judy", admin=True)
    judy.is_superuser = False
    judy.save()
    judy.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    client = mcp_client(server, "alice")
    key = IssuedToken.objects.get(jti=jti_of(client)).pk
    signing = SigningKey.objects.get(state="active")
    with Browser(server.url) as browser:
        browser.sign_in("judy", PASSWORD)
        page = browser.open(TOKENS).page
        assert page.status_code == 200 and 'value="revoke"' not in page.text
        token = browser.http.cookies.get("csrftoken") or ""
        sent = {"action": "revoke", "_selected_action": str(key)}
        headers = {"referer": f"{server.url}{TOKENS}", "x-csrftoken": token}
        browser.http.post(TOKENS, data=sent, headers=headers)
        browser.http.post(f"{KEYS}rotate/", data={}, headers=headers)
    assert client.allowed("look")
    assert SigningKey.objects.get(state="active") == signing


def waits_for_a_lock() -> bool:
    """Whether another connection waits for a lock of this one."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return bool(cursor.fetchone()[0])


@pytest.mark.skipif("connection.vendor == 'sqlite'", reason="one writer at a time")
def test_a_user_deleted_during_sign_in(carol: Browser, server: Portico) -> None:
    """The deletion waits for the sign-in and revokes the new token."""
    erin = make_user("erin", "User")
    page = f"{USERS}{erin.pk}/delete/"
    carol.http.headers["accept"] = "text/html"
    carol.open(page)
    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            server.token("erin")
            deleted = pool.submit(carol.submit, carol.form("post"))
            while not waits_for_a_lock():
                assert not deleted.done(), carol.page.text
        deleted.result()
    assert carol.page.status_code == 200
    assert not User.objects.filter(username="erin").exists()
    assert not IssuedToken.objects.filter(username="erin").live().exists()
