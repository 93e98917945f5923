"""Every way to end access ends everything: messages and streams over real HTTP.

Pages and endpoints of tokens are answered in this process.

Kinds of credentials are in tests/support/credentials.py, ways of ending below. A new
table, grant, admin action, command, tool or page that neither list has
makes a test fail.
"""

from __future__ import annotations

import ast
import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx2
import pytest
from allauth.account.utils import user_pk_to_url_str
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.hashers import make_password
from django.contrib.auth.management.commands import changepassword
from django.core.management import call_command, get_commands
from django.test import RequestFactory
from django.urls import get_resolver

from accounts.authentication.passwords.reset_links import ResetTokenGenerator
from accounts.models import (
    Consent,
    DocumentCopy,
    DocumentHost,
    IssuedToken,
    OAuthClient,
    OAuthDeviceGrant,
    OAuthGrant,
    RoleAssignment,
    SignInProvider,
    User,
)
from accounts.models.issued_tokens import IssuedVia, TokenKind
from mcp_bridge.server import mcp
from mcp_bridge.server.discovery import autodiscover
from tests.support import credentials, oauth_client
from tests.support.credentials import KINDS, CredentialOwner, credential_owner
from tests.support.html_browser import CHEAP, Browser
from tests.support.mcp_client import mcp_client
from tests.support.server import Portico, in_process_transport
from tests.support.users import PASSWORD, make_user

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("rows")]
NUMBERS = count(1)
NEW = "another longer passphrase 9"
USERS, TOKENS = "/admin/accounts/user/", "/admin/accounts/issuedtoken/"
CLIENTS, ROLES = "/admin/accounts/oauthclient/", "/admin/accounts/roleassignment/"
HOSTS = "/admin/accounts/documenthost/"
COPIES = "/admin/accounts/documentcopy/"
ROOT = Path(__file__).resolve().parent.parent.parent.parent
SAMPLE = (
    "personal token",
    "code pair",
    "unredeemed code",
    "allowed device code",
    "pending device code",
    "unlisted session",
    "reset link",
    "consent",
)
"""Tried after most ways: one kind of each table and each check of the epoch.

All of them use one method, and after some of them every kind is tried.
"""


@contextmanager
def new_user(server: Portico, *kinds: str, **options: Any) -> Iterator[CredentialOwner]:
    """A new user with one credential of each kind, or of these."""
    found = credential_owner(server, f"holder-{next(NUMBERS)}", kinds, **options)
    try:
        yield found
    finally:
        found.close()


@pytest.fixture(scope="module")
def untouched_user(server: Portico) -> Iterator[CredentialOwner]:
    """A user with one of each kind, whose access is not ended."""
    with new_user(server) as found:
        yield found


@pytest.fixture(scope="module")
def carol(server: Portico) -> Iterator[Browser]:
    make_user("carol", "Admin", admin=True)
    with Browser(server.url, in_process_transport()) as browser:
        yield browser.sign_in("carol")


@pytest.fixture(scope="module", autouse=True)
def in_process(server: Portico) -> Iterator[None]:
    """The endpoints of tokens and devices, which the credentials are sent to."""
    transport = in_process_transport()
    with (
        server.in_process(),
        httpx2.Client(transport=transport) as http,
        pytest.MonkeyPatch.context() as patch,
    ):
        for module in (credentials, oauth_client):
            patch.setattr(module, "HTTP", http)
        yield


Way = Callable[[CredentialOwner, Browser], Any]


def page(who: CredentialOwner) -> str:
    """The user's page in the admin."""
    return f"{USERS}{who.account.pk}/"


def row(who: CredentialOwner) -> int:
    """The key of one of their tokens."""
    return IssuedToken.objects.filter(username=who.name)[:1].get().pk


def client(who: CredentialOwner) -> OAuthClient:
    """The row of the client they allowed."""
    found: OAuthClient = OAuthClient.objects.get(client_id=who.client_id)
    return found


