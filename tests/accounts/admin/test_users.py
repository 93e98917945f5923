"""User accounts in the admin: actions, forms and what they end."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from axes.models import AccessAttempt
from django.contrib import admin
from django.contrib.auth.hashers import check_password
from django.contrib.auth.models import Group, Permission
from django.http import HttpRequest
from django.utils import timezone

from accounts.admin import users as module
from accounts.admin.users import FactorFilter
from accounts.models import (
    AuditEvent,
    Consent,
    OAuthClient,
    Role,
    RoleAssignment,
    User,
)
from tests.support.admin_browser import (
    AdminBrowser,
    add_token,
    events_by,
    is_live,
    list_url,
    newest_event,
    row_url,
    signed_in,
    staff_member,
)
from tests.support.users import account, browser_of

pytestmark = pytest.mark.django_db
PAGE: Any = admin.site.get_model_admin(User)
EVERYTHING = ("view_user", "change_user", "delete_user", "unlock_user")


@pytest.fixture
def carol() -> User:
    """A superuser."""
    return account("carol", "Admin", is_staff=True, is_superuser=True)


@pytest.fixture
def mallory() -> AdminBrowser:
    """May change users, and has the role Guest."""
    return AdminBrowser(staff_member("mallory", *EVERYTHING, roles=("Guest",)))


@pytest.fixture
def henry() -> AdminBrowser:
    """The helpdesk: may end access, and has no role."""
    needed = ("view_user", "change_issuedtoken", "unlock_user")
    return AdminBrowser(staff_member("henry", *needed))


def add_factor(user: User, kind: str = "totp") -> Authenticator:
    row: Authenticator = Authenticator.objects.create(user=user, type=kind, data={})
    return row


def test_models_that_raise_rights_have_no_page() -> None:
    for model in (Group, EmailAddress):
        assert not admin.site.is_registered(model)


def test_all_access_of_the_selected_users_ends(root: AdminBrowser) -> None:
    alice, bob = account("alice", "User"), account("bob", "User")
    hers, his, browser = add_token(alice), add_token(bob), browser_of(alice)
    client = OAuthClient.objects.create(client_id="app", client_type="public")
    Consent.objects.create(user=alice, client=client, scope="mcp")
    page = root.run(User, "revoke_tokens", alice)
    assert "1 token revoked. 1 browser signed out." in page
    assert not is_live(hers) and is_live(his) and not signed_in(browser)
    reason = "revoked in the admin"
    assert events_by(root.user) == [
        ("consent.withdrawn", "consent of alice", reason),
        ("token.revoked", "access token of alice", reason),
        ("session.ended", "alice", reason),
    ]


def test_the_actor_stays_signed_in_after_revoking_all_tokens(
    root: AdminBrowser,
) -> None:
    other = browser_of(root.user)
    token = add_token(root.user)
    root.run(User, "revoke_tokens", root.user)
    assert not is_live(token) and not signed_in(other)
    assert root.still_signed_in()


@pytest.mark.parametrize(
    ("action", "text"),
    [
        ("revoke_tokens", "This revokes 1 active token for 1 person"),
        ("deactivate", "This deactivates 1 account. This revokes 1 active token"),
    ],
)
def test_the_effect_is_shown_before_it_happens(
    root: AdminBrowser, action: str, text: str
) -> None:
    alice, bob = account("alice"), account("bob")
    token, browser = add_token(alice), browser_of(alice)
    add_token(bob)
    page = root.run(User, action, alice, confirmed="no")
    assert text in page and "This signs out 1 browser." in page
    assert is_live(token) and signed_in(browser) and events_by(root.user) == []
    alice.refresh_from_db()
    assert alice.is_active


def test_the_effect_counts_neither_this_browser_nor_inactive_accounts(
    root: AdminBrowser,
) -> None:
    gone = account("gone", is_active=False)
    account("other", is_staff=True, is_superuser=True)
    add_token(gone)
    root.open(list_url(User))
    page = root.run(User, "deactivate", root.user, gone, confirmed="no")
    assert "you will be signed out. This deactivates 1 account. No token" in page
    assert "This signs out" not in page
    page = root.run(User, "revoke_tokens", root.user, confirmed="no")
    assert "This signs out" not in page


def test_deactivating_ends_access_and_leaves_others(root: AdminBrowser) -> None:
    alice, bob, gone = account("alice"), account("bob"), account("gone")
    User.objects.filter(pk=gone.pk).update(is_active=False)
    hers, his = add_token(alice), add_token(bob)
    assert "1 user deactivated." in root.run(User, "deactivate", alice, gone)
    active = User.objects.filter(is_active=True).values_list("username", flat=True)
    assert set(active) == {"bob", "root"}
    assert not is_live(hers) and is_live(his)
    assert events_by(root.user) == [
        ("user.deactivated", "alice", ""),
        ("token.revoked", "access token of alice", "account deactivated"),
    ]


@pytest.mark.parametrize("action", ["revoke_tokens", "deactivate", "reset_factors"])
def test_actions_skip_and_name_users_with_more_rights(
    mallory: AdminBrowser, carol: User, action: str
) -> None:
    """A superuser, staff, and a holder of a role that the actor lacks."""
    stella = account("stella", is_staff=True)
    paul, bert = account("paul", "User"), account("bert", "Guest")
    everyone = (carol, stella, paul, bert)
    tokens = [add_token(user) for user in everyone]
    for user in everyone:
        add_factor(user)
    if action == "revoke_tokens":
        extra = Permission.objects.filter(codename="change_issuedtoken")
        mallory.user.user_permissions.add(*extra)
        # With this permission the roles of others do not count.
        above, more = [carol, stella], "carol, stella"
    else:
        above, more = [carol, stella, paul], "carol, paul, stella"
    page = mallory.run(User, action, *everyone)
    skipped = "Skipped, because these users have more permissions than you:"
    assert f"{skipped} {more}<" in page
    live = {
        user.username
        for user, token in zip(everyone, tokens, strict=True)
        if is_live(token)
    }
    assert live == {user.username for user in above}
    active = User.objects.filter(is_active=False).values_list("username", flat=True)
    assert list(active) == (["bert"] if action == "deactivate" else [])
    left = Authenticator.objects.values_list("user__username", flat=True)
    assert ("bert" in left) == (action != "reset_factors")
    assert {user.username for user in above} <= set(left)
    assert {event[1].split()[-1] for event in events_by(mallory.user)} <= {
        "bert",
        "paul",
    }


@pytest.mark.parametrize(("most", "shown"), [(2, "a0, a1 ..."), (3, "a0, a1, a2<")])
def test_only_so_many_skipped_users_are_named(
    mallory: AdminBrowser, monkeypatch: Any, most: int, shown: str
) -> None:
    monkeypatch.setattr(module, "MAX_LISTED_REFUSALS", most)
    rows = [account(f"a{n}", is_staff=True) for n in (2, 1, 0)]
    assert f"than you: {shown}" in mallory.run(User, "deactivate", *rows)


def add_failures(name: str) -> None:
    AccessAttempt.objects.create(
        username=name, ip_address="192.0.2.7", failures_since_start=4
    )


def test_unlocking_resets_the_counts_of_the_selected_users(
    henry: AdminBrowser, carol: User
) -> None:
    alice, bob = account("alice"), account("bob")
    stella = account("stella", is_staff=True)
    for name in ("alice", "bob", "carol", "stella"):
        add_failures(name)
    page = henry.run(User, "unlock", alice, carol, stella)
    assert "more permissions than you: carol, stella" in page
    assert "1 counter reset." in page
    left = AccessAttempt.objects.values_list("username", flat=True)
    assert set(left) == {"bob", "carol", "stella"}
    assert events_by(henry.user) == [("user.unlocked", "alice", "")]
    assert bob.is_active


@pytest.mark.parametrize(
    ("job", "action", "told"),
    [
        ("unlock_user", "unlock", "1 counter reset."),
        ("change_issuedtoken", "revoke_tokens", "signed out."),
    ],
)
def test_one_job_of_the_helpdesk_is_enough(job: str, action: str, told: str) -> None:
    """Each serves people with roles, which the helpdesk does not have."""
    browser = AdminBrowser(staff_member("hedda", "view_user", job))
    alice = account("alice", "User")
    add_failures("alice")
    page = browser.run(User, action, alice)
    assert told in page and "more permissions than you" not in page


def test_unlocking_counts_all_counters(root: AdminBrowser) -> None:
    alice, bob = account("alice"), account("bob")
    for name in ("alice", "bob"):
        add_failures(name)
    assert "2 counters reset." in root.run(User, "unlock", alice, bob)


def test_second_factors_are_reset_and_access_ends(root: AdminBrowser) -> None:
    alice, bob = account("alice"), account("bob")
    for user in (alice, bob, root.user):
        add_factor(user)
    add_factor(alice, "webauthn")
    token = add_token(alice)
    page = root.run(User, "reset_factors", alice, root.user)
    assert "Remove your own second factor in the portal under Security." in page
    assert "2 second factors removed." in page
    left = Authenticator.objects.values_list("user__username", flat=True)
    assert set(left) == {"bob", "root"} and not is_live(token)
    assert events_by(root.user)[:1] == [("second_factor.reset", "alice", "")]
    page = root.run(User, "reset_factors", bob)
    assert "Remove your own" not in page and "1 second factor removed." in page


def test_the_list_shows_current_roles_only(root: AdminBrowser) -> None:
    alice = account("alice", "User", "Guest")
    ended = RoleAssignment.objects.filter(user=alice, role__name="Guest")
    ended.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert PAGE.roles_held(alice) == "User"
    assert PAGE.roles_held(root.user) == "-"
    page = root.open(f"{list_url(User)}?q=alice").page
    assert "alice" in page.text and ">root</a>" not in page.text


def test_users_are_filtered_by_their_second_factor() -> None:
    alice, bob = account("alice"), account("bob")
    add_factor(alice)
    add_factor(bob, "recovery_codes")
    for value, expected in {
        "some": {"alice"},
        "none": {"bob"},
        "odd": {"alice", "bob"},
        None: {"alice", "bob"},
    }.items():
        chosen = {"factor": [value]} if value else {}
        narrow = FactorFilter(HttpRequest(), dict(chosen), User, PAGE)
        rows = narrow.queryset(None, User.objects.all())
        assert {user.username for user in rows} == expected, value
        assert [key for key, _label in narrow.lookups(None, PAGE)] == ["some", "none"]


def form_of(browser: AdminBrowser, user: User) -> str:
    return row_url(User, user)


def test_an_account_is_added_with_a_hashed_password(root: AdminBrowser) -> None:
    """The hash is made before the transaction, which the test's guard checks."""
    path = f"{list_url(User)}add/"
    secret = "a-long-enough-one-7"
    sent = {"username": "new", "password1": secret, "password2": secret}
    root.save(path, usable_password="true", **sent)
    new = User.objects.get(username="new")
    assert check_password(secret, new.password)
    assert not new.is_staff and not new.is_superuser
    assert newest_event("user.added").object == "new"
    changes = newest_event("user.added").changes
    assert changes["password1"] == ["(hidden)", "(hidden)"] and secret not in str(
        changes
    )


