"""Delegated administration, tried on every page the admin has: new ones too.

Whatever a member of staff sends, nobody's rights grow beyond what that member holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, Permission
from django.db import transaction
from django.urls import reverse

from accounts.models import (
    AccessRequest,
    AuditEvent,
    OAuthClient,
    Role,
    RoleAssignment,
    Scope,
    User,
)
from mcp_bridge.models import Primitive
from tests.flows.browser import Browser, Form
from tests.flows.rights import Watch, everything
from tests.flows.server import Portico
from tests.flows.wire import wire
from tests.people import person

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("scene")]
SITE = admin.site
MOST_FIELDS = 30
"""Fields of one form (the matrix has one for each cell) that are tried one by one."""
PEOPLE = (("alice", "User"), ("bert", "Guest"), ("carol", "Admin"))


def pages() -> list[Any]:
    """Every ModelAdmin on the site."""
    return sorted(SITE._registry.values(), key=lambda page: page.opts.label)


PAGES = pages()
IDS = [page.opts.label for page in PAGES]


def actions_of(page: Any) -> list[str]:
    """Names of all its bulk actions, permitted or not."""
    return [name for _run, name, _title in page._get_base_actions()]


def list_of(page: Any) -> str:
    """The path of its list."""
    return reverse(f"admin:{page.opts.app_label}_{page.opts.model_name}_changelist")


def staff(name: str, *roles: str, group: str = "", everything: bool = False) -> User:
    """A member of staff who is no superuser."""
    somebody = person(name, *roles)
    somebody.is_staff = True
    somebody.save()
    somebody.groups.set(Group.objects.filter(name=group))
    somebody.user_permissions.set(Permission.objects.all() if everything else [])
    return somebody


@pytest.fixture(scope="module")
def scene(rows: None, server: Portico) -> Iterator[None]:
    """One row at least of what matters, so that every page has something to try."""
    for name, role in PEOPLE:
        person(name, role, admin=name == "carol")
    AccessRequest.objects.filter(state="open").delete()
    mallory = staff("mallory", "Guest", everything=True)
    for user in (mallory, User.objects.get(username="bert")):
        for role in ("Admin", "Guest"):
            AccessRequest.objects.get_or_create(
                user=user,
                role=Role.objects.get(name=role),
                reason="let me",
                state="open",
            )
    client, _new = OAuthClient.objects.get_or_create(
        client_id="acts-as-carol",
        defaults={
            "name": "Robot",
            "client_type": "confidential",
            "grant_types": ["client_credentials"],
            "authorization_grant_type": "client-credentials",
            "token_endpoint_auth_method": "client_secret_basic",
        },
    )
    client.service_account = User.objects.get(username="carol")
    client.save()
    wire(server, "alice").call("look")
    with put_back():
        yield
    User.objects.filter(username__in=("mallory", "audrey", "henry")).delete()


@contextmanager
def put_back() -> Iterator[None]:
    """Access as it was, for the tests that come after."""
    primitives = list(Primitive.objects.prefetch_related("required_scopes"))
    roles = list(Role.objects.prefetch_related("scopes"))
    yield
    for primitive in primitives:
        primitive.save()
        primitive.required_scopes.set(primitive.required_scopes.all())
    for role in roles:
        role.scopes.set(role.scopes.all())


@pytest.fixture(scope="module")
def mallory(server: Portico, scene: None) -> Iterator[Browser]:
    """Every Django permission there is, but no superuser; a Guest at /mcp."""
    staff("mallory", "Guest", everything=True)
    with Browser(server.url) as browser:
        browser.sign_in("mallory")
        yield browser


@pytest.fixture(scope="module")
def auditor(server: Portico, scene: None) -> Iterator[Browser]:
    """Of the group Auditors."""
    staff("audrey", group="Auditors")
    with Browser(server.url) as browser:
        browser.sign_in("audrey")
        yield browser


@pytest.fixture(scope="module")
def helpdesk(server: Portico, scene: None) -> Iterator[Browser]:
    """Of the group Helpdesk."""
    staff("henry", group="Helpdesk")
    with Browser(server.url) as browser:
        browser.sign_in("henry")
        yield browser


def attempts(form: Form, choices: dict[str, list[str]]) -> Iterator[dict[str, Any]]:
    """Ways to fill a form in that could raise somebody: everything at once, each."""
    named = [name for name in choices if name]
    yield dict(choices)
    if len(named) > MOST_FIELDS:
        named = [*named[: MOST_FIELDS // 2], *named[-MOST_FIELDS // 2 :]]
    for name in named:
        many = isinstance(form.fields.get(name), list)
        values = choices[name]
        for value in [values] if many else values:
            yield {name: value}
    if "user" in form.fields:
        for user in ("alice", "bert", "mallory"):
            for name in named:
                yield from ({"user": user, name: value} for value in choices[name])
    flags = [n for n in form.fields if n.startswith("is_")] + [
        "is_superuser",
        "is_staff",
        "enabled",
    ]
    yield dict.fromkeys(flags, "on")
    yield {"sensitive": None, "enabled": "on"}
    permissions = [str(pk) for pk in Permission.objects.values_list("pk", flat=True)]
    groups = [str(pk) for pk in Group.objects.values_list("pk", flat=True)]
    yield {"user_permissions": permissions, "groups": groups}
    secret = "mallory-was-here-9"
    yield {"password1": secret, "password2": secret, "usable_password": "true"}
    yield {"password": "plain"}


def options(text: str) -> dict[str, list[str]]:
    """Field -> the values its select offers."""
    from html.parser import HTMLParser

    found: dict[str, list[str]] = {}

    class Reader(HTMLParser):
        inside = ""

        def handle_starttag(self, tag: str, attrs: Any) -> None:
            given = dict(attrs)
            if tag == "select":
                self.inside = given.get("name") or ""
                found.setdefault(self.inside, [])
            elif tag == "option" and self.inside and given.get("value"):
                found[self.inside].append(given["value"])
            elif tag == "input" and given.get("type") in ("checkbox", "radio"):
                box = found.setdefault(given.get("name") or "", [])
                box.append(given.get("value") or "on")

    Reader().feed(text)
    return {
        name: [*dict.fromkeys(values[:3] + values[-3:])]
        for name, values in found.items()
        if "-__" not in name
    }


def known(page: Any) -> list[str]:
    """Keys of some rows, those of the people of the story among them."""
    rows = page.model._default_manager.order_by("pk")
    if page.model is User:
        rows = rows.filter(username__in=("alice", "bert", "carol", "mallory"))
    elif page.model is RoleAssignment:
        names = ("alice", "bert", "carol", "mallory")
        rows = rows.filter(user__username__in=names)
    elif page.model is Primitive:
        rows = rows.filter(name__in=("look", "rule", "grant_role"))
    elif page.model is Scope:
        rows = rows.filter(name__in=("Guest.Read", "Admin.Write"))
    elif page.model is AccessRequest:
        rows = rows.open()
    else:
        rows = rows.reverse()
    return [str(pk) for pk in rows.values_list("pk", flat=True)[:4]]


RAISES: dict[str, Callable[[User], Any]] = {
    "a role": lambda user: RoleAssignment.objects.grant(
        user, Role.objects.get(name="Admin")
    ),
    "a role's scope": lambda _user: Role.objects.get(name="Guest").scopes.add(
        Scope.objects.get(name="Admin.Write")
    ),
    "a tool's scope": lambda _user: Primitive.objects.get(
        name="rule"
    ).required_scopes.set(Scope.objects.filter(name="Guest.Read")),
    "a flag": lambda user: User.objects.filter(pk=user.pk).update(is_superuser=True),
    "an admin's password": lambda _user: User.objects.filter(username="carol").update(
        password="plain"
    ),
    "an admin's client": lambda _user: OAuthClient.objects.filter(
        client_id="acts-as-carol"
    ).update(client_secret="plain"),
}


@pytest.mark.parametrize("name", RAISES)
def test_the_watch_sees_who_is_raised(mallory: Browser, name: str) -> None:
    """Else the tests below would mean nothing."""
    watch = Watch("mallory")
    watch.check("nothing has changed")
    with transaction.atomic():
        RAISES[name](User.objects.get(username="mallory"))
        with pytest.raises(AssertionError):
            watch.check(name)
        transaction.set_rollback(True)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_no_form_of_the_admin_raises_anybody(mallory: Browser, page: Any) -> None:
    """issue: nobody but a superuser can raise their own rights or those of others."""
    watch = Watch("mallory")
    paths = [f"{list_of(page)}add/"]
    for key in known(page):
        row = f"{list_of(page)}{quote(key, safe='')}"
        paths += [f"{row}/change/", f"{row}/password/"]
    for path in paths:
        mallory.open(path)
        assert mallory.page.status_code in (200, 403, 404), path
        saves = [f for f in mallory.forms if any(b[0] == "_save" for b in f.buttons)]
        saves += [f for f in mallory.forms if "password1" in f.fields]
        saves += [
            f for f in mallory.forms if any(b[0] == "_approve" for b in f.buttons)
        ]
        choices = options(mallory.page.text)
        for form in saves[:1]:
            form.action = form.action or path
            for attempt in attempts(form, choices):
                mallory.submit(form, **attempt)
                assert mallory.page.status_code in (200, 403, 404), path
                watch.check(f"{path} with {attempt}")
    watch.check_all(page.opts.label)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_no_action_of_the_admin_raises_anybody(mallory: Browser, page: Any) -> None:
    """issue: bulk actions too, on whatever is selected."""
    watch = Watch("mallory")
    # What only takes away; the last two end browser sessions, which are secrets too.
    harmless = {"delete_selected", "deactivate", "withdraw", "revoke_tokens", "end"}
    names = set(options(mallory.open(list_of(page)).page.text).get("action", []))
    token = mallory.http.cookies.get("csrftoken") or ""
    keys = known(page)
    for action in {*actions_of(page), *names} - harmless:
        sent = {"action": action, "_selected_action": keys, "confirmed": "yes"}
        headers = {"referer": str(mallory.page.url), "x-csrftoken": token}
        answer = mallory.http.post(list_of(page), data=sent, headers=headers)
        assert answer.status_code in (200, 403), action
        watch.check(action)
    watch.check_all(page.opts.label)


def pages_of_their_own() -> list[str]:
    """Paths in the admin that are no model's list or row and take no arguments."""
    found = [f"/admin/{pattern.pattern}" for pattern in SITE.get_urls()]
    for page in PAGES:
        found += [f"{list_of(page)}{url.pattern}" for url in page.get_urls()]
    left = ("logout", "password_change", "<", "(?P", "add/", "autocomplete", "jsi18n")
    return sorted({path for path in found if not any(word in path for word in left)})