def blocked(carol: Browser, path: str) -> None:
    """By the button on the client's page, which asks first."""
    carol.open(path)
    carol.submit(carol.form("_selected_action"), "action")
    carol.submit(carol.form("confirmed"))


def deleted(carol: Browser, path: str, *keys: Any) -> None:
    """By the list's own action, or on the page of a row without keys."""
    if keys:
        carol.act(path, "delete_selected", *keys)
    else:
        carol.open(path)
    form = carol.form("post")
    if keys:
        form.fields["_selected_action"] = [str(key) for key in keys]
    carol.submit(form)
    assert carol.response.is_redirect, carol.response.text


def all_access(who: CredentialOwner, carol: Browser) -> None:
    """On the page behind *End all access*."""
    carol.open(f"/admin/users/end-access/?person={who.account.pk}")
    carol.submit(carol.form("reason"), reason="left")
    assert carol.response.is_redirect, carol.response.text


def last_role(who: CredentialOwner) -> RoleAssignment:
    return RoleAssignment.objects.get(user=who.account)


def without_role(who: CredentialOwner, carol: Browser) -> None:
    """On the role's line of the user's page."""
    carol.open(f"{page(who)}change/")
    form, key = carol.form("_save"), str(last_role(who).pk)
    keys = {n: v for n, v in form.fields.items() if n.endswith("-id")}
    (prefix,) = (n.removesuffix("-id") for n, v in keys.items() if v == key)
    carol.save(f"{page(who)}change/", **{f"{prefix}-DELETE": "on"})


def new_password(who: CredentialOwner, carol: Browser, usable: bool) -> None:
    """On the admin page that sets another user's password."""
    carol.open(f"{page(who)}password/")
    fields = {"password1": NEW, "password2": NEW} if usable else {}
    button = "set-password" if usable else "unset-password"
    form = carol.form("password1")
    carol.submit(form, usable_password=str(usable).lower(), **fields, **{button: "1"})
    assert who.account.has_usable_password() is usable


def own_password(who: CredentialOwner, carol: Browser) -> None:
    """In the portal: the current browser stays signed in."""
    browser = who.own.open("/accounts/password/change/")
    form = browser.form("oldpassword")
    browser.submit(form, oldpassword=PASSWORD, password1=NEW, password2=NEW)
    assert who.account.check_password(NEW)
    assert "/accounts/login/" not in str(browser.open("/portal/apps/").page.url)


def by_mail(who: CredentialOwner, carol: Browser) -> None:
    """With the link of a mail."""
    user = who.account
    key = f"{user_pk_to_url_str(user)}-{ResetTokenGenerator().make_token(user)}"
    with Browser(who.server.url, in_process_transport()) as browser:
        browser.open(f"/accounts/password/reset/key/{key}/")
        browser.submit(browser.form("password1"), password1=NEW, password2=NEW)
    assert who.account.check_password(NEW)


def everywhere(who: CredentialOwner, carol: Browser) -> None:
    browser = who.own.open("/portal/security/")
    browser.submit(browser.form("everywhere"), "everywhere")
    assert "/accounts/login/" in str(browser.open("/portal/apps/").page.url)


def at_the_terminal(who: CredentialOwner, carol: Browser) -> None:
    passwords = iter([NEW, NEW])
    command: Any = changepassword.Command(stdout=io.StringIO())
    command._get_pass = lambda prompt="": next(passwords)
    command.handle(username=who.name, database="default")


def imported(who: CredentialOwner, carol: Browser) -> None:
    """A file that deactivates the account."""
    path = Path(who.server.environment["DATA_DIR"]) / f"{who.name}.csv"
    path.write_text(f"username,active\n{who.name},no\n")
    call_command("import_users", str(path), stdout=io.StringIO())


def over_mcp(who: CredentialOwner, tool: str, **arguments: Any) -> None:
    """By a tool, called by carol."""
    acting = mcp_client(who.server, "carol", scope="mcp Admin.Write")
    assert acting.allowed("whoami")
    answer = acting.call(tool, user=who.name, reason="test", **arguments)
    assert answer.status_code == 200 and '"isError":true' not in answer.text


