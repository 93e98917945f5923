"""Lookups in addresses of admin lists, tried on every list with every column."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from allauth.usersessions.models import UserSession
from django.apps import apps
from django.contrib import admin, messages
from django.contrib.admin.exceptions import DisallowedModelAdminLookup
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.sites import all_sites
from django.contrib.auth.models import Group, Permission
from django.core.exceptions import (
    ImproperlyConfigured,
    PermissionDenied,
    SuspiciousOperation,
)
from django.db import connection, models, transaction
from django.db.models.functions import Lower
from django.http import Http404, QueryDict
from django.test import Client, RequestFactory, override_settings
from django.test.utils import CaptureQueriesContext

from accounts.admin_site import autocomplete
from accounts.admin_site.declared_lookups import (
    CONTROLS,
    DeclaredLookups,
    LookupRefused,
    comparisons,
    date_hierarchy_lookups,
    exceeds_limits,
    hashable,
    is_key,
    lookups_of,
    missing_guards,
    ordering_paths,
    orders,
    parameters_of,
    searchable,
    shown_columns,
)
from accounts.admin_site.sensitive_columns import fields_along, is_private, is_secret
from accounts.admin_site.site import PorticoSite, SitePage, site_page
from accounts.checks import lists_take_declared_lookups
from accounts.models import AuditEvent, IssuedToken, OAuthClient, Role, User
from tests.support.static_files import UNCOLLECTED
from tests.support.users import make_user

PAGES = sorted(admin.site._registry.values(), key=lambda page: page.opts.label)
IDS = [page.opts.label for page in PAGES]
STAFF = ("carol", "Auditors", "Helpdesk", "Role managers")
LOOKUPS = (
    "regex iregex contains icontains startswith istartswith endswith iendswith iexact"
    " gt gte lt lte in range exact isnull prefix"
).split()
ROLE = "role role__exact role__in role__isnull role__id__exact role__id__in"
DECLARED = {
    "accounts.AccessRequest": f"{ROLE} state state__exact state__in state__isnull",
    "accounts.AuditEvent": "action actor at__gte at__gte_time at__lt at__lt_time"
    " client_id object object__in outcome reason request_id show subject token_id"
    " decision decision__exact decision__in decision__isnull",
    "accounts.AuditSeal": "",
    "accounts.Consent": "client__id__exact",
    "accounts.Delivery": "state state__exact state__in state__isnull"
    " channel channel__exact channel__id__exact channel__id__in channel__in"
    " channel__isnull",
    "accounts.DocumentCopy": "enabled enabled__exact enabled__in enabled__isnull"
    " source source__exact source__in source__isnull",
    "accounts.DocumentHost": "",
    "accounts.Invitation": "state",
    "accounts.IssuedToken": "client_id expiry issued_at__gte issued_at__gte_time"
    " issued_at__lte issued_at__lte_time state use username"
    " issued_via issued_via__exact issued_via__in issued_via__isnull"
    " kind kind__exact kind__in kind__isnull",
    "accounts.NotificationChannel": "",
    "accounts.OAuthClient": "blocked blocked__exact blocked__in blocked__isnull"
    " client_type client_type__exact client_type__in client_type__isnull"
    " registration_source registration_source__exact registration_source__in"
    " registration_source__isnull",
    "accounts.OAuthGrant": "",
    "accounts.RevokedToken": "",
    "accounts.Role": "",
    "accounts.RoleAssignment": f"{ROLE} end",
    "accounts.Scope": "",
    "accounts.SignInProvider": "",
    "accounts.SigningKey": "algorithm algorithm__exact algorithm__in algorithm__isnull"
    " state state__exact state__in state__isnull",
    "accounts.User": "factor is_active is_active__exact is_active__in is_active__isnull"
    " is_staff is_staff__exact is_staff__in is_staff__isnull"
    " role_assignments__role role_assignments__role__exact role_assignments__role__in"
    " role_assignments__role__isnull role_assignments__role__id__exact"
    " role_assignments__role__id__in",
    "axes.AccessAttempt": "",
    "mcp_bridge.Primitive": "changed_at__isnull"
    " enabled enabled__exact enabled__in enabled__isnull"
    " kind kind__exact kind__in kind__isnull records"
    " sensitive sensitive__exact sensitive__in sensitive__isnull"
    " state state__exact state__in state__isnull"
    " upstream upstream__exact upstream__id__exact upstream__id__in upstream__in"
    " upstream__isnull"
    " required_scopes required_scopes__exact required_scopes__in"
    " required_scopes__isnull required_scopes__id__exact required_scopes__id__in",
    "mcp_bridge.UpstreamServer": "enabled enabled__exact enabled__in enabled__isnull",
    "mfa.Authenticator": "type type__exact type__in type__isnull",
    "socialaccount.SocialAccount": "",
    "usersessions.UserSession": "",
}
"""List -> every lookup it takes. Add a new list or filter here after a review of what
its results reveal."""

SENSITIVE = {
    "account.EmailAddress": "email",
    "account.EmailConfirmation": "key",
    "accounts.AuditEvent": "address arguments changes",
    "accounts.AuditSeal": "content marks",
    "accounts.Delivery": "payload",
    "accounts.DocumentCopy": "document",
    "accounts.ImportDraft": "content",
    "accounts.Invitation": "mailed_to token",
    "accounts.IssuedToken": "secret_hash successor_sealed",
    "accounts.NotificationChannel": "events mail_to row_key secrets_encrypted",
    "accounts.OAuthAccessToken": "resource token token_checksum",
    "accounts.OAuthClient": "client_jwks client_secret grant_types registered"
    " token_endpoint_auth_method",
    "accounts.OAuthDeviceGrant": "device_code user_code",
    "accounts.OAuthGrant": "claims code code_challenge code_challenge_method nonce"
    " resource",
    "accounts.OAuthRefreshToken": "resource token token_checksum token_family",
    "accounts.SignInProvider": "secret_encrypted",
    "accounts.SigningKey": "private_encrypted",
    "accounts.UsedAssertion": "key",
    "accounts.User": "email password session_epoch",
    "axes.AccessAttempt": "get_data ip_address post_data user_agent",
    "axes.AccessFailureLog": "ip_address user_agent",
    "axes.AccessLog": "ip_address session_hash user_agent",
    "mcp_bridge.ArgumentRule": "value",
    "mcp_bridge.ClientSession": "key",
    "mcp_bridge.LoggedChange": "key",
    "mcp_bridge.Primitive": "accepted accepted_hash offered recorded_arguments",
    "mcp_bridge.SessionMessage": "content_encrypted",
    "mcp_bridge.UpstreamCredential": "secret_encrypted token_url",
    "mfa.Authenticator": "data",
    "sessions.Session": "session_data session_key",
    "socialaccount.SocialAccount": "extra_data uid",
    "socialaccount.SocialApp": "key secret settings",
    "socialaccount.SocialToken": "token token_secret",
    "usersessions.UserSession": "data ip session_key user_agent",
}
"""Model -> columns whose type or name says that they are secret or personal."""

GROUPS = re.compile(r" GROUP BY .*?(?= ORDER BY| HAVING| LIMIT|\)|$)")
"""Counting relations groups by every column; that compares no foreign values."""


def is_sensitive(field: Any) -> bool:
    """Whether a model declares the column in SENSITIVE."""
    return bool(is_secret(field) or is_private(field))


def staff_user(who: str) -> User:
    """carol, a superuser, or a staff member of one of the default groups."""
    if who == "carol":
        return make_user("carol", "Admin", admin=True)
    user = make_user(f"staff-{who.lower().replace(' ', '-')}")
    user.is_staff = True
    user.save()
    user.groups.set(Group.objects.filter(name=who))
    return user


def request_as(user: User, path: str = "/", **query: Any) -> Any:
    """The request that a view gets."""
    request = RequestFactory().get(path, query)
    request.user = user
    return request


def columns(model: Any, relations: int, before: str = "") -> Iterator[tuple[str, Any]]:
    """(path, field) of every column within `depth` relations, hidden ones included."""
    for field in model._meta.get_fields(include_hidden=True):
        path = before + field.name
        if not field.is_relation:
            yield path, field
        elif relations and field.related_model:
            yield from columns(field.related_model, relations - 1, f"{path}__")


def compared_columns(queries: CaptureQueriesContext) -> list[str]:
    """The secret columns in conditions and orders of these queries."""
    statements = [GROUPS.sub("", q["sql"].partition(" FROM ")[2]) for q in queries]
    return [
        f"{model._meta.label}.{field.name}"
        for model in apps.get_models()
        for field in model._meta.concrete_fields
        if is_secret(field)
        for rest in statements
        if f'"{model._meta.db_table}"."{field.column}"' in rest
    ]


def test_every_list_accepts_declared_lookups_only(monkeypatch: Any) -> None:
    """A new list or filter fails here until somebody has entered it in DECLARED."""
    pages: list[Any] = PAGES
    found = {
        page.opts.label: lookups_of(
            page.model,
            tuple(page.get_list_filter(None)),
            page.linked_lookups,
            shown_columns(page, None),
        )
        for page in pages
    }
    assert found == {name: frozenset(text.split()) for name, text in DECLARED.items()}
    assert [page for page in PAGES if missing_guards(page)] == []
    assert problems(admin.site, monkeypatch) == []


def test_every_secret_and_personal_column_is_listed() -> None:
    """A new column fails here until it is listed in SENSITIVE or named as harmless."""
    found = {
        model._meta.label: {
            f.name for f in model._meta.concrete_fields if is_sensitive(f)
        }
        for model in apps.get_models()
        if not model.__module__.startswith(("tests.", "examples."))
    }
    columns = {name: set(text.split()) for name, text in SENSITIVE.items()}
    assert {name: names for name, names in found.items() if names} == columns


@pytest.mark.once
@pytest.mark.django_db
@pytest.mark.parametrize("who", STAFF)
def test_no_list_compares_a_secret_by_any_lookup_over_any_relation(who: str) -> None:
    """Superusers reach three relations, others two; no permission is checked here."""
    user = staff_user(who)
    far = 3 if user.is_superuser else 2
    tried = 0
    for page in PAGES:
        request = request_as(user)
        for path, field in columns(page.model, far):
            if is_sensitive(field):
                for lookup in ("", *LOOKUPS):
                    name = f"{path}__{lookup}".rstrip("_")
                    assert not page.lookup_allowed(name, "x", request), name
                    tried += 1
    assert tried > 10_000


@pytest.mark.once
@pytest.mark.django_db
@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_a_list_accepts_no_pattern_on_any_column(page: Any) -> None:
    """This holds for hidden columns and for columns that a filter declares."""
    declared = set(DECLARED[page.opts.label].split())
    for who in STAFF:
        request = request_as(staff_user(who))
        far = 1 if who == "carol" else 0
        paths = [path for path, _field in columns(page.model, far)]
        for path, lookup in product(paths, LOOKUPS):
            name = f"{path}__{lookup}"
            allowed = page.lookup_allowed(name, "x", request)
            assert allowed == (name in declared), name
        asked = request_as(request.user, **{f"{paths[0]}__regex": "(a+)+$"})
        with pytest.raises(DisallowedModelAdminLookup):
            page.get_changelist_instance(asked)


@pytest.mark.django_db
@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_search_and_order_compare_no_secret(page: Any) -> None:
    """Tests what the search box and the column headers send to the database."""
    user = staff_user("carol")
    places = range(len(page.list_display) + 1)
    orders = [f"{sign}{place}" for place, sign in product(places, ("", "-"))]
    with CaptureQueriesContext(connection) as queries:
        for query in ({"q": "abc"}, *({"o": order} for order in orders)):
            try:
                shown = page.get_changelist_instance(request_as(user, **query))
                list(shown.result_list)
            except IncorrectLookupParameters:
                continue
    assert queries and compared_columns(queries) == []


def names_of(model: Any) -> set[str]:
    """Every name that Django gives a field of the model or a relation to it."""
    found = {"pk", "", "nothing"}
    for field in model._meta.get_fields(include_hidden=True):
        found |= {field.name, f"{field.name}_id"}
        if field.auto_created and not field.concrete:
            found.add(field.get_accessor_name() or "")
    return found


def django_decides(page: Any, request: Any, name: str) -> bool:
    """Whether Django's own rule answers; of relations to the model it raises."""
    try:
        admin.ModelAdmin.to_field_allowed(page, request, name)
    except AttributeError:
        return False
    return True


