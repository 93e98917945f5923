"""Compare a copy with its source: rows, the audit's seals, and access decisions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from django.db import DEFAULT_DB_ALIAS, models
from django.db.backends.base.base import BaseDatabaseWrapper

from accounts.models import AuditSeal, IssuedToken, User
from accounts.parsing.text import counted
from accounts.tokens.principal import Unauthenticated
from mcp_bridge.access.catalogue import Catalogue, read_catalogue
from mcp_bridge.access.explain import token_principal, user_principal, verdict
from mcp_bridge.transfer.databases import TARGET, as_default
from mcp_bridge.transfer.rows import Digest, Model, copied_models, table_digest

SAMPLE = 100
"""People, and tokens, whose decisions are compared."""
RULES = 200
"""Tools, resources and prompts that each of them is asked about."""


def source_digests() -> dict[Model, Digest]:
    """Digests of all tables of the current database."""
    return {m: table_digest(m, DEFAULT_DB_ALIAS) for m in copied_models()}


def different_tables(digests: Mapping[Model, Digest]) -> Iterator[str]:
    """A sentence for each table of the target that differs."""
    for model, expected in digests.items():
        found = table_digest(model, TARGET)
        if found.rows != expected.rows:
            here = counted(expected.rows, "row")
            yield f"{model._meta.db_table} has {here} here and {found.rows} there"
        elif found != expected:
            yield f"{model._meta.db_table} has other values in the target"


def audit_problem(target: BaseDatabaseWrapper) -> tuple[str, int]:
    """What verify_audit finds on the target, and the number of seals that match."""
    with as_default(target):
        results = list(AuditSeal.objects.all().verify())
    problem = results[-1].problem if results else ""
    if problem and problem in [r.problem for r in AuditSeal.objects.all().verify()]:
        problem = f"{problem} (already before the copy)"
    return problem, len(results)


def different_decisions(target: BaseDatabaseWrapper) -> Iterator[str]:
    """A sentence for each sampled person or token that gets other decisions."""
    here = Decisions(read_catalogue())
    with as_default(target):
        there = Decisions(read_catalogue())
    for model in (User, IssuedToken):
        for key in sample(model):
            # A role may expire between the two reads: then both are repeated.
            if not any(equal_decisions(target, here, there, model, key) for _ in "12"):
                yield f"{model._meta.db_table}, row {key}: other access decisions"


def sample(model: Model) -> list[Any]:
    """Keys of the first and the last rows, at most SAMPLE together."""
    rows: Any = models.QuerySet(model)
    keys = rows.order_by("pk").values_list("pk", flat=True)
    half = SAMPLE // 2
    return sorted({*keys[:half], *keys.reverse()[:half]})


def equal_decisions(
    target: BaseDatabaseWrapper,
    here: Decisions,
    there: Decisions,
    model: Model,
    key: Any,
) -> bool:
    expected = here.about(model, key)
    with as_default(target):
        return there.about(model, key) == expected


class Decisions:
    """What one database decides, with its rules."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.rules = list(catalogue.values())[:RULES]

    def about(self, model: Model, key: Any) -> list[Any]:
        """The decisions on this person, or on this token; or why it is refused."""
        row: Any = models.QuerySet(model).filter(pk=key).first()
        try:
            load: Any = user_principal if model is User else token_principal
            principal = load(row)
        except Unauthenticated as refused:
            return [refused.reason]
        found = (verdict(principal, rule, self.catalogue) for rule in self.rules)
        return [answer.decision for answer in found]
