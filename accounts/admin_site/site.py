"""The admin site, with a navigation by task instead of by app.

It is not in `accounts.admin`, whose modules register with the site at import.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

from django.contrib import admin
from django.contrib.admin.sites import AdminSite
from django.contrib.admin.utils import unquote
from django.contrib.auth import REDIRECT_FIELD_NAME
from django.contrib.auth.views import redirect_to_login
from django.contrib.contenttypes.models import ContentType
from django.contrib.contenttypes.views import shortcut
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.db.models import Model
from django.db.models.base import ModelBase
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, URLResolver, path, reverse
from django.utils.translation import gettext_lazy as _
from django.views import View

from accounts.admin_site import dashboard
from accounts.admin_site.autocomplete import DeclaredAutocompleteView
from accounts.admin_site.declared_lookups import DeclaredLookups
from accounts.admin_site.navigation.groups import (
    DEFAULT_PLACE,
    Entry,
    Group,
    Place,
    Section,
    grouped,
)
from accounts.admin_site.notices import notices
from accounts.admin_site.overview.checklist import HideChecklist
from accounts.authorization.mfa_enrollment import must_enroll_mfa
from accounts.parsing.row_ids import row_id


class SitePage(View):
    """An admin page without a model; `@site_page` registers it."""

    path = ""
    name = ""
    title: Any = ""
    place: Place = DEFAULT_PLACE
    permissions: tuple[str, ...] = ()
    """Django permissions. Without them the page is 403 and not in the menu."""
    superusers_only = False
    """Whether only superusers may open it, whatever permissions others have."""
    for_all_staff = False
    """Whether it needs no permission, because it shows only what each may view."""
    template = ""
    parent: tuple[str, Any] | None = None
    """(URL name, title) of the parent page, for the breadcrumbs."""
    in_menu = True

    @classmethod
    def allowed(cls, request: HttpRequest) -> bool:
        if cls.superusers_only:
            return bool(request.user.is_superuser)
        return all(request.user.has_perm(name) for name in cls.permissions)

    def page(self, context: dict[str, Any], status: int = 200) -> HttpResponse:
        """Render the template with the context of every admin page."""
        shared = admin.site.each_context(self.request)
        return TemplateResponse(
            self.request,
            self.template,
            {**shared, "title": self.title, "parent": self.parent, **context},
            status=status,
        )


class PorticoSite(AdminSite):
    """Django's admin site with own pages, one navigation and the dashboard."""

    site_header = site_title = "Portico"
    index_title = _("Overview")
    site_url = "/portal/"
    empty_value_display = "-"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pages: dict[str, type[SitePage]] = {}

    def register(
        self, model_or_iterable: Any, admin_class: Any = None, **options: Any
    ) -> None:
        """Add DeclaredLookups to lists that lack it, such as those of other apps."""
        kind = admin_class or admin.ModelAdmin
        if not issubclass(kind, DeclaredLookups):
            names = {"__module__": kind.__module__, "__doc__": kind.__doc__}
            kind = type(kind.__name__, (DeclaredLookups, kind), names)
        super().register(model_or_iterable, kind, **options)
        one = isinstance(model_or_iterable, ModelBase)
        for model in [model_or_iterable] if one else model_or_iterable:
            name_relation_rows(model)

    def has_permission(self, request: HttpRequest) -> bool:
        """Active staff, with a second factor where the settings require one."""
        allowed = super().has_permission(request)
        return allowed and not must_enroll_mfa(request.user)

    def login(self, request: HttpRequest, extra_context: Any = None) -> Any:
        """Use allauth's sign-in, which applies lockout and second factors."""
        if super().has_permission(request):
            owes = must_enroll_mfa(request.user)
            return redirect("portal-security" if owes else "admin:index")
        if request.user.is_authenticated:
            raise PermissionDenied
        target = request.GET.get(REDIRECT_FIELD_NAME) or reverse("admin:index")
        return redirect_to_login(target)

    def password_change(self, request: HttpRequest, extra_context: Any = None) -> Any:
        """Use allauth's page, which applies the lockout and updates the sessions."""
        return redirect("account_change_password")

    def password_change_done(
        self, request: HttpRequest, extra_context: Any = None
    ) -> Any:
        return redirect("portal-security")

    def get_urls(self) -> list[URLResolver | URLPattern]:
        urls: list[URLResolver | URLPattern] = [
            path(page.path, self.admin_view(require_permission(page)), name=page.name)
            for page in self.pages.values()
        ]
        hide = HideChecklist.as_view()
        urls += [
            path("first-steps/", self.admin_view(hide), name="first-steps"),
            path(
                "r/<path:content_type_id>/<path:object_id>/",
                self.admin_view(self.view_on_site),
                name="view_on_site",
            ),
        ]
        return urls + super().get_urls()

    def view_on_site(
        self, request: HttpRequest, content_type_id: str, object_id: str
    ) -> HttpResponse:
        """Redirect to a row's URL, for users who may view the row.

        Django's view would tell any staff which rows of any model exist.
        """
        key = row_id(content_type_id)
        kind = ContentType.objects.filter(pk=key).first()
        page = self._registry.get(cast(Any, kind and kind.model_class()))
        row = page.get_object(request, unquote(object_id)) if page else None
        if page is None or row is None or not page.has_view_permission(request, row):
            raise Http404
        if page.get_view_on_site_url(row) is None:
            raise Http404
        return shortcut(request, str(key), unquote(object_id))

    def autocomplete_view(self, request: HttpRequest) -> HttpResponse:
        view = DeclaredAutocompleteView.as_view(admin_site=self)
        return cast(HttpResponse, view(request))

    def index(self, request: HttpRequest, extra_context: Any = None) -> Any:
        """Show the dashboard."""
        shown = {**dashboard.dashboard_context(request), **(extra_context or {})}
        return super().index(request, shown)

    def app_index(
        self, request: HttpRequest, app_label: str, extra_context: Any = None
    ) -> Any:
        """Django's page of one app, with the notices of the dashboard."""
        shown = {"notices": notices(request), **(extra_context or {})}
        return super().app_index(request, app_label, shown)

    def get_app_list(self, request: Any, app_label: str | None = None) -> list[Group]:
        """Pages and models by group; with `app_label`, Django's order."""
        if app_label is not None:
            return super().get_app_list(request, app_label)
        return grouped(self.placed_entries(request))

    def placed_entries(self, request: HttpRequest) -> Iterator[tuple[Place, Entry]]:
        """Every page that this user may open, with its place."""
        if self.has_permission(request):
            yield (Section.OVERVIEW, 0), overview_entry()
        for page in self.pages.values():
            if page.in_menu and page.allowed(request):
                yield page.place, menu_entry(page)
        # `get_app_list` would sort by translated names, for a tenth of a page's time.
        for app in self._build_app_dict(request).values():
            for model in app["models"]:
                model_admin = self._registry[model["model"]]
                model["name"] = getattr(model_admin, "list_title", "") or model["name"]
                yield getattr(model_admin, "place", DEFAULT_PLACE), model

    def section_at(self, path: str) -> Section | None:
        """The group of the page without a model at this path."""
        for page in self.pages.values():
            if path == reverse(f"admin:{page.name}"):
                return page.place[0]
        return None