def claims_take_the_last_role(who: CredentialOwner, carol: Browser) -> None:
    """A provider sign-in whose claims give no role any more."""
    provider, _new = SignInProvider.objects.get_or_create(
        slug=who.name, defaults={"issuer": "https://idp.example", "name": who.name}
    )
    RoleAssignment.objects.filter(user=who.account).update(reason=provider.reason)
    provider.apply(who.account, {})
    provider.delete()


def unusable(who: CredentialOwner, carol: Browser) -> None:
    """As a provider sign-in does with an unverified password."""
    user = who.account
    user.set_unusable_password()
    user.save()


def command(*arguments: str) -> Way:
    """`manage.py` with the username as last argument."""

    def run(who: CredentialOwner, carol: Browser) -> None:
        name, *rest = arguments
        call_command(name, *rest, who.name, stdout=io.StringIO())

    return run


ACCOUNT: dict[str, Way] = {
    "action accounts.user revoke_tokens": lambda who, carol: carol.act(
        USERS, "revoke_tokens", who.account.pk
    ),
    "action accounts.user deactivate": lambda who, carol: carol.act(
        USERS, "deactivate", who.account.pk
    ),
    "action accounts.user reset_factors": lambda who, carol: carol.act(
        USERS, "reset_factors", who.account.pk
    ),
    "action accounts.user delete_selected": lambda who, carol: deleted(
        carol, f"{USERS}?q={who.name}", who.account.pk
    ),
    "action accounts.issuedtoken revoke_users": lambda who, carol: carol.act(
        f"{TOKENS}?username={who.name}", "revoke_users", row(who)
    ),
    "action accounts.roleassignment end_now": lambda who, carol: carol.act(
        f"{ROLES}?q={who.name}", "end_now", last_role(who).pk
    ),
    "action accounts.roleassignment delete_selected": lambda who, carol: deleted(
        carol, f"{ROLES}?q={who.name}", last_role(who).pk
    ),
    "the page End all access": all_access,
    "the account's form": lambda who, carol: carol.save(
        f"{page(who)}change/", is_active=None
    ),
    "the role's line in the account's form": without_role,
    "the role's page": lambda who, carol: deleted(
        carol, f"{ROLES}{last_role(who).pk}/delete/"
    ),
    "the account's page": lambda who, carol: deleted(carol, f"{page(who)}delete/"),
    "a password set in the admin": lambda who, carol: new_password(who, carol, True),
    "a password taken in the admin": lambda who, carol: new_password(who, carol, False),
    "page account_change_password": own_password,
    "page account_reset_password_from_key": by_mail,
    "page portal-security": everywhere,
    "command revoke_tokens --user": command("revoke_tokens", "--user"),
    "command changepassword": at_the_terminal,
    "command reset_second_factor": command("reset_second_factor"),
    "command revoke_role": lambda who, carol: call_command(
        "revoke_role", who.name, "User", stdout=io.StringIO()
    ),
    "command import_users": imported,
    "tool revoke_tokens": lambda who, carol: over_mcp(who, "revoke_tokens"),
    "tool revoke_role": lambda who, carol: over_mcp(who, "revoke_role", role="User"),
    "claims of a provider": claims_take_the_last_role,
    "set_unusable_password": unusable,
    "User.delete": lambda who, carol: who.account.delete(),
    "QuerySet.delete": lambda who, carol: User.objects.filter(
        username=who.name
    ).delete(),
}
"""Ways that end all access of an account."""

