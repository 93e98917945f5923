"""Which columns the lists show, the pages hide and the forms change.

A new column fails here until somebody has decided where it belongs.
"""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.utils import flatten_fieldsets, label_for_field
from django.test import RequestFactory

from accounts.admin import user_import
from accounts.admin.audit import seals, window
from accounts.admin.tokens import issued_tokens
from accounts.admin_site import base
from accounts.models import NotificationChannel, Role, RoleAssignment, User
from accounts.models.notifications.channels import ChannelKind

pytestmark = pytest.mark.django_db
SITE: Any = admin.site
PAGES = sorted(SITE._registry.values(), key=lambda page: page.opts.label)
every_page = pytest.mark.parametrize(
    "page", PAGES, ids=[page.opts.label for page in PAGES]
)
LISTED = {
    "accounts.AccessRequest": "user role reason until state asked_at",
    "accounts.AuditEvent": "moment actor action object client verdict result"
    " reason address",
    "accounts.AuditSeal": "number events first_at last_at short purged_at",
    "accounts.Consent": "user client scope redirect_host given_at",
    "accounts.Delivery": "created_at channel event status attempts next_attempt_at"
    " delivered_at",
    "accounts.DocumentCopy": "name client_id enabled source read_on last_used_at",
    "accounts.DocumentHost": "host trusted",
    "accounts.Invitation": "user standing roles_to_use inviter sent_at link_end"
    " accepted_at accepted_from",
    "accounts.IssuedToken": "token username issued_via client state_shown"
    " last_used_at expires_at",
    "accounts.NotificationChannel": "name kind target enabled last_result",
    "accounts.OAuthClient": "name standing registration_source returns_to people"
    " last_used_at",
    "accounts.OAuthGrant": "user application scope created expires redeemed_at",
    "accounts.RevokedToken": "jti revoked_at revoked_by reason until",
    "accounts.Role": "name about scope_names holders",
    "accounts.RoleAssignment": "user role end reason granted_by granted_at",
    "accounts.Scope": "name about given_by",
    "accounts.SignInProvider": "name issuer enabled sign_up link_by_email",
    "accounts.SigningKey": "short_kid algorithm state_shown activated_at needed",
    "accounts.User": "username email roles_held is_active is_staff last_sign_in",
    "axes.AccessAttempt": "name ip_address failures_since_start attempt_time",
    "mcp_bridge.Primitive": "name kind enabled sensitive scopes review",
    "mcp_bridge.UpstreamServer": "shown_name state tools contact p50 calls",
    "mfa.Authenticator": "user type created_at last_used_at",
    "socialaccount.SocialAccount": "user provider uid date_joined last_login",
    "usersessions.UserSession": "user browser ip created_at last_seen_at",
}
"""List -> its columns, in their order."""
HIDDEN = {
    "accounts.AccessRequest": "decided_at decided_by",
    "accounts.AuditEvent": "actor actor_id address arguments at changes client_id"
    " outcome reason request_id subject token_id",
    "accounts.AuditSeal": "mac marks",
    "accounts.Delivery": "kind leased_until occasion payload result state",
    "accounts.Invitation": "expires_at invited_by made_account token",
    "accounts.IssuedToken": "client_id networks secret_hash successor successor_sealed",
    "accounts.NotificationChannel": "host mail_to row_key secrets_encrypted",
    "accounts.OAuthClient": "algorithm allowed_origins authorization_grant_type"
    " blocked cimd_expires_at client_secret client_type hash_client_secret"
    " post_logout_redirect_uris registered skip_authorization updated user",
    "accounts.OAuthGrant": "auth_digest claims code code_challenge"
    " code_challenge_method nonce resource updated",
    "accounts.SignInProvider": "secret_encrypted",
    "accounts.SigningKey": "private_encrypted",
    "accounts.User": "session_epoch",
    "axes.AccessAttempt": "get_data http_accept post_data user_agent username",
    "mcp_bridge.Primitive": "accepted accepted_hash calls_refused definition offered "
    "updates"
    " problem upstream_name",
    "mcp_bridge.UpstreamServer": "created_at",
    "mfa.Authenticator": "data",
    "socialaccount.SocialAccount": "extra_data",
    "usersessions.UserSession": "data session_key",
}
"""List -> columns of the model that the page of an open row does not show by name:
secrets, and those that it shows in another form."""
CHANGED = {
    "accounts.AccessRequest": "answer given_until",
    "accounts.DocumentCopy": "document enabled origin read_on",
    "accounts.DocumentHost": "host trusted",
    "accounts.NotificationChannel": "enabled events name secret_url",
    "accounts.OAuthClient": "approved client_jwks grant_types max_idle name"
    " networks redirect_uris service_account token_endpoint_auth_method",
    "accounts.Role": "description name networks scopes",
    "accounts.RoleAssignment": "expires_at reason",
    "accounts.Scope": "description name",
    "accounts.SignInProvider": "client_id client_secret enabled issuer link_by_email"
    " name roles_last sign_up slug",
    "accounts.User": "email email_set_by_admin end_own_access first_name groups"
    " is_active is_service_account is_staff is_superuser last_name password"
    " user_permissions"
    " username",
    "mcp_bridge.Primitive": "enabled recorded_arguments required_scopes sensitive",
    "mcp_bridge.UpstreamServer": "audience call_timeout calls_per_minute"
    " client_authentication client_id credential_mode enabled header kept"
    " max_concurrency name new_definitions prefix protocol scope secret title"
    " token_url url",
}
"""List -> the fields that the form of a superuser changes."""
ADDED = {
    "accounts.NotificationChannel": "enabled events kind mail_to name secret_url",
    "accounts.RevokedToken": "reason token_or_id",
    "accounts.RoleAssignment": "expires_at reason role user",
    "accounts.User": "password1 password2 usable_password username",
}
"""List -> the fields of the form for a new row, if they differ from CHANGED."""


