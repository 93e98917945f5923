"""Every list, form, action and page of the admin, read from the registry of the site.

A new list or action fails here until somebody has entered it in the tables below.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any
from urllib.parse import parse_qs

import pytest
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from allauth.usersessions.models import UserSession
from axes.models import AccessAttempt
from django.contrib import admin
from django.contrib.auth.models import Group, Permission
from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import translation
from django.utils.html import escape

from accounts.models import (
    AccessRequest,
    AuditEvent,
    AuditSeal,
    Consent,
    Delivery,
    DocumentCopy,
    DocumentHost,
    Invitation,
    IssuedToken,
    NotificationChannel,
    OAuthClient,
    OAuthGrant,
    RevokedToken,
    Role,
    RoleAssignment,
    Scope,
    SigningKey,
    SignInProvider,
    User,
)
from config import urls
from mcp_bridge.models import Primitive, UpstreamServer
from tests.support.admin_browser import (
    AdminBrowser,
    list_url,
    row_url,
    staff_member,
)
from tests.support.admin_scene import reader_of_pages, set_scene
from tests.support.delegation_scene import HOST
from tests.support.page_tables import tables_on
from tests.support.page_texts import english_texts
from tests.support.page_walk import buttons_on, press, walk
from tests.support.rights_snapshot import everything
from tests.support.users import account, browser_of

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.usefixtures("no_internet", "without_upstream_servers"),
]
SITE: Any = admin.site
PAGES = sorted(SITE._registry.values(), key=lambda page: page.opts.label)
IDS = [page.opts.label for page in PAGES]
every_page = pytest.mark.parametrize("page", PAGES, ids=IDS)


@contextmanager
def rolled_back(subtests: pytest.Subtests, name: str) -> Iterator[None]:
    """One of several trials on one scene; making the scene takes longer than most."""
    with subtests.test(name), transaction.atomic():
        yield
        transaction.set_rollback(True)


def actions_of(page: Any) -> list[str]:
    """Names of all its bulk actions, permitted or not."""
    return [name for _run, name, _title in page._get_base_actions()]


@pytest.fixture
def short_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of refusals: rendering their page takes ten times as long."""

    def refused(_request: HttpRequest, exception: Exception) -> HttpResponse:
        return HttpResponse(str(exception), status=403)

    monkeypatch.setattr(urls, "handler403", refused)


@pytest.fixture
def scene() -> None:
    set_scene()


ABOVE: dict[type, Callable[[], Any]] = {
    AccessRequest: lambda: AccessRequest.objects.filter(role__name="Admin"),
    AuditEvent: AuditEvent.objects.all,
    AuditSeal: AuditSeal.objects.all,
    Consent: Consent.objects.all,
    Delivery: Delivery.objects.all,
    DocumentCopy: lambda: DocumentCopy.objects.filter(name="Agent"),
    DocumentHost: lambda: DocumentHost.objects.filter(host=HOST),
    Invitation: Invitation.objects.all,
    IssuedToken: lambda: IssuedToken.objects.filter(username="carol").live(),
    NotificationChannel: NotificationChannel.objects.all,
    OAuthClient: lambda: OAuthClient.objects.filter(service_account__username="carol"),
    OAuthGrant: OAuthGrant.objects.all,
    RevokedToken: RevokedToken.objects.all,
    Role: lambda: Role.objects.filter(name__in=("Admin", "Ruled", "Payroll", "Guest")),
    RoleAssignment: lambda: RoleAssignment.objects.filter(
        user__username__in=("carol", "mallory", "paul")
    ),
    Scope: Scope.objects.all,
    SignInProvider: SignInProvider.objects.all,
    SigningKey: lambda: SigningKey.objects.exclude(state="next"),
    User: lambda: User.objects.filter(username="carol"),
    AccessAttempt: AccessAttempt.objects.all,
    Primitive: Primitive.objects.all,
    UpstreamServer: UpstreamServer.objects.all,
    Authenticator: Authenticator.objects.all,
    SocialAccount: SocialAccount.objects.all,
    UserSession: lambda: UserSession.objects.filter(user__username="carol"),
}
"""List -> its rows that a member of staff with every permission may not touch."""


def above(page: Any) -> list[Any]:
    rows = list(ABOVE[page.model]())
    assert rows, "the scene has no such row"
    return rows[:6]


