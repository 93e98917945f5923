"""Queries that Django compiles once for each kind of database.

Django takes longer to write the SQL of a small query than the database to answer it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from django.db import connections
from django.db.models import Expression, Model, QuerySet
from django.db.transaction import TransactionManagementError

from accounts.models.statements.execution import fetch

Converters = list[tuple[int, list[Any], Any]]
"""Position in a row, functions, and the expression that they get."""


class Given(Expression):
    """A value that each execution gives, of the type of a model's column."""

    def __init__(self, model: type[Model], column: str) -> None:
        field: Any = model._meta.get_field(column)
        super().__init__(output_field=field)
        self.name = column

    def as_sql(self, compiler: Any, connection: Any) -> Any:
        """A placeholder; `CompiledQuery` replaces the parameter."""
        return "%s", [self]

    def prepared(self, value: Any, connection: Any) -> Any:
        """The value as the database's driver takes it."""
        return self.output_field.get_db_prep_value(value, connection)


class CompiledSql(NamedTuple):
    """A compiled query."""

    sql: str
    parameters: tuple[Any, ...]
    converters: Converters
    columns: list[str]
    """The model's columns, which come first; none if the rows are tuples."""
    annotations: list[str]
    locks: bool


class CompiledQuery:
    """The rows of a queryset whose conditions contain `Given` values.

    `make` returns the queryset, of instances or of `values_list`. It runs once, in the
    transaction of the first use. The rows have no order.
    """

    def __init__(self, make: Callable[[], QuerySet[Any, Any]]) -> None:
        self.make = make
        self.plans: dict[str, CompiledSql] = {}

    def rows(self, **given: Any) -> list[Any]:
        """Instances or tuples for these values, by column.

        Raises django.db.Error; TransactionManagementError if it should lock rows
        outside a transaction.
        """
        connection = connections["default"]
        plan = self.plans.get(connection.vendor) or self.compile(connection)
        if plan.locks and not connection.in_atomic_block:
            raise TransactionManagementError("Rows are locked in a transaction only.")
        values = [
            p.prepared(given[p.name], connection) if isinstance(p, Given) else p
            for p in plan.parameters
        ]
        found = fetch(connection, plan.sql, values)
        return [self.row(plan, list(row), connection) for row in found]

    def first(self, **given: Any) -> Any:
        """The first row; None if there is none."""
        return next(iter(self.rows(**given)), None)

    def compile(self, connection: Any) -> CompiledSql:
        """Compile for this kind of database, and keep the result."""
        query: Any = self.make().order_by()
        self.model = query.model
        compiler = query.query.get_compiler(connection=connection)
        sql, parameters = compiler.as_sql()
        selected = [column[0] for column in compiler.select]
        places = compiler.get_converters(selected).items()
        of_tuples = query._fields is not None
        own = () if of_tuples else compiler.klass_info["select_fields"]
        plan = CompiledSql(
            sql,
            parameters,
            [(at, functions, about) for at, (functions, about) in places],
            [selected[at].target.attname for at in own],
            list(compiler.annotation_col_map or ()),
            query.query.select_for_update,
        )
        self.plans[connection.vendor] = plan
        return plan

    def row(self, plan: CompiledSql, values: list[Any], connection: Any) -> Any:
        """One row with Python's values; annotations are attributes of an instance."""
        for at, functions, about in plan.converters:
            for convert in functions:
                values[at] = convert(values[at], about, connection)
        if not plan.columns:
            return tuple(values)
        width = len(plan.columns)
        found = self.model.from_db(connection.alias, plan.columns, values[:width])
        for name, value in zip(plan.annotations, values[width:], strict=True):
            setattr(found, name, value)
        return found