def test_a_changed_account_is_recorded_with_both_values(root: AdminBrowser) -> None:
    alice = account("alice", first_name="Al")
    root.save(row_url(User, alice), first_name="Alice")
    event = newest_event("user.changed")
    assert (event.actor, event.object) == ("root", "alice")
    assert event.changes == {"first_name": ["Al", "Alice"]}
    root.save(row_url(User, alice))
    assert AuditEvent.objects.filter(action="user.changed").count() == 1


@pytest.mark.parametrize(
    ("before", "ticked", "after"),
    [(True, True, True), (False, False, True), (True, False, False)],
)
def test_a_new_address_counts_as_set_by_the_administrator(
    root: AdminBrowser, before: bool, ticked: bool, after: bool
) -> None:
    """An unchanged box describes the old address; a changed one the new address."""
    alice = account("alice", email="old@example.org", email_set_by_admin=before)
    box = {"email_set_by_admin": "on" if ticked else None}
    root.save(row_url(User, alice), email="new@example.org", **box)
    alice.refresh_from_db()
    assert (alice.email, alice.email_set_by_admin) == ("new@example.org", after)


@pytest.mark.parametrize("before", [True, False])
def test_the_box_stays_if_the_address_does(root: AdminBrowser, before: bool) -> None:
    alice = account("alice", email="old@example.org", email_set_by_admin=before)
    root.save(row_url(User, alice), first_name="Alice")
    alice.refresh_from_db()
    assert alice.email_set_by_admin == before


