"""Base classes of the admin pages: navigation, audit, delegation, read-only lists."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.contrib.admin.utils import quote, unquote
from django.contrib.admin.widgets import FilteredSelectMultiple
from django.core.exceptions import PermissionDenied
from django.db import models
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from accounts.admin_site.declared_lookups import DeclaredLookups
from accounts.admin_site.navigation.groups import DEFAULT_PLACE, Place
from accounts.audit.record import record
from accounts.http.language import in_english
from accounts.http.relative_times import time_element
from accounts.models import AuditEvent
from accounts.models.audit.events import events_about, subject_of
from accounts.parsing.json_form_field import JSONFormField

M = TypeVar("M", bound=models.Model)

if TYPE_CHECKING:
    Base = admin.ModelAdmin
else:

    class Base(admin.ModelAdmin):
        """django-stubs treats ModelAdmin as generic; Django itself does not."""

        def __class_getitem__(cls, item: Any) -> Any:
            return cls


HISTORY_LENGTH = 100
"""Newest events on the history page of a row; it links to the others."""

PARTS = (gettext_lazy("date"), gettext_lazy("time"))


def as_json(value: Any) -> Any:
    """A form value as JSON for the audit: rows by name, dates as text."""
    if isinstance(value, models.Model):
        return str(value)
    if isinstance(value, (list, tuple, set, models.QuerySet)):
        return sorted(str(as_json(item)) for item in value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def differences(form: Any) -> dict[str, list[Any]]:
    """Field -> [before, after] of a bound form; secrets appear as "(hidden)"."""
    changes = {}
    for name in form.changed_data:
        if "password" in name or "secret" in name:
            changes[name] = ["(hidden)", "(hidden)"]
        elif name in form.cleaned_data:
            before = form.initial.get(name)
            changes[name] = [as_json(before), as_json(form.cleaned_data[name])]
    return changes


class BoundedInline(admin.TabularInline):  # type: ignore[type-arg]
    """An inline with at most `most` rows.

    Django builds as many forms as the browser requests, up to 2,000. Each form queries
    its choices, so one request would occupy a worker for half a minute.
    """

    most = 200

    def get_formset(self, request: Any, obj: Any = None, **kwargs: Any) -> Any:
        bounds = {"max_num": self.most, "absolute_max": self.most}
        return super().get_formset(request, obj, **{**bounds, **kwargs})


@cache
def moment_column(model: type[models.Model], name: Any) -> Any:
    """A column that shows a time of the model as `<time>`; others do not change.

    Django compares the columns of its steps, so each has one function.
    """
    fields = model._meta._forward_fields_map  # type: ignore[attr-defined]
    field = fields.get(name) if isinstance(name, str) else None
    if not isinstance(field, models.DateTimeField):
        return name

    @admin.display(description=field.verbose_name, ordering=name, empty_value="-")
    def column(obj: models.Model) -> SafeString | None:
        when = getattr(obj, name)
        return time_element(when) if when else None

    column.__name__ = name
    return column


class SectionAdmin(DeclaredLookups, Base[M]):
    """A list with a place in the navigation, an introduction and an empty state."""

    place: Place = DEFAULT_PLACE
    list_title: Any = ""
    """Title of the list, where the model's plural says too little."""
    intro: Any = ""
    """One sentence that explains the list."""
    nothing_yet: Any = ""
    """The next step, shown while the list is empty."""
    formfield_overrides = {models.JSONField: {"form_class": JSONFormField}}
    # Rows have no page outside the admin. A library's model may link to its own views,
    # which are not served here.
    view_on_site = False

    def formfield_for_dbfield(self, db_field: Any, request: Any, **kwargs: Any) -> Any:
        """Label the two inputs of a date and time separately."""
        field: Any = super().formfield_for_dbfield(db_field, request, **kwargs)
        for part, word in zip(
            getattr(getattr(field, "widget", None), "widgets", []), PARTS, strict=False
        ):
            part.attrs.setdefault("aria-label", f"{capfirst(field.label)}, {word}")
        return field

    def formfield_for_manytomany(
        self, db_field: Any, request: Any, **kwargs: Any
    ) -> Any:
        """Without the advice to hold down Control, which a picker does not need."""
        field: Any = super().formfield_for_manytomany(db_field, request, **kwargs)
        if isinstance(getattr(field, "widget", None), FilteredSelectMultiple):
            field.help_text = db_field.help_text
        return field

    def get_list_display(self, request: HttpRequest) -> Any:
        return self.with_moments(super().get_list_display(request))

    def get_sortable_by(self, request: HttpRequest) -> Any:
        return self.with_moments(super().get_sortable_by(request))

    def with_moments(self, columns: Iterable[Any]) -> list[Any]:
        """The columns, with relative times instead of those of the model."""
        model: Any = self.model
        return [moment_column(model, column) for column in columns]

    def history_query(self, obj: M) -> dict[str, str]:
        """The filter of the audit for events about this row."""
        return {"subject": subject_of(obj)}

    def history_name(self, obj: M) -> str:
        """Names in the title whose history it is."""
        return str(obj)

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: Any = None
    ) -> Any:
        """The audit of this row, however it was changed.

        Django's own log has changes by the admin's forms only.
        """
        obj = self.get_object(request, unquote(object_id))
        if obj is None:
            admin: Any = self
            return admin._get_obj_does_not_exist_redirect(request, self.opts, object_id)
        if not self.has_view_or_change_permission(request, obj):
            raise PermissionDenied
        if not may(request, "accounts.view_auditevent"):
            raise PermissionDenied(_("You do not have permission to view the audit."))
        query = self.history_query(obj)
        events = AuditEvent.objects.filter(**query)
        if "subject" in query:
            events = events.filter(events_about(query["subject"]))
        listing = reverse("admin:accounts_auditevent_changelist")
        context = {
            **self.admin_site.each_context(request),
            "title": _("History of %s") % self.history_name(obj),
            "parent": (self.row_url(obj), str(obj)),
            "events": events[:HISTORY_LENGTH],
            "all_events": f"{listing}?{urlencode(query)}",
            "length": HISTORY_LENGTH,
        }
        return TemplateResponse(request, "admin/row_history.html", context)

    def list_tools(self, request: HttpRequest) -> list[tuple[Any, str]]:
        """Buttons (label, URL) above the list, beside the one that adds a row."""
        return []

    def row_url(self, obj: M) -> str:
        name = f"admin:{self.opts.app_label}_{self.opts.model_name}_change"
        return reverse(name, args=(quote(obj.pk),))

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        context = {
            "title": self.list_title or capfirst(self.model._meta.verbose_name_plural),
            "intro": self.intro,
            "nothing_yet": self.nothing_yet,
            "tools": self.list_tools(request),
        }
        return super().changelist_view(request, {**context, **(extra_context or {})})


