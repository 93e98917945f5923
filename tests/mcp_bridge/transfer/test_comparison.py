"""What is compared after a copy."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connections

from accounts.models import AuditEvent, AuditSeal, RevokedToken, User
from mcp_bridge.access.catalogue import Catalogue, Rule
from mcp_bridge.access.decision import Decision
from mcp_bridge.transfer import comparison
from mcp_bridge.transfer.comparison import (
    Decisions,
    audit_problem,
    different_tables,
    sample,
)
from mcp_bridge.transfer.databases import TARGET
from mcp_bridge.transfer.rows import Digest
from tests.support.database_prompt import empty_audit, raw_events
from tests.support.users import account

pytestmark = pytest.mark.django_db


def test_a_sample_has_the_first_and_the_last_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(comparison, "SAMPLE", 4)
    User.objects.all()._raw_delete("default")
    keys = [account(f"sampled-{number}").pk for number in range(6)]
    assert sample(User) == [*keys[:2], *keys[-2:]]
    User.objects.filter(pk__in=keys[3:]).delete()
    assert sample(User) == keys[:3], "each once"


def test_the_whole_decision_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by which role: the copy must explain it in the same way."""
    monkeypatch.setattr(comparison, "RULES", 2)
    rules = [
        Rule("tool", name, True, False, frozenset({"User.Read"})) for name in "abc"
    ]
    user = account("alice", "User")
    found = Decisions(Catalogue(rules)).about(User, user.pk)
    assert len(found) == 2 and all(isinstance(one, Decision) for one in found)
    assert found[0].allowed and "User" in found[0].via
    User.objects.filter(pk=user.pk).update(is_active=False)
    assert Decisions(Catalogue(rules)).about(User, user.pk) == ["inactive_user"]


@pytest.mark.parametrize(
    ("here", "there", "told"),
    [
        ((1, 5), (1, 5), []),
        ((1, 5), (1, 6), ["accounts_revokedtoken has other values in the target"]),
        ((1, 5), (2, 5), ["accounts_revokedtoken has 1 row here and 2 there"]),
        ((2, 5), (1, 5), ["accounts_revokedtoken has 2 rows here and 1 there"]),
    ],
)
def test_a_table_that_differs_is_named(
    monkeypatch: pytest.MonkeyPatch,
    here: tuple[int, int],
    there: tuple[int, int],
    told: list[str],
) -> None:
    asked: list[Any] = []

    def digest(model: Any, alias: str) -> Digest:
        asked.append((model, alias))
        return Digest(*there)

    monkeypatch.setattr(comparison, "table_digest", digest)
    assert list(different_tables({RevokedToken: Digest(*here)})) == told
    assert asked == [(RevokedToken, TARGET)]


@pytest.mark.parametrize(("damaged", "seals"), [(None, 3), ("0", 1), ("2", 3)])
def test_the_seal_that_does_not_match_is_the_last_that_is_checked(
    damaged: str | None, seals: int
) -> None:
    empty_audit()
    for number in range(3):
        AuditEvent(action=str(number)).save()
        AuditSeal.objects.all().seal()
    raw_events(action=damaged).update(reason="x")
    problem, checked = audit_problem(connections["default"])
    assert checked == seals
    assert problem.endswith("(already before the copy)") is bool(damaged), problem
    assert bool(problem) is bool(damaged)
