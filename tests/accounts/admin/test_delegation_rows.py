"""Which rows staff may change: what each rule refuses and allows."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from axes.models import AccessAttempt
from django.contrib.auth.models import Permission
from django.utils import timezone

from accounts.models import (
    AccessRequest,
    DocumentHost,
    IssuedToken,
    OAuthClient,
    Role,
    RoleAssignment,
    Scope,
    SigningKey,
    User,
)
from tests.support.admin_browser import AdminBrowser
from tests.support.delegation_scene import (
    HOST,
    add_tokens,
    set_up,
    staff,
    token_of,
)
from tests.support.html_browser import Browser
from tests.support.users import make_user

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("sample_rows")]
ADMIN = "/admin/accounts"
CLIENTS, USERS = f"{ADMIN}/oauthclient/", f"{ADMIN}/user/"


@pytest.fixture
def sample_rows(db: None) -> None:
    set_up()


@pytest.fixture
def mallory(sample_rows: None) -> Browser:
    """Every Django permission, the role Guest, no superuser."""
    add_tokens()
    return browser_for("mallory")


@pytest.fixture
def henry(sample_rows: None) -> Browser:
    """In the group Helpdesk, without a role."""
    staff("henry", group="Helpdesk")
    return browser_for("henry")


def browser_for(name: str) -> Browser:
    """In which this user is signed in."""
    return AdminBrowser(User.objects.get(username=name))


def current_row(model: Any, **which: Any) -> Any:
    """The current row."""
    return model.objects.get(**which)


def live_tokens(name: str) -> int:
    """The number of a user's valid tokens."""
    return IssuedToken.objects.filter(username=name).live().count()


@pytest.mark.parametrize("action", ["block", "unblock", "approve", "rotate_secret"])
def test_a_client_is_changed_only_by_users_with_its_rights(
    mallory: Browser, action: str
) -> None:
    """Clients that act for superusers stay unchanged; others can be changed."""
    blocked = action == "unblock"
    OAuthClient.objects.filter(service_account__username="carol").update(
        blocked=blocked, approved=False
    )
    OAuthClient.objects.filter(client_id="in-the-office").update(
        blocked=blocked, approved=False
    )
    columns = ("client_id", "blocked", "approved", "client_secret")
    before = {row[0]: row[1:] for row in OAuthClient.objects.values_list(*columns)}
    keys = list(OAuthClient.objects.values_list("pk", flat=True))
    mallory.act(CLIENTS, action, *keys)
    assert "The client acts as carol, who has more permissions" in mallory.page.text
    after = {row[0]: row[1:] for row in OAuthClient.objects.values_list(*columns)}
    above = {"acts-as-carol", f"https://{HOST}/client.json"}
    assert {known: after[known] for known in above} == {c: before[c] for c in above}
    assert after["in-the-office"] != before["in-the-office"]
    OAuthClient.objects.update(blocked=False)


def test_a_client_is_deleted_by_those_who_may_end_its_tokens(mallory: Browser) -> None:
    for known in ("acts-as-carol", f"https://{HOST}/client.json", "in-the-office"):
        key = current_row(OAuthClient, client_id=known).pk
        mallory.open(f"{CLIENTS}{key}/delete/")
        assert mallory.page.status_code == 403, known
    assert live_tokens("carol") and IssuedToken.objects.filter(
        client_id="in-the-office"
    )
    idle = OAuthClient.objects.create(client_id="idle", name="Idle")
    mallory.open(f"{CLIENTS}{idle.pk}/delete/")
    mallory.submit(mallory.form("post"), post="yes")
    assert not OAuthClient.objects.filter(client_id="idle").exists()


