"""Delegated administration, tried on every page of the admin, new ones included.

A staff member can neither extend rights beyond their own, nor remove rights from
users with more rights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from html.parser import HTMLParser
from typing import Any
from unittest.mock import patch
from urllib.parse import quote

import pytest
from allauth.mfa.models import Authenticator
from allauth.usersessions.models import UserSession
from django.contrib import admin
from django.contrib.auth.models import Group, Permission
from django.db import transaction
from django.template.response import SimpleTemplateResponse
from django.urls import reverse
from django.utils import timezone

from accounts.models import (
    AccessRequest,
    AuditEvent,
    ClaimRule,
    IssuedToken,
    OAuthClient,
    RevokedToken,
    Role,
    RoleAssignment,
    Scope,
    SigningKey,
    SignInProvider,
    User,
)
from mcp_bridge.models import Primitive
from tests.support.delegation_scene import (
    NAMES,
    add_tokens,
    restore_access,
    set_up,
    staff,
)
from tests.support.html_browser import Browser, Form
from tests.support.mcp_client import mcp_client
from tests.support.rights_snapshot import RightsMonitor, everything
from tests.support.server import Portico
from tests.support.users import make_user

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("sample_rows")]
SITE = admin.site
MOST_FIELDS = 16
"""The most fields of one form (the matrix has one per cell) that are tried alone."""
MOST_ROWS = 3
"""The most rows of one list whose forms are tried; all test users and their roles."""


def pages() -> list[Any]:
    return sorted(SITE._registry.values(), key=lambda page: page.opts.label)


PAGES = pages()
IDS = [page.opts.label for page in PAGES]


def actions_of(page: Any) -> list[str]:
    """Names of all its bulk actions, permitted or not."""
    return [name for _run, name, _title in page._get_base_actions()]


def list_path(page: Any) -> str:
    return reverse(f"admin:{page.opts.app_label}_{page.opts.model_name}_changelist")


@pytest.fixture(scope="module")
def sample_rows(rows: None, server: Portico) -> Iterator[None]:
    """At least one row per relevant model, so that every page can be tried."""
    with restore_access():
        set_up()
        add_tokens()
        yield


@pytest.fixture(scope="module")
def mallory(server: Portico, sample_rows: None) -> Iterator[Browser]:
    """Has every Django permission but no superuser status; a Guest at /mcp."""
    with server.in_process() as browser:
        browser.sign_in("mallory")
        # The list after each save would take half of the time.
        browser.http.follow_redirects = False
        yield browser


@pytest.fixture(scope="module")
def auditor(server: Portico, sample_rows: None) -> Iterator[Browser]:
    staff("audrey", group="Auditors")
    with server.in_process() as browser:
        browser.sign_in("audrey")
        yield browser


@pytest.fixture(scope="module")
def helpdesk(server: Portico, sample_rows: None) -> Iterator[Browser]:
    staff("henry", group="Helpdesk")
    with Browser(server.url) as browser:
        browser.sign_in("henry")
        yield browser


def form_values(form: Form, choices: dict[str, list[str]]) -> Iterator[dict[str, Any]]:
    """Form values that could extend rights: all at once, and each alone."""
    named = [name for name in choices if name and "-__" not in name]
    yield {name: choices[name] for name in named}
    yield from more_rows(form, choices)
    yield from ({name: ""} for name in BOUNDS if name in form.fields)
    yield {name: "2099-01-01" for name in form.fields if name.endswith("_0")}
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


BOUNDS = ("networks", "max_idle", "reason", "expires_at_0", "given_until_0")
"""Fields whose empty value means no limit."""


def more_rows(form: Form, choices: dict[str, list[str]]) -> Iterator[dict[str, Any]]:
    """Lines added to the inlines of a form, for each choice; and all deleted."""
    whole = {"username": "somebody-new", "usable_password": "false"}
    for name in [name for name in form.fields if name.endswith("-TOTAL_FORMS")]:
        prefix, total = name.removesuffix("-TOTAL_FORMS"), str(form.fields[name])
        for field, values in choices.items():
            if field.startswith(f"{prefix}-__prefix__-"):
                line = field.replace("__prefix__", total)
                more = {name: str(int(total) + 1)}
                yield from ({**whole, **more, line: value} for value in values)
        yield {f"{prefix}-{n}-DELETE": "on" for n in range(int(total))}
        yield {f"{prefix}-{n}-expires_at_0": "" for n in range(int(total))}


def options(text: str) -> dict[str, list[str]]:
    """Field -> the values its select offers."""
    found: dict[str, list[str]] = {}

    class Reader(HTMLParser):
        inside = ""

        def handle_starttag(self, tag: str, attrs: Any) -> None:
            attributes = dict(attrs)
            if tag == "select":
                self.inside = attributes.get("name") or ""
                found.setdefault(self.inside, [])
            elif tag == "option" and self.inside and attributes.get("value"):
                found[self.inside].append(attributes["value"])
            elif tag == "input" and attributes.get("type") in ("checkbox", "radio"):
                box = found.setdefault(attributes.get("name") or "", [])
                box.append(attributes.get("value") or "on")

    Reader().feed(text)
    return {
        name: [*dict.fromkeys(values[:3] + values[-3:])]
        for name, values in found.items()
    }


def known_keys(page: Any) -> list[str]:
    """Keys of some rows, those of the test users among them."""
    rows = page.model._default_manager.order_by("pk")
    if page.model is User:
        rows = rows.filter(username__in=NAMES)
    elif page.model in (RoleAssignment, UserSession, Authenticator):
        rows = rows.filter(user__username__in=NAMES)
    elif page.model is IssuedToken:
        rows = rows.live().filter(username__in=NAMES)
    elif page.model is Primitive:
        rows = rows.filter(name__in=("look", "rule", "grant_role"))
    elif page.model is Scope:
        rows = rows.filter(name__in=("Guest.Read", "Admin.Write"))
    elif page.model is AccessRequest:
        rows = rows.open()
    else:
        rows = rows.reverse()
    most = len(NAMES) if page.model in (User, RoleAssignment) else MOST_ROWS
    return [str(pk) for pk in rows.values_list("pk", flat=True)[:most]]


def update_rows(model: Any, fields: dict[str, Any], **which: Any) -> Any:
    """Change columns of some rows without any check."""
    assert model.objects.filter(**which).update(**fields), "nothing to change"


def grant_role(name: str, role: str, **more: Any) -> None:
    user, given = User.objects.get(username=name), Role.objects.get(name=role)
    RoleAssignment.objects.grant(user, given, **more)


def rows_of(name: str, **more: Any) -> dict[str, Any]:
    return {"user__username": name, **more}


ANYWHERE = {"networks": ""}
RAISES: dict[str, Callable[[], Any]] = {
    "a role": lambda: grant_role("mallory", "Admin"),
    "a role of somebody else": lambda: grant_role("bert", "User"),
    "a role's scope": lambda: Role.objects.get(name="Guest").scopes.add(
        Scope.objects.get(name="Admin.Write")
    ),
    "a role's networks": lambda: update_rows(Role, ANYWHERE, name="Office"),
    "a token's networks": lambda: update_rows(IssuedToken, ANYWHERE, username="alice"),
    "a client's networks": lambda: update_rows(
        OAuthClient, ANYWHERE, client_id="in-the-office"
    ),
    "a tool's scope": lambda: Primitive.objects.get(name="rule").required_scopes.set(
        Scope.objects.filter(name="Guest.Read")
    ),
    "a sensitive tool": lambda: update_rows(
        Primitive, {"sensitive": False}, name="grant_role"
    ),
    "a flag": lambda: update_rows(User, {"is_superuser": True}, username="mallory"),
    "a group": lambda: User.objects.get(username="mallory").groups.add(
        Group.objects.get(name="Helpdesk")
    ),
    "a provider": lambda: update_rows(
        SignInProvider, {"link_by_email": True}, slug="corp-of-scene"
    ),
    "a provider's rule": lambda: update_rows(
        ClaimRule, {"role": Role.objects.get(name="Admin")}, value="Guest"
    ),
    "a revocation": lambda: RevokedToken.objects.all()[:1].get().delete(),
    "an admin's password": lambda: update_rows(
        User, {"password": "x"}, username="carol"
    ),
    "an admin's address": lambda: update_rows(User, {"email": "x"}, username="carol"),
    "an admin's client": lambda: update_rows(
        OAuthClient, {"client_secret": "plain"}, client_id="acts-as-carol"
    ),
    "a client of an admin": lambda: update_rows(
        OAuthClient,
        {"service_account": User.objects.get(username="carol")},
        client_id="in-the-office",
    ),
}
"""Ways to extend a user's rights."""
LOWERS: dict[str, Callable[[], Any]] = {
    "a role": lambda: RoleAssignment.objects.filter(**rows_of("carol")).delete(),
    "a role's end": lambda: update_rows(
        RoleAssignment, {"expires_at": timezone.now()}, **rows_of("paul")
    ),
    "a role's scope": lambda: Role.objects.get(name="Payroll").scopes.clear(),
    "a scope": lambda: Scope.objects.filter(name="Payroll.Read").delete(),
    "an account": lambda: update_rows(User, {"is_active": False}, username="alice"),
    "a token": lambda: IssuedToken.objects.filter(username="carol").revoke(
        actor="x", reason="y"
    ),
    "a key": lambda: update_rows(SigningKey, {"state": "retired"}, state="retiring"),
    "a session": lambda: UserSession.objects.filter(**rows_of("carol")).delete(),
    "a factor": lambda: Authenticator.objects.filter(**rows_of("carol")).delete(),
    "a client": lambda: update_rows(
        OAuthClient, {"blocked": True}, client_id="acts-as-carol"
    ),
}
"""Ways to remove rights from a user with more rights."""