class AuditedAdmin(SectionAdmin[M]):
    """Records an event `<noun>.added`, `.changed` or `.deleted` for each change."""

    noun = "row"
    verbs = ("added", "changed", "deleted")

    def save_related(
        self, request: HttpRequest, form: Any, formsets: Any, change: bool
    ) -> None:
        """Record the change after the row and its relations are saved."""
        before = self.audited_rows(form.instance)
        super().save_related(request, form, formsets, change)
        after = self.audited_rows(form.instance)
        with in_english():
            changes = differences(form)
        changes |= {n: [before[n], after[n]] for n in after if before[n] != after[n]}
        if changes or not change:
            verb = self.verbs[1 if change else 0]
            self.record_change(request, verb, form.instance, changes)

    def audited_rows(self, obj: M) -> dict[str, Any]:
        """Name -> JSON of rows that belong to this one, which a change records too."""
        return {}

    def delete_model(self, request: HttpRequest, obj: M) -> None:
        self.record_change(request, self.verbs[2], obj)
        super().delete_model(request, obj)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Rows of read-only lists go with the row that they depend on.

        Nobody has the permission to delete them alone, not even a superuser.
        """
        objects, counts, needed, protected = super().get_deleted_objects(objs, request)
        pages = self.admin_site._registry.values()
        alone = {p.opts.verbose_name for p in pages if isinstance(p, ReadOnlyAdmin)}
        return objects, counts, set(needed) - alone, protected

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        """Delete one by one, so that each deletion is recorded."""
        for obj in queryset:
            self.delete_model(request, obj)

    def record_change(
        self,
        request: HttpRequest,
        verb: str,
        obj: models.Model,
        changes: dict[str, Any] | None = None,
        **fields: Any,
    ) -> None:
        record(
            f"{self.noun}.{verb}",
            actor=request.user,
            request=request,
            object=obj,
            changes=changes or {},
            **fields,
        )


class SuperusersChangeAdmin(AuditedAdmin[M]):
    """Only superusers add, change and delete rows; others may view them."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_superuser)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.is_superuser)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.is_superuser)


class ActorFormMixin(Base[M]):
    """Sets `actor` on the form class, for rules that depend on the signed-in user.

    Django creates a form class for each request, so requests share nothing.
    """

    def get_form(self, request: Any, obj: Any = None, **kwargs: Any) -> Any:  # type: ignore[override]
        form: Any = super().get_form(request, obj, **kwargs)
        form.actor = request.user
        return form


class DelegatedAdmin(AuditedAdmin[M]):
    """Rows that need more than Django's permission: the actor's own rights count."""

    def has_change_permission(self, request: Any, obj: Any = None) -> bool:
        """Django's permission, and `may_change_row`."""
        allowed = super().has_change_permission(request, obj)
        return allowed and (obj is None or self.may_change_row(request.user, obj))

    def has_delete_permission(self, request: Any, obj: Any = None) -> bool:
        allowed = super().has_delete_permission(request, obj)
        return allowed and (obj is None or self.may_change_row(request.user, obj))

    def may_change_row(self, actor: Any, obj: M) -> bool:
        """Whether the actor's rights cover this row (see authorization.delegation)."""
        raise NotImplementedError


MAX_LISTED_REFUSALS = 20
"""Refused rows of a bulk action that messages name."""


def changeable_rows(
    page: Any, request: HttpRequest, rows: Iterable[M], rule: Callable[[Any, M], str]
) -> list[M]:
    """The selected rows that `rule` lets the actor change.

    `rule` returns an objection or "". Messages name each refused row with it.
    """
    allowed, refusals = [], []
    for row in rows:
        message = rule(request.user, row)
        allowed += [] if message else [row]
        refusals += [f"{row}: {message}"] if message else []
    for message in refusals[:MAX_LISTED_REFUSALS]:
        page.message_user(request, message, messages.ERROR)
    more = len(refusals) - MAX_LISTED_REFUSALS
    if more > 0:
        message = ngettext("and %d more.", "and %d more.", more) % more
        page.message_user(request, message, messages.ERROR)
    return allowed


class ReadOnlyAdmin(SectionAdmin[M]):
    """A list without adding, changing or deleting."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


def badge(text: Any, look: str = "") -> SafeString:
    """Text with a colour (`good`, `warn`, `bad`) that repeats its meaning."""
    return format_html('<span class="badge {}">{}</span>', look, text)


def may(request: HttpRequest, permission: str) -> bool:
    """Whether this user has a Django permission."""
    return bool(request.user.has_perm(permission))


def names(rows: Iterable[models.Model]) -> str:
    return ", ".join(map(str, rows))
