"""Lookups in addresses of the admin, over HTTP: only those its pages link to."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from html import unescape
from typing import Any
from urllib.parse import parse_qsl, urljoin, urlsplit

import pytest
from allauth.usersessions.models import UserSession
from django.contrib import admin
from django.contrib.auth.models import Group, Permission
from django.db import connection
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from accounts.models import AuditEvent, IssuedToken, RevokedToken, SavedView
from mcp_bridge.models import Primitive
from tests.flows.admin.test_lists import served
from tests.support.html_browser import Browser
from tests.support.mcp_client import mcp_client
from tests.support.server import Portico
from tests.support.users import make_user

pytestmark = [pytest.mark.postgresql, pytest.mark.usefixtures("default_users")]
GROUPS = {"audrey": "Auditors", "helen": "Helpdesk", "rolf": "Role managers"}
TOKENS, AUDIT = "/admin/accounts/issuedtoken/", "/admin/accounts/auditevent/"
USERS, ROLES = "/admin/accounts/user/", "/admin/accounts/role/"
LEFT_OUT = re.compile("/logout/|/jsi18n/|/export/|/password/|^/admin/login/")
KEY = re.compile(r"/(\d+|[0-9a-f]{16,32})(?=/)")


@pytest.fixture(scope="module")
def staff(server: Portico, rows: None) -> Iterator[dict[str, Browser]]:
    """carol and one member of each default group, signed in to the admin."""
    make_user("carol", "Admin", admin=True)
    mcp_client(server, "carol").call("rule")
    with ExitStack() as opened:
        browsers = {}
        for name in ("carol", *GROUPS):
            if name in GROUPS:
                user = make_user(name)
                user.is_staff = True
                user.save()
                user.groups.set(Group.objects.filter(name=GROUPS[name]))
            browsers[name] = opened.enter_context(server.in_process()).sign_in(name)
        yield browsers


def lists() -> list[tuple[str, Any]]:
    """(path, ModelAdmin) of every list."""
    return [
        (reverse(f"admin:{p.opts.app_label}_{p.opts.model_name}_changelist"), p)
        for p in admin.site._registry.values()
    ]


@pytest.mark.once
@pytest.mark.parametrize("who", ["carol", *GROUPS])
def test_a_secret_cannot_be_read_letter_by_letter(
    staff: dict[str, Browser], who: str
) -> None:
    """The class of CVE-2010-4534, which gave session keys and hashes away."""
    key = UserSession.objects.filter(user__username="carol")[0].session_key
    attempts = {
        TOKENS: [
            f"user__usersession__session_key__regex=^{key[:2]}",
            "user__password__startswith=argon2",
            "secret_hash__startswith=a",
            "secret_hash__gte=a",
            "jti__regex=^[0-9a-f]{13}(([0-9a-f])+)+z$",
            "jti__regex=[",
        ],
        "/admin/usersessions/usersession/": [
            f"session_key__regex=^{key[:2]}",
            f"session_key={key}",
            f"session_key__in={key},x",
            "data__contains=a",
        ],
        "/admin/mfa/authenticator/": ["data__contains=a", "data__secret__gte=a"],
        "/admin/axes/accessattempt/": ["post_data__contains=otp", "get_data=x"],
        "/admin/socialaccount/socialaccount/": ["extra_data__icontains=a"],
        "/admin/accounts/oauthclient/": ["client_secret__startswith=argon2"],
        "/admin/accounts/oauthgrant/": ["code__gte=a", "application__client_secret=x"],
        "/admin/accounts/signingkey/": ["private_encrypted__contains=a"],
        USERS: ["password__gte=a", "usersession__session_key__lt=z", "email__regex=a"],
        AUDIT: ["changes__icontains=a", "actor__regex=(a+)+$", "at__year=2026"],
    }
    for path, queries in attempts.items():
        may_look = staff[who].http.get(path).status_code == 200
        for query in queries:
            answer = staff[who].http.get(f"{path}?{query}", follow_redirects=False)
            assert answer.status_code == (400 if may_look else 403), f"{path}?{query}"


@pytest.mark.once
@pytest.mark.parametrize("who", ["carol", *GROUPS])
def test_every_list_refuses_what_it_does_not_declare(
    staff: dict[str, Browser], who: str
) -> None:
    """Includes new lists and lists of other apps; the error names the parameter."""
    refused = 0
    for path, page in lists():
        column = page.opts.concrete_fields[-1].name
        answer = staff[who].http.get(f"{path}?{column}__iregex=(a%2B)%2B$")
        assert answer.status_code in (400, 403), path
        if answer.status_code == 400:
            refused += 1
            assert f"{column}__iregex" in answer.json()["error_description"]
    assert refused > 3
    headers = {"accept": "text/html"}
    answer = staff["carol"].http.get(f"{ROLES}?name__<b>=1", headers=headers)
    assert answer.status_code == 400 and "filter name__&lt;b&gt;" in answer.text
    assert f'href="{ROLES}"' in answer.text


def test_an_unreadable_value_shows_all_rows_and_says_so(
    staff: dict[str, Browser],
) -> None:
    """The answer is never 500 or 503."""
    carol = staff["carol"]
    queries = [
        f"{TOKENS}?issued_at__gte=zzz",
        f"{TOKENS}?username=a%00b",
        f"{TOKENS}?client_id={'x' * 5000}",
        f"{TOKENS}?o=1",
        f"{TOKENS}?o={'.'.join(['7'] * 3000)}",
        f"{TOKENS}?q={'a' * 60_000}",
        f"{USERS}?q={'a+' * 2000}",
        f"{USERS}?role_assignments__role__id__exact={'9' * 40}",
        f"{USERS}?role_assignments__role__id__in=x",
        f"{USERS}?{'&'.join(['is_staff__exact=1'] * 1200)}",
        f"{USERS}?is_staff__exact=foo",
        f"{ROLES}?held_by__gte=1",
        f"{ROLES}?nothing=1",
        f"{AUDIT}?at__lt=9999-12-31T23:59:59-12:00",
        f"{AUDIT}?at__gte=0001-01-01",
        f"{AUDIT}?object=%00",
        "/admin/accounts/consent/?client__id__exact=x",
    ]
    for query in queries:
        page = carol.open(query).page
        assert page.status_code == 200, query
        if is_unreadable(page):
            assert "so all rows are shown" in page.text
        flagged = carol.http.get(f"{query}&e=1", follow_redirects=False)
        assert flagged.status_code in (200, 400), query
    assert carol.open(f"{USERS}?is_active__isnull=foo").page.status_code == 200
    for query in ("at__gte=zzz", "object=%00", "changes__regex=[", "q=%00"):
        answer = carol.http.get(f"{AUDIT}export/csv/?{query}")
        assert answer.status_code == 400, query


def test_an_invalid_key_finds_no_row(staff: dict[str, Browser]) -> None:
    """Covers keys in an address and among rows selected for an action."""
    carol = staff["carol"]
    for path in ("revokedtoken/%00/change/", "user/x/change/", f"user/{'9' * 40}/"):
        page = carol.open(f"/admin/accounts/{path}").page
        assert page.status_code in (200, 404), path
    for key in ("x", "9" * 40, "\x00"):
        carol.act(USERS, "unlock", key)
        assert (
            carol.page.status_code == 200
            and "This row does not exist" in carol.page.text
        )
    row = RevokedToken.objects.create(jti="e" * 32, until="2099-01-01T00:00Z")
    page = carol.open(f"/admin/accounts/revokedtoken/{row.pk}/change/").page
    row.delete()
    assert page.status_code == 200


@pytest.mark.once
def test_popups_and_autocomplete_show_no_more(staff: dict[str, Browser]) -> None:
    """`_to_field` names a column, autocomplete searches one."""
    for path, field in ((USERS, "password"), (USERS, "email"), (TOKENS, "secret_hash")):
        for browser in (staff["carol"], staff["audrey"]):
            answer = browser.http.get(f"{path}?_popup=1&_to_field={field}")
            assert answer.status_code == 400, path
    assert staff["carol"].open(f"{USERS}?_popup=1&_to_field=id").page.status_code == 200
    query = "app_label=accounts&model_name=issuedtoken&field_name=user&term=a"
    for browser in staff.values():
        answer = browser.http.get(f"/admin/autocomplete/?{query}")
        assert answer.status_code == 403


@pytest.mark.once
def test_a_view_with_refused_parameters_is_not_saved(
    staff: dict[str, Browser],
) -> None:
    """A shared view would be a link that other users follow."""
    carol = staff["carol"].open(AUDIT)
    form = carol.form("query")
    carol.submit(form, name="Odd", query="changes__regex=x&actor=a")
    assert "cannot be filtered by changes__regex" in carol.page.text
    assert not SavedView.objects.filter(name="Odd").exists()


def is_unreadable(page: Any) -> bool:
    """Whether the list could not read the address."""
    return "e" in dict(parse_qsl(urlsplit(str(page.url)).query))


def page_kind(url: str) -> str:
    """Pages of one kind differ only in keys and values."""
    parts = urlsplit(url)
    names = sorted({name for name, _value in parse_qsl(parts.query, True)})
    return f"{KEY.sub('/*', parts.path)}?{'&'.join(names)}"


@pytest.mark.once
@pytest.mark.parametrize("who", ["helen", "rolf"])
def test_every_link_of_every_page_is_accepted(
    staff: dict[str, Browser], who: str
) -> None:
    """Follows filters, orders, dates, figures and a user's summary.

    tests/accounts/admin/test_every_page.py does so as a superuser.
    """
    start = f"{staff[who].http.base_url}".rstrip("/")
    waiting, known = deque(["/admin/"]), {"/admin/?"}
    wrong, followed = [], 0
    while waiting:
        path = waiting.popleft()
        page = staff[who].http.get(path)
        followed += 1
        if page.status_code != 200 or is_unreadable(page):
            wrong.append(f"{page.status_code} {path}")
        if urlsplit(path).query:
            continue
        for target in re.findall(r'<a\b[^>]*\bhref="([^"#]+)', page.text):
            url = urljoin(str(page.url), unescape(target)).removeprefix(start)
            kind = page_kind(url)
            known_or_not_ours = kind in known or not url.startswith("/admin/")
            if not known_or_not_ours and not LEFT_OUT.search(url):
                known.add(kind)
                waiting.append(url)
    assert wrong == [] and followed > 20


@pytest.mark.once
def test_an_export_needs_the_permissions_of_its_lists(
    staff: dict[str, Browser], server: Portico
) -> None:
    """The policy holds scopes, roles and primitives, the audit its events."""
    scopes, primitives = "/admin/accounts/scope/", "/admin/mcp_bridge/primitive/"
    exports = {
        "/admin/policy/export/": (scopes, ROLES, primitives),
        f"{AUDIT}export/csv/": (AUDIT,),
        f"{AUDIT}export/jsonl/": (AUDIT,),
    }
    found = {}
    for who, browser in staff.items():
        for path, listed in exports.items():
            may_list = all(browser.open(p).page.status_code == 200 for p in listed)
            with served(browser, server) as other:
                status = other.open(path).page.status_code
            assert status == (200 if may_list else 403), (who, path)
            found[who, path] = status
    assert found["helen", "/admin/policy/export/"] == 403
    assert found["rolf", f"{AUDIT}export/csv/"] == 403
    assert found["rolf", "/admin/policy/export/"] == 200


@pytest.mark.once
def test_every_page_of_the_site_is_tried_as_every_group(
    staff: dict[str, Browser],
) -> None:
    """A page opens with the permission it declares and is hidden from other menus."""
    site: Any = admin.site
    for who, browser in staff.items():
        user = make_user(
            who, *(["Admin"] if who == "carol" else []), admin=who == "carol"
        )
        menu = browser.open("/admin/").page.text
        for page in site.pages.values():
            permitted = user.has_perms(page.permissions)
            may_open = user.is_superuser if page.superusers_only else permitted
            path = f"/admin/{page.path}"
            status = browser.open(path).page.status_code
            assert status == (200 if may_open else 403), (who, path)
            shown = f'href="{path}"' in menu
            assert shown == (may_open and page.in_menu), (who, path)


@pytest.mark.once
def test_the_access_check_reads_only_permitted_lists(
    staff: dict[str, Browser], server: Portico
) -> None:
    """It may not reveal events or a token's name to Role managers."""
    client = mcp_client(server, "alice")
    client.call("look")
    event = AuditEvent.objects.exclude(token_id="").latest("id")
    row = IssuedToken.objects.filter(username="alice", kind="access")[0]
    check, rolf = "/admin/access/check/", staff["rolf"]
    assert rolf.open(check).page.status_code == 200
    assert "paste a token" not in rolf.page.text
    assert rolf.open(f"{check}?user=alice").page.status_code == 200
    for query in (f"event={event.pk}", "event=1", f"jti={row.jti}", "jti=0"):
        answer = rolf.http.get(f"{check}?{query}", follow_redirects=False)
        assert answer.status_code == 403, query
        assert "location" not in answer.headers
    headers = {"referer": f"{server.url}{check}"}
    headers["x-csrftoken"] = rolf.http.cookies.get("csrftoken") or ""
    for pasted in (client.token, "x"):
        sent = {"token": pasted}
        answer = rolf.http.post(check, data=sent, headers=headers)
        assert answer.status_code == 403
    judy = make_user("judy")
    judy.is_staff = True
    judy.save()
    codes = ("view_user", "view_role", "view_primitive")
    judy.user_permissions.set(Permission.objects.filter(codename__in=codes))
    look = Primitive.objects.get(name="look").pk
    with server.in_process() as browser:
        browser.sign_in("judy")
        for query, named in (
            (f"primitive={look}", "Who can use"),
            ("user=alice", "Decided by"),
        ):
            text = browser.open(f"{check}?{query}").page.text
            assert named in text and "Current roles:" not in text
            assert "people in total" not in text and "person in total" not in text
    audrey = staff["audrey"]
    assert "in total" in audrey.open(f"{check}?primitive={look}").page.text
    assert "paste a token" in audrey.open(check).page.text
    assert audrey.open(f"{check}?jti={row.jti}").page.status_code == 200
    assert "jti=" in str(audrey.open(f"{check}?event={event.pk}").page.url)


