"""Role assignments in the admin: grant, extend, end, with grantor and reason."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from accounts.admin_site.base import (
    ActorFormMixin,
    BoundedInline,
    DelegatedAdmin,
    SectionAdmin,
    badge,
    changeable_rows,
)
from accounts.admin_site.large_changelists import BoundedPaginator
from accounts.admin_site.navigation.groups import Section
from accounts.authorization.delegation import (
    NOT_YOURS,
    objection_to_granting,
    objection_to_removing,
)
from accounts.http.language import in_english
from accounts.http.relative_times import time_element
from accounts.models import RoleAssignment, User
from accounts.parsing.end_of_day_field import END_OF_DAY

SOON = timedelta(days=7)


class GrantForm(forms.ModelForm):  # type: ignore[type-arg]
    """Grant a role, within the rights of the grantor."""

    actor: User
    """The signed-in user; set on the form class of this request."""

    class Meta:
        model = RoleAssignment
        fields = ("user", "role", "expires_at", "reason")
        error_messages = {
            NON_FIELD_ERRORS: {
                "unique_together": _(
                    "This user has this role already. Change that assignment instead."
                )
            }
        }

    def clean(self) -> dict[str, Any]:
        """Refuse roles that the actor may not grant."""
        cleaned = super().clean() or {}
        role = cleaned.get("role") or self.instance_value("role")
        user = cleaned.get("user") or self.instance_value("user")
        if self.has_changed() and role is not None and user is not None:
            problem = objection_to_granting(
                self.actor, user, role, cleaned.get("expires_at")
            )
            if problem:
                raise ValidationError(problem, NOT_YOURS)
        return cleaned

    def instance_value(self, name: str) -> Any:
        present = getattr(self.instance, f"{name}_id") is not None
        return getattr(self.instance, name) if present else None


class GrantByNameForm(GrantForm):
    """Choose the user by name: a select would list every user."""

    user = forms.ModelChoiceField(
        queryset=User.objects.all(),
        to_field_name="username",
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
        label=_("Username"),
        error_messages={
            "invalid_choice": _("There is no such user. Check the username.")
        },
    )


class GrantFormSet(forms.BaseInlineFormSet):  # type: ignore[type-arg]
    """Role assignments on a user's page; withdrawing is limited too."""

    def clean(self) -> None:
        """Refuse to withdraw roles that the actor may not withdraw."""
        super().clean()
        forms: list[Any] = self.deleted_forms
        for form in forms:
            if form.instance.pk is not None:
                problem = objection_to_removing(
                    form.actor, self.instance, form.instance.role
                )
                if problem:
                    raise ValidationError(problem)


class RoleRowsInline(BoundedInline):
    """Rows of an inline that name a role; their form knows the actor."""

    def formfield_for_dbfield(self, db_field: Any, request: Any, **kwargs: Any) -> Any:
        """Without the icons of the role itself: their red cross deletes the role."""
        field: Any = super().formfield_for_dbfield(db_field, request, **kwargs)
        if db_field.name == "role" and field is not None:
            widget = field.widget
            widget.can_add_related = widget.can_change_related = False
            widget.can_delete_related = widget.can_view_related = False
        return field

    def get_formset(self, request: Any, obj: Any = None, **kwargs: Any) -> Any:
        formset: Any = super().get_formset(request, obj, **kwargs)
        formset.form.actor = request.user
        return formset


class RoleAssignmentInline(RoleRowsInline):
    """The roles of a user; the box in the last column withdraws one."""

    model = RoleAssignment
    formfield_overrides = END_OF_DAY
    form = GrantForm
    formset = GrantFormSet
    fk_name = "user"
    extra = 0
    # The panel above the form changes roles with fewer clicks.
    classes = ("collapse",)
    fields = ("role", "expires_at", "reason", "granted_by", "granted_at")
    readonly_fields = ("granted_by", "granted_at")
    verbose_name = _("role")
    verbose_name_plural = _("roles")


def objection_to_withdrawing(actor: User, assignment: RoleAssignment) -> str:
    """Why the actor may not withdraw or end this assignment; empty if they may."""
    return objection_to_removing(actor, assignment.user, assignment.role)


class EndFilter(admin.SimpleListFilter):
    title = _("end date")
    parameter_name = "end"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, Any]]:
        return [
            ("for_good", _("no end date")),
            ("dated", _("has an end date")),
            ("soon", _("ends within 7 days")),
            ("expired", _("expired")),
        ]

    def queryset(self, request: Any, queryset: Any) -> Any:
        now = timezone.now()
        conditions: dict[str | None, Q] = {
            "for_good": Q(expires_at=None),
            "dated": Q(expires_at__gt=now),
            "soon": Q(expires_at__gt=now, expires_at__lte=now + SOON),
            "expired": Q(expires_at__lte=now),
        }
        condition = conditions.get(self.value())
        return queryset if condition is None else queryset.filter(condition)


