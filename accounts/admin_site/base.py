"""What the admin pages share: every change on record, with before and after."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from django.contrib import admin, messages
from django.db import models
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import capfirst
from django.utils.translation import gettext_lazy, ngettext

from accounts.admin_site.declared_lookups import DeclaredLookups
from accounts.admin_site.site import ELSEWHERE, Place
from accounts.audit.record import record
from accounts.http.language import in_english
from accounts.parsing.json_form_field import JSONFormField

M = TypeVar("M", bound=models.Model)

if TYPE_CHECKING:
    Base = admin.ModelAdmin
else:

    class Base(admin.ModelAdmin):
        """django-stubs knows ModelAdmin as generic; Django itself does not."""

        def __class_getitem__(cls, item: Any) -> Any:
            return cls


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
    """Field -> [before, after] of a bound form; passwords only by name."""
    found = {}
    for name in form.changed_data:
        if "password" in name or "secret" in name:
            found[name] = ["(hidden)", "(hidden)"]
        elif name in form.cleaned_data:
            before = form.initial.get(name)
            found[name] = [as_json(before), as_json(form.cleaned_data[name])]
    return found


class BoundedInline(admin.TabularInline):  # type: ignore[type-arg]
    """Rows of another model on a form: at most `most` rows.

    Django builds as many forms as the browser says, up to 2,000, and each of them asks
    the database for its choices: one request would hold a worker for half a minute.
    """

    most = 200

    def get_formset(self, request: Any, obj: Any = None, **kwargs: Any) -> Any:
        """Django's, with both bounds."""
        bounds = {"max_num": self.most, "absolute_max": self.most}
        return super().get_formset(request, obj, **{**bounds, **kwargs})


class SectionAdmin(DeclaredLookups, Base[M]):
    """A list with its place in the navigation and a word for those new to it."""

    place: Place = ELSEWHERE
    called: Any = ""
    """Its name here, where the model's own says too little."""
    intro: Any = ""
    """What the list is, in one plain sentence."""
    nothing_yet: Any = ""
    """What to do next where it is empty."""
    formfield_overrides = {models.JSONField: {"form_class": JSONFormField}}
    # Rows have no page outside the admin; a model of a library may name one of its
    # own views, which are not served here.
    view_on_site = False

    def formfield_for_dbfield(self, db_field: Any, request: Any, **kwargs: Any) -> Any:
        """Date and time are two boxes under one label: each is named for itself."""
        field: Any = super().formfield_for_dbfield(db_field, request, **kwargs)
        for part, word in zip(
            getattr(getattr(field, "widget", None), "widgets", []), PARTS, strict=False
        ):
            part.attrs.setdefault("aria-label", f"{capfirst(field.label)}, {word}")
        return field

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        """Under the plural's own name."""
        own = {
            "title": self.called or capfirst(self.model._meta.verbose_name_plural),
            "intro": self.intro,
            "nothing_yet": self.nothing_yet,
        }
        return super().changelist_view(request, {**own, **(extra_context or {})})


class AuditedAdmin(SectionAdmin[M]):
    """Writes an AuditEvent `<noun>.added`, `.changed` or `.deleted` for each change."""

    noun = "row"
    verbs = ("added", "changed", "deleted")

    def save_related(
        self, request: HttpRequest, form: Any, formsets: Any, change: bool
    ) -> None:
        """Record once the row and its relations are saved."""
        super().save_related(request, form, formsets, change)
        with in_english():
            changes = differences(form)
        if changes or not change:
            verb = self.verbs[1 if change else 0]
            self.record_change(request, verb, form.instance, changes)

    def delete_model(self, request: HttpRequest, obj: M) -> None:
        """Record, then delete."""
        self.record_change(request, self.verbs[2], obj)
        super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        """The bulk action deletes one by one, so that each is on record."""
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
        """One event about `obj`."""
        record(
            f"{self.noun}.{verb}",
            actor=request.user,
            request=request,
            object=obj,
            changes=changes or {},
            **fields,
        )


class ActorFormMixin(Base[M]):
    """Its forms know who fills them in, as `actor`; their rules depend on that.

    Django makes a class of its own of the form for each request, so nothing is shared.
    """

    def get_form(self, request: Any, obj: Any = None, **kwargs: Any) -> Any:  # type: ignore[override]
        """Django's, with the actor."""
        form: Any = super().get_form(request, obj, **kwargs)
        form.actor = request.user
        return form


class DelegatedAdmin(AuditedAdmin[M]):
    """Rows that some staff may not touch, whatever Django permission they hold."""

    def has_change_permission(self, request: Any, obj: Any = None) -> bool:
        """Django's permission, for what one may touch."""
        allowed = super().has_change_permission(request, obj)
        return allowed and (obj is None or self.may_touch(request.user, obj))

    def has_delete_permission(self, request: Any, obj: Any = None) -> bool:
        """Likewise."""
        allowed = super().has_delete_permission(request, obj)
        return allowed and (obj is None or self.may_touch(request.user, obj))

    def may_touch(self, actor: Any, obj: M) -> bool:
        """Whether this row is the actor's to change (delegation.py)."""
        raise NotImplementedError


MOST_REFUSALS = 20
"""How many rows of a bulk action are named that it leaves out."""


def within_reach(
    page: Any, request: HttpRequest, rows: Iterable[M], rule: Callable[[Any, M], str]
) -> list[M]:
    """The selected rows that a rule of delegation.py lets the actor change.

    A message names each of the others with the rule's objection.
    """
    found, refused = [], []
    for row in rows:
        told = rule(request.user, row)
        found += [] if told else [row]
        refused += [f"{row}: {told}"] if told else []
    for told in refused[:MOST_REFUSALS]:
        page.message_user(request, told, messages.ERROR)
    more = len(refused) - MOST_REFUSALS
    if more > 0:
        told = ngettext("and %d more.", "and %d more.", more) % more
        page.message_user(request, told, messages.ERROR)
    return found


class ReadOnlyAdmin(SectionAdmin[M]):
    """Rows that nobody edits, adds or deletes by hand."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Never."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Never."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Never."""
        return False


def badge(text: Any, look: str = "") -> SafeString:
    """A word with a colour (`good`, `warn`, `bad`): the word says it alone, too."""
    return format_html('<span class="badge {}">{}</span>', look, text)


def may(request: HttpRequest, permission: str) -> bool:
    """Whether this member of staff holds a Django permission."""
    return bool(request.user.has_perm(permission))


def names(rows: Iterable[models.Model]) -> str:
    """Rows in one line."""
    return ", ".join(map(str, rows))