@pytest.mark.parametrize("path", pages_of_their_own())
def test_no_page_of_its_own_raises_anybody(mallory: Browser, path: str) -> None:
    """issue: matrix, import, policy, and whatever comes."""
    watch = Watch("mallory")
    mallory.open(path)
    assert mallory.page.status_code in (200, 403, 404, 405), path
    choices, here = options(mallory.page.text), str(mallory.page.url)
    for form in [f for f in mallory.forms if f.method == "post"]:
        harmless = any(word in form.action for word in ("logout", "/language/"))
        if harmless or {"confirmed", "action"} & form.fields.keys():
            continue
        form.action = form.action or here
        for attempt in attempts(form, choices):
            mallory.submit(form, **attempt)
            assert mallory.page.status_code < 500, f"{path} with {attempt}"
            watch.check(f"{path} with {attempt}")
    token = mallory.http.cookies.get("csrftoken") or ""
    headers = {"referer": here, "x-csrftoken": token}
    assert mallory.http.post(path, data={}, headers=headers).status_code < 500
    watch.check_all(path)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_an_auditor_reads_everything_and_changes_nothing(
    auditor: Browser, page: Any
) -> None:
    """issue: auditor."""
    path = list_of(page)
    assert auditor.open(path).page.status_code == 200, path
    keys, before = known(page), everything()
    token = auditor.http.cookies.get("csrftoken") or ""
    headers = {"referer": str(auditor.page.url), "x-csrftoken": token}
    posts: list[tuple[str, Any]] = [
        (f"{path}add/", {}),
        *((f"{path}{quote(k, safe='')}/delete/", {"post": "yes"}) for k in keys),
    ]
    for key in keys:
        change = f"{path}{quote(key, safe='')}/change/"
        assert auditor.open(change).page.status_code == 200, change
        posts.append((change, {"_save": "1", "_approve": "1", "is_superuser": "on"}))
    for action in actions_of(page):
        act = {"action": action, "_selected_action": keys, "confirmed": "yes"}
        posts.append((path, act))
    for target, data in posts:
        answer = auditor.http.post(target, data=data, headers=headers)
        assert answer.status_code in (200, 302, 403), target
    assert everything() == before