@admin.register(RoleAssignment)
class RoleAssignmentAdmin(
    ActorFormMixin[RoleAssignment], DelegatedAdmin[RoleAssignment]
):
    """Role assignments with grantor, reason and end."""

    noun = "role"
    verbs = ("granted", "extended", "withdrawn")
    place = (Section.ACCESS, 20)
    intro = _("Who has each role, who granted it, why, and when it expires.")
    nothing_yet = _(
        "No role assignments match. Add one here; the end date is optional."
    )
    form = GrantByNameForm
    list_display = ("user", "role", "end", "reason", "granted_by", "granted_at")
    list_filter = (EndFilter, "role")
    list_select_related = ("user", "role", "granted_by")
    search_fields = ("user__username", "granted_by__username", "reason")
    show_full_result_count = False
    paginator = BoundedPaginator
    ordering = ("-pk",)
    fields = ("user", "role", "expires_at", "reason", "granted_by", "granted_at")
    readonly_fields = ("granted_by", "granted_at")
    formfield_overrides = {**SectionAdmin.formfield_overrides, **END_OF_DAY}
    actions = ("extend_day", "extend_week", "extend_month", "end_now")

    @admin.display(description=_("end date"), ordering="expires_at")
    def end(self, obj: RoleAssignment) -> str:
        """The expiry time, marked if it has passed or comes within a week."""
        if obj.expires_at is None:
            return str(_("no end date"))
        when = time_element(obj.expires_at)
        if obj.expired:
            return format_html("{} {}", badge(_("expired"), "bad"), when)
        if obj.expires_at <= timezone.now() + SOON:
            return format_html("{} {}", badge(_("ends soon"), "warn"), when)
        return when

    @admin.action(
        description=_("Extend the selected roles by a day"), permissions=["change"]
    )
    def extend_day(self, request: HttpRequest, queryset: Any) -> None:
        self.extend(request, queryset, timedelta(days=1))

    @admin.action(
        description=_("Extend the selected roles by a week"), permissions=["change"]
    )
    def extend_week(self, request: HttpRequest, queryset: Any) -> None:
        self.extend(request, queryset, timedelta(days=7))

    @admin.action(
        description=_("Extend the selected roles by a month (30 days)"),
        permissions=["change"],
    )
    def extend_month(self, request: HttpRequest, queryset: Any) -> None:
        self.extend(request, queryset, timedelta(days=30))

    def extend(self, request: Any, queryset: Any, by: timedelta) -> None:
        """Move the expiry of dated assignments, within the rights of the actor."""

        def rule(actor: User, assignment: RoleAssignment) -> str:
            until = max(assignment.expires_at or timezone.now(), timezone.now()) + by
            return objection_to_granting(actor, assignment.user, assignment.role, until)

        dated = queryset.exclude(expires_at=None)
        assignments = changeable_rows(self, request, dated, rule)
        for assignment in assignments:
            before = assignment.expires_at
            assignment.extend(by)
            ends = {"expires_at": [str(before), str(assignment.expires_at)]}
            self.record_change(
                request, "extended", assignment, ends, reason=assignment.reason
            )
        count = len(assignments)
        message = ngettext("%d role extended.", "%d roles extended.", count) % count
        self.message_user(request, message, messages.SUCCESS)

    @admin.action(description=_("End the selected roles now"), permissions=["change"])
    def end_now(self, request: Any, queryset: Any) -> None:
        """Expire the selected assignments from the next message on."""
        assignments = changeable_rows(
            self, request, queryset.unexpired(), objection_to_withdrawing
        )
        for assignment in assignments:
            self.record_change(request, "ended", assignment, reason=assignment.reason)
            assignment.end(actor=request.user, keep=request)
        count = len(assignments)
        message = ngettext("%d role ended.", "%d roles ended.", count) % count
        self.message_user(request, message, messages.SUCCESS)

    def history_query(self, obj: RoleAssignment) -> dict[str, str]:
        """The events of the user that are about this role."""
        with in_english():
            return {**super().history_query(obj), "object": str(obj)}

    def get_queryset(self, request: HttpRequest) -> QuerySet[RoleAssignment]:
        rows = super().get_queryset(request)
        return rows.select_related("user", "role", "granted_by")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """User and role cannot change later; expiry and reason can."""
        fixed = super().get_readonly_fields(request, obj)
        return fixed if obj is None else (*fixed, "user", "role")

    def may_change_row(self, actor: Any, obj: RoleAssignment) -> bool:
        """Needs the right to withdraw it; the form limits the new expiry."""
        return not objection_to_withdrawing(actor, obj)

    def save_model(self, request: Any, obj: Any, form: Any, change: bool) -> None:
        """Record who changed it as the grantor; an unchanged form keeps the grantor."""
        if form.has_changed():
            obj.granted_by = request.user
        super().save_model(request, obj, form, change)

    def delete_model(self, request: Any, obj: RoleAssignment) -> None:
        """Withdraw it: the user's last role takes the tokens too."""
        self.record_change(request, "withdrawn", obj, reason=obj.reason)
        obj.withdraw(actor=request.user, keep=request)