def test_an_account_deactivated_in_its_form_loses_its_access(
    root: AdminBrowser,
) -> None:
    alice, bob = account("alice"), account("bob")
    token, other, browser = add_token(alice), add_token(bob), browser_of(alice)
    root.save(row_url(User, alice), first_name="A")
    assert is_live(token)
    root.save(row_url(User, alice), is_active=None)
    assert not is_live(token) and is_live(other) and not signed_in(browser)
    revoked = newest_event("token.revoked")
    assert (revoked.actor, revoked.reason) == ("root", "account deactivated")
    late = add_token(alice)
    root.save(row_url(User, alice), is_active="on")
    assert is_live(late)


def test_saving_an_inactive_account_ends_nothing(root: AdminBrowser) -> None:
    alice = account("alice", is_active=False)
    token = add_token(alice)
    root.save(row_url(User, alice), first_name="A")
    assert is_live(token)


def test_deactivating_oneself_loses_no_response(root: AdminBrowser) -> None:
    """The session of the request must exist until the response is sent."""
    token = add_token(root.user)
    account("other", is_staff=True, is_superuser=True)
    root.save(row_url(User, root.user), is_active=None, end_own_access="on")
    assert root.page.status_code == 200 and not root.still_signed_in()
    assert not is_live(token)


@pytest.mark.parametrize("way", ["form", "action"])
def test_a_deleted_account_loses_its_access_first(root: AdminBrowser, way: str) -> None:
    """Its tokens' rows stay, because they outlive the account."""
    alice, bob = account("alice", "User"), account("bob", "User")
    token, other = add_token(alice), add_token(bob)
    if way == "form":
        root.delete(User, alice)
    else:
        root.run(User, "delete_selected", alice)
    assert not User.objects.filter(username="alice").exists()
    token.refresh_from_db()
    assert token.user_id is None and not is_live(token) and is_live(other)
    assert events_by(root.user) == [
        ("token.revoked", "access token of alice", "account deleted"),
        ("user.deleted", "alice", ""),
    ]