@pytest.mark.parametrize(
    "act",
    [*RAISES.values(), *LOWERS.values()],
    ids=[f"{n} given" for n in RAISES] + [f"{n} taken" for n in LOWERS],
)
def test_the_snapshot_detects_changes(act: Callable[[], Any]) -> None:
    """Without this the tests below would prove nothing."""
    watch = RightsMonitor("mallory", *NAMES)
    watch.check("nothing has changed")
    with transaction.atomic():
        act()
        with pytest.raises(AssertionError):
            watch.check_all("what was done")
        transaction.set_rollback(True)


def test_the_snapshot_detects_a_longer_end() -> None:
    """A user whose role has an end may not grant it for longer."""
    grant_role("mallory", "User", expires_at=timezone.now() + timedelta(hours=1))
    watch = RightsMonitor("mallory", *NAMES)
    with transaction.atomic():
        grant_role("bert", "User", expires_at=timezone.now() + timedelta(minutes=30))
        watch.check("within what mallory holds")
        grant_role("bert", "User", expires_at=timezone.now() + timedelta(hours=2))
        with pytest.raises(AssertionError):
            watch.check("longer")
        transaction.set_rollback(True)
    RoleAssignment.objects.filter(**rows_of("mallory", role__name="User")).delete()


@contextmanager
def unrendered() -> Iterator[None]:
    """Forms that are shown again stay empty: rendering takes most of the time."""

    def render(self: SimpleTemplateResponse) -> SimpleTemplateResponse:
        self.content = b""
        return self

    with patch.object(SimpleTemplateResponse, "render", render):
        yield


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_no_form_of_the_admin_extends_rights(mallory: Browser, page: Any) -> None:
    """Only superusers can extend their own rights or those of others."""
    watch = RightsMonitor("mallory", *NAMES)
    paths = [f"{list_path(page)}add/"]
    for key in known_keys(page):
        row = f"{list_path(page)}{quote(key, safe='')}"
        paths += [f"{row}/change/", f"{row}/password/"]
    for path in paths:
        mallory.open(path)
        assert mallory.page.status_code in (200, 302, 403, 404), path
        saves = [f for f in mallory.forms if any(b[0] == "_save" for b in f.buttons)]
        saves += [f for f in mallory.forms if "password1" in f.fields]
        saves += [
            f for f in mallory.forms if any(b[0] == "_approve" for b in f.buttons)
        ]
        choices = options(mallory.page.text)
        for form in saves[:1]:
            form.action = form.action or path
            for number, attempt in enumerate(form_values(form, choices)):
                with unrendered() if number else nullcontext():
                    mallory.submit(form, **attempt)
                assert mallory.page.status_code in (200, 302, 403, 404), path
                watch.check(f"{path} with {attempt}")
    watch.check_all(page.opts.label)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_no_action_of_the_admin_extends_rights(mallory: Browser, page: Any) -> None:
    """Covers bulk actions on every selection."""
    names = set(options(mallory.open(list_path(page)).page.text).get("action", []))
    token = mallory.http.cookies.get("csrftoken") or ""
    headers = {"referer": str(mallory.page.url), "x-csrftoken": token}
    for action in sorted({*actions_of(page), *names}):
        set_up()
        watch = RightsMonitor("mallory", *NAMES)
        sent = {"action": action, "_selected_action": known_keys(page)}
        sent |= {"confirmed": "yes", "post": "yes"}
        answer = mallory.http.post(list_path(page), data=sent, headers=headers)
        assert answer.status_code in (200, 302, 403), action
        watch.check_all(f"{action} of {page.opts.label}")
    set_up()


