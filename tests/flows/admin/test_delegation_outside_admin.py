"""Delegated administration outside the admin's pages: MCP tools, portal, API, imports.

New tools and new paths fail here until they are listed with values to try.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from allauth.usersessions.models import UserSession
from django.urls import URLPattern, URLResolver, get_resolver

from accounts.imports.user_csv_plan import plan_users
from accounts.models import (
    AccessRequest,
    Consent,
    ImportDraft,
    IssuedToken,
    Role,
    RoleAssignment,
    User,
)
from mcp_bridge.access.policy_file import policy_diff
from mcp_bridge.server.discovery import autodiscover
from tests.support.delegation_scene import (
    NAMES,
    add_tokens,
    an_hour_from_now,
    restore_access,
    set_up,
    staff,
)
from tests.support.html_browser import Browser
from tests.support.mcp_client import mcp_client
from tests.support.rights_snapshot import RightsMonitor
from tests.support.server import Portico
from tests.support.users import PASSWORD, make_user

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("sample_rows")]


@pytest.fixture(scope="module")
def sample_rows(rows: None, server: Portico) -> Iterator[None]:
    """Users, clients and tokens; adm and stan have Admin, one of them in the admin."""
    with restore_access():
        set_up()
        make_user("adm", "Guest")
        staff("stan", "Guest", group="Role managers")
        for name in ("adm", "stan"):
            user, role = User.objects.get(username=name), Role.objects.get(name="Admin")
            RoleAssignment.objects.grant(user, role, expires_at=an_hour_from_now())
        add_tokens()
        yield


VALUES: dict[str, list[Any]] = {
    "user": ["adm", "stan", "carol", "paul", "alice", "bert"],
    "role": ["Admin", "Payroll", "User", "Ruled"],
    "until": ["", "30d"],
    "reason": ["from provider corp-of-scene"],
    "contains": [""],
    "limit": [500],
}
"""Argument of a tool of Portico -> the values to try; add each new argument."""


def tools() -> dict[str, list[str]]:
    """Every tool of Portico -> its arguments."""
    offered = autodiscover().tools.all_tools()
    return {tool.name: list(tool.parameters["properties"]) for tool in offered}


@pytest.mark.parametrize("actor", ["adm", "stan"])
@pytest.mark.parametrize("tool", tools())
def test_no_tool_extends_rights(server: Portico, tool: str, actor: str) -> None:
    """Tested with the usual token, a wide token and a token for one tool."""
    arguments = tools()[tool]
    assert set(arguments) <= VALUES.keys(), f"say what to try with {tool}"
    ways = [dict(zip(arguments, way, strict=True)) for way in argument_sets(arguments)]
    set_up()
    watch = RightsMonitor(actor, *NAMES, "stan")
    for scope in ("mcp", f"tool:{tool}", "mcp Admin.Write"):
        client = mcp_client(server, actor, scope=scope)
        for way in ways if "Admin" in scope else ways[:1]:
            answer = client.call(tool, **way)
            assert answer.status_code in (200, 401, 403), answer.text
            watch.check(f"{tool} with {way} and a token for {scope}")
            if answer.status_code == 401:  # The tool revoked its own token.
                client = mcp_client(server, actor, scope=scope)
    watch.check_all(tool)


def argument_sets(arguments: list[str]) -> Iterator[tuple[Any, ...]]:
    yield from product(*(VALUES[name] for name in arguments))


def carols_values() -> dict[str, list[str]]:
    """carol's keys and ids, which another user could send."""
    carol = User.objects.get(username="carol")
    of_carol = {"user": carol}
    keys = [
        *IssuedToken.objects.filter(**of_carol).live().values_list("jti", flat=True),
        *Consent.objects.filter(**of_carol).values_list("pk", flat=True),
        *UserSession.objects.filter(**of_carol).values_list("pk", flat=True),
        *AccessRequest.objects.values_list("pk", flat=True),
        carol.pk,
        "carol",
    ]
    return {name: [str(key) for key in keys] for name in KEYS}


