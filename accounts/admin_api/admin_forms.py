"""Fills the admin's own forms from JSON, and runs the admin's own actions.

The rules of a change are in those forms and in the ModelAdmin that saves them. They
write the audit events, too.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib.auth.models import Group
from django.contrib.messages import WARNING
from django.contrib.messages.storage.base import BaseStorage, Message
from django.contrib.sessions.backends.signed_cookies import SessionStore
from django.db import models
from django.http import HttpRequest, QueryDict
from rest_framework.exceptions import ValidationError

from accounts.admin_api.problems import FormRefused, RowsRefused
from accounts.authorization.delegation import NotAllowed
from accounts.models import Role, Scope, User
from accounts.parsing.end_choice_field import EndChoiceField, LaterField

NO_SUCH_ROW = "There is no %(value)s, or you may not choose it."
NAMED_BY: dict[type[models.Model], str] = {
    Group: "name",
    Role: "name",
    Scope: "name",
    User: "username",
}
"""Model -> the column by which JSON names its rows; others by their key."""


class Messages(BaseStorage):
    """Collects what an action says instead of showing it on the next page."""

    def _get(self, *args: Any, **kwargs: Any) -> tuple[list[Message], bool]:
        return [], True

    def _store(self, messages: Any, response: Any, *args: Any, **kwargs: Any) -> Any:
        return []

    @property
    def collected(self) -> list[Message]:
        queued: list[Message] = vars(self)["_queued_messages"]
        return queued


def admin_request(request: HttpRequest, actor: User) -> Any:
    """The request as the admin sees it: confirmed, and without the cookie's session.

    The session is kept nowhere: signing the actor out of it has no effect.
    """
    acting: Any = copy.copy(request)
    acting.user, acting.session = actor, SessionStore()
    acting.method, acting.GET = "POST", QueryDict()
    acting.POST = QueryDict("confirmed=yes")
    acting._messages = Messages(acting)
    return acting


class PlainWidget(forms.Widget):
    """Passes a value of JSON to its field unchanged."""

    def value_from_datadict(self, data: Any, files: Any, name: str) -> Any:
        return data.get(name)

    def value_omitted_from_data(self, data: Any, files: Any, name: str) -> bool:
        return name not in data


def filled_form(page: Any, request: Any, given: dict[str, Any], row: Any = None) -> Any:
    """The admin's form of `row`, or of a new row, with the given values.

    The other fields keep their values. Raises NotAllowed for fields that the form does
    not have: it has those that this person may change.
    """
    form_class = page.get_form(request, row, change=row is not None)
    return fill(form_class(data={}, instance=row), given)


def fill(form: Any, given: dict[str, Any]) -> Any:
    """Give the fields of a bound form these values, and the others their present ones.

    Raises NotAllowed for values without a field.
    """
    unknown = sorted(set(given) - set(form.fields))
    if unknown:
        raise NotAllowed(f"You cannot change {', '.join(unknown)} here.")
    form.data = values = {}
    for name, field in list(form.fields.items()):
        form.fields[name] = plain_field(field)
        before = present_value(form, name)
        form.initial[name] = before
        values[name] = given.get(name, present_input(form.fields[name], before))
    return form


@dataclass(frozen=True)
class InlineRows:
    """Rows of an inline in the admin's form, which JSON lists as a whole."""

    model: type[models.Model]
    shown: Callable[[Any], dict[str, Any]]
    """The inputs of a present row, to find it among those that are wanted."""


def filled_formset(
    page: Any, request: Any, form: Any, name: str, rows: InlineRows, wanted: list[Any]
) -> Any:
    """The admin's inline with exactly the `wanted` rows, as inputs by name.

    One with the `id` of a present row changes it, an equal one stays, and those that
    are not wanted are deleted. Raises NotAllowed, RowsRefused.
    """
    formset = empty_formset(page, request, form, name, rows.model)
    present = list(formset.queryset) if form.instance.pk else []
    inputs = matched_inputs(present, wanted, rows.shown)
    if None in inputs and not formset.can_delete:
        raise NotAllowed(f"Only superusers can remove {name}.")
    formset.data = formset_data(formset.prefix, present, inputs)
    numbers = {}
    for one, given in zip(formset.forms, inputs, strict=True):
        make_plain(one)
        if given is not None:
            numbers[one] = next(n for n, row in enumerate(wanted) if row is given)
    if not formset.is_valid():
        raise RowsRefused(formset, name, numbers)
    return formset