BY_CLIENT = {"code pair", "unredeemed code", "allowed device code"}
WITH_CLIENT = BY_CLIENT | {"pending device code"}
CLIENT: dict[str, tuple[Way, set[str]]] = {
    "page portal-apps": (
        lambda who, carol: withdrawn(who),
        BY_CLIENT | {"consent"},
    ),
    "action accounts.oauthclient revoke_tokens": (
        lambda who, carol: carol.act(
            f"{CLIENTS}?q={who.name}", "revoke_tokens", client(who).pk
        ),
        WITH_CLIENT,
    ),
    "action accounts.oauthclient block": (
        lambda who, carol: carol.act(
            f"{CLIENTS}?q={who.name}", "block", client(who).pk
        ),
        WITH_CLIENT | {"consent"},
    ),
    "action accounts.oauthclient delete_selected": (
        lambda who, carol: deleted(carol, f"{CLIENTS}?q={who.name}", client(who).pk),
        WITH_CLIENT | {"consent"},
    ),
    "action accounts.issuedtoken revoke_clients": (
        lambda who, carol: carol.act(
            f"{TOKENS}?client_id={who.client_id}",
            "revoke_clients",
            IssuedToken.objects.filter(client_id=who.client_id)[:1].get().pk,
        ),
        WITH_CLIENT,
    ),
    "the button of the client's page": (
        lambda who, carol: blocked(carol, f"{CLIENTS}{client(who).pk}/change/"),
        WITH_CLIENT | {"consent"},
    ),
    "the client's page": (
        lambda who, carol: deleted(carol, f"{CLIENTS}{client(who).pk}/delete/"),
        WITH_CLIENT | {"consent"},
    ),
    "the host's form": (
        lambda who, carol: refused_host(who, carol),
        WITH_CLIENT | {"consent"},
    ),
    "action accounts.documentcopy switch_off": (
        lambda who, carol: carol.act(
            f"{COPIES}?q={who.name}", "switch_off", copy_of(who).pk
        ),
        WITH_CLIENT | {"consent"},
    ),
    "action accounts.documentcopy delete_selected": (
        lambda who, carol: deleted(carol, f"{COPIES}?q={who.name}", copy_of(who).pk),
        WITH_CLIENT | {"consent"},
    ),
    "command revoke_tokens --client": (
        lambda who, carol: call_command(
            "revoke_tokens", "--client", who.client_id, stdout=io.StringIO()
        ),
        WITH_CLIENT,
    ),
    "OAuthClient.delete": (
        lambda who, carol: client(who).delete(),
        WITH_CLIENT | {"consent"},
    ),
    "a cascade": (lambda who, carol: cascaded(who), WITH_CLIENT | {"consent"}),
}
"""Ways that end the access of one client, with the kinds that they end."""


def withdrawn(who: CredentialOwner) -> None:
    browser = who.own.open("/portal/apps/")
    key = str(Consent.objects.get(user=who.account).pk)
    form = next(f for f in browser.forms if "revoke" in [b[0] for b in f.buttons])
    browser.submit(form, revoke=key)
    assert "Access and" in browser.page.text


def copy_of(who: CredentialOwner) -> DocumentCopy:
    """The client stands on a copy of its document."""
    copy: DocumentCopy = DocumentCopy.objects.create(
        client_id=f"https://{who.name}.example/copy.json", name=who.name, document={}
    )
    OAuthClient.objects.filter(client_id=who.client_id).update(document_copy=copy)
    return copy


def refused_host(who: CredentialOwner, carol: Browser) -> None:
    """The host of the client's document is blocked."""
    host = f"{who.name}.example"
    carol.open(f"{HOSTS}add/")
    carol.submit(carol.form("_save"), "_save", host=host, trusted=None)
    assert DocumentHost.objects.filter(host=host, trusted=False).exists()


def cascaded(who: CredentialOwner) -> None:
    """The client belongs to a deleted account."""
    owner = make_user(f"owner-of-{who.name}")
    OAuthClient.objects.filter(client_id=who.client_id).update(user=owner)
    User.objects.filter(pk=owner.pk).delete()


EVERY_KIND = {
    "action accounts.user reset_factors",
    "action accounts.user deactivate",
    "page account_change_password",
    "page portal-security",
    "command revoke_tokens --user",
    "User.delete",
}
"""Ways after which every kind is tried."""