@pytest.fixture
def request_of_root() -> Any:
    request: Any = RequestFactory().get("/")
    request.user = User(username="root", is_superuser=True, is_staff=True)
    return request


def open_row(page: Any) -> Any:
    if page.model is RoleAssignment:
        return RoleAssignment(user=User(), role=Role())
    if page.model is NotificationChannel:
        return NotificationChannel(kind=ChannelKind.WEBHOOK)
    return page.model()


@every_page
def test_each_list_shows_its_columns(page: Any) -> None:
    assert " ".join(page.list_display) == LISTED[page.opts.label]


@every_page
def test_each_page_shows_all_columns_but_those_named(
    page: Any, request_of_root: Any
) -> None:
    row = open_row(page)
    shown = flatten_fieldsets(page.get_fieldsets(request_of_root, row))
    columns = {f.name for f in page.opts.concrete_fields} - {"id"}
    expected = set(HIDDEN.get(page.opts.label, "").split())
    assert columns - set(shown) == expected


@every_page
def test_each_form_changes_its_fields_only(page: Any, request_of_root: Any) -> None:
    """Superusers change most; a field that others may not is tried by itself."""
    expected = CHANGED.get(page.opts.label, "").split()
    if page.has_change_permission(request_of_root):
        form = page.get_form(request_of_root, open_row(page), change=True)
        assert sorted(form.base_fields) == expected
    else:
        assert expected == []
    if page.has_add_permission(request_of_root):
        form = page.get_form(request_of_root, None, change=False)
        more = ADDED.get(page.opts.label, CHANGED.get(page.opts.label, "")).split()
        assert sorted(form.base_fields) == more


SEARCHED = {
    "accounts.AccessRequest": "user__username reason",
    "accounts.AuditEvent": "actor action client_id token_id request_id object__prefix",
    "accounts.Consent": "user__username client__name client__client_id",
    "accounts.DocumentCopy": "name client_id",
    "accounts.DocumentHost": "host",
    "accounts.Invitation": "user__username inviter",
    "accounts.IssuedToken": "jti__prefix username client_id",
    "accounts.OAuthClient": "name client_id redirect_uris",
    "accounts.OAuthGrant": "user__username application__name",
    "accounts.RevokedToken": "jti__prefix revoked_by",
    "accounts.Role": "name description scopes__name",
    "accounts.RoleAssignment": "user__username granted_by__username reason",
    "accounts.Scope": "name description",
    "accounts.User": "username email first_name last_name",
    "axes.AccessAttempt": "username ip_address",
    "mcp_bridge.Primitive": "name title description required_scopes__name",
    "mcp_bridge.UpstreamServer": "name title url",
    "mfa.Authenticator": "user__username",
    "socialaccount.SocialAccount": "user__username uid",
    "usersessions.UserSession": "user__username ip",
}
"""List -> what its search compares."""


