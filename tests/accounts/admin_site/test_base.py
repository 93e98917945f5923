"""Base classes of admin pages: what they record, allow and show."""

from __future__ import annotations

from datetime import date
from types import SimpleNamespace
from typing import Any

import pytest
from django import forms
from django.contrib import admin, messages
from django.contrib.auth.models import Group, Permission
from django.test import RequestFactory, override_settings

from accounts.admin_site import base
from accounts.admin_site.navigation.groups import DEFAULT_PLACE
from accounts.models import AuditEvent, Role, RoleAssignment, User
from accounts.parsing.json_form_field import JSONFormField
from tests.support.commands import new_events
from tests.support.static_files import UNCOLLECTED

pytestmark = pytest.mark.django_db


def request_of(user: Any, **data: str) -> Any:
    request: Any = RequestFactory().post("/admin/", data)
    request.user = user
    return request


def staff(*permissions: str) -> User:
    user: User = User.objects.create(username="judy", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    return user


class Told:
    """A page that remembers its messages."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, int]] = []

    def message_user(self, _request: Any, text: str, level: int) -> None:
        self.messages.append((text, level))


def test_form_values_become_json() -> None:
    role = Role.objects.get(name="Guest")
    for value, told in (
        (role, "Guest"),
        ([3, role, None], ["3", "Guest", "None"]),
        (("b", "a"), ["a", "b"]),
        ({"b", "a"}, ["a", "b"]),
        (Role.objects.order_by("-name"), ["Admin", "Guest", "User"]),
        (None, None),
        (True, True),
        (7, 7),
        (1.5, 1.5),
        ("x", "x"),
        (date(2026, 1, 2), "2026-01-02"),
    ):
        assert base.as_json(value) == told and type(base.as_json(value)) is type(told)


def test_differences_hide_secrets() -> None:
    form = SimpleNamespace(
        changed_data=["name", "new_password1", "client_secret", "gone"],
        initial={"name": "a"},
        cleaned_data={"name": "b", "new_password1": "p", "client_secret": "s"},
    )
    hidden = ["(hidden)", "(hidden)"]
    assert base.differences(form) == {
        "name": ["a", "b"],
        "new_password1": hidden,
        "client_secret": hidden,
    }


class Assignments(base.BoundedInline):
    model = RoleAssignment
    fk_name = "user"


def test_an_inline_is_bounded(carol: User) -> None:
    """A browser may ask for 2,000 forms."""
    inline = Assignments(User, admin.site)
    formset = inline.get_formset(request_of(carol))
    assert formset.max_num == formset.absolute_max == 200
    assert inline.get_formset(request_of(carol), max_num=3).max_num == 3


class Roles(base.AuditedAdmin[Role]):
    noun = "thing"
    place = DEFAULT_PLACE


def page(kind: Any, model: Any = Role) -> Any:
    return kind(model, admin.site)


class RoleForm(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = Role
        fields = ("name", "description")


def saved(user: User, role: Role, change: bool, **data: str) -> list[Any]:
    """The events of saving this form."""
    form = RoleForm(
        {"name": role.name, "description": role.description, **data}, instance=role
    )
    assert form.is_valid(), form.errors
    form.save(commit=False).save()
    return new_events(
        lambda: page(Roles).save_related(request_of(user), form, [], change)
    )


def test_a_change_is_recorded_with_both_values(carol: User) -> None:
    role = Role.objects.get(name="Guest")
    found = saved(carol, role, True, description="new text")
    assert found == [("carol", "thing.changed", "Guest", "")]
    event = AuditEvent.objects.order_by("-id")[0]
    assert (
        event.changes["description"][1] == "new text" and event.address == "127.0.0.1"
    )


def test_saving_without_a_change_is_no_event(carol: User) -> None:
    assert saved(carol, Role.objects.get(name="Guest"), True) == []


def test_an_addition_is_always_an_event(carol: User) -> None:
    role = Role.objects.get(name="Guest")
    assert saved(carol, role, False) == [("carol", "thing.added", "Guest", "")]


def test_every_deletion_is_recorded(carol: User) -> None:
    rows = [Role.objects.create(name=f"r{n}") for n in range(3)]
    found = new_events(
        lambda: page(Roles).delete_queryset(
            request_of(carol),
            Role.objects.filter(name__startswith="r").order_by("name"),
        )
    )
    told = [event for event in found if event[1] == "thing.deleted"]
    assert told == [("carol", "thing.deleted", row.name, "") for row in rows]
    assert not Role.objects.filter(name__startswith="r").exists()


def test_a_page_may_use_other_verbs(carol: User) -> None:
    assert Roles.verbs == ("added", "changed", "deleted")
    found = new_events(
        lambda: page(Roles).record_change(
            request_of(carol), "moved", Role.objects.get(name="User"), reason="why"
        )
    )
    assert found == [("carol", "thing.moved", "User", "why")]
    assert AuditEvent.objects.order_by("-id")[0].changes == {}


class Acting(base.ActorFormMixin[Role], admin.ModelAdmin):  # type: ignore[type-arg]
    fields = ("name",)


def test_forms_know_the_signed_in_user(carol: User, bob: User) -> None:
    """Requests at the same time share nothing."""
    first = page(Acting).get_form(request_of(carol))
    second = page(Acting).get_form(request_of(bob))
    assert (first.actor, second.actor) == (carol, bob)


class Delegated(base.DelegatedAdmin[Role]):
    def may_change_row(self, actor: Any, obj: Role) -> bool:
        return bool(obj.name == actor.first_name)


METHODS = ("has_change_permission", "has_delete_permission")


@pytest.mark.parametrize("method", METHODS)
def test_delegated_rows_need_permission_and_rule(method: str) -> None:
    user = staff("change_role", "delete_role")
    user.first_name = "Guest"
    allowed = getattr(page(Delegated), method)
    guest, other = Role.objects.get(name="Guest"), Role.objects.get(name="User")
    request = request_of(user)
    assert allowed(request) and allowed(request, guest)
    assert not allowed(request, other)


@pytest.mark.parametrize("method", METHODS)
def test_the_rule_alone_is_not_enough(method: str) -> None:
    user = staff()
    user.first_name = "Guest"
    guest = Role.objects.get(name="Guest")
    assert not getattr(page(Delegated), method)(request_of(user), guest)
    assert not getattr(page(Delegated), method)(request_of(user))


def test_a_delegated_page_must_have_a_rule() -> None:
    with pytest.raises(NotImplementedError):
        page(base.DelegatedAdmin).may_change_row(None, None)


def rule(_actor: Any, row: str) -> str:
    return f"no {row}" if row.startswith("x") else ""


def test_refused_rows_of_an_action_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert base.MAX_LISTED_REFUSALS == 20
    monkeypatch.setattr(base, "MAX_LISTED_REFUSALS", 2)
    rows: Any = ["a", "x1", "x2", "b"]
    told = Told()
    assert base.changeable_rows(told, request_of(None), rows, rule) == ["a", "b"]
    listed = [("x1: no x1", messages.ERROR), ("x2: no x2", messages.ERROR)]
    assert told.messages == listed
    told = Told()
    base.changeable_rows(told, request_of(None), [*rows, "x3", "x4"], rule)
    assert told.messages == [*listed, ("and 2 more.", messages.ERROR)]


def test_a_rule_sees_the_actor(carol: User) -> None:
    seen: list[Any] = []
    rows: Any = ["a"]
    base.changeable_rows(
        Told(),
        request_of(carol),
        rows,
        lambda actor, row: seen.append(actor) or "",  # type: ignore[func-returns-value]
    )
    assert seen == [carol]


@pytest.mark.parametrize("verb", ["add", "change", "delete"])
def test_nobody_changes_a_read_only_list(carol: User, verb: str) -> None:
    list_page = page(base.ReadOnlyAdmin)
    assert not getattr(list_page, f"has_{verb}_permission")(request_of(carol))
    assert list_page.has_view_permission(request_of(carol))


def test_a_badge_escapes_its_text() -> None:
    assert base.badge("<b>", "good") == '<span class="badge good">&lt;b&gt;</span>'
    assert base.badge("x") == '<span class="badge ">x</span>'


def test_a_permission_is_asked_of_the_user(carol: User) -> None:
    user = staff("view_role")
    assert base.may(request_of(user), "accounts.view_role")
    assert not base.may(request_of(user), "accounts.change_role")
    assert base.may(request_of(carol), "accounts.change_role")


def test_names_are_joined() -> None:
    assert base.names(Role.objects.order_by("name")) == "Admin, Guest, User"
    assert base.names([]) == ""


class Listed(base.SectionAdmin[Group]):
    intro, nothing_yet = "about", "next"


class Titled(Listed):
    list_title = "My groups"


@override_settings(STORAGES=UNCOLLECTED)
@pytest.mark.parametrize(("kind", "title"), [(Listed, "Groups"), (Titled, "My groups")])
def test_a_list_explains_itself(
    carol: User, monkeypatch: Any, kind: Any, title: str
) -> None:
    found: list[Any] = []
    monkeypatch.setattr(
        admin.ModelAdmin,
        "changelist_view",
        lambda _s, _r, context: found.append(context),
    )
    request: Any = RequestFactory().get("/admin/")
    page(kind, Group).changelist_view(request, {"more": 1})
    page(kind, Group).changelist_view(request, {"title": "other"})
    texts = {"title": title, "intro": "about", "nothing_yet": "next"}
    expected = {**texts, "tools": []}
    assert found == [{**expected, "more": 1}, {**expected, "title": "other"}]


def test_rows_have_no_page_outside_the_admin() -> None:
    assert base.SectionAdmin.view_on_site is False
    assert base.SectionAdmin.place == DEFAULT_PLACE


def test_both_inputs_of_a_time_are_labelled(carol: User) -> None:
    """WCAG 2 4.1.2."""
    list_page = page(base.SectionAdmin, RoleAssignment)
    field = list_page.formfield_for_dbfield(
        RoleAssignment._meta.get_field("expires_at"), request_of(carol)
    )
    labels = [part.attrs["aria-label"] for part in field.widget.widgets]
    assert labels == [
        f"{field.label[0].upper()}{field.label[1:]}, {p}" for p in ("date", "time")
    ]
    plain = list_page.formfield_for_dbfield(
        RoleAssignment._meta.get_field("reason"), request_of(carol)
    )
    assert "aria-label" not in plain.widget.attrs


def test_json_columns_have_a_form_field_of_their_own(carol: User) -> None:
    list_page = page(base.SectionAdmin, AuditEvent)
    field = list_page.formfield_for_dbfield(
        AuditEvent._meta.get_field("changes"), request_of(carol)
    )
    assert isinstance(field, JSONFormField)


def test_lists_of_other_apps_have_a_plain_title(carol: User, settings: Any) -> None:
    """Django's title is "Select role to change"."""
    settings.STORAGES = UNCOLLECTED
    request: Any = RequestFactory().get("/admin/accounts/role/")
    request.user = carol
    page: Any = admin.ModelAdmin(Role, admin.site).changelist_view(request)
    text = page.render().content.decode()
    assert "<title>Roles | Portico</title>" in text and "<h1>Roles</h1>" in text
    assert "Select role to change" not in text