BY_DOCUMENT = "the host's form"


@pytest.mark.spec("ending an account's access ends everything")
@pytest.mark.parametrize("way", ACCOUNT)
def test_ending_an_accounts_access_ends_everything(
    server: Portico, carol: Browser, way: str
) -> None:
    """Tokens, families, codes, device codes, consents, sessions, streams."""
    with new_user(server, *(() if way in EVERY_KIND else SAMPLE)) as who:
        ACCOUNT[way](who, carol)
        assert who.works() == set()
        assert not IssuedToken.objects.filter(username=who.name).live().exists()
    assert str(carol.open(CHEAP).page.url).endswith(CHEAP)


@pytest.mark.spec("ending a client's access ends everything granted to it")
@pytest.mark.parametrize("way", CLIENT)
def test_ending_a_clients_access_ends_its_grants(
    server: Portico, carol: Browser, way: str
) -> None:
    run, ends = CLIENT[way]
    with new_user(server, *SAMPLE, documented=way == BY_DOCUMENT) as who:
        run(who, carol)
        rest = IssuedToken.objects.filter(client_id=who.client_id)
        assert not rest.live().exists()
        assert set(SAMPLE) - who.works() == ends


def test_codes_are_refused_after_a_change_of_password(server: Portico) -> None:
    """The check does not depend on deleted rows."""
    with new_user(server, "unredeemed code", "allowed device code") as who:
        new = {"password": make_password(NEW)}
        User.objects.filter(username=who.name).update(**new)
        assert OAuthGrant.objects.filter(user=who.account).exists()
        assert OAuthDeviceGrant.objects.filter(user=who.account).exists()
        assert who.works() == set()


def test_a_deleted_client_leaves_no_valid_token(
    server: Portico, carol: Browser
) -> None:
    """Covers tokens that were bound to it and tokens with consents."""
    with new_user(server, "code pair", "consent") as who:
        bound, _ = OAuthClient.objects.get_or_create(client_id=who.client_id)
        OAuthClient.objects.filter(pk=bound.pk).update(networks="10.99.0.0/16")
        assert Consent.objects.filter(client=bound).exists()
        deleted(carol, f"{CLIENTS}{bound.pk}/delete/")
        assert not OAuthClient.objects.filter(pk=bound.pk).exists()
        assert who.works() == set()
        assert not IssuedToken.objects.filter(client_id=who.client_id).live().exists()


def test_a_token_of_an_unknown_client_is_refused(server: Portico) -> None:
    """Raw SQL may delete a client while its token is valid."""
    with new_user(server, "client credentials") as who:
        rows = OAuthClient.objects.filter(name=f"job of {who.name}")
        rows._raw_delete(rows.db)
        assert IssuedToken.objects.filter(username=who.name).live().exists()
        assert who.works() == set()