@pytest.mark.django_db
@override_settings(STORAGES=UNCOLLECTED)
@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_a_popup_and_a_form_use_plain_columns_only(page: Any) -> None:
    """`_to_field` puts the column into each row and finds a row by it.

    Django also takes relations to the model, and answers them with 500.
    """
    request = request_as(staff_user("carol"))
    columns = {
        name
        for field in page.opts.concrete_fields
        if not is_sensitive(field)
        for name in (field.name, field.attname)
    }
    names = names_of(page.model)
    taken = {name for name in names if page.to_field_allowed(request, name)}
    assert page.opts.pk.name in taken <= columns
    failing = {name for name in names if not django_decides(page, request, name)}
    client = Client()
    client.force_login(request.user)
    path = f"/admin/{page.opts.app_label}/{page.opts.model_name}/"
    for name, where in product(taken | failing, ("", "add/", "1/change/")):
        if where == "add/" and name in taken - {page.opts.pk.name}:
            # The form repeats the name in a hidden field; it reads no column.
            continue
        url = f"{path}{where}?_popup=1&_to_field={name}"
        shown = (200, 302, 403) if name in taken else (302, 400, 403)
        assert client.get(url).status_code in shown, url


BAD = ["", "[", "a\x00b", "x" * 5000, "9" * 40, "1,x", "0001-01-01", "NaN"]