def name_relation_rows(model: type[Model]) -> None:
    """Name rows of many-to-many tables by both ends; deletion pages list them."""
    for field in model._meta.local_many_to_many:
        through: Any = field.remote_field.through
        # A model that AUTH_USER_MODEL replaces has no such table.
        if through is not None and through._meta.auto_created:
            through.__str__ = relation_title(
                field.m2m_field_name(), field.m2m_reverse_field_name()
            )


def relation_title(*ends: str) -> Callable[[Any], str]:
    """The `__str__` of a many-to-many table with these foreign keys."""
    return lambda row: ": ".join(str(getattr(row, end)) for end in ends)


def menu_entry(page: type[SitePage]) -> Entry:
    return page_entry(page.name, page.title, reverse(f"admin:{page.name}"))


def overview_entry() -> Entry:
    """The dashboard in the navigation."""
    return page_entry(Section.OVERVIEW, Section.OVERVIEW.label, reverse("admin:index"))


def page_entry(name: str, title: Any, url: str) -> Entry:
    """A page in the shape of Django's model entries."""
    return {
        "model": None,
        "name": title,
        "object_name": name,
        "perms": {},
        "admin_url": url,
        "add_url": None,
        "view_only": True,
    }


def require_permission(page: type[SitePage]) -> Callable[..., Any]:
    """The view; raises PermissionDenied without the page's permission."""
    view = page.as_view()

    def run(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        if not page.allowed(request):
            raise PermissionDenied
        return view(request, *args, **kwargs)

    return run


RowLinks = Callable[[Any, Any], list[tuple[Any, str]]]
"""(request, row) -> buttons (label, URL) for the row's page."""
_row_links: list[tuple[type[Model], RowLinks]] = []


def row_link(model: type[Model]) -> Callable[[RowLinks], RowLinks]:
    """Decorator: show these buttons on the pages of `model`'s rows."""

    def register(links: RowLinks) -> RowLinks:
        _row_links.append((model, links))
        return links

    return register


RowCell = Callable[[Any, Any], tuple[Any, str] | None]
"""(request, row) -> (label, URL) for a row of a list.

It must not query the database nor return a link that the user may not open.
"""
_row_cells: list[tuple[type[Model], RowCell]] = []


def row_cell(model: type[Model]) -> Callable[[RowCell], RowCell]:
    """Decorator: show this link beside `model`'s rows in lists with `cells_of`."""

    def register(cell: RowCell) -> RowCell:
        _row_cells.append((model, cell))
        return cell

    return register


def cells_of(request: HttpRequest, row: Any) -> list[tuple[Any, str]]:
    """Links beside one row of a list, which this user may open."""
    links = [cell(request, row) for model, cell in _row_cells if type(row) is model]
    return [link for link in links if link is not None]


def links_of(request: HttpRequest, row: Any) -> list[tuple[Any, str]]:
    found = [links(request, row) for model, links in _row_links if type(row) is model]
    return [link for links in found for link in links]


def site_page(page: type[SitePage]) -> type[SitePage]:
    """Class decorator: register the page with the site.

    Raises ImproperlyConfigured if the page declares neither permissions nor
    `superusers_only` nor `for_all_staff`.
    """
    if not (page.permissions or page.superusers_only or page.for_all_staff):
        raise ImproperlyConfigured(f"{page.__name__} declares no permissions")
    cast(PorticoSite, admin.site).pages[page.name] = page
    return page