def custom_pages() -> list[str]:
    """Admin paths without arguments that belong to no model."""
    found = [f"/admin/{pattern.pattern}" for pattern in SITE.get_urls()]
    for page in PAGES:
        found += [f"{list_path(page)}{url.pattern}" for url in page.get_urls()]
    left = ("logout", "password_change", "<", "(?P", "add/", "autocomplete", "jsi18n")
    return sorted({path for path in found if not any(word in path for word in left)})


@pytest.mark.parametrize("path", custom_pages())
def test_no_other_page_of_the_admin_extends_rights(mallory: Browser, path: str) -> None:
    """Covers the matrix, imports, the policy and every new page."""
    watch = RightsMonitor("mallory", *NAMES)
    mallory.open(path)
    assert mallory.page.status_code in (200, 302, 403, 404, 405), path
    choices, here = options(mallory.page.text), str(mallory.page.url)
    for form in [f for f in mallory.forms if f.method == "post"]:
        harmless = any(word in form.action for word in ("logout", "/language/"))
        if harmless or {"confirmed", "action"} & form.fields.keys():
            continue
        form.action = form.action or here
        for attempt in form_values(form, choices):
            mallory.submit(form, **attempt)
            assert mallory.page.status_code < 500, f"{path} with {attempt}"
            watch.check(f"{path} with {attempt}")
    token = mallory.http.cookies.get("csrftoken") or ""
    headers = {"referer": here, "x-csrftoken": token}
    assert mallory.http.post(path, data={}, headers=headers).status_code < 500
    watch.check_all(path)