def test_limits_of_a_client_are_removed_by_users_above_its_people(
    mallory: Browser,
) -> None:
    """carol has tokens of it for the office only; adding limits is allowed."""
    client = current_row(OAuthClient, client_id="in-the-office")
    path = f"{CLIENTS}{client.pk}/change/"
    form = mallory.open(path).form("_save")
    for networks in ("", "10.0.0.0/8", "10.99.0.0/16 192.0.2.0/24"):
        mallory.submit(form, "_save", networks=networks)
        assert (
            "Users with more permissions than you have tokens of" in mallory.page.text
        )
    client.refresh_from_db()
    assert client.networks == "10.99.0.0/16"
    mallory.save(path, networks="10.99.7.0/24", max_idle="900")
    form = mallory.open(path).form("_save")
    for idle in ("", "901"):
        mallory.submit(form, "_save", max_idle=idle)
        assert (
            "Users with more permissions than you have tokens of" in mallory.page.text
        )
    client.refresh_from_db()
    assert (client.networks, client.max_idle) == ("10.99.7.0/24", 900)


def test_a_document_host_is_blocked_by_users_above_its_clients(
    mallory: Browser,
) -> None:
    """Blocking the host stops a client that acts as carol."""
    path = f"{ADMIN}/documenthost/"
    for written in (HOST, HOST.upper(), f"{HOST}."):
        form = mallory.open(f"{path}add/").form("_save")
        mallory.submit(form, "_save", host=written, trusted=None)
        assert "The client acts as carol" in mallory.page.text
    assert not DocumentHost.objects.filter(host=HOST).exists()
    host = DocumentHost.objects.create(host=HOST, trusted=True)
    mallory.open(f"{path}{host.pk}/change/")
    assert "_save" not in [b[0] for form in mallory.forms for b in form.buttons]
    assert mallory.open(f"{path}{host.pk}/delete/").page.status_code == 403
    mallory.save(f"{path}add/", host="other.example")
    assert DocumentHost.objects.filter(host="other.example").exists()
    DocumentHost.objects.all().delete()


def test_scopes_are_renamed_and_deleted_by_superusers(mallory: Browser) -> None:
    """A user may change neither scopes they have nor scopes of others."""
    unused = Scope.objects.create(name="unused.scope")
    for name in ("Payroll.Read", "Guest.Read", "Admin.Write", "unused.scope"):
        scope = current_row(Scope, name=name)
        assert mallory.open(f"{ADMIN}/scope/{scope.pk}/delete/").page.status_code == 403
        mallory.open(f"{ADMIN}/scope/{scope.pk}/change/")
        assert "_save" not in [b[0] for form in mallory.forms for b in form.buttons]
        mallory.act(f"{ADMIN}/scope/", "delete_selected", scope.pk)
        for form in [form for form in mallory.forms if "post" in form.fields]:
            mallory.submit(form, post="yes", action="delete_selected")
        assert Scope.objects.filter(name=name).exists()
    unused.delete()


def test_roles_of_superusers_and_providers_stay_unchanged(mallory: Browser) -> None:
    """A role's scopes belong to its users; a provider's rules use their role."""
    for name in ("Ruled", "Payroll", "Guest", "Admin"):
        mallory.open(f"{ADMIN}/role/{current_row(Role, name=name).pk}/change/")
        buttons = [b[0] for form in mallory.forms for b in form.buttons]
        assert "_save" not in buttons, name
    empty = current_row(Role, name="Empty")
    path = f"{ADMIN}/role/{empty.pk}"
    assert mallory.open(f"{path}/delete/").page.status_code == 403
    keys = [str(current_row(Scope, name="Guest.Read").pk)]
    mallory.save(f"{path}/change/", scopes=keys, description="within her own")
    assert list(empty.scopes.values_list("name", flat=True)) == ["Guest.Read"]


def test_a_right_limited_to_networks_is_not_granted_without_them() -> None:
    """otto has User.Read in the office only, and manages roles there."""
    staff("otto", "Office", "Guest", everything=True)
    current_row(Role, name="Empty").scopes.clear()
    pk = str(current_row(Scope, name="User.Read").pk)
    path = f"{ADMIN}/role/{current_row(Role, name='Empty').pk}/change/"
    make_user("olga", "Guest")
    browser = browser_for("otto")
    form = browser.open(path).form("_save")
    for networks in ("", "10.0.0.0/8", "10.99.0.0/16 192.0.2.1"):
        browser.submit(form, "_save", scopes=[pk], networks=networks)
        assert "You do not have User.Read yourself" in browser.page.text
    assert not current_row(Role, name="Empty").scopes.exists()
    browser.save(path, scopes=[pk], networks="10.99.1.0/24")
    fields = {"user": "olga", "role": str(current_row(Role, name="User").pk)}
    form = browser.open(f"{ADMIN}/roleassignment/add/").form("_save")
    browser.submit(form, "_save", **fields)
    assert "You do not have" in browser.page.text
    fields["role"] = str(current_row(Role, name="Empty").pk)
    browser.save(f"{ADMIN}/roleassignment/add/", **fields)
    assert RoleAssignment.objects.filter(user__username="olga", role__name="Empty")