def test_the_permission_to_delete_an_account_covers_its_rows(
    mallory: AdminBrowser,
) -> None:
    bert = account("bert", "Guest")
    Consent.objects.create(
        user=bert,
        client=OAuthClient.objects.create(client_id="app", client_type="public"),
        scope="mcp",
    )
    assert mallory.delete(User, bert).status_code == 200
    assert not User.objects.filter(username="bert").exists()
    rows = [account("ben", "Guest")]
    nobody = staff_member("nobody", "view_user")
    request: Any = type("Request", (), {"user": nobody})()
    _rows, _counts, needed, _kept = PAGE.get_deleted_objects(rows, request)
    assert needed == {"user"}


@pytest.mark.parametrize("field", module.OWN_RIGHTS)
def test_only_superusers_grant_rights_in_the_admin(
    mallory: AdminBrowser, root: AdminBrowser, field: str
) -> None:
    bert = account("bert", "Guest")
    for browser, may in ((mallory, False), (root, True)):
        request: Any = type("Request", (), {"user": browser.user})()
        fixed = PAGE.get_readonly_fields(request, bert)
        assert (field in fixed) == (not may)
        assert {"last_login", "date_joined"} <= set(fixed)
    keys = {
        "groups": [str(Group.objects.all()[0].pk)],
        "user_permissions": [str(Permission.objects.all()[0].pk)],
    }
    mallory.save(row_url(User, bert), **{field: keys.get(field, "on")})
    bert.refresh_from_db()
    assert not (bert.is_staff or bert.is_superuser)
    assert not bert.groups.exists() and not bert.user_permissions.exists()


def test_ones_own_password_has_another_page(
    root: AdminBrowser, mallory: AdminBrowser
) -> None:
    own = f"{list_url(User)}{root.user.pk}/password/"
    answer = root.http.client.get(own)  # type: ignore[attr-defined]
    assert (answer.status_code, answer["Location"]) == (
        302,
        "/accounts/password/change/",
    )
    bert = account("bert", "Guest")
    page = root.open(f"{list_url(User)}{bert.pk}/password/").page
    assert page.status_code == 200 and "password1" in page.text


def test_the_summary_is_shown_to_those_who_may_view_the_user(
    root: AdminBrowser,
) -> None:
    alice = account("alice")
    add_token(alice)
    assert "active token" in root.open(row_url(User, alice)).page.text
    assert root.open(f"{list_url(User)}999999/change/").page.status_code == 200
    nobody = AdminBrowser(staff_member("nobody"))
    assert nobody.open(row_url(User, alice)).page.status_code == 403


def role_key(name: str) -> str:
    return str(Role.objects.get(name=name).pk)