def own_urls() -> list[str]:
    """Addresses of lists beyond those of every ModelAdmin."""
    found = []
    for path, page in lists():
        usual = {str(url.pattern) for url in admin.ModelAdmin.get_urls(page)}
        own = [str(url.pattern) for url in page.get_urls()]
        found += [path + route for route in own if route not in usual]
    return found


@pytest.mark.once
def test_additional_addresses_of_lists_check_permissions(
    server: Portico, default_users: None
) -> None:
    """A new export or action of a list is tried without being listed here."""
    nils = make_user("nils")
    nils.is_staff = True
    nils.save()
    urls = [re.sub(r"<slug:\w+>", "csv", path) for path in own_urls()]
    urls = [re.sub(r"<\w+(:\w+)?>", "1", path) for path in urls]
    assert f"{AUDIT}export/csv/" in urls and len(urls) > 4
    before = AuditEvent.objects.exclude(action__startswith="user.").count()
    with server.in_process() as browser:
        browser.sign_in("nils")
        token = browser.http.cookies.get("csrftoken") or ""
        headers = {"referer": f"{server.url}/admin/", "x-csrftoken": token}
        for path in urls:
            for method in ("GET", "POST"):
                answer = browser.http.request(
                    method, path, headers=headers, follow_redirects=False
                )
                assert answer.status_code in (302, 403, 404, 405), (method, path)
    assert AuditEvent.objects.exclude(action__startswith="user.").count() == before