@every_page
def test_each_list_is_searched_by_its_columns(page: Any) -> None:
    found = getattr(page, "search_lookups", ()) or page.search_fields
    assert " ".join(found) == SEARCHED.get(page.opts.label, "")
    assert bool(page.search_fields) == (page.opts.label in SEARCHED)


@pytest.mark.parametrize(
    ("bound", "value"),
    [
        (user_import.MAX_ROWS, 200),
        (window.WINDOW_SIZE, 200_000),
        (issued_tokens.MAX_FAMILY_ROWS, 200),
        (seals.VERIFIED_AT_ONCE, 100),
        (base.MAX_LISTED_REFUSALS, 20),
    ],
)
def test_pages_show_no_more_than_a_reader_reads(bound: int, value: int) -> None:
    assert bound == value


UNCOUNTED = """accounts.AccessRequest accounts.AuditEvent accounts.AuditSeal
    accounts.Delivery accounts.Invitation
    accounts.IssuedToken accounts.RevokedToken accounts.RoleAssignment mfa.Authenticator
    socialaccount.SocialAccount usersessions.UserSession"""
"""Lists that never count all rows of the table."""
ROWS = {"accounts.AuditEvent": 50, "accounts.OAuthClient": 50}
"""List -> rows of one page, if they are not 100."""
JOINED = {
    "accounts.AccessRequest": "user role",
    "accounts.Delivery": "channel",
    "accounts.Invitation": "user",
    "accounts.RoleAssignment": "user role granted_by",
    "mfa.Authenticator": "user",
    "socialaccount.SocialAccount": "user",
    "usersessions.UserSession": "user",
}
"""List -> the relations that it reads in the same query."""


@every_page
def test_each_list_is_bounded(page: Any, request_of_root: Any) -> None:
    label = page.opts.label
    assert page.show_full_result_count == (label not in UNCOUNTED.split())
    assert page.list_per_page == ROWS.get(label, 100)
    related = page.get_list_select_related(request_of_root) or ()
    assert " ".join(related) == JOINED.get(label, "")


HEADINGS = {
    "accounts.AccessRequest": "user, role, reason, requested until, state,"
    " requested at",
    "accounts.AuditEvent": "when, actor, action, object, client, decision, outcome,"
    " reason, address",
    "accounts.AuditSeal": "number, events, from, to, digest, purged at",
    "accounts.Consent": "user, client, scope, redirect host, granted at",
    "accounts.Delivery": "created at, channel, event, status, attempts,"
    " next attempt, delivered at",
    "accounts.DocumentCopy": "name, URL, switched on, source, read on, last used at",
    "accounts.DocumentHost": "host, trusted",
    "accounts.Invitation": "user, status, roles, invited by, invited at,"
    " link expires at, accepted at, accepted from",
    "accounts.IssuedToken": "token, username, issued through, client, state,"
    " last used at, expires at",
    "accounts.NotificationChannel": "name, kind, target, enabled, last result",
    "accounts.OAuthClient": "name, status, registration source, redirects to,"
    " people, last used at",
    "accounts.OAuthGrant": "user, client, scope, created, expires, redeemed at",
    "accounts.RevokedToken": "token ID, revoked at, revoked by, reason, until",
    "accounts.Role": "name, description, scopes, users",
    "accounts.RoleAssignment": "user, role, end date, reason, granted by, granted at",
    "accounts.Scope": "name, description, in roles",
    "accounts.SignInProvider": "name, issuer, enabled,"
    " create accounts on first sign-in, link accounts by verified email",
    "accounts.SigningKey": "key ID, algorithm, state, activated at, needed until",
    "accounts.User": "username, email address, roles, active, staff status,"
    " last sign-in",
    "axes.AccessAttempt": "user, IP address, failures, time",
    "mcp_bridge.Primitive": "name, kind, enabled, sensitive,"
    " required scopes (any one), needs review",
    "mcp_bridge.UpstreamServer": "server, state, accepted / held / changed,"
    " last contact, p50 (ms), calls in 24 h",
    "mfa.Authenticator": "user, type, created at, last used at",
    "socialaccount.SocialAccount": "user, provider, ID at the provider, date joined,"
    " last login",
    "usersessions.UserSession": "user, browser, address, created at, last used at",
}
"""List -> the words above its columns."""


@every_page
def test_each_column_is_named(page: Any) -> None:
    names = [label_for_field(n, page.model, page) for n in page.list_display]
    assert ", ".join(map(str, names)) == HEADINGS[page.opts.label]