ENDS_LESS = {
    "accounts.accessrequest approve": "gives",
    "accounts.accessrequest decline": "answers a question",
    "accounts.delivery send_again": "sends a notification",
    "accounts.documentcopy fetch": "renews the copy",
    "accounts.documentcopy switch_on": "gives back",
    "accounts.documenthost delete_selected": "the host is as any other again",
    "accounts.invitation resend": "the earlier link of that person",
    "accounts.invitation withdraw": "the link, and an account that nobody used",
    "accounts.issuedtoken revoke": "the tokens that were selected",
    "accounts.issuedtoken revoke_families": "the sign-ins that were selected",
    "accounts.notificationchannel delete_selected": "sends no more notifications",
    "accounts.notificationchannel renew_secret": "the secret of signatures",
    "accounts.oauthclient approve": "shows the client as verified",
    "accounts.oauthclient rotate_secret": "its next secret; tokens are people's",
    "accounts.oauthclient unblock": "gives back",
    "accounts.role delete_selected": "refused while somebody holds it",
    "accounts.roleassignment extend_day": "gives",
    "accounts.roleassignment extend_month": "gives",
    "accounts.roleassignment extend_week": "gives",
    "accounts.scope delete_selected": "narrows roles",
    "accounts.signingkey retire": "a key that signed no live token",
    "accounts.signinprovider delete_selected": "roles it gave end on their day",
    "accounts.user unlock": "gives back",
    "axes.accessattempt unlock": "gives back",
    "mcp_bridge.primitive accept": "about a tool",
    "mcp_bridge.primitive delete_selected": "about a tool",
    "mcp_bridge.primitive disable": "about a tool",
    "mcp_bridge.primitive enable": "about a tool",
    "mcp_bridge.upstreamserver delete_selected": "about its tools",
    "mcp_bridge.upstreamserver disable": "about its tools",
    "mcp_bridge.upstreamserver discover": "notes what it offers",
    "mcp_bridge.upstreamserver enable": "about its tools",
    "socialaccount.socialaccount unlink": "applies no claims: as claims of a provider",
    "usersessions.usersession end": "the sessions that were selected",
}
"""Admin actions that do not end all access -> what they do."""

COMMANDS = {
    "accept_definitions": "gives",
    "add_upstream": "adds",
    "discover": "notes what upstream servers offer",
    "import_mcp_servers": "adds",
    "list_upstreams": "reads",
    "list_users": "reads",
    "list_tools": "reads",
    "check_access": "reads",
    "remove_upstream": "removes tools, not the access of people",
    "add_client": "adds",
    "add_user": "adds",
    "backup": "reads",
    "copy_database": "reads, and writes to another database",
    "demo": "adds people to look around with",
    "doctor": "looks",
    "export_audit": "reads",
    "export_policy": "reads",
    "grant_role": "gives",
    "import_policy": "changes what roles give",
    "invite": "gives",
    "issue_token": "gives",
    "migrate": "Django's own",
    "purge": "forgets what is over; unused clients have no live token",
    "restore": "replaces the database, and ends all access: its own tests",
    "rotate_secrets": "re-encrypts",
    "rotate_signing_key": "changes keys",
    "seal_audit": "writes the audit's digests",
    "send_notifications": "sends what was noted",
    "unlock": "gives back",
    "up": "starts",
    "verify_audit": "reads",
}
"""Commands that end no access -> what they do."""

TOOLS = {
    "grant_role": "gives",
    "list_users": "reads",
    "recent_refusals": "reads",
    "whoami": "reads",
}
"""Tools of Portico that end no access -> what they do."""

PAGES = {
    "account_confirm_email": "about an address",
    "account_confirm_login_code": "off",
    "account_email": "about an address",
    "account_email_verification_sent": "says so",
    "account_inactive": "says so",
    "account_login": "gives a session",
    "account_logout": "ends its own session",
    "account_reauthenticate": "asks for the password",
    "account_reset_password": "sends a mail",
    "account_reset_password_done": "says so",
    "account_reset_password_from_key_done": "says so",
    "account_set_password": "as account_change_password, where there was none",
    "account_signup": "closed",
    "device": "gives",
    "guide": "reads",
    "help": "reads",
    "invitation": "gives a session",
    "invitation-link": "leads to the page of the invitation",
    "oauth-authorize": "gives",
    "oauth-revoke": "ends the token it is sent, or its family",
    "portal-access": "asks for roles",
    "portal-connect": "reads",
    "portal-home": "reads",
    "portal-status": "reads",
    "portal-try": "issues a token for one tool and five minutes",
    "portal-tokens": "ends the personal token that was chosen",
    "set-language": "about words",
    "sign-out": "ends its own session",
    "token-blacklist": "ends the sign-in of the token it is sent",
}
"""Pages for users that end less than all access."""

MACHINES = (
    "introspect",
    "jwks",
    "oauth-device",
    "oauth-metadata",
    "oauth-register",
    "oauth-token",
    "protected-resource",
    "protected-resource-mcp",
    "schema",
    "token",
    "token-refresh",
    "token-verify",
)
"""Endpoints that only read or issue."""