@pytest.mark.django_db
@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_no_value_breaks_a_list(page: Any) -> None:
    """An unreadable value matches no row or is refused before the database is asked."""
    user = staff_user("carol")
    names = [*DECLARED[page.opts.label].split(), *sorted(CONTROLS - {"e"})]
    for name, value in product(names, BAD):
        try:
            with transaction.atomic():
                shown = page.get_changelist_instance(request_as(user, **{name: value}))
                list(shown.result_list)
        except (IncorrectLookupParameters, SuspiciousOperation):
            continue


@pytest.mark.django_db
@pytest.mark.parametrize(
    "query",
    [
        {"o": "x"},
        {"o": "99"},
        {"o": "1"},
        {"o": "7.7"},
        {"o": ".".join(["7"] * 3000)},
        {"q": "a " * 400},
        {"q": "a" * 60_000},
        {"kind__exact": ["access"] * 3000},
    ],
)
def test_addresses_that_no_page_links_to_are_refused(query: dict[str, Any]) -> None:
    """Token is not sortable and expires_at is, once: databases bound conditions."""
    page: Any = admin.site.get_model_admin(IssuedToken)
    with pytest.raises(IncorrectLookupParameters):
        page.get_changelist_instance(request_as(staff_user("carol"), **query))
    with pytest.raises(DisallowedModelAdminLookup):
        page.get_changelist_instance(request_as(staff_user("carol"), e="1", **query))