ALLOWED_ABOVE = {
    "accounts.AccessRequest decline",
    "mcp_bridge.Primitive disable",
    "mcp_bridge.Primitive accept",
    "mcp_bridge.UpstreamServer disable",
}
"""Actions that need no rank: nobody gains a right, and no user loses one alone."""


def test_no_action_touches_a_row_above_the_actor(
    scene: None, subtests: pytest.Subtests
) -> None:
    """Every bulk action with rows of a superuser, by staff with every permission."""
    mallory, before = AdminBrowser(User.objects.get(username="mallory")), everything()
    for page in PAGES:
        with rolled_back(subtests, page.opts.label):
            rows = above(page)
            mallory.open(list_url(page.model))
            for action in actions_of(page):
                if f"{page.opts.label} {action}" not in ALLOWED_ABOVE:
                    mallory.send(page.model, action, *rows)
            assert everything() == before


def test_no_form_touches_a_row_above_the_actor(
    short_refusals: None, scene: None, subtests: pytest.Subtests
) -> None:
    """The change form, the deletion and the page of the password."""
    mallory, before = AdminBrowser(User.objects.get(username="mallory")), everything()
    for page in PAGES:
        with rolled_back(subtests, page.opts.label):
            for row in above(page):
                try_forms(mallory, page, row)
            assert everything() == before


def try_forms(mallory: AdminBrowser, page: Any, row: Any) -> None:
    """Save and delete a row that mallory may not touch."""
    url = row_url(page.model, row)
    assert mallory.open(url).page.status_code == 200
    offered = {button[0] for form in mallory.forms for button in form.buttons}
    if page.model in (AccessRequest, Primitive):
        assert mallory.post(url, enabled="on", _approve="1").status_code == 200
    else:
        assert not offered & {"_save", "_addanother", "_continue", "_approve"}
        assert mallory.post(url, _save="1").status_code == 403
    assert mallory.delete(page.model, row).status_code == 403
    if page.model is User:
        fields = {"password1": "mallory-was-here-9", "usable_password": "true"}
        fields["password2"] = fields["password1"]
        path = url.replace("change/", "password/")
        assert mallory.post(path, **fields).status_code == 403


def test_a_superuser_deletes_what_the_lists_offer(scene: None) -> None:
    """Also rows on which rows of read-only lists depend."""
    carol = User.objects.get(username="carol")
    request = request_of(carol)
    ruled, alice = Role.objects.get(name="Empty"), User.objects.get(username="alice")
    AccessRequest.objects.create(user=alice, role=ruled, reason="x")
    tried = 0
    for page in PAGES:
        for row in [ruled] if page.model is Role else above(page):
            if page.has_delete_permission(request, row):
                deleted, _n, needed, kept = page.get_deleted_objects([row], request)
                assert deleted and not needed and not kept, (page.opts.label, row)
                tried += 1
    assert tried > 10
    root = AdminBrowser(carol)
    assert root.delete(Role, ruled).status_code == 200
    assert not Role.objects.filter(pk=ruled.pk).exists()


def queries_of(root: AdminBrowser, page: Any) -> list[str]:
    with CaptureQueriesContext(connection) as queries:
        assert root.open(list_url(page.model)).page.status_code == 200
    return [query["sql"] for query in queries]