KEYS = ("revoke", "end", "withdraw", "token", "refresh", "user", "username")
"""Fields that name a row."""
ADMIN = {"scope": "Admin.Write mcp", "scopes": "Admin.Write", "name": "x", "days": "9"}
OAUTH = {"client_id": "acts-as-carol", "client_secret": "x", "scope": "Admin.Write"}
NOTHING: tuple[dict[str, Any], ...] = ()
PATHS: dict[str, tuple[dict[str, Any], ...]] = {
    "": NOTHING,
    "healthz": NOTHING,
    "readyz": NOTHING,
    "api/schema/": NOTHING,
    "api/docs/": NOTHING,
    "api/token/": (
        {"username": "mallory", "password": PASSWORD, **ADMIN},
        {"username": "carol", "password": "x", **ADMIN},
    ),
    "api/token/refresh/": ({"refresh": "x"},),
    "api/token/verify/": ({"token": "x"},),
    "api/token/blacklist/": ({"refresh": "x"},),
    "oauth/jwks.json": NOTHING,
    ".well-known/oauth-authorization-server": NOTHING,
    ".well-known/oauth-authorization-server/mcp": NOTHING,
    "help/": NOTHING,
    "help/<slug:name>/": NOTHING,
    ".well-known/oauth-protected-resource": NOTHING,
    ".well-known/oauth-protected-resource/mcp": NOTHING,
    ".well-known/oauth-protected-resource/mcp/": NOTHING,
    "oauth/authorize": ({**OAUTH, "response_type": "code", "allow": "yes"},),
    "oauth/token": (
        {**OAUTH, "grant_type": "client_credentials"},
        {**OAUTH, "grant_type": "refresh_token", "refresh_token": "x"},
    ),
    "oauth/revoke": ({**OAUTH, "token": "x"},),
    "oauth/introspect": ({**OAUTH, "token": "x"},),
    "oauth/device": (OAUTH,),
    "device": ({"user_code": "x", "allow": "yes"},),
    "oauth/register": (
        {
            **OAUTH,
            "grant_types": ["client_credentials"],
            "redirect_uris": ["https://mallory.example/"],
            "service_account": "carol",
            "approved": True,
        },
    ),
    "portal/": NOTHING,
    "portal/connect/": NOTHING,
    "portal/connect/status": NOTHING,
    "portal/access/": ({"role": "Admin", "reason": "x"}, {"withdraw": "x"}),
    "portal/security/": ({"end": "x"},),
    "portal/apps/": ({"revoke": "x"},),
    "portal/tokens/": (ADMIN, {"revoke": "x"}),
    "portal/tools/": ({"tool": "rule"}, {"tool": "x"}),
}
"""Path -> bodies to post there, with carol's values in place of an `x`."""
THEIRS = "accounts/"
"""allauth's pages about one's own account are tried with carol's values."""
ENDING = {"accounts/logout/", "accounts/language/"}
"""These sign out, or change a cookie."""


API = "api/v1/"
"""It reads no cookie; tests/accounts/admin_api/ tries its rights."""


def paths(patterns: Any = None, before: str = "") -> Iterator[str]:
    """Every path except the admin's, which test_delegation.py tries."""
    for pattern in patterns or get_resolver().url_patterns:
        path = before + str(pattern.pattern)
        if isinstance(pattern, URLResolver) and not path.startswith("admin/"):
            yield from paths(pattern.url_patterns, path)
        elif isinstance(pattern, URLPattern) and not path.startswith(API):
            yield path


def test_every_path_is_tried() -> None:
    """A new path is added to PATHS with the values to post."""
    found = {path for path in paths() if not path.lstrip("^").startswith(THEIRS)}
    assert found == PATHS.keys()