def test_the_helpdesk_ends_no_access_of_administrators(
    henry: Browser,
) -> None:
    """By user, token, client, session or pasted id; the owner may still end it."""
    for name in ("carol", "alice"):
        token_of(name)
    carol, alice = (
        current_row(User, username="carol"),
        current_row(User, username="alice"),
    )
    before = live_tokens("carol")
    henry.act(USERS, "revoke_tokens", carol.pk, alice.pk)
    assert "these users have more permissions than you: carol" in henry.page.text
    assert live_tokens("carol") == before and live_tokens("alice") == 0
    for action in ("revoke", "revoke_families", "revoke_clients", "revoke_users"):
        for name in ("carol", "alice"):
            token_of(name)
        chosen = IssuedToken.objects.filter(username__in=("carol", "alice")).live()
        before = live_tokens("carol")
        henry.act(f"{ADMIN}/issuedtoken/", action, *chosen.values_list("pk", flat=True))
        assert live_tokens("carol") == before and live_tokens("alice") == 0, action
    pair = token_of("carol")
    form = henry.open(f"{ADMIN}/revokedtoken/add/").form("_save")
    for pasted in (pair.row.jti, pair.row.jti.upper(), f"Bearer {pair.row.jti}"):
        henry.submit(form, "_save", token_or_id=pasted)
        assert "carol has more permissions than you" in henry.page.text
    assert pair.row.jti in set(IssuedToken.objects.live().values_list("jti", flat=True))
    raw, before = token_of("carol").access, live_tokens("carol")
    henry.submit(form, "_save", token_or_id=raw)
    assert live_tokens("carol") < before


ENDING = {
    "form": "the page that deletes one",
    "delete_selected": "the action that deletes",
    "end_now": "the action that ends",
}


def take_role(browser: Browser, way: str, key: int) -> None:
    """Take a role away in the admin."""
    path = f"{ADMIN}/roleassignment/"
    if way == "form":
        browser.open(f"{path}{key}/delete/")
    else:
        browser.act(path, way, key)
    for form in [form for form in browser.forms if "post" in form.fields]:
        browser.submit(form, post="yes", action=way)
    assert browser.page.status_code == 200, browser.page.status_code


@pytest.mark.parametrize("way", ENDING)
@pytest.mark.parametrize("who", ["rosa", "carol"])
def test_a_last_role_of_staff_takes_their_access_only_by_a_superuser(
    who: str, way: str
) -> None:
    """Giving a role and taking it must not do what revoking tokens may not."""
    staff("rosa", "User", "Guest", group="Role managers")
    stella = staff("stella", group="Helpdesk")
    guest = str(current_row(Role, name="Guest").pk)
    ends = who == "carol"
    hers, browser = browser_for("stella"), browser_for(who)
    token_of("stella")
    given = {"user": "stella", "role": guest}
    browser.save(f"{ADMIN}/roleassignment/add/", **given)
    take_role(browser, way, current_row(RoleAssignment, user=stella).pk)
    assert not RoleAssignment.objects.filter(user=stella).unexpired().exists()
    assert (live_tokens("stella") == 0) == ends
    signed_out = "/accounts/login/" in str(hers.open(USERS).page.url)
    assert signed_out == ends


def test_a_key_is_retired_by_users_above_its_tokens_owners(
    mallory: Browser,
) -> None:
    """Retiring a key ends all its tokens at once."""
    kid = token_of("carol").row.kid
    SigningKey.objects.rotate(actor="the test")
    key = current_row(SigningKey, kid=kid)
    mallory.act(f"{ADMIN}/signingkey/", "retire", key.pk)
    assert (
        "Users with more permissions than you have tokens signed" in mallory.page.text
    )
    key.refresh_from_db()
    assert key.state == "retiring"