FAMILIES = ("mfa_", "socialaccount_", "openid_connect_", "api-")
"""allauth's pages of second factors (test_second_factor.py) and providers; the
administration API, which runs the admin's forms and actions."""


def unlisted_names(found: set[str], prefix: str, known: Iterable[str]) -> set[str]:
    """Names missing from both lists, and listed names that do not exist."""
    ways = (way for way in {*ACCOUNT, *CLIENT} if way.startswith(prefix))
    listed = {way.removeprefix(prefix).split(" --")[0] for way in ways}
    return found ^ (listed | set(known))


def test_every_admin_action_is_listed(rows: None) -> None:
    """A new action needs an entry that says what it ends."""
    request = RequestFactory().get("/")
    request.user = make_user("carol", "Admin", admin=True)
    found = {
        f"{model._meta.label_lower} {name}"
        for model, its in admin.site._registry.items()
        for name in its.get_actions(request)
    }
    assert unlisted_names(found, "action ", ENDS_LESS) == set()


OURS = ("accounts", "mcp_bridge")


def test_every_command_is_listed() -> None:
    """A new command needs an entry that says what it ends."""
    ours = {name for name, app in get_commands().items() if app in OURS}
    assert unlisted_names({*ours, "changepassword"}, "command ", COMMANDS) == set()


def test_every_tool_is_listed() -> None:
    """A new tool of Portico needs an entry that says what it ends."""
    autodiscover()
    tools = mcp.tools.all_tools()
    found = {tool.name for tool in tools if tool.fn.__module__.startswith(OURS)}
    assert unlisted_names(found, "tool ", TOOLS) == set()


def test_every_page_is_listed() -> None:
    """A new page or endpoint needs an entry that says what it ends."""
    names = {name for name in get_resolver().reverse_dict if isinstance(name, str)}
    found = {name for name in names if not name.startswith(FAMILIES)}
    assert unlisted_names(found, "page ", {*PAGES, *MACHINES}) == set()


HELD_IN = {
    "accounts.Consent",
    "accounts.Invitation",
    "accounts.IssuedToken",
    "accounts.OAuthDeviceGrant",
    "accounts.OAuthGrant",
    "usersessions.UserSession",
}
"""Tables of credentials: a user with one of each kind has rows in each."""

NOT_HELD = {
    "account.EmailAddress": "an address",
    "accounts.AccessRequest": "a question",
    "accounts.ImportDraft": "a file to apply",
    "accounts.OAuthAccessToken": "always empty",
    "accounts.OAuthClient": "acts as an account, with its own secret",
    "accounts.OAuthIDToken": "always empty",
    "accounts.OAuthRefreshToken": "always empty",
    "accounts.RoleAssignment": "a right, not a credential",
    "accounts.SavedView": "a link",
    "admin.LogEntry": "history",
    "auth.Group": "a right",
    "auth.Permission": "a right",
    "mcp_bridge.ClientSession": "a session, each of whose messages needs a token",
    "mcp_bridge.UpstreamCredential": "what Portico sends to another server",
    "mfa.Authenticator": "half of a sign-in, checked each time",
    "socialaccount.SocialAccount": "a name at a provider, which signs in each time",
}
"""Tables about users that give no access."""

KEYED = {
    "accounts.AuditEvent": "history",
    "accounts.RevokedToken": "refusals",
    "accounts.UsedAssertion": "refusals",
    "axes.AccessAttempt": "wrong passwords",
    "axes.AccessFailureLog": "wrong passwords",
    "axes.AccessLog": "always empty",
    "sessions.Session": "found by what their accounts' epoch is",
    "mcp_bridge.LoggedChange": "numbers of changes",
    "socialaccount.SocialApp": "never saved",
    "socialaccount.SocialToken": "never saved",
    "account.EmailConfirmation": "about an address",
}
"""Tables that name users or secrets as text -> what they are."""

