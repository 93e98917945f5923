"""Argument rules on the page of a tool: checked, audited, tightened by staff."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.utils import translation

from accounts.models import AuditEvent, Role, User
from mcp_bridge.access.catalogue import read_catalogue
from mcp_bridge.admin.argument_rules import as_entered, parsed
from mcp_bridge.models import ArgumentRule, Primitive
from mcp_bridge.models.argument_rules import MAX_RULES
from tests.support.static_files import UNCOLLECTED
from tests.support.users import account, browser_of

pytestmark = pytest.mark.django_db
SCHEMA = {
    "type": "object",
    "properties": {
        "amount": {"type": "integer"},
        "currency": {"enum": ["EUR", "USD"], "type": "string"},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "order": {"$ref": "#/$defs/Order"},
        "anything": {},
    },
    "$defs": {
        "Order": {
            "type": "object",
            "properties": {"total": {"type": "number"}, "lines": {"type": "array"}},
        }
    },
}


@pytest.fixture(autouse=True)
def static_files(settings: Any) -> None:
    settings.STORAGES = UNCOLLECTED


@pytest.fixture
def refund() -> Primitive:
    Primitive.objects.all().delete()
    shown = {"name": "refund", "inputSchema": SCHEMA}
    return Primitive.objects.create(kind="tool", name="refund", accepted=shown)


def root() -> User:
    known = User.objects.filter(username="carol").first()
    return known or account("carol", is_staff=True, is_superuser=True)


def rita(*names: str) -> User:
    known = User.objects.filter(username="rita").first()
    user = known or account("rita", is_staff=True)
    names = names or ("view_primitive", "change_primitive")
    user.user_permissions.set(Permission.objects.filter(codename__in=names))
    return user


def url(row: Primitive) -> str:
    return f"/admin/mcp_bridge/primitive/{row.pk}/change/"


def rule(row: Primitive, operator: str = "at_most", **more: Any) -> ArgumentRule:
    fields = {"pointer": "/amount", "value": 100, **more}
    return ArgumentRule.objects.create(primitive=row, operator=operator, **fields)


def sent(*entries: dict[str, Any]) -> dict[str, Any]:
    """The form with these rules; a saved one has `id`."""
    saved = sum("id" in one for one in entries)
    data: dict[str, Any] = {
        "enabled": "on",
        "argument_rules-TOTAL_FORMS": len(entries),
        "argument_rules-INITIAL_FORMS": saved,
    }
    for number, one in enumerate(entries):
        data |= {f"argument_rules-{number}-{key}": one[key] for key in one}
    return data


def entry(
    pointer: str = "/amount", operator: str = "at_most", value: Any = "100", **more: Any
) -> dict[str, Any]:
    return {"pointer": pointer, "operator": operator, "value": value, **more}


def stored(row: Primitive) -> list[tuple[Any, ...]]:
    rules = row.argument_rules.order_by("pk")
    return list(rules.values_list("role__name", "pointer", "operator", "value"))


def post(user: User, row: Primitive, *entries: dict[str, Any]) -> Any:
    return browser_of(user).post(url(row), sent(*entries))


def changes() -> list[Any]:
    rows = AuditEvent.objects.filter(action="primitive.changed").order_by("pk")
    return list(rows.values_list("actor", "changes"))


def test_a_rule_is_added_changed_and_deleted_and_audited(refund: Primitive) -> None:
    role = Role.objects.get(name="User")
    assert post(root(), refund, entry("amount", role=role.pk)).status_code == 302
    assert stored(refund) == [("User", "/amount", "at_most", 100)]
    assert read_catalogue()["tool", "refund"].conditions[0].value == 100
    saved = refund.argument_rules.get()
    post(root(), refund, entry(value="50.5", id=saved.pk, role=""))
    assert stored(refund) == [(None, "/amount", "at_most", 50.5)]
    post(root(), refund, entry(value="50.5", id=saved.pk, role="", DELETE="on"))
    assert stored(refund) == []
    first = {"role": "User", "pointer": "/amount", "operator": "at_most", "value": 100}
    second = {"pointer": "/amount", "operator": "at_most", "value": 50.5}
    assert changes() == [
        ("carol", {"argument_rules": [[], [first]]}),
        ("carol", {"argument_rules": [[first], [second]]}),
        ("carol", {"argument_rules": [[second], []]}),
    ]


@pytest.mark.parametrize(
    ("one", "value"),
    [
        (entry("/currency", "one_of", "EUR\r\nUSD\r\n"), ["EUR", "USD"]),
        (entry("/currency", "one_of", '["USD"]'), ["USD"]),
        (entry("/amount", "one_of", "1\r\n2"), [1, 2]),
        (entry("/note", "starts_with", ' "x'), ' "x'),
        (entry("/note", "matches", "[A-Z]{2}\\d+"), "[A-Z]{2}\\d+"),
        (entry("/order/total", "at_least", "-1e2"), -100.0),
        (entry("/anything/deep", "one_of", "a"), ["a"]),
        (entry("/undeclared", "absent", ""), None),
        (entry("/note", "starts_with", "é"), "é"),
    ],
)
def test_a_value_is_entered_without_quotes(
    refund: Primitive, one: dict[str, Any], value: Any
) -> None:
    page = post(root(), refund, one)
    assert page.status_code == 302, page.context["errors"]
    ((_role, _pointer, operator, found),) = stored(refund)
    assert found == value and type(found) is type(value)
    shown = as_entered(operator, found)
    assert parsed(operator, shown, frozenset({"string"})) == value


def test_a_list_is_shown_as_it_is_written() -> None:
    assert as_entered("one_of", ["é", 1]) == '["é", 1]'


@pytest.mark.parametrize(
    ("one", "problem"),
    [
        (entry("/amout"), "There is no argument /amout. There are: /amount, /curr"),
        (entry("/order/sum"), "There is no argument /order/sum."),
        (entry("/a~2"), "Write a JSON pointer"),
        (entry(""), "This field is required."),
        (entry("/currency"), "is of the type string. Choose another condition."),
        (entry("/amount", "starts_with", "1"), "is of the type integer."),
        (entry("/order/lines", "one_of", "a"), "is of the type array."),
        (entry("/currency", "one_of", "EUR\r\nGBP"), "never one of these: &#x27;GBP"),
        (entry("/amount", "one_of", '["1"]'), "never one of these"),
        (entry(value="much"), "Give a number, such as 100."),
        (entry(value="1e999"), "Give a number, such as 100."),
        (entry(value="[" * 9000), "Give a number, such as 100."),
        (entry(value=""), "Give a number, such as 100."),
        (entry("/note", "matches", "("), "This regular expression cannot be used"),
        (entry("/note", "absent", "x"), "This condition has no value."),
        (entry(role="99999"), "Select a valid choice."),
    ],
)
def test_a_rule_that_cannot_work_is_refused_and_kept_in_the_form(
    refund: Primitive, one: dict[str, Any], problem: str
) -> None:
    page = post(root(), refund, one)
    text = page.content.decode()
    assert page.status_code == 200 and problem in text
    assert stored(refund) == [] and changes() == []
    form = page.context["inline_admin_formsets"][0].formset.forms[0]
    assert form["value"].value() == one["value"]


def test_at_most_so_many_rules_and_none_twice(refund: Primitive) -> None:
    many = [entry(value=str(n)) for n in range(MAX_RULES)]
    page = post(root(), refund, entry(), entry())
    assert "This rule is there twice" in page.content.decode()
    assert post(root(), refund, *many).status_code == 302
    page = post(root(), refund, entry(value="999"))
    assert "At most 50 argument rules." in page.content.decode()
    assert len(stored(refund)) == MAX_RULES


def test_staff_add_and_tighten_but_do_not_widen(refund: Primitive) -> None:
    """As with scopes: only superusers let more calls pass."""
    saved = rule(refund)
    kept = entry(id=saved.pk)
    assert post(rita(), refund, kept, entry("/note", "absent", "")).status_code == 302
    assert post(rita(), refund, {**kept, "value": "90"}, entry()).status_code == 302
    before = stored(refund)
    for wider in ({"value": "91"}, {"pointer": "/order/total"}, {"operator": "one_of"}):
        page = post(rita(), refund, {**kept, **wider})
        assert "errornote" in page.content.decode()
    post(rita(), refund, {**kept, "value": "90", "DELETE": "on"})
    assert stored(refund) == before and len(before) == 3


@pytest.mark.parametrize(
    ("operator", "old", "new", "tighter"),
    [
        ("at_least", 5, 6, True),
        ("at_least", 5, 4, False),
        ("one_of", ["a", "b"], ["b"], True),
        ("one_of", [1], [True], False),
        ("starts_with", "/home/", "/home/a", True),
        ("starts_with", "/home/", "/", False),
        ("matches", "a+", "a", False),
    ],
)
def test_staff_only_tighten_a_rule(
    refund: Primitive, operator: str, old: Any, new: Any, tighter: bool
) -> None:
    refund.accepted = None
    refund.save()
    saved = rule(refund, operator, value=old)
    post(
        rita(),
        refund,
        entry("/amount", operator, as_entered(operator, new), id=saved.pk),
    )
    assert stored(refund)[0][3] == (new if tighter else old)


def test_a_rule_for_one_role_is_not_given_to_another_by_staff(
    refund: Primitive,
) -> None:
    user, admin = (Role.objects.get(name=name) for name in ("User", "Admin"))
    saved = rule(refund, role=user)
    post(rita(), refund, entry(id=saved.pk, role=admin.pk))
    assert stored(refund)[0][0] == "User"
    post(rita(), refund, entry(id=saved.pk, role=""))
    assert stored(refund)[0][0] is None


def test_a_rule_that_no_longer_fits_does_not_block_other_changes(
    refund: Primitive,
) -> None:
    saved = rule(refund, pointer="/gone")
    data = sent(entry("/gone", id=saved.pk)) | {"enabled": ""}
    assert browser_of(rita()).post(url(refund), data).status_code == 302
    refund.refresh_from_db()
    assert not refund.enabled


def test_everyone_reads_the_rules_in_words(refund: Primitive) -> None:
    rule(refund, role=Role.objects.get(name="User"))
    rule(refund, "one_of", pointer="/note", value=["<b>", "x" * 200])
    reader = browser_of(rita("view_primitive"))
    page = reader.get(url(refund)).content.decode()
    assert "/amount must be a number of at most 100 (role User)" in page
    assert "&lt;b&gt;, " + "x" * 200 in page
    assert "argument_rules-0" not in page
    with translation.override("ko"):
        shown = str(refund.argument_rules.get(pointer="/amount"))
        assert shown == "/amount: 100 이하의 숫자여야 함"


def test_a_prompt_has_rules_and_a_resource_has_none() -> None:
    shown = {"name": "greet", "arguments": [{"name": "tone", "required": True}]}
    prompt = Primitive.objects.create(kind="prompt", name="greet", accepted=shown)
    assert post(root(), prompt, entry("/tone", "one_of", "warm")).status_code == 302
    page = post(root(), prompt, entry("/tome", "one_of", "warm"))
    assert "There are: /tone." in page.content.decode()
    resource = Primitive.objects.create(kind="resource", name="up://text")
    assert (
        "argument_rules" not in browser_of(root()).get(url(resource)).content.decode()
    )
    data = {"enabled": "on", **sent(entry())}
    assert browser_of(root()).post(url(resource), data).status_code == 302
    assert not resource.argument_rules.exists()