OF_ALL_TABLES = {"system"}
"""`doctor` reads every table, and `view_system` permits that."""

SHOWN_BESIDE = {
    "accounts_scope": ("accounts_role", "mcp_bridge_primitive"),
    "accounts_roleassignment": ("accounts_user",),
    "mcp_bridge_upstreamserver": ("mcp_bridge_primitive",),
}
"""Tables whose rows other lists name: scopes of roles and tools, roles of users.

A decision about a tool also needs its server: whether it is enabled.
"""


def tables_read(page: Any, request: Any) -> set[str]:
    """The tables read while the page is rendered."""
    with CaptureQueriesContext(connection) as queries:
        answer = page.as_view()(request)
        if hasattr(answer, "render"):
            answer.render()
    sql = " ".join(query["sql"] for query in queries)
    return set(re.findall(r'(?:FROM|JOIN) "(\w+)"', sql))


@pytest.mark.once
def test_a_page_declares_a_permission_for_every_list_it_reads(
    server: Portico, default_users: None, settings: Any
) -> None:
    """A user with exactly the declared permissions may open these lists too."""
    plain = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    settings.STORAGES = {**settings.STORAGES, "staticfiles": plain}
    site: Any = admin.site
    primitive = Primitive.objects.get(name="look").pk
    registered = {page.opts.db_table: page for page in site._registry.values()}
    reader, read = make_user("reader"), set()
    reader.is_staff = True
    reader.save()
    for page in site.pages.values():
        if page.superusers_only or page.name in OF_ALL_TABLES:
            continue
        codes = [name.partition(".")[2] for name in page.permissions]
        reader.user_permissions.set(Permission.objects.filter(codename__in=codes))
        for query in ({}, {"user": "alice"}, {"primitive": primitive}):
            request = RequestFactory().get(f"/admin/{page.path}", query)
            request.user = type(reader).objects.get(pk=reader.pk)
            for table in tables_read(page, request) & registered.keys():
                read.add(table)
                lists = [registered[n] for n in (table, *SHOWN_BESIDE.get(table, ()))]
                listed = any(other.has_view_permission(request) for other in lists)
                assert listed, (page.name, table)
    assert "accounts_role" in read and "mcp_bridge_primitive" in read