NAMED = ("username", "actor", "session_key", "jti", "token", "code", "secret", "key")


def test_every_table_about_users_is_listed(untouched_user: CredentialOwner) -> None:
    """A new table of credentials needs a kind that creates rows, and its end."""
    related: set[Any] = {
        r.related_model
        for r in User._meta.get_fields(include_hidden=True)
        if r.is_relation and r.related_model is not User
    }
    found = {m._meta.label for m in related if not m._meta.auto_created}
    assert found == HELD_IN | NOT_HELD.keys()
    for label in HELD_IN:
        model: Any = apps.get_model(label)
        assert model._default_manager.filter(user=untouched_user.account).exists(), (
            label
        )


def test_every_table_with_names_or_secrets_is_listed() -> None:
    """Covers tables that name users by text."""
    found = set()
    for model in apps.get_models():
        columns = {f.name for f in model._meta.concrete_fields}
        if columns & set(NAMED) and not model.__module__.startswith("tests."):
            found.add(model._meta.label)
    assert found - {*HELD_IN, *NOT_HELD, "accounts.User"} == KEYED.keys()


def test_every_grant_and_every_kind_of_token_is_tried(
    untouched_user: CredentialOwner,
) -> None:
    """A new grant or kind of token needs a function that issues one."""
    mine = IssuedToken.objects.filter(user=untouched_user.account)
    assert set(mine.values_list("issued_via", flat=True)) == set(IssuedVia.values)
    assert set(mine.values_list("kind", flat=True)) == set(TokenKind.values)


def test_everything_works_while_access_lasts(untouched_user: CredentialOwner) -> None:
    """Without this the tests above would prove nothing; codes work only once."""
    assert untouched_user.works() == set(KINDS)


REVOKING = {
    "Command.end_access": "--family, --jti, --token-stdin; the rest with codes",
    "Consent.end": "with the codes of that client",
    "IssuedTokenAdmin.end_tokens": "the tokens or sign-ins that were selected",
    "OAuthClientQuerySet.end_access": "with the codes of those clients",
    "PersonalTokensView.revoke": "the personal token that was chosen",
    "RevocationEndpoint.serve": "RFC 7009: the token or its family",
    "RevokedTokenAdmin.save_model": "the token that was pasted",
    "UserQuerySet.revoke_all_sessions": "the one verb",
    "PorticoValidator.revoke_replayed": "OAuth 2.1 4.1.3: what a replayed code gave",
    "_revoke_replayed_family": "OAuth 2.1 4.3: a replayed family",
    "end_access": "clients in the admin: what is the actor's to end, with codes",
    "revoke_family": "/api/token/blacklist/: that sign-in",
}
"""Callers of `TokenQuerySet.revoke` -> why that is enough."""


def callers(method: str) -> Iterator[str]:
    """Functions of Portico that call a method of this name."""
    for path in (p for app in OURS for p in (ROOT / app).rglob("*.py")):
        yield from callers_in(ast.parse(path.read_text()), method)


def callers_in(tree: ast.AST, method: str, inside: str = "") -> Iterator[str]:
    """The same below a node, as `Class.function`."""
    for node in ast.iter_child_nodes(tree):
        name = inside
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            name = f"{inside}.{node.name}".lstrip(".")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr == method and any(
                word.arg in ("actor", None) for word in node.keywords
            ):
                yield inside
        yield from callers_in(node, method, name)


def test_single_tokens_are_revoked_only_where_intended() -> None:
    """Code that ends access has to call the method that ends all of it."""
    assert set(callers("revoke")) == REVOKING.keys()


def test_everything_is_revoked_after_a_backup(server: Portico) -> None:
    """docs/runbooks.md: a backup restores what was revoked after it."""
    with new_user(server, *SAMPLE) as who:
        call_command("revoke_tokens", "--everything", stdout=io.StringIO())
        assert who.works() == set()
    assert not IssuedToken.objects.live().exists()