def test_an_auditors_own_pages_change_nothing(auditor: Browser) -> None:
    """Covers the pages that belong to no model."""
    before = everything()
    for path in custom_pages():
        assert auditor.open(path).page.status_code in (200, 403, 404, 405), path
        token = auditor.http.cookies.get("csrftoken") or ""
        headers = {"referer": str(auditor.page.url), "x-csrftoken": token}
        answer = auditor.http.post(path, data={}, headers=headers)
        assert answer.status_code < 500, path
    assert everything() == before


def test_the_helpdesk_revokes_and_nothing_else(
    helpdesk: Browser, server: Portico
) -> None:
    """A client with an open session sees the revocation in its next message."""
    make_user("frida", "User")
    client = mcp_client(server, "frida")
    frida = User.objects.get(username="frida")
    change_url = f"/admin/accounts/user/{frida.pk}/change/"
    assert helpdesk.open(change_url).page.status_code == 200
    assert all("_save" not in [b[0] for b in f.buttons] for f in helpdesk.forms)
    assert helpdesk.open("/admin/accounts/user/add/").page.status_code == 403
    helpdesk.act("/admin/accounts/user/?q=frida", "revoke_tokens", frida.pk)
    assert client.call("look").status_code == 401
    event = AuditEvent.objects.filter(action="token.revoked").first()
    assert event is not None and event.actor == "henry"


def test_the_groups_exist_after_migrate() -> None:
    """Both groups are created by a migration; an auditor may view every list."""
    permissions = set(
        Permission.objects.filter(group__name="Auditors").values_list(
            "content_type__app_label", "codename"
        )
    )
    expected = {(p.opts.app_label, f"view_{p.opts.model_name}") for p in PAGES}
    assert expected <= permissions
    assert all(codename.startswith("view_") for _app, codename in permissions)
    assert not SITE.is_registered(Group)