class Bare(admin.ModelAdmin):  # type: ignore[type-arg]
    """As another app writes it."""


class Careless(DeclaredLookups, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("user", "ip", "session_key")
    list_filter = ("session_key", "user__email", "user__is_active")
    search_fields = ("session_key", "ip__regex", "user__password", "user__username")
    linked_lookups = ("session_key__exact", "user__password__exact", "ip__exact")


class Open(DeclaredLookups, admin.ModelAdmin):  # type: ignore[type-arg]
    def lookup_allowed(self, lookup: str, value: Any, request: Any = None) -> bool:
        return True


@pytest.fixture
def site() -> Iterator[PorticoSite]:
    """A second admin site, which later system checks do not see."""
    admin_site = PorticoSite()
    yield admin_site
    all_sites.discard(admin_site)


def problems(site: Any, monkeypatch: Any) -> list[str | None]:
    """The messages of the system check for one site."""
    monkeypatch.setattr("accounts.checks.all_sites", [site])
    return [message.id for message in lists_take_declared_lookups()]


@pytest.mark.django_db
def test_a_list_of_another_app_is_closed_by_the_site(
    site: PorticoSite, monkeypatch: Any
) -> None:
    """Covers Django's own ModelAdmin, a subclass and options."""
    site.register(UserSession)
    site.register(OAuthClient, Bare)
    site.register(User, list_filter=["is_staff"])
    request = request_as(staff_user("carol"))
    for page in site._registry.values():
        assert not page.lookup_allowed("password__regex", "x", request)
        assert not page.lookup_allowed("user__password__startswith", "x", request)
        assert isinstance(page, DeclaredLookups)
    assert site.get_model_admin(User).lookup_allowed("is_staff__exact", "1", request)
    assert problems(site, monkeypatch) == []


def test_a_list_that_bypasses_the_rule_is_an_error(
    site: PorticoSite, monkeypatch: Any
) -> None:
    """Covers a list that overrides the rule and one registered past it."""
    site.register(User, Open)
    assert problems(site, monkeypatch) == ["portico.E020"]
    site._registry = {User: Bare(User, site)}
    assert problems(site, monkeypatch) == ["portico.E020"]


@pytest.mark.django_db
def test_wrongly_declared_lookups_are_left_out(
    site: PorticoSite, monkeypatch: Any
) -> None:
    site.register(UserSession, Careless)
    page: Any = site.get_model_admin(UserSession)
    request = request_as(staff_user("carol"))
    assert page.get_list_filter(request) == ["user__is_active"]
    assert page.get_search_fields(request) == ["user__username"]
    assert page.get_sortable_by(request) == ["user", "ip"]
    for name in Careless.linked_lookups[:2]:
        assert not page.lookup_allowed(name, "x", request)
    assert page.lookup_allowed("ip__exact", "x", request), "it is shown"
    assert problems(site, monkeypatch) == ["portico.E021"]


@pytest.mark.django_db
def test_links_of_limit_choices_to_are_accepted() -> None:
    """The value is fixed too: an address cannot choose another one."""
    page: Any = admin.site.get_model_admin(User)
    opts = page.model._meta
    before = opts.related_fkey_lookups
    opts.related_fkey_lookups = [{"is_service_account": True}, {"password": "x"}, None]
    try:
        assert page.lookup_allowed("is_service_account", "1")
        assert not page.lookup_allowed("is_service_account", "0")
        assert not page.lookup_allowed("password", "x")
    finally:
        opts.related_fkey_lookups = before


class Completing(admin.ModelAdmin):  # type: ignore[type-arg]
    """A form that completes one field."""

    autocomplete_fields = ("user",)


@pytest.mark.django_db
def test_only_fields_that_a_form_completes_are_completed(site: PorticoSite) -> None:
    """Only users who may open that form get completions."""
    site.register(UserSession, Completing)
    site.register(User, search_fields=["username"])

    def complete(who: str, field: str, term: str = "carol") -> Any:
        where = {"app_label": "usersessions", "model_name": "usersession"}
        if "." in field:
            app, model, field = field.split(".")
            where = {"app_label": app, "model_name": model}
        request = request_as(staff_user(who), field_name=field, term=term, **where)
        return site.autocomplete_view(request)

    assert b"carol" in complete("carol", "user").content
    assert b"carol" in complete("Auditors", "user").content
    for who, field in (
        ("Helpdesk", "user"),
        ("carol", "accounts.issuedtoken.user"),
        ("carol", "accounts.savedview.owner"),
        ("Auditors", "admin.logentry.user"),
    ):
        with pytest.raises(PermissionDenied):
            complete(who, field)
    for term in ("x" * 60_000, "\x00"):
        with pytest.raises(SuspiciousOperation):
            complete("carol", "user", term)


@pytest.mark.django_db
def test_the_address_of_a_row_needs_permission_to_view_the_row(
    site: PorticoSite,
) -> None:
    """Django's view would reveal whether any key of any model exists."""
    from django.contrib.contenttypes.models import ContentType
    from django.contrib.sessions.models import Session

    site.register(Role)
    Session.objects.create(
        pk="k" * 32, session_data="", expire_date="2099-01-01T00:00Z"
    )
    hidden = ContentType.objects.get_for_model(Session).pk
    known, role = ContentType.objects.get_for_model(Role).pk, Role.objects.all()[0]
    for who, kind, key in (
        ("carol", hidden, "k" * 32),
        ("carol", known, "999999"),
        ("carol", "x", "1"),
        ("carol", known, role.pk),
    ):
        with pytest.raises(Http404):
            site.view_on_site(request_as(staff_user(who)), str(kind), str(key))


def test_a_page_without_permissions_cannot_be_registered() -> None:
    misspelt = type("Misspelt", (SitePage,), {"permission": "accounts.view_user"})
    with pytest.raises(ImproperlyConfigured):
        site_page(misspelt)


@pytest.mark.django_db
def test_the_permissions_of_pages_exist() -> None:
    """A permission that does not exist would exclude all but superusers."""
    known = {
        f"{p.content_type.app_label}.{p.codename}"
        for p in Permission.objects.select_related("content_type")
    }
    site: Any = admin.site
    assert all(set(page.permissions) <= known for page in site.pages.values())


@pytest.mark.django_db
def test_a_saved_view_with_refused_lookups_is_an_error() -> None:
    """The error names the refused parameters."""
    page: Any = admin.site.get_model_admin(AuditEvent)
    query = QueryDict("changes__regex=x&actor=a&o=1&q=b&decision__exact=denied")
    assert page.refused_lookups(query, request_as(staff_user("carol"))) == [
        "changes__regex"
    ]


def test_a_path_ends_where_its_fields_end() -> None:
    """A further lookup or a JSON key is refused."""
    found = [f.name for f in fields_along(IssuedToken, "user__password__startswith")]
    assert found == ["user", "password"]
    assert [f.name for f in fields_along(AuditEvent, "changes__a__b")] == ["changes"]
    assert [f.name for f in fields_along(IssuedToken, "pk__in")] == ["id"]
    assert [*fields_along(IssuedToken, "nothing__such")] == []


def test_no_query_uses_regular_expressions() -> None:
    """Python's `re` under SQLite takes hours for some patterns of 40 characters.

    The pattern NOT_ASCII is a constant that matches one character.
    """
    root = Path(__file__).parent.parent.parent.parent
    files = [*root.glob("accounts/**/*.py"), *root.glob("mcp_bridge/**/*.py")]
    assert len(files) > 100
    for path in files:
        text = path.read_text().replace("__regex=NOT_ASCII", "")
        assert not re.search("__i?regex", text), path


def page_of(model: Any, **attributes: Any) -> Any:
    """A list of `model` that only this test has."""
    kind = type("Page", (DeclaredLookups, admin.ModelAdmin), attributes)
    return kind(model, admin.site)


@pytest.mark.parametrize(
    ("query", "exceeds"),
    [
        ({"a": ["x"] * 100}, False),
        ({"a": ["x"] * 101}, True),
        ({"a": ["x"] * 60, "b": ["x"] * 41}, True),
        ({"a": "x" * 2000}, False),
        ({"a": "x" * 2001}, True),
        ({"q": "x" * 500}, False),
        ({"q": "x" * 501}, True),
        ({"a": "x\x00"}, True),
        ({}, False),
    ],
)
def test_query_strings_have_limits(query: dict[str, Any], exceeds: bool) -> None:
    asked = RequestFactory().get("/", query).GET
    assert exceeds_limits(asked) is exceeds


@pytest.mark.parametrize(
    ("model", "text", "valid"),
    [
        (User, "1", True),
        (User, "x", False),
        (User, "", False),
        (UserSession, "9" * 30, False),
        (AuditEvent, "1.5", False),
    ],
)
def test_a_selected_value_must_be_a_key(model: Any, text: str, valid: bool) -> None:
    assert is_key(model, text) is valid


def test_a_key_never_has_a_nul() -> None:
    from django.contrib.sessions.models import Session

    assert is_key(Session, "abc") and not is_key(Session, "ab\x00c")


@pytest.mark.django_db
@pytest.mark.parametrize("keys", [["x"], ["1", "x"], ["1\x00"]])
def test_an_action_on_no_row_is_refused(keys: list[str]) -> None:
    told: list[tuple[str, int]] = []
    page = page_of(User)
    page.message_user = lambda request, text, level: told.append((text, level))
    request: Any = RequestFactory().post("/admin/x/?q=1", {"_selected_action": keys})
    response = page.response_action(request, User.objects.all())
    assert (response.status_code, response.url) == (302, "/admin/x/?q=1")
    text = "This row does not exist. It may have been deleted."
    assert told == [(text, messages.ERROR)]


@pytest.mark.django_db
def test_an_action_on_rows_is_passed_on(monkeypatch: Any) -> None:
    monkeypatch.setattr(
        admin.ModelAdmin, "response_action", lambda *arguments, **_o: arguments[3:]
    )
    request: Any = RequestFactory().post("/", {"_selected_action": ["1", "2"]})
    assert page_of(User).response_action(request, None, 7) == (7,)


@pytest.mark.django_db
def test_a_row_is_found_by_its_key_only() -> None:
    user = staff_user("carol")
    request = request_as(user)
    page = page_of(User)
    assert page.get_object(request, str(user.pk)) == user
    assert page.get_object(request, user.username, "username") == user
    assert page.get_object(request, f"{user.pk}\x00") is None


@pytest.mark.django_db
def test_an_unreadable_filter_is_explained(monkeypatch: Any) -> None:
    """Django shows all rows without a message."""
    told: list[tuple[str, int]] = []
    monkeypatch.setattr(admin.ModelAdmin, "changelist_view", lambda *_a: "shown")
    page = page_of(User)
    page.message_user = lambda request, text, level: told.append((text, level))
    assert page.changelist_view(request_as(staff_user("carol"))) == "shown"
    assert told == []
    assert page.changelist_view(request_as(staff_user("carol"), e="1")) == "shown"
    text = "The filter or sort order is invalid, so all rows are shown."
    assert told == [(text, messages.WARNING)]


class Sorted(admin.ModelAdmin):  # type: ignore[type-arg]
    """Columns that sort by other columns."""

    list_display = (
        "username",
        "by_text",
        "by_f",
        "by_function",
        "unsorted",
        "property",
    )

    @admin.display(ordering="-email")
    def by_text(self, row: Any) -> str:
        return ""

    @admin.display(ordering=models.F("last_name"))
    def by_f(self, row: Any) -> str:
        return ""

    @admin.display(ordering=Lower("first_name").desc())
    def by_function(self, row: Any) -> str:
        return ""

    def unsorted(self, row: Any) -> str:
        return ""


def ordered(column: Any) -> list[str]:
    return orders(Sorted(User, admin.site), column)


def test_the_order_of_a_column_is_known() -> None:
    assert ordered("username") == ["username"] and ordered("by_text") == ["email"]
    assert ordered("by_f") == ["last_name"] and ordered("by_function") == ["first_name"]
    assert ordered("unsorted") == [] and ordered("nothing") == []
    assert ordered(Sorted.by_text) == ["email"]


def test_properties_may_have_an_order(monkeypatch: Any) -> None:
    def shown(self: Any) -> str:
        return ""

    shown.admin_order_field = "password"  # type: ignore[attr-defined]
    monkeypatch.setattr(User, "property", property(shown), raising=False)
    assert ordered("property") == ["password"]


def test_a_relation_sorts_by_the_order_of_its_rows() -> None:
    found = [*ordering_paths(IssuedToken, "user")]
    assert found[0] == "user" and found == [
        "user",
        *(f"user__{str(name).lstrip('-')}" for name in User._meta.ordering or ()),
    ]
    deep = [*ordering_paths(Permission, "content_type")]
    assert deep == ["content_type"]


def test_orders_end_after_three_relations(monkeypatch: Any) -> None:
    """Two models may order by each other."""
    monkeypatch.setattr(User._meta, "ordering", ["role_assignments__user"])
    found = [*ordering_paths(IssuedToken, "user")]
    assert len(found) == 4


@pytest.mark.parametrize(
    ("path", "lookups"),
    [
        (None, set()),
        ("", set()),
        ("at", {"at__year", "at__month", "at__day", "at__gte", "at__lt"}),
    ],
)
def test_a_date_hierarchy_has_its_links(path: str | None, lookups: set[str]) -> None:
    assert set(date_hierarchy_lookups(path)) == lookups


RANGED = {"gt", "gte", "lt", "lte"}


@pytest.mark.parametrize(
    ("model", "path", "ranges", "keys"),
    [
        (AuditEvent, "at", True, False),
        (AuditEvent, "duration_ms", True, False),
        (AuditEvent, "id", True, False),
        (AuditEvent, "actor", False, False),
        (User, "is_staff", False, False),
        (IssuedToken, "user", False, True),
    ],
)
def test_only_numbers_and_times_have_ranges(
    model: Any, path: str, ranges: bool, keys: bool
) -> None:
    """A range over text reveals it letter by letter."""
    expected = {path, *(f"{path}__{name}" for name in ("exact", "in", "isnull"))}
    expected |= {f"{path}__{name}" for name in RANGED} if ranges else set()
    expected |= {f"{path}__id__exact", f"{path}__id__in"} if keys else set()
    assert set(comparisons(model, path)) == expected


class Choice(admin.SimpleListFilter):
    title, parameter_name = "x", "choice"


def test_every_kind_of_filter_has_its_lookups() -> None:
    found = {
        name: set(parameters_of(User, declared))
        for name, declared in {
            "simple": Choice,
            "empty": ("email", admin.EmptyFieldListFilter),
            "other": ("email", admin.AllValuesFieldListFilter),
            "field": User._meta.get_field("is_staff"),
            "strange": object(),
        }.items()
    }
    plain = {"email", "email__exact", "email__in", "email__isnull"}
    assert found["simple"] == {"choice"} and found["strange"] == set()
    assert found["empty"] == {*plain, "email__isempty"} and found["other"] == plain
    assert "is_staff__exact" in found["field"]
    assert hashable(["a", "b"]) == ("a", "b") and hashable("a") == "a"


@pytest.mark.parametrize(
    ("name", "shown", "valid"),
    [
        ("username", (), True),
        ("^username", (), True),
        ("username__iregex", (), False),
        ("email", (), False),
        ("=email", ("email",), True),
        ("password", ("password",), False),
    ],
)
def test_a_search_uses_columns_that_are_shown(
    name: str, shown: tuple[str, ...], valid: bool
) -> None:
    assert searchable(User, name, frozenset(shown)) is valid


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("order", "valid"),
    [
        ("", True),
        ("1", True),
        ("-1", True),
        ("1.1", False),
        ("1.-1", False),
        ("2", False),
        ("9", False),
        ("x", False),
        ("1000", False),
        ("1.", True),
    ],
)
def test_each_sortable_column_is_named_once(order: str, valid: bool) -> None:
    page = page_of(
        User, list_display=("username", "last_login"), sortable_by=("username",)
    )
    assert page.can_order(request_as(staff_user("carol"), o=order)) is valid


