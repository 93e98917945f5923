"""Argument rules: every operator, pointers, and the roles of the caller."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcp_bridge.access.argument_rules import (
    EVERY_ROLE,
    MISSING,
    OPAQUE,
    ArgumentVerdict,
    condition_in_words,
    is_met,
    judge_arguments,
    lookup,
    with_role,
)
from mcp_bridge.access.catalogue import Condition

pytestmark = pytest.mark.once
ORDER = {
    "order": {"total": 5, "a/b": 1, "m~n": 2, "t~1": 3, "lines": [{"n": 7}]},
    "note": None,
}


@pytest.mark.parametrize(
    ("pointer", "found"),
    [
        ("/order/total", 5),
        ("/order/a~1b", 1),
        ("/order/m~0n", 2),
        ("/order/t~01", 3),
        ("/order/lines/0/n", 7),
        ("/order/lines/1/n", MISSING),
        ("/order/lines/-", OPAQUE),
        ("/order/lines/00", OPAQUE),
        ("/order/lines/²", OPAQUE),
        ("/order/lines/9999999999", OPAQUE),
        ("/order/none", MISSING),
        ("/none/none", MISSING),
        ("/note", None),
        ("/note/text", MISSING),
        ("/order/total/5", OPAQUE),
    ],
)
def test_a_pointer_finds_a_value(pointer: str, found: Any) -> None:
    """RFC 6901 4."""
    assert lookup(ORDER, pointer) == found


def test_a_text_may_contain_what_a_server_parses() -> None:
    """The SDK parses `"{...}"` into an object; a rule cannot look into it."""
    arguments = {"order": json.dumps({"total": 500})}
    assert lookup(arguments, "/order/total") is OPAQUE
    assert not is_met(Condition("", "/order/total", "absent"), arguments)
    assert lookup("text", "/order") is OPAQUE


MET = [
    ("one_of", ["EUR", "USD"], "EUR"),
    ("one_of", [1], 1.0),
    ("one_of", [None, True], None),
    ("one_of", [None, True], True),
    ("matches", "[a-z]+", "abc"),
    ("at_most", 100, 100),
    ("at_most", 100.5, 100),
    ("at_most", 0, -(10**400)),
    ("at_least", 1, 1),
    ("at_least", 1, 2.5),
    ("starts_with", "/srv/", "/srv/x"),
]
UNMET = [
    ("one_of", ["EUR"], "eur"),
    ("one_of", ["EUR"], ["EUR"]),
    ("one_of", [1], True),
    ("one_of", [True], 1),
    ("one_of", ["1"], 1),
    ("one_of", [None], 0),
    ("one_of", "EUR", "E"),
    ("matches", "[a-z]+", "abc\n"),
    ("matches", "[a-z]+", "1abc"),
    ("matches", "[a-z]+", 5),
    ("matches", "[", "["),
    ("matches", 5, "5"),
    ("at_most", 100, 100.01),
    ("at_most", 100, "5"),
    ("at_most", 100, True),
    ("at_most", 100, float("nan")),
    ("at_most", 100, None),
    ("at_most", "100", 5),
    ("at_least", 1, 0),
    ("at_least", 1, "5"),
    ("at_least", True, 5),
    ("starts_with", "/srv/", "/sr"),
    ("starts_with", "/srv/", ["/srv/"]),
    ("starts_with", 5, "5"),
    ("absent", None, 5),
    ("absent", None, None),
    ("unknown", 5, 5),
]


@pytest.mark.parametrize(("operator", "value", "given"), MET)
def test_a_value_within_the_limit(operator: str, value: Any, given: Any) -> None:
    assert is_met(Condition("", "/x", operator, value), {"x": given})


@pytest.mark.parametrize(("operator", "value", "given"), UNMET)
def test_a_value_outside_the_limit(operator: str, value: Any, given: Any) -> None:
    assert not is_met(Condition("", "/x", operator, value), {"x": given})


@pytest.mark.parametrize(
    ("operator", "value"),
    [("one_of", [None]), ("matches", ".*"), ("at_most", 5), ("starts_with", "a")],
)
def test_an_argument_must_be_given(operator: str, value: Any) -> None:
    """The server would use its default, which no rule has seen."""
    assert not is_met(Condition("", "/x", operator, value), {})
    assert not is_met(Condition("", "/x", operator, value), [])


def test_an_absent_argument() -> None:
    assert is_met(Condition("", "/x", "absent"), {"y": 1})


def test_without_rules_everything_is_allowed() -> None:
    assert judge_arguments((), ["Support"], {"amount": 5}).allowed


LIMITS = (
    Condition("Support", "/amount", "at_most", 100),
    Condition("Support", "/currency", "one_of", ["EUR", "USD"]),
    Condition("Lead", "/amount", "at_most", 500),
)


@pytest.mark.parametrize(
    ("roles", "amount", "by"),
    [
        (["Support"], 100, "Support"),
        (["Support"], 101, ""),
        (["Support", "Lead"], 101, "Lead"),
        (["Support", "Lead"], 501, ""),
        (["Support", "Boss"], 501, "Boss"),
        (["Boss"], 501, "Boss"),
    ],
)
def test_one_role_that_allows_it_is_enough(
    roles: list[str], amount: int, by: str
) -> None:
    """A role without own rules has no limits."""
    given = {"amount": amount, "currency": "EUR"}
    verdict = judge_arguments(LIMITS, roles, given)
    assert (verdict.allowed, verdict.by) == (bool(by), by)


def test_the_conditions_of_two_roles_are_not_mixed() -> None:
    """Each role refuses this: one the amount, the other the currency."""
    conditions = (
        *LIMITS[:2],
        Condition("Lead", "/amount", "at_most", 500),
        Condition("Lead", "/currency", "one_of", ["CHF"]),
    )
    given = {"amount": 500, "currency": "EUR"}
    assert not judge_arguments(conditions, ["Support", "Lead"], given).allowed


def test_a_rule_without_a_role_applies_to_every_role() -> None:
    conditions = (Condition("", "/amount", "at_most", 1000), *LIMITS)
    given = {"amount": 1001, "currency": "EUR"}
    refused = judge_arguments(conditions, ["Boss"], given)
    assert not refused.allowed
    assert refused.limits == "/amount must be a number of at most 1000"
    absent = Condition("", "/note", "absent")
    both = judge_arguments((*conditions, absent), [], {**given, "note": "x"})
    assert both == ArgumentVerdict(
        False, limits=f"{refused.limits}; /note must be left out"
    )
    assert judge_arguments(conditions[:1], ["Boss"], {"amount": 5}).by == EVERY_ROLE


def test_a_refusal_names_every_limit() -> None:
    refused = judge_arguments(LIMITS, ["Support", "Lead"], {"amount": 501})
    assert refused.allowed is False and refused.by == ""
    assert refused.limits == (
        "/amount must be a number of at most 500 (role Lead); or "
        "/amount must be a number of at most 100 (role Support); "
        "/currency must be one of EUR, USD (role Support)"
    )


@pytest.mark.parametrize(
    ("operator", "value", "words"),
    [
        ("one_of", ["a", 1], "/x must be one of a, 1"),
        ("matches", "[a-z]+", "/x must match [a-z]+"),
        ("at_least", 5, "/x must be a number of at least 5"),
        ("starts_with", "{a", "/x must start with {a"),
        ("absent", None, "/x must be left out"),
        ("odd", 1, "/x has an unknown rule"),
        ("starts_with", "y" * 81, f"/x must start with {'y' * 77}..."),
        ("starts_with", "y" * 80, f"/x must start with {'y' * 80}"),
    ],
)
def test_a_limit_in_words(operator: str, value: Any, words: str) -> None:
    assert condition_in_words(Condition("", "/x", operator, value)) == words
    assert with_role(Condition("R", "/x", operator, value)) == f"{words} (role R)"
    assert with_role(Condition("", "/x", operator, value)) == words
