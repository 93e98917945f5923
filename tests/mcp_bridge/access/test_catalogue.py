"""The rules as the rows have them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from accounts.models import Role, Scope
from mcp_bridge.access.catalogue import (
    COLUMNS,
    Catalogue,
    Condition,
    Rule,
    Upstream,
    read_catalogue,
)
from mcp_bridge.models import (
    ArgumentRule,
    Offer,
    Primitive,
    UpstreamCredential,
    UpstreamServer,
)


@pytest.fixture
def tools(db: None) -> list[Primitive]:
    """One with two scopes, one with the same, one that is closed and sensitive."""
    Primitive.objects.all().delete()
    offers = [
        Offer("tool", "zip", "", "", ("User.Read",), False, "1"),
        Offer("prompt", "zip", "", "", (), False, "2"),
        Offer("tool", "axe", "", "", (), True, "3"),
    ]
    Primitive.objects.sync(offers)
    prompt = Primitive.objects.get(kind="prompt")
    prompt.required_scopes.set(Scope.objects.filter(name__in=["tool:zip", "User.Read"]))
    axe = Primitive.objects.get(name="axe")
    axe.required_scopes.clear()
    Primitive.objects.filter(pk=axe.pk).update(enabled=False)
    return list(Primitive.objects.order_by("pk"))


def test_each_row_is_a_rule_in_the_order_of_the_rows(tools: list[Primitive]) -> None:
    both = frozenset({"tool:zip", "User.Read"})
    catalogue = read_catalogue()
    assert list(catalogue.values()) == [
        Rule("tool", "zip", True, False, both),
        Rule("prompt", "zip", True, False, both),
        Rule("tool", "axe", False, True, frozenset()),
    ]
    assert catalogue["prompt", "zip"].key == ("prompt", "zip")
    assert ("tool", "none") not in catalogue


def test_a_rule_says_what_is_recorded_of_arguments(tools: list[Primitive]) -> None:
    assert {rule.recorded for rule in read_catalogue().values()} == {"off"}
    Primitive.objects.filter(name="axe").update(recorded_arguments="names")
    assert read_catalogue()["tool", "axe"].recorded == "names"


def test_equal_scope_sets_share_memory(tools: list[Primitive]) -> None:
    catalogue = read_catalogue()
    assert catalogue["tool", "zip"].required is catalogue["prompt", "zip"].required


def test_the_rules_take_five_queries(
    tools: list[Primitive], django_assert_num_queries: object
) -> None:
    with django_assert_num_queries(5):  # type: ignore[operator]
        read_catalogue()


def test_a_rule_that_needs_two_of_the_scopes_is_listed_once() -> None:
    rule = Rule("tool", "a", True, False, frozenset({"s", "t"}))
    other = Rule("prompt", "a", True, False, frozenset({"s"}))
    catalogue = Catalogue([rule, other])
    assert catalogue.requiring("tool", ["s", "t", "u"]) == [rule]
    assert catalogue.requiring("prompt", ["s"]) == [other]
    assert catalogue.requiring("resource", ["s"]) == []
    assert catalogue.requiring("tool", []) == []


@pytest.fixture
def acme(db: None) -> UpstreamServer:
    return UpstreamServer.objects.create(name="acme", url="https://acme.example/mcp")


def offered(definition: str, **shown: str) -> Offer:
    shown = {"name": "acme__find", **shown}
    return Offer("tool", "acme__find", "", "", (), False, definition, shown, "find")


def rule() -> Rule:
    return read_catalogue()["tool", "acme__find"]


def test_a_rule_knows_its_upstream_server_and_accepted_definition(
    acme: UpstreamServer,
) -> None:
    Primitive.objects.sync([offered("1", title="old")], acme)
    Primitive.objects.sync([offered("2", title="new")], acme)
    found = rule()
    assert found.upstream is not None and found.upstream.name == "acme"
    assert found.upstream.row == acme and found.upstream.credential is None
    assert found.upstream_name == "find" and not found.blocked
    assert found.definition == {"name": "acme__find", "title": "old"}
    assert rule().definition is found.definition, "parsed once"
    Primitive.objects.get(name="acme__find").accept_definition()
    assert rule().definition == {"name": "acme__find", "title": "new"}
    credential = UpstreamCredential.objects.create(upstream=acme)
    shared = rule().upstream
    assert shared is not None and shared.credential == credential


@pytest.mark.parametrize("state", ["held", "gone", "rejected", "unusable"])
def test_a_rule_is_blocked_by_its_state(acme: UpstreamServer, state: str) -> None:
    Primitive.objects.sync([offered("1")], acme)
    Primitive.objects.filter(name="acme__find").update(state=state)
    assert rule().blocked == state
    UpstreamServer.objects.update(enabled=False)
    assert rule().blocked == state, "enabling the server would not help"


OTHER = {
    "enabled": (False, {"enabled": False}),
    "sensitive": (True, {"sensitive": True}),
    "state": ("held", {"blocked": "held"}),
    "upstream_name": ("other", {"upstream_name": "other"}),
    "accepted_hash": ("a" * 64, {"accepted_hash": "a" * 64}),
    "calls_refused": (True, {"calls_refused": True}),
    "updates": (7, {"updates": 7}),
    "recorded_arguments": ("names", {"recorded": "names"}),
}
"""Column -> another value, and what changes in the rule."""


@pytest.mark.parametrize("column", OTHER)
def test_every_column_changes_its_part_of_the_rule(
    acme: UpstreamServer, column: str
) -> None:
    assert {*COLUMNS} - {*OTHER} == {"pk", "kind", "name", "upstream_id"}
    Primitive.objects.sync([offered("1")], acme)
    before = asdict(rule())
    value, expected = OTHER[column]
    Primitive.objects.filter(name="acme__find").update(**{column: value})
    after = asdict(rule())
    assert {
        name: after[name] for name in after if after[name] != before[name]
    } == expected


def test_more_definitions_than_a_batch_are_read(
    acme: UpstreamServer, django_assert_num_queries: Any
) -> None:
    names = [f"acme__{number}" for number in range(1001)]
    columns = {"kind": "tool", "upstream": acme, "accepted_hash": "many"}
    rows = [Primitive(name=n, accepted={"name": n}, **columns) for n in names]
    Primitive.objects.bulk_create(rows)
    for queries in (8, 5):
        with django_assert_num_queries(queries):
            found = read_catalogue()
        shown = [found["tool", name].definition for name in names]
        assert shown == [{"name": name} for name in names]


def test_a_rule_is_blocked_by_its_disabled_upstream(acme: UpstreamServer) -> None:
    Primitive.objects.sync([offered("1")], acme)
    UpstreamServer.objects.update(enabled=False)
    assert rule().blocked == "upstream"


def test_a_rule_has_its_conditions(tools: list[Primitive]) -> None:
    role = Role.objects.create(name="Support")
    ArgumentRule.objects.create(
        primitive=tools[0], role=role, pointer="/a", operator="at_most", value=3
    )
    ArgumentRule.objects.create(primitive=tools[0], pointer="/b", operator="absent")
    catalogue = read_catalogue()
    assert catalogue["tool", "zip"].conditions == (
        Condition("Support", "/a", "at_most", 3),
        Condition("", "/b", "absent"),
    )
    assert catalogue["tool", "axe"].conditions == ()


def template(name: str, blocked: str = "") -> Rule:
    server = Upstream(1, "acme", True, UpstreamServer(name="acme"), None)
    kind = "resource_template"
    return Rule(kind, name, True, False, frozenset(), blocked, upstream=server)


@pytest.mark.parametrize("blocked", ["gone", "held", "rejected", "upstream"])
def test_an_older_template_that_is_not_served_shadows_no_newer_one(
    blocked: str,
) -> None:
    older, newer = "note://{name}", "note://{+path}"
    catalogue = Catalogue([template(older, blocked), template(newer)])
    found = catalogue.serving("note://one")
    assert found is not None and found.name == newer
    both = Catalogue([template(older), template(newer)]).serving("note://one")
    assert both is not None and both.name == older


ACME = Upstream(1, "acme", True, UpstreamServer(name="acme"), None)


def served(kind: str, name: str, **columns: Any) -> Rule:
    given = {"upstream": ACME, **columns}
    return Rule(kind, name, True, False, frozenset({"A"}), **given)


TEMPLATE = "resource_template"


def serving(uri: str, *rules: Rule) -> str:
    """The name of what serves the URI."""
    found = Catalogue(rules).serving(uri)
    return "" if found is None else found.name


def test_a_uri_is_served_by_a_resource_or_else_the_oldest_template() -> None:
    first, second = served(TEMPLATE, "up://{a}"), served(TEMPLATE, "up://{b}")
    assert serving("up://x", first, second) == "up://{a}"
    assert serving("up://x", second, first) == "up://{b}"
    assert serving("up://x", first, served("resource", "up://x")) == "up://x"
    assert serving("down://x", first, second) == ""


@pytest.mark.parametrize(
    "rule",
    [
        served(TEMPLATE, "up://{a}", upstream=None),
        served(TEMPLATE, "up://{a}", blocked="held"),
        served(TEMPLATE, "up://{a"),
        served("tool", "up://{a}"),
    ],
)
def test_what_serves_no_uri(rule: Rule) -> None:
    """Templates of the code, those nobody may use, and what is no template."""
    assert serving("up://x", rule) == ""