@pytest.mark.django_db
def test_the_checkbox_column_counts(monkeypatch: Any) -> None:
    page = page_of(User, list_display=("username",), actions=None)
    assert page.can_order(request_as(staff_user("carol"), o="0"))
    page = page_of(User, list_display=("username",))
    assert not page.can_order(request_as(staff_user("carol"), o="0"))


@pytest.mark.django_db
def test_a_refused_lookup_is_logged_with_the_user(caplog: Any) -> None:
    page = page_of(User)
    asked = request_as(staff_user("carol"), password__startswith="a")
    with pytest.raises(LookupRefused) as refused:
        page.get_changelist_instance(asked)
    assert refused.value.lookup == "password__startswith"
    assert f"Refused 'carol' at {asked.path}: Filtering by" in caplog.text
    assert len(LookupRefused("x" * 200).lookup) == 100


@pytest.mark.django_db
def test_a_broken_list_is_reported_not_redirected(monkeypatch: Any) -> None:
    """Without parameters no other address would help."""

    def broken(*_arguments: Any) -> Any:
        raise ValueError("broken")

    monkeypatch.setattr(admin.ModelAdmin, "get_changelist_instance", broken)
    for query in ({}, {"e": "1"}):
        with pytest.raises(ValueError, match="broken"):
            page_of(User).get_changelist_instance(
                request_as(staff_user("carol"), **query)
            )
    with pytest.raises(IncorrectLookupParameters, match="broken"):
        page_of(User).get_changelist_instance(request_as(staff_user("carol"), q="x"))
    with pytest.raises(DisallowedModelAdminLookup):
        page_of(User).get_changelist_instance(
            request_as(staff_user("carol"), q="x", e="1")
        )


@pytest.mark.django_db
def test_a_term_has_a_length() -> None:
    assert autocomplete.LONGEST_TERM == 100
    where = {"app_label": "accounts", "model_name": "issuedtoken", "field_name": "user"}
    for length, error in ((100, PermissionDenied), (101, SuspiciousOperation)):
        request = request_as(staff_user("carol"), term="x" * length, **where)
        with pytest.raises(error):
            admin.site.autocomplete_view(request)


@pytest.mark.django_db
def test_a_parameter_without_a_column_is_unreadable() -> None:
    """It may be an annotation or mistyped: no attempt to read a secret."""
    asked = request_as(staff_user("carol"), nothing="1")
    with pytest.raises(IncorrectLookupParameters):
        page_of(User).get_changelist_instance(asked)