def empty_formset(page: Any, request: Any, form: Any, name: str, model: Any) -> Any:
    """The formset of the admin's inline of `model`, without data. Raises NotAllowed."""
    for kind, inline in page.get_formsets_with_inlines(request, form.instance):
        if inline.model is model:
            queryset = inline.get_queryset(request)
            return kind(data={}, instance=form.instance, queryset=queryset)
    raise NotAllowed(f"You cannot change {name} here.")


def matched_inputs(
    present: list[Any], wanted: list[Any], shown: Callable[[Any], dict[str, Any]]
) -> list[Any]:
    """The wanted input of each present row, None to delete it; then the new rows.

    Raises ValidationError for an id of another list.
    """
    left = list(wanted)
    keys = {row.pk for row in present}
    if unknown := {row["id"] for row in wanted if "id" in row} - keys:
        raise ValidationError(f"There is no row with the id {min(unknown)} here.")
    inputs: list[Any] = []
    for row in present:
        equal = shown(row)
        found = [one for one in left if one.get("id") == row.pk]
        found = found or [one for one in left if one == equal]
        inputs.append(found[0] if found else None)
        left = [one for one in left if not found or one is not found[0]]
    return inputs + left


def formset_data(prefix: str, present: list[Any], inputs: list[Any]) -> dict[str, Any]:
    """What a browser would send for these rows."""
    data: dict[str, Any] = {
        f"{prefix}-TOTAL_FORMS": len(inputs),
        f"{prefix}-INITIAL_FORMS": len(present),
    }
    for number, given in enumerate(inputs):
        names = {"DELETE": "on"} if given is None else given
        data |= {f"{prefix}-{number}-{name}": value for name, value in names.items()}
        if number < len(present):
            data[f"{prefix}-{number}-id"] = present[number].pk
    return data


def make_plain(form: Any) -> None:
    """Let a form of a formset read JSON; its key and its mark stay."""
    for name, field in list(form.fields.items()):
        if not isinstance(field.widget, forms.HiddenInput) and name != "DELETE":
            form.fields[name] = plain_field(field)


def plain_field(field: forms.Field) -> Any:
    """The field with one input, that names rows by `NAMED_BY`."""
    if isinstance(field, EndChoiceField):
        field = LaterField(required=field.required, label=field.label)
    if isinstance(field, forms.SplitDateTimeField):
        field = forms.DateTimeField(required=field.required, label=field.label)
    if isinstance(field, forms.ModelChoiceField):
        model = field.queryset.model  # type: ignore[union-attr]
        field.to_field_name = NAMED_BY.get(model, field.to_field_name)
        field.error_messages["invalid_choice"] = NO_SUCH_ROW
    field.widget = PlainWidget()
    return field


def present_value(form: Any, name: str) -> Any:
    """The present value; a row instead of its key."""
    value = form.get_initial_for_field(form.fields[name], name)
    field = form.fields[name]
    many = isinstance(field, forms.ModelMultipleChoiceField)
    if isinstance(field, forms.ModelChoiceField) and not many and value is not None:
        return getattr(form.instance, name)
    return value


def present_input(field: Any, value: Any) -> Any:
    """A present value in the form that the field takes as input."""
    if isinstance(field, forms.ModelChoiceField):
        return field.prepare_value(value)
    return value


def save(
    page: Any, request: Any, form: Any, formsets: Iterable[Any] = (), *, change: bool
) -> Any:
    """Save as the admin does. Raises FormRefused. The caller opens the transaction."""
    if not form.is_valid():
        raise FormRefused(form)
    row = page.save_form(request, form, change)
    page.save_model(request, row, form, change)
    page.save_related(request, form, list(formsets), change)
    return row


def run_action(page: Any, request: Any, name: str, rows: Any) -> list[str]:
    """Run an action of the admin's list; returns what it says.

    Raises NotAllowed if the person may not use it, or if it refuses a row.
    """
    actions = page.get_actions(request)
    if name not in actions:
        raise NotAllowed("You may not do this. Ask a superuser for the permission.")
    actions[name][0](page, request, rows)
    said = request._messages.collected
    refusals = [str(one.message) for one in said if one.level >= WARNING]
    if refusals:
        raise NotAllowed(" ".join(refusals))
    return [str(one.message) for one in said]