def test_failed_logins_of_administrators_are_not_reset(henry: Browser) -> None:
    """A helper who resets the counts would allow unlimited guesses."""
    AccessAttempt.objects.all().delete()
    for name in ("carol", "alice"):
        AccessAttempt.objects.create(
            username=name, ip_address="192.0.2.7", failures_since_start=4
        )
    rows = AccessAttempt.objects.order_by("username")
    keys = User.objects.filter(username__in=("carol", "alice")).values_list("pk")
    henry.act(USERS, "unlock", *[key for (key,) in keys])
    assert [row.username for row in rows] == ["carol"]
    AccessAttempt.objects.create(
        username="alice", ip_address="192.0.2.7", failures_since_start=4
    )
    keys = rows.values_list("pk")
    henry.act("/admin/axes/accessattempt/", "unlock", *[key for (key,) in keys])
    assert [row.username for row in rows] == ["carol"]
    rows.delete()


def test_second_factors_of_administrators_and_ones_own_stay(mallory: Browser) -> None:
    """The portal removes one's own factor after asking for the password."""
    for name in ("mallory", "bert"):
        user = current_row(User, username=name)
        Authenticator.objects.create(user=user, type="recovery_codes", data={})
    keys = User.objects.filter(username__in=("mallory", "bert", "carol"))
    mallory.act(USERS, "reset_factors", *keys.values_list("pk", flat=True))
    left = Authenticator.objects.values_list("user__username", flat=True)
    assert {"mallory", "carol"} <= set(left) and "bert" not in left
    Authenticator.objects.filter(user__username="mallory").delete()


def test_saving_an_unchanged_assignment_changes_nothing() -> None:
    """The actor becomes the granter, so a superuser's grant is not offered."""
    staff("rosa", "User", "Guest", group="Role managers")
    for name in ("bert", "carol"):
        assignment = current_row(
            RoleAssignment, user__username=name, role__name=GIVEN[name]
        )
        RoleAssignment.objects.filter(pk=assignment.pk).update(
            granted_by=None, reason="from provider corp-of-scene"
        )
        browser = browser_for("rosa")
        browser.open(f"{ADMIN}/roleassignment/{assignment.pk}/change/")
        offered = [f for f in browser.forms if "_save" in [b[0] for b in f.buttons]]
        assert bool(offered) == (name == "bert")
        for form in offered:
            browser.submit(form, "_save")
        assignment.refresh_from_db()
        assert assignment.granted_by is None


GIVEN = {"bert": "Guest", "carol": "Ruled"}


def test_approving_keeps_a_longer_grant_of_a_provider() -> None:
    """A provider finds its grants by their reason; approval must not overwrite it."""
    make_user("petra", "Guest")
    petra, role = current_row(User, username="petra"), current_row(Role, name="User")
    ends, reason = timezone.now() + timedelta(days=30), "from provider corp-of-scene"
    RoleAssignment.objects.grant(petra, role, reason=reason, expires_at=ends)
    until = timezone.now() + timedelta(days=3)
    for end, expected in ((until, reason), (ends + timedelta(days=1), "longer")):
        request = AccessRequest.objects.create(
            user=petra, role=role, reason="longer", until=end
        )
        browser_for("carol").act(f"{ADMIN}/accessrequest/", "approve", request.pk)
        assignment = current_row(RoleAssignment, user=petra, role=role)
        assert assignment.reason == expected and assignment.expires_at >= ends
        request.refresh_from_db()
        assert (
            request.state == "approved" and request.given_until == assignment.expires_at
        )


def test_only_a_superuser_deletes_a_disabled_tool(mallory: Browser) -> None:
    """A deleted row is created again with the defaults of the code: open."""
    from mcp_bridge.models import Primitive

    gone = Primitive.objects.create(
        kind="tool", name="gone", vanished_at=timezone.now(), enabled=False
    )
    path = f"/admin/mcp_bridge/primitive/{gone.pk}/delete/"
    assert Permission.objects.filter(user__username="mallory").count() > 100
    assert mallory.open(path).page.status_code == 403
    gone.delete()