def test_no_list_asks_about_each_of_its_rows(
    scene: None, subtests: pytest.Subtests, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page of many rows sends no more queries than a page of one row.

    Figures of upstream servers and the last results of channels are read for each: one
    index serves one of them.
    """
    root = AdminBrowser(User.objects.get(username="carol"))
    root.open(list_url(AuditEvent))  # seals the events of the scene
    each = (UpstreamServer, NotificationChannel)
    for page in (one for one in PAGES if one.model not in each):
        with rolled_back(subtests, page.opts.label):
            many = queries_of(root, page)
            monkeypatch.setattr(page, "list_per_page", 1)
            one = queries_of(root, page)
            assert len(many) <= len(one), "\n".join(many)


UNREADABLE = re.compile(r"object \(|\+00:00|#\d+\s*<")
"""Titles that Django and libraries make up: `X object (1)`, `X #1`, a time in UTC."""


def test_every_row_has_a_readable_title(scene: None) -> None:
    """On its own page, and on the page that lists what a deletion would delete."""
    root = AdminBrowser(User.objects.get(username="carol"))
    request = request_of(root.user)
    for page in PAGES:
        row = above(page)[0]
        text = root.open(row_url(page.model, row)).page.text
        assert f"<title>{escape(row)} | " in text, page.opts.label
        assert not UNREADABLE.search(f"{row}<"), page.opts.label
        if page.has_delete_permission(request, row):
            listed = root.open(row_url(page.model, row, "delete")).page.text
            seen = re.sub(r'datetime="[^"]*"', "", listed)
            assert not UNREADABLE.search(seen), page.opts.label


EVENTS = {
    "accounts.AccessRequest approve": "access.approved role.granted",
    "accounts.AccessRequest decline": "access.declined",
    "accounts.AccessRequest delete_selected": "",
    "accounts.AuditEvent delete_selected": "",
    "accounts.AuditSeal delete_selected": "",
    "accounts.Consent delete_selected": "",
    "accounts.Delivery delete_selected": "",
    "accounts.Delivery send_again": "notification.resent",
    "accounts.DocumentCopy delete_selected": "document_copy.deleted",
    "accounts.DocumentCopy fetch": "document_copy.fetched",
    "accounts.DocumentCopy switch_off": "document_copy.changed",
    "accounts.DocumentCopy switch_on": "",
    "accounts.DocumentHost delete_selected": "document_host.deleted",
    "accounts.Invitation delete_selected": "",
    "accounts.Invitation resend": "invitation.resent",
    "accounts.Invitation withdraw": "invitation.withdrawn",
    "accounts.IssuedToken delete_selected": "",
    "accounts.IssuedToken revoke": "token.revoked",
    "accounts.IssuedToken revoke_clients": "code.revoked token.revoked",
    "accounts.IssuedToken revoke_families": "token.revoked",
    "accounts.IssuedToken revoke_users": "code.revoked consent.withdrawn"
    " session.ended token.revoked",
    "accounts.NotificationChannel delete_selected": "notification_channel.deleted",
    "accounts.NotificationChannel renew_secret": "notification_channel.secret_rotated",
    "accounts.OAuthClient approve": "client.approved",
    "accounts.OAuthClient block": "client.changed code.revoked token.revoked",
    "accounts.OAuthClient delete_selected": "client.deleted code.revoked token.revoked",
    "accounts.OAuthClient revoke_tokens": "code.revoked token.revoked",
    "accounts.OAuthClient rotate_secret": "client.secret_rotated",
    "accounts.OAuthClient unblock": "client.changed",
    "accounts.OAuthGrant delete_selected": "",
    "accounts.RevokedToken delete_selected": "",
    "accounts.Role delete_selected": "",
    "accounts.RoleAssignment delete_selected": "code.revoked consent.withdrawn"
    " role.withdrawn session.ended token.revoked",
    "accounts.RoleAssignment end_now": "code.revoked consent.withdrawn"
    " role.ended session.ended token.revoked",
    "accounts.RoleAssignment extend_day": "role.extended",
    "accounts.RoleAssignment extend_month": "role.extended",
    "accounts.RoleAssignment extend_week": "role.extended",
    "accounts.Scope delete_selected": "scope.deleted",
    "accounts.SignInProvider delete_selected": "provider.deleted",
    "accounts.SigningKey delete_selected": "",
    "accounts.SigningKey retire": "key.retired",
    "accounts.User deactivate": "code.revoked consent.withdrawn"
    " session.ended token.revoked user.deactivated",
    "accounts.User delete_selected": "code.revoked consent.withdrawn"
    " session.ended token.revoked user.deleted",
    "accounts.User reset_factors": "code.revoked consent.withdrawn"
    " second_factor.reset session.ended token.revoked",
    "accounts.User revoke_tokens": "code.revoked consent.withdrawn"
    " session.ended token.revoked",
    "accounts.User unlock": "user.unlocked",
    "axes.AccessAttempt delete_selected": "",
    "axes.AccessAttempt unlock": "user.unlocked",
    "mcp_bridge.Primitive accept": "primitive.accepted",
    "mcp_bridge.Primitive delete_selected": "",
    "mcp_bridge.Primitive disable": "primitive.changed",
    "mcp_bridge.Primitive enable": "primitive.changed",
    "mcp_bridge.UpstreamServer delete_selected": "upstream.deleted",
    "mcp_bridge.UpstreamServer disable": "upstream.changed",
    "mcp_bridge.UpstreamServer discover": "upstream.discovered",
    "mcp_bridge.UpstreamServer enable": "upstream.changed",
    "mfa.Authenticator delete_selected": "",
    "socialaccount.SocialAccount delete_selected": "",
    "socialaccount.SocialAccount unlink": "user.unlinked",
    "usersessions.UserSession delete_selected": "",
    "usersessions.UserSession end": "session.ended",
}
"""List and action -> the events of a superuser who runs it; a list without deletion,
or whose rows are in use, has none."""


def test_every_action_is_recorded_with_its_actor(
    scene: None, subtests: pytest.Subtests
) -> None:
    root = AdminBrowser(staff_member("root", superuser=True))
    for page in PAGES:
        for action in actions_of(page):
            with rolled_back(subtests, f"{page.opts.label} {action}"):
                last = AuditEvent.objects.order_by("-id")[:1].get().pk
                root.open(list_url(page.model))
                root.send(page.model, action, *above(page))
                found = AuditEvent.objects.filter(pk__gt=last)
                expected = EVENTS[f"{page.opts.label} {action}"].split()
                assert sorted({e.action for e in found}) == expected
                assert {e.actor for e in found} <= {"root"}
                assert {e.address for e in found} <= {"127.0.0.1"}


def paths_of(page: Any) -> Iterator[str]:
    """Every path of the list, with the key of a row of carol's."""
    known = {"form": "csv"}
    key = str(above(page)[0].pk)
    for pattern in page.get_urls():
        route = str(pattern.pattern)
        fill = lambda found: known.get(found[1].split(":")[-1], key)  # noqa: E731
        yield list_url(page.model) + re.sub("<([^>]*)>", fill, route)


def test_staff_without_permissions_get_403_everywhere(
    short_refusals: None, scene: None, subtests: pytest.Subtests
) -> None:
    nobody = AdminBrowser(staff_member("nobody"))
    before = everything()
    for page in PAGES:
        with rolled_back(subtests, page.opts.label):
            rows = above(page)
            for path in paths_of(page):
                assert nobody.open(path).page.status_code in (403, 405), path
                for fields in ({"post": "yes"}, {"_save": "1", "name": "x"}):
                    assert nobody.post(path, **fields).status_code == 403, path
            for action in actions_of(page):
                assert nobody.send(page.model, action, *rows) == 403, action
            assert everything() == before


def test_only_staff_enter_the_admin(scene: None, subtests: pytest.Subtests) -> None:
    """Neither a superuser who is not staff, nor somebody who is not signed in."""
    sam = browser_of(account("sam", is_superuser=True))
    before = everything()
    for page in PAGES:
        with rolled_back(subtests, page.opts.label):
            for browser, path in product((sam, Client()), paths_of(page)):
                for answer in (browser.get(path), browser.post(path, {"post": "yes"})):
                    assert answer.status_code == 302, path
                    assert answer["Location"].startswith("/admin/login/?next="), path
            assert everything() == before


RIGHTS = {
    "accounts.AccessRequest": "- own -",
    "accounts.AuditEvent": "- - -",
    "accounts.AuditSeal": "- - -",
    "accounts.Consent": "- - -",
    "accounts.Delivery": "- - -",
    "accounts.DocumentCopy": "own own own",
    "accounts.DocumentHost": "own own own",
    "accounts.Invitation": "- - -",
    "accounts.IssuedToken": "- - -",
    "accounts.NotificationChannel": "superuser superuser superuser",
    "accounts.OAuthClient": "own own own",
    "accounts.OAuthGrant": "- - -",
    "accounts.RevokedToken": "own - -",
    "accounts.Role": "own own own",
    "accounts.RoleAssignment": "own own own",
    "accounts.Scope": "own own own",
    "accounts.SignInProvider": "superuser superuser superuser",
    "accounts.SigningKey": "- - -",
    "accounts.User": "own own own",
    "axes.AccessAttempt": "- - -",
    "mcp_bridge.Primitive": "- own superuser",
    "mcp_bridge.UpstreamServer": "superuser superuser superuser",
    "mfa.Authenticator": "- - -",
    "socialaccount.SocialAccount": "- - -",
    "usersessions.UserSession": "- - -",
}
"""List -> who may add, change and delete: holders of the model's own permission,
superusers, or nobody."""
NEEDED = {
    "accounts.User revoke_tokens": "change_issuedtoken",
    "accounts.User deactivate": "change_user",
    "accounts.User unlock": "unlock_user",
    "accounts.User reset_factors": "change_user",
    "accounts.RoleAssignment extend_day": "change_roleassignment",
    "accounts.RoleAssignment extend_week": "change_roleassignment",
    "accounts.RoleAssignment extend_month": "change_roleassignment",
    "accounts.RoleAssignment end_now": "change_roleassignment",
    "accounts.AccessRequest approve": "change_accessrequest",
    "accounts.AccessRequest decline": "change_accessrequest",
    "accounts.Invitation resend": "add_user",
    "accounts.Invitation withdraw": "add_user",
    "accounts.IssuedToken revoke": "change_issuedtoken",
    "accounts.IssuedToken revoke_families": "change_issuedtoken",
    "accounts.IssuedToken revoke_clients": "change_issuedtoken",
    "accounts.IssuedToken revoke_users": "change_issuedtoken",
    "accounts.Delivery send_again": "superuser",
    "accounts.NotificationChannel renew_secret": "superuser",
    "accounts.DocumentCopy fetch": "change_documentcopy",
    "accounts.DocumentCopy switch_off": "change_documentcopy",
    "accounts.DocumentCopy switch_on": "change_documentcopy",
    "accounts.OAuthClient approve": "change_oauthclient",
    "accounts.OAuthClient block": "change_oauthclient",
    "accounts.OAuthClient unblock": "change_oauthclient",
    "accounts.OAuthClient revoke_tokens": "change_oauthclient",
    "accounts.OAuthClient rotate_secret": "change_oauthclient",
    "accounts.SigningKey retire": "change_signingkey",
    "axes.AccessAttempt unlock": "unlock_user",
    "usersessions.UserSession end": "change_issuedtoken",
    "socialaccount.SocialAccount unlink": "change_user",
    "mcp_bridge.Primitive enable": "superuser",
    "mcp_bridge.Primitive disable": "change_primitive",
    "mcp_bridge.Primitive accept": "change_primitive",
    "mcp_bridge.UpstreamServer discover": "superuser",
    "mcp_bridge.UpstreamServer enable": "superuser",
    "mcp_bridge.UpstreamServer disable": "change_primitive",
}
"""List and action -> its permission; `delete_selected` needs that to delete."""
VERBS = ("add", "change", "delete")


def codename(page: Any, verb: str) -> str:
    """The permission of one verb, "superuser" or "-"."""
    right = RIGHTS[page.opts.label].split()[VERBS.index(verb)]
    return f"{verb}_{page.opts.model_name}" if right == "own" else right


def request_of(user: User) -> Any:
    request: Any = RequestFactory().get("/")
    request.user = User.objects.get(pk=user.pk)
    return request


@pytest.fixture(scope="module")
def colleagues(module_transaction: None) -> None:
    """Staff with no permission, staff with all of them, and a superuser."""
    _holder, others, chief = (
        account(name, is_staff=True) for name in ("holder", "others", "chief")
    )
    others.user_permissions.set(Permission.objects.all())
    User.objects.filter(pk=chief.pk).update(is_superuser=True)


def requests_with(needed: str) -> Iterator[tuple[Any, bool]]:
    """(request, whether it may): with the permission only, with all others, root."""
    holder, others, chief = (
        User.objects.get(username=name) for name in ("holder", "others", "chief")
    )
    permissions = Permission.objects.filter(codename=needed)
    others.user_permissions.remove(*permissions)
    if needed not in ("superuser", "-"):
        holder.user_permissions.set(permissions)
        assert holder.user_permissions.count() == 1, needed
        yield request_of(holder), True
    yield request_of(others), False
    yield request_of(chief), needed != "-"
    others.user_permissions.add(*permissions)


@every_page
@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_needs_its_permission(colleagues: None, page: Any, verb: str) -> None:
    for request, may in requests_with(codename(page, verb)):
        assert getattr(page, f"has_{verb}_permission")(request) == may, request.user


@every_page
def test_each_list_needs_a_permission_to_view_or_change_it(page: Any) -> None:
    needed = f"view_{page.opts.model_name}"
    request = request_of(staff_member("only", needed))
    assert page.has_view_permission(request)
    assert not page.has_view_permission(request_of(staff_member("none")))


@every_page
def test_each_action_needs_its_permission(colleagues: None, page: Any) -> None:
    for action in actions_of(page):
        if action == "delete_selected":
            needed = codename(page, "delete")
        else:
            needed = NEEDED[f"{page.opts.label} {action}"]
        for request, may in requests_with(needed):
            assert (action in page.get_actions(request)) == may, (action, request.user)


def test_the_tables_have_no_row_too_many() -> None:
    assert set(RIGHTS) == set(IDS)
    named = {f"{page.opts.label} {name}" for page in PAGES for name in actions_of(page)}
    named = {name for name in named if not name.endswith(" delete_selected")}
    assert set(NEEDED) == named


def test_an_auditor_reads_every_list_and_changes_nothing(
    short_refusals: None, scene: None, subtests: pytest.Subtests
) -> None:
    auditor = staff_member("audrey")
    auditor.groups.set(Group.objects.filter(name="Auditors"))
    browser = AdminBrowser(auditor)
    before = everything()
    for page in PAGES:
        with rolled_back(subtests, page.opts.label):
            rows, path = above(page), list_url(page.model)
            change = row_url(page.model, rows[0])
            assert browser.open(path).page.status_code == 200
            assert browser.open(change).page.status_code == 200
            for form in (change, f"{path}add/"):
                assert browser.post(form, _save="1", name="x").status_code == 403, form
            assert browser.delete(page.model, rows[0]).status_code == 403
            for action in actions_of(page):
                browser.send(page.model, action, *rows)
            assert everything() == before


PAGE_RIGHTS = {
    "invite": "add_user",
    "change-role": "view_user",
    "end-access": "change_issuedtoken view_user",
    "import-users": "superuser",
    "policy-import": "superuser",
    "policy-export": "view_scope view_role view_primitive",
    "system": "view_system",
    "access_matrix": "view_role view_primitive",
    "definition_review": "view_primitive",
    "access_check": "view_user view_role view_primitive",
    "search": "",
}
"""Page without a model -> the permissions that it needs together."""


@pytest.mark.parametrize("name", SITE.pages)
def test_each_page_needs_all_of_its_permissions(
    short_refusals: None, scene: None, name: str
) -> None:
    needed, path = PAGE_RIGHTS[name].split(), f"/admin/{SITE.pages[name].path}"
    rest = staff_member("rest")
    for one in needed:
        rest.user_permissions.set(Permission.objects.exclude(codename=one))
        browser, before = AdminBrowser(rest), everything()
        assert browser.open(path).page.status_code == 403, one
        assert browser.post(path, apply="x").status_code == 403, one
        assert everything() == before, one
    superuser = needed == ["superuser"]
    who = staff_member("enough", *(() if superuser else needed), superuser=superuser)
    assert AdminBrowser(who).open(path).page.status_code == 200


SHOWN = re.compile(r"""(?:>|(?:title|aria-label|placeholder|alt)=")([^<>"]+)""")


def english_on(text: str, known: set[str]) -> set[str]:
    """The texts with three words or more that have a Korean translation."""
    if '<html lang="ko"' not in text:
        return set()  # A download, or a guide.
    found = {" ".join(html.unescape(one).split()) for one in SHOWN.findall(text)}
    return {one for one in found & known if one.count(" ") > 1}


@pytest.fixture
def english_afterwards() -> Iterator[None]:
    """The language of the last request would stay for texts without a request."""
    yield
    translation.deactivate()


def test_every_link_and_button_leads_somewhere(
    english_afterwards: None, scene: None
) -> None:
    """One of each kind, with the row of each list: none is missing, broken or English.

    A list that cannot read its address adds `e` to it. The reader reads Korean.
    """
    root = staff_member("root", "view_user", superuser=True)
    browser, known = reader_of_pages(root), english_texts()
    browser.defaults["HTTP_ACCEPT_LANGUAGE"] = "ko"
    broken, pages, pushed = list[str](), 0, set[str]()
    for path, answer, text in walk(browser, "/admin/", "/portal/"):
        pages += 1
        unreadable = "e" in parse_qs(answer.request["QUERY_STRING"])
        if answer.status_code != 200 or unreadable:
            broken.append(f"{path}: {answer.status_code}")
        misfits = [line for table in tables_on(text) for line in table.misfits]
        broken += [f"{path}: {line} does not fit its table" for line in misfits]
        broken += [f"{path}: {one}" for one in sorted(english_on(text, known))]
        for kind, form, button in buttons_on(path, text):
            if kind not in pushed:
                pushed.add(kind)
                status = press(browser, path, form, button).status_code
                if status not in (200, 302, 400):
                    broken.append(f"{kind}: {status}")
    assert not broken and pages > 80 and len(pushed) > 20, "\n".join(broken)
