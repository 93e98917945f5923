"""Argument rules: what a rule may contain."""

from __future__ import annotations

import time
from typing import Any

import pytest
from django.core.exceptions import ValidationError

from mcp_bridge.models import ArgumentRule, Primitive, rule_problem, text_matches
from mcp_bridge.models.argument_rules import (
    MAX_MATCHED,
    MAX_TEXT,
    MAX_VALUES,
    whole_text,
)

pytestmark = pytest.mark.once

GOOD: list[tuple[str, Any]] = [
    ("one_of", ["a", "", 1, 1.5, True, None]),
    ("one_of", ["a"] * MAX_VALUES),
    ("matches", "[a-z]{1,5}"),
    ("at_most", 0),
    ("at_least", -1.5),
    ("starts_with", "a" * MAX_TEXT),
    ("absent", None),
]
BAD: list[tuple[str, Any, str]] = [
    ("one_of", "a", "list of 1 to"),
    ("one_of", [], "list of 1 to"),
    ("one_of", ["a"] * (MAX_VALUES + 1), "list of 1 to"),
    ("one_of", [["a"]], "Every value is"),
    ("one_of", [float("inf")], "Every value is"),
    ("one_of", ["\0"], "Every value is"),
    ("matches", 5, "Give a text"),
    ("matches", "", "Give a text"),
    ("matches", "[a", "unclosed character class"),
    ("matches", r"(a)\1", "backreferences are not supported"),
    ("matches", "(?=a)", "look-around"),
    ("matches", "a)|(?:b", "unopened group"),
    ("matches", "(a{1000}){1000}", "cannot be used"),
    ("matches", "\ud800", "Give a text"),
    ("at_most", "100", "Give a number"),
    ("at_most", True, "Give a number"),
    ("at_least", None, "Give a number"),
    ("at_least", float("nan"), "Give a number"),
    ("starts_with", "a" * (MAX_TEXT + 1), "Give a text"),
    ("absent", 5, "has no value"),
    ("equals", 5, "known: one_of, matches"),
]


@pytest.mark.parametrize(("operator", "value"), GOOD)
def test_a_rule_with_a_fitting_value(operator: str, value: Any) -> None:
    assert rule_problem("tool", operator, value) == ""


@pytest.mark.parametrize(("operator", "value", "words"), BAD)
def test_a_rule_with_another_value(operator: str, value: Any, words: str) -> None:
    assert words in rule_problem("tool", operator, value)
    rule = ArgumentRule(
        primitive=Primitive(kind="tool"), pointer="/x", operator=operator, value=value
    )
    with pytest.raises(ValidationError) as error:
        rule.clean()
    assert words in str(error.value.message_dict["value"])


def test_only_tools_and_prompts_have_arguments() -> None:
    for kind in ("resource", "resource_template"):
        assert "Only tools and prompts" in rule_problem(kind, "absent", None)
    assert rule_problem("prompt", "one_of", ["a"]) == ""
    for operator in ("at_most", "at_least"):
        assert "prompts are texts" in rule_problem("prompt", operator, 5)


@pytest.mark.parametrize("pointer", ["", "amount", "/a~2", "/a/~"])
def test_the_argument_is_a_json_pointer(pointer: str) -> None:
    """RFC 6901 3."""
    rule = ArgumentRule(primitive=Primitive(kind="tool"), pointer=pointer)
    with pytest.raises(ValidationError) as error:
        rule.clean_fields(exclude=["primitive", "operator"])
    assert "pointer" in error.value.message_dict


@pytest.mark.parametrize("pointer", ["/a", "/a/b~0~1", "/a b/0", "/"])
def test_a_json_pointer_is_accepted(pointer: str) -> None:
    rule = ArgumentRule(primitive=Primitive(kind="tool"), pointer=pointer)
    rule.clean_fields(exclude=["primitive", "operator"])


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("a|b", "a", True),
        ("a|b", "ab", False),
        ("[a-z]+", "abc\n", False),
        (".*", "a\nb", False),
        ("(?s).*", "a\nb", True),
        ("a.", "\ud800", False),
        ("a*", "a" * MAX_MATCHED, True),
        ("a*", "a" * (MAX_MATCHED + 1), False),
        ("[", "[", False),
    ],
)
def test_a_pattern_matches_the_whole_text(
    pattern: str, text: str, matches: bool
) -> None:
    assert text_matches(pattern, text) is matches


def test_no_pattern_takes_long() -> None:
    """Python's own engine needs 2^n steps for this one."""
    whole_text("(a+)+b")
    began = time.perf_counter()
    assert not text_matches("(a+)+b", "a" * MAX_MATCHED)
    assert time.perf_counter() - began < 0.5


def test_a_rule_in_words() -> None:
    rule = ArgumentRule(pointer="/x", operator="at_most", value=5)
    assert str(rule) == "/x must be a number of at most 5"