LONGEST = {
    "accounts.AccessRequest": "answer:255",
    "accounts.DocumentCopy": "origin:255",
    "accounts.DocumentHost": "host:255",
    "accounts.NotificationChannel": "name:80 secret_url:2000",
    "accounts.OAuthClient": "name:255",
    "accounts.RevokedToken": "reason:255",
    "accounts.Role": "description:255 name:100",
    "accounts.RoleAssignment": "reason:255",
    "accounts.Scope": "description:255 name:255",
    "accounts.SignInProvider": "client_id:191 issuer:255 name:40 slug:50",
    "accounts.User": "email:254 first_name:150 last_name:150 username:150",
    "mcp_bridge.UpstreamServer": "audience:500 client_id:255 header:64 name:16"
    " prefix:16 scope:500 title:100 token_url:500 url:500",
}
"""List -> the fields of its forms that have a greatest length."""


@every_page
def test_each_text_may_be_as_long_as_its_column(
    page: Any, request_of_root: Any
) -> None:
    found: dict[str, int] = {}
    allowed = {
        True: page.has_change_permission(request_of_root),
        False: page.has_add_permission(request_of_root),
    }
    for change in (one for one, may in allowed.items() if may):
        row = open_row(page) if change else None
        form = page.get_form(request_of_root, row, change=change)
        bounds = {n: getattr(f, "max_length", 0) for n, f in form.base_fields.items()}
        found |= {name: most for name, most in bounds.items() if most}
    listed = " ".join(f"{name}:{most}" for name, most in sorted(found.items()))
    assert listed == LONGEST.get(page.opts.label, "")


PERIOD = "(From, From, time, To, To, time)"
FILTERED = {
    "accounts.AccessRequest": "state; role",
    "accounts.AuditEvent": "kind of event [calls=Calls, denied=Denied,"
    " failed=Failed calls, sign-ins=Sign-ins, changes=Changes]"
    f"; time {PERIOD}; decision"
    "; outcome [ok=succeeded, error=failed, cancelled=cancelled, withheld=withheld,"
    " refused=refused by its server, timed_out=timed out,"
    " may_have_run=no answer, may have run]"
    "; user and reason (User, Client (name or ID), Object, Reason for denial)"
    "; action; changed item",
    "accounts.Delivery": "state; channel",
    "accounts.DocumentCopy": "enabled; source",
    "accounts.Invitation": "status [pending=pending, accepted=accepted,"
    " withdrawn=withdrawn, expired=expired]",
    "accounts.IssuedToken": "user and client (User, Client (name or ID))"
    "; state [active=active, expired=expired, revoked=revoked]"
    "; use [never=never used, 30=unused for 30 days, 90=unused for 90 days]"
    "; expiry [hour=within an hour, day=within a day, week=within 7 days, later=later]"
    f"; kind; issued_via; issued {PERIOD}",
    "accounts.OAuthClient": "registration_source; blocked; client_type",
    "accounts.RoleAssignment": "end date [for_good=no end date, dated=has an end date,"
    " soon=ends within 7 days, expired=expired]; role",
    "accounts.SigningKey": "state; algorithm",
    "accounts.User": "is_active; is_staff; role_assignments__role"
    "; second factor [some=has one, none=has none]",
    "mcp_bridge.Primitive": "kind; state; upstream; enabled; sensitive"
    "; recorded arguments [off=nothing, names=names only,"
    " masked=names, and types and lengths of values, full=names and values]"
    "; required_scopes",
    "mcp_bridge.UpstreamServer": "enabled",
    "mfa.Authenticator": "type",
}
"""List -> its filters with their choices, except those that are read from rows."""


def filter_in_words(page: Any, request: Any, kind: Any) -> str:
    if isinstance(kind, str | tuple):
        return kind if isinstance(kind, str) else str(kind[0])
    if hasattr(kind, "inputs"):
        return f"{kind.title} ({', '.join(str(label) for *_, label in kind.inputs)})"
    choices = kind(request, {}, page.model, page).lookup_choices
    listed = ", ".join(f"{value}={label}" for value, label in choices)
    return f"{kind.title} [{listed}]" if listed else str(kind.title)


@every_page
def test_each_list_is_filtered_by_these_choices(
    page: Any, request_of_root: Any
) -> None:
    kinds = page.get_list_filter(request_of_root)
    found = [filter_in_words(page, request_of_root, kind) for kind in kinds]
    assert "; ".join(found) == FILTERED.get(page.opts.label, "")