def bodies(path: str) -> Iterator[dict[str, Any]]:
    """Bodies posted to a path: unchanged, and with the ids of others."""
    others = carols_values()
    role = str(Role.objects.get(name="Admin").pk)
    for body in PATHS.get(path, ({"email": "carol@example.org", "login": "carol"},)):
        body = {**body, "role": role} if "role" in body else body
        yield body
        named = [name for name in body if name in others and body[name] == "x"]
        for name in named:
            yield from ({**body, name: key} for key in others[name])


def fill_path(path: str) -> str:
    """A path with its arguments: the keys of carol's rows."""
    key = Authenticator.objects.get(user__username="carol").pk
    carol = User.objects.get(username="carol").pk
    return (
        path.replace("<int:pk>", str(key))
        .replace("<slug:provider_id>", "corp-of-scene")
        .replace("<slug:name>", "administration")
        .replace(r"^confirm-email/(?P<key>[-:\w]+)/$", "confirm-email/x/")
        .replace(
            "^password/reset/key/(?P<uidb36>[0-9A-Za-z]+)-(?P<key>.+)/$",
            f"password/reset/key/{carol:x}-set-password/",
        )
    )


@pytest.fixture(scope="module")
def mallory(server: Portico, sample_rows: None) -> Iterator[Browser]:
    """Signed in, with every Django permission and the role Guest."""
    with server.in_process() as browser:
        yield browser.sign_in("mallory")


@pytest.mark.parametrize("path", sorted({*paths()} - ENDING))
def test_no_path_extends_rights(mallory: Browser, path: str) -> None:
    """Covers portal, API, OAuth endpoints and allauth's pages, with carol's rows."""
    here = f"/{fill_path(path)}"
    # No identity provider answers, and this process does not serve /mcp.
    away = "oidc" in here or here == "/readyz"
    watch = RightsMonitor("mallory", *NAMES)
    mallory.open(here)
    assert mallory.page.status_code < 500 or away, here
    token = mallory.http.cookies.get("csrftoken") or ""
    headers = {"referer": f"{mallory.http.base_url}{here}", "x-csrftoken": token}
    for body in bodies(path):
        shape = "data" if path.startswith(("portal/", THEIRS)) else "json"
        for kind in {shape, "data"}:
            sent: dict[str, Any] = {kind: body}
            answer = mallory.http.post(here, headers=headers, **sent)
            assert answer.status_code < 500 or away, (here, body)
            watch.check(f"{here} with {body}")
    watch.check_all(here)
    # Not the overview: it takes longer than the rest of a trial.
    if not mallory.open("/admin/search/").page.url.path.startswith("/admin/search/"):
        mallory.sign_in("mallory")


USERS = b"username,email,roles\ncarol,mallory@example.org,\nmallory,,Admin\n"
POLICY = b"""{"format": "portico-policy-1", "roles": [
    {"name": "Guest", "scopes": ["Admin.Write", "Guest.Read"]}]}"""


@pytest.mark.parametrize("path", ["/admin/users/import/", "/admin/policy/"])
def test_no_import_extends_rights(mallory: Browser, path: str) -> None:
    """Covers an upload and a draft that is ready to apply."""
    watch = RightsMonitor("mallory", *NAMES)
    own = User.objects.get(username="mallory")
    for kind, raw in (("users", USERS), ("policy", POLICY)):
        fields = {"owner": own, "kind": kind}
        ImportDraft.objects.update_or_create(
            **fields, defaults={"content": raw.decode()}
        )
    marks = [plan_users(USERS, own).mark, policy_diff(POLICY).mark]
    mallory.open("/admin/")
    token = mallory.http.cookies.get("csrftoken") or ""
    headers = {"referer": str(mallory.page.url), "x-csrftoken": token}
    for raw in (USERS, POLICY):
        answer = mallory.http.post(path, files={"file": ("f", raw)}, headers=headers)
        assert answer.status_code == 403
    for mark in marks:
        answer = mallory.http.post(path, data={"apply": mark}, headers=headers)
        assert answer.status_code == 403
    ImportDraft.objects.filter(owner=own).delete()
    watch.check_all(path)