def test_an_auditors_own_pages_change_nothing(auditor: Browser) -> None:
    """issue: nor do the pages that are no model's."""
    before = everything()
    for path in pages_of_their_own():
        assert auditor.open(path).page.status_code in (200, 403, 404, 405), path
        token = auditor.http.cookies.get("csrftoken") or ""
        headers = {"referer": str(auditor.page.url), "x-csrftoken": token}
        answer = auditor.http.post(path, data={}, headers=headers)
        assert answer.status_code < 500, path
    assert everything() == before


def test_the_helpdesk_revokes_and_nothing_else(
    helpdesk: Browser, server: Portico
) -> None:
    """issue: helpdesk; the next message of an open client sees it."""
    person("frida", "User")
    client = wire(server, "frida")
    frida = User.objects.get(username="frida")
    change = f"/admin/accounts/user/{frida.pk}/change/"
    assert helpdesk.open(change).page.status_code == 200
    assert all("_save" not in [b[0] for b in f.buttons] for f in helpdesk.forms)
    assert helpdesk.open("/admin/accounts/user/add/").page.status_code == 403
    helpdesk.act("/admin/accounts/user/?q=frida", "revoke_tokens", frida.pk)
    assert client.call("look").status_code == 401
    event = AuditEvent.objects.filter(action="token.revoked").first()
    assert event is not None and event.actor == "henry"


def test_the_groups_are_ready_made() -> None:
    """issue: shipped, and an auditor may look at every list there is."""
    held = set(
        Permission.objects.filter(group__name="Auditors").values_list(
            "content_type__app_label", "codename"
        )
    )
    wanted = {(p.opts.app_label, f"view_{p.opts.model_name}") for p in PAGES}
    assert wanted <= held
    assert all(codename.startswith("view_") for _app, codename in held)
    assert not SITE.is_registered(Group)