def add_line(role: str, **fields: str) -> dict[str, Any]:
    """One more line of the inline of roles."""
    named = {"role": role_key(role), **fields}
    line = {f"role_assignments-0-{name}": value for name, value in named.items()}
    return {"role_assignments-TOTAL_FORMS": "1", **line}


def test_a_role_is_granted_on_the_page_of_the_user(root: AdminBrowser) -> None:
    alice = account("alice")
    root.save(row_url(User, alice), **add_line("User", reason="stands in"))
    assignment = RoleAssignment.objects.get(user=alice)
    assert assignment.granted_by == root.user and assignment.role.name == "User"
    assert events_by(root.user) == [("role.granted", "alice has User", "stands in")]


def test_a_role_is_extended_and_withdrawn_on_the_page_of_the_user(
    root: AdminBrowser,
) -> None:
    alice = account("alice", "User")
    bob, token = account("bob", "User"), add_token(alice)
    other = add_token(bob)
    root.save(row_url(User, alice), **{"role_assignments-0-reason": "longer"})
    assignment = RoleAssignment.objects.get(user=alice)
    assert assignment.granted_by == root.user and is_live(token)
    root.save(row_url(User, alice), **{"role_assignments-0-DELETE": "on"})
    assert not RoleAssignment.objects.filter(user=alice).exists()
    assert not is_live(token) and is_live(other)
    assert events_by(root.user) == [
        ("role.extended", "alice has User", "longer"),
        ("role.withdrawn", "alice has User", "longer"),
        ("token.revoked", "access token of alice", "role withdrawn"),
    ]


def test_withdrawing_ones_own_last_role_keeps_this_browser(root: AdminBrowser) -> None:
    RoleAssignment.objects.grant(root.user, Role.objects.get(name="User"))
    root.save(row_url(User, root.user), **{"role_assignments-0-DELETE": "on"})
    assert root.still_signed_in()
    assert not RoleAssignment.objects.filter(user=root.user).exists()


def test_the_inline_of_roles_keeps_to_the_rights_of_the_actor() -> None:
    needed = ("change_user", "view_user", "change_roleassignment")
    more = ("add_roleassignment", "delete_roleassignment", "view_roleassignment")
    rita = AdminBrowser(staff_member("rita", *needed, *more, roles=("Guest",)))
    bert = account("bert", "Guest")
    text = rita.refused_save(
        row_url(User, bert),
        **{
            "role_assignments-TOTAL_FORMS": "2",
            "role_assignments-1-role": role_key("User"),
        },
    )
    assert "You do not have User.Read, User.Write yourself" in text
    rita.refused_save(row_url(User, rita.user), **{"role_assignments-0-DELETE": "on"})
    assert "You cannot change your own roles" in rita.page.text
    held = RoleAssignment.objects.values_list("user__username", "role__name")
    assert set(held) == {("bert", "Guest"), ("rita", "Guest")}
    assert events_by(rita.user) == []


def test_a_line_that_is_added_and_deleted_grants_nothing(root: AdminBrowser) -> None:
    alice = account("alice")
    line = {**add_line("User"), "role_assignments-0-DELETE": "on"}
    root.save(row_url(User, alice), **line)
    assert not RoleAssignment.objects.exists() and events_by(root.user) == []


def test_inlines_of_other_apps_are_saved_as_usual(root: AdminBrowser) -> None:
    saved: list[bool] = []

    class Other:
        model = User

        def save(self) -> None:
            saved.append(True)

    PAGE.save_formset(None, None, Other(), True)
    assert saved == [True]


def test_a_page_of_deletion_names_what_its_button_deletes(root: AdminBrowser) -> None:
    """The way back is a link that works without script."""
    alice, bob = account("alice"), account("bob")
    text = root.open(row_url(User, alice, "delete")).page.text
    assert 'class="danger" value="Delete alice"' in text
    assert f'href="{row_url(User, alice)}" class="closelink cancel-link"' in text
    text = root.run(User, "delete_selected", alice, bob, post="")
    assert 'class="danger" value="Delete 2 users"' in text
    assert f'href="{list_url(User)}" class="closelink cancel-link"' in text


def test_the_name_is_the_title_of_a_row(root: AdminBrowser) -> None:
    text = root.open(row_url(User, account("alice"))).page.text
    assert '<p class="eyebrow">Change user</p><h1>alice</h1>' in text
    assert text.count("<h1") == 1
