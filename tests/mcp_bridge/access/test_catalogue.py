"""The rules as the rows have them."""

from __future__ import annotations

import pytest

from accounts.models import Scope
from mcp_bridge.access.catalogue import Catalogue, Rule, read_catalogue
from mcp_bridge.models import Offer, Primitive


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


def test_equal_scope_sets_share_memory(tools: list[Primitive]) -> None:
    catalogue = read_catalogue()
    assert catalogue["tool", "zip"].required is catalogue["prompt", "zip"].required


def test_the_rules_take_two_queries(
    tools: list[Primitive], django_assert_num_queries: object
) -> None:
    with django_assert_num_queries(2):  # type: ignore[operator]
        read_catalogue()


def test_a_rule_that_needs_two_of_the_scopes_is_listed_once() -> None:
    rule = Rule("tool", "a", True, False, frozenset({"s", "t"}))
    other = Rule("prompt", "a", True, False, frozenset({"s"}))
    catalogue = Catalogue([rule, other])
    assert catalogue.requiring("tool", ["s", "t", "u"]) == [rule]
    assert catalogue.requiring("prompt", ["s"]) == [other]
    assert catalogue.requiring("resource", ["s"]) == []
    assert catalogue.requiring("tool", []) == []
