"""Every reason of a decision is a known, translated sentence."""

from __future__ import annotations

import pytest
from django.utils import translation

from mcp_bridge.access.catalogue import Catalogue, Rule
from mcp_bridge.access.decision import decide
from mcp_bridge.access.explain import SENTENCES, decision_in_words, pattern
from mcp_bridge.access.messages import Message
from tests.mcp_bridge.access.test_decision import principal

pytestmark = pytest.mark.once


def all_reasons() -> list[str]:
    """The reasons of `decide()` in every kind of case."""
    open_rule = Rule("tool", "a", True, False, frozenset({"S"}))
    rules = Catalogue(
        [
            open_rule,
            Rule("tool", "off", False, False, frozenset({"S"})),
            Rule("tool", "secret", True, True, frozenset({"S"})),
            Rule("tool", "other", True, False, frozenset()),
        ]
    )
    names = ("a", "off", "secret", "other", "nothing")
    messages = [Message("tools/call", target=("tool", name)) for name in names]
    messages += [Message("ping"), Message("odd/method")]
    messages += [Message("tools/call", malformed=True)]
    scopes = frozenset({"S"})
    within = principal(scopes, frozenset({"mcp"}))
    narrow = principal(scopes, frozenset({"T"}))
    return [decide(who, m, rules).via for who in (within, narrow) for m in messages]


def test_every_reason_of_the_decision_is_translated() -> None:
    """No sentence is listed that the decision does not use."""
    said = all_reasons()
    unknown = [s for s in said if not any(pattern(p).fullmatch(s) for p in SENTENCES)]
    unsaid = [p for p in SENTENCES if not any(pattern(p).fullmatch(s) for s in said)]
    assert (unknown, unsaid) == ([], [])


def test_values_are_kept_in_translated_reasons() -> None:
    """English is unchanged; Korean keeps the values in translated text."""
    for sentence in all_reasons():
        assert decision_in_words(sentence) == sentence
        with translation.override("ko"):
            assert decision_in_words(sentence) != sentence
    with translation.override("ko"):
        none = decision_in_words("requires one of (no scope); roles: none")
        assert none.isascii() is False and "none" not in none
        found = decision_in_words("role Role; one grants S; the token includes mcp")
        assert "Role; one" in found and "mcp" in found
        assert (
            decision_in_words("written by an older version")
            == "written by an older version"
        )
