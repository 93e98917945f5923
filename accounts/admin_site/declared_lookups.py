"""Restrict the query string of an admin list to the lookups that the list declares.

Django compares any column of the model and its relations with any lookup. The number of
rows then reveals values that no page shows, such as session keys and password hashes,
letter by letter. A denylist would miss the next column, so every list accepts only its
filters and `linked_lookups`, for superusers too.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin, messages
from django.contrib.admin.exceptions import DisallowedModelAdminLookup
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.utils import flatten
from django.contrib.admin.views.main import (
    ERROR_FLAG,
    IGNORED_PARAMS,
    ORDER_VAR,
    PAGE_VAR,
    SEARCH_VAR,
)
from django.contrib.admin.widgets import url_params_from_lookup_dict
from django.core.exceptions import FieldError, ValidationError
from django.db import DataError, models
from django.db.models.constants import LOOKUP_SEP
from django.http import HttpRequest, HttpResponseRedirect, QueryDict
from django.utils.text import Truncator
from django.utils.translation import gettext as _

from accounts.admin_site.sensitive_columns import fields_along, reveals

if TYPE_CHECKING:
    Base = admin.ModelAdmin[Any]
else:
    Base = object

logger = logging.getLogger(__name__)
OPERATORS = ("exact", "in", "isnull")
RANGES = ("gt", "gte", "lt", "lte")
RANGE_TYPES = (
    models.DateField,
    models.DecimalField,
    models.DurationField,
    models.FloatField,
    models.IntegerField,
    models.TimeField,
)
"""Types with ranges. Text has none: ranges would reveal it letter by letter."""
CONTROLS = frozenset({*IGNORED_PARAMS, PAGE_VAR, ERROR_FLAG})
"""Parameters of every list: page, order, search, popup."""
MOST_VALUES = 100
"""Values in one query string: each may become a condition, which databases limit."""
LONGEST_VALUE = 2000
LONGEST_SEARCH = 500
"""Characters. SQLite refuses patterns of more than 50,000."""
ORDER_PART = re.compile(r"-?[0-9]{1,3}")
NUL = "\x00"
"""PostgreSQL refuses it in any text."""
VALUE_ERRORS = (DataError, FieldError, OverflowError, ValidationError, ValueError)
"""Errors of a value that does not fit its column."""


class LookupRefused(DisallowedModelAdminLookup):
    """The list does not declare this lookup: HTTP 400."""

    def __init__(self, lookup: str) -> None:
        self.lookup = Truncator(lookup).chars(100)
        super().__init__(f"Filtering by {self.lookup!a} is not declared by this list")


class DeclaredLookups(Base):
    """Mixin of every list; the site adds it to lists that lack it."""

    linked_lookups: ClassVar[tuple[str, ...]] = ()
    """Lookups with operator that other pages link to, beside those of `list_filter`."""

    def lookup_allowed(self, lookup: str, value: Any, request: Any = None) -> bool:
        """Allow declared lookups only, for superusers too."""
        model: Any = self.model
        allowed = self.allowed_lookups(request)
        return lookup in allowed or limits_a_widget(model, lookup, value)

    def allowed_lookups(self, request: Any) -> frozenset[str]:
        """Those for the user of this request, which asks for each parameter twice."""
        model: Any = self.model
        kept: dict[Any, frozenset[str]] = {}
        if request is not None:
            kept = vars(request).setdefault("allowed_lookups", kept)
        if self not in kept:
            kept[self] = lookups_of(
                model,
                tuple(hashable(one) for one in self.get_list_filter(request)),
                (*self.linked_lookups, *date_hierarchy_lookups(self.date_hierarchy)),
                shown_columns(self, request),
            )
        return kept[self]

    def to_field_allowed(self, request: HttpRequest, to_field: str) -> bool:
        """Every row of a popup shows this column, so it must not be secret."""
        columns = {n for f in self.opts.concrete_fields for n in (f.name, f.attname)}
        # Django also allows names of reverse relations, and then fails on them.
        allowed = to_field in columns and super().to_field_allowed(request, to_field)
        return bool(allowed) and not reveals(self.model, to_field)

    def get_list_filter(self, request: Any) -> Any:
        """Leave out filters whose choices would reveal secrets."""
        declared = super().get_list_filter(request)
        shown = shown_columns(self, request)
        return [one for one in declared if not reveals(self.model, path_of(one), shown)]

    def get_search_fields(self, request: Any) -> Any:
        """Leave out columns that the user does not see."""
        declared = super().get_search_fields(request)
        shown = shown_columns(self, request)
        return [name for name in declared if searchable(self.model, name, shown)]

    def get_sortable_by(self, request: Any) -> Any:
        """Leave out columns whose order would reveal hidden values."""
        shown = shown_columns(self, request)
        return [
            column
            for column in super().get_sortable_by(request)
            if not any(reveals(self.model, p, shown) for p in orders(self, column))
        ]

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """Raises LookupRefused for undeclared columns; otherwise like Django."""
        refused = self.refused_lookups(request.GET, request)
        for lookup in refused:
            if [*fields_along(self.model, lookup)]:
                raise lookup_refusal(request, lookup)
        try:
            # Other names are annotations or mistyped: Django tries them.
            if refused or exceeds_limits(request.GET) or not self.can_order(request):
                raise IncorrectLookupParameters
            return super().get_changelist_instance(request)
        except (IncorrectLookupParameters, *VALUE_ERRORS) as error:
            # Without parameters the list itself is broken. With the error flag Django
            # would report a broken database instead of redirecting again.
            if not set(request.GET) - {ERROR_FLAG}:
                raise
            if ERROR_FLAG in request.GET:
                raise DisallowedModelAdminLookup("Unreadable value") from error
            raise IncorrectLookupParameters(str(error)) from error

    def refused_lookups(self, query: QueryDict, request: HttpRequest) -> list[str]:
        """Parameters of a query string that this list does not declare."""
        return [
            name
            for name, values in query.lists()
            if name not in CONTROLS
            and not all(self.lookup_allowed(name, value, request) for value in values)
        ]

    def can_order(self, request: HttpRequest) -> bool:
        """Whether `o` names sortable columns of this list, each once."""
        parts = [part for part in request.GET.get(ORDER_VAR, "").split(".") if part]
        if not all(ORDER_PART.fullmatch(part) for part in parts):
            return False
        columns = list(self.get_list_display(request))
        if self.get_actions(request):
            columns.insert(0, "action_checkbox")
        places = [int(part.lstrip("-")) for part in parts]
        sortable = [*self.get_sortable_by(request)]
        return len(set(places)) == len(places) and all(
            place < len(columns) and columns[place] in sortable for place in places
        )

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        """Warn about an unreadable value: Django shows all rows without a message."""
        if ERROR_FLAG in request.GET:
            text = _("The filter or sort order is invalid, so all rows are shown.")
            self.message_user(request, text, messages.WARNING)
        return super().changelist_view(request, extra_context)

    def response_action(
        self, request: HttpRequest, queryset: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Refuse selected values that are not keys; Django would answer 500."""
        keys = request.POST.getlist(ACTION_CHECKBOX_NAME)
        if all(is_key(self.model, key) for key in keys):
            return super().response_action(request, queryset, *args, **kwargs)
        self.message_user(
            request,
            _("This row does not exist. It may have been deleted."),
            messages.ERROR,
        )
        return HttpResponseRedirect(request.get_full_path())

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Any:
        """None for a key with NUL, which PostgreSQL refuses."""
        if NUL in object_id:
            return None
        return super().get_object(request, object_id, from_field)


def lookup_refusal(request: HttpRequest, lookup: str) -> LookupRefused:
    """The error, logged with the user: such lookups may be attempts to read secrets."""
    error = LookupRefused(lookup)
    who = request.user.get_username()
    logger.warning("Refused %s at %s: %s", ascii(who), request.path, error)
    return error


@lru_cache(256)
def lookups_of(
    model: Any,
    filters: tuple[Any, ...],
    links: tuple[str, ...],
    shown: frozenset[str],
) -> frozenset[str]:
    """Every lookup that a list with these declarations accepts."""
    lookups = {lookup for one in filters for lookup in parameters_of(model, one)}
    lookups.update(links)
    return frozenset(lookup for lookup in lookups if not reveals(model, lookup, shown))


def parameters_of(model: Any, declared: Any) -> Iterator[str]:
    """The lookups of one entry of `list_filter`."""
    path = path_of(declared)
    if path:
        yield from comparisons(model, path)
        if isinstance(declared, tuple) and declared[1] is admin.EmptyFieldListFilter:
            yield LOOKUP_SEP.join((path, "isempty"))
    elif isinstance(declared, type) and issubclass(declared, admin.SimpleListFilter):
        yield str(declared.parameter_name)
    else:
        yield from (name for name, *_rest in getattr(declared, "inputs", ()))


def path_of(declared: Any) -> str:
    """The column of a `list_filter` entry; empty for a class with own parameters."""
    if isinstance(declared, (list, tuple)):
        declared = declared[0]
    if isinstance(declared, models.Field):
        return str(declared.name)
    return declared if isinstance(declared, str) else ""


def hashable(declared: Any) -> Any:
    """An entry of `list_filter`, which may be a list."""
    return tuple(declared) if isinstance(declared, list) else declared


def comparisons(model: Any, path: str) -> Iterator[str]:
    """The plain lookups of one column; for a relation, by key only."""
    *_before, field = (None, *fields_along(model, path))
    operators = OPERATORS + (RANGES if isinstance(field, RANGE_TYPES) else ())
    yield path
    yield from (LOOKUP_SEP.join((path, name)) for name in operators)
    if field is not None and field.is_relation:
        key = LOOKUP_SEP.join((path, field.target_field.name))
        yield from (LOOKUP_SEP.join((key, name)) for name in ("exact", "in"))


def date_hierarchy_lookups(path: str | None) -> tuple[str, ...]:
    """The lookups of `date_hierarchy` links."""
    parts = ("year", "month", "day", "gte", "lt") if path else ()
    return tuple(f"{path}__{part}" for part in parts)


def limits_a_widget(model: Any, lookup: str, value: Any) -> bool:
    """Whether the lookup is a `limit_choices_to` of a foreign key, value included."""
    for limits in model._meta.related_fkey_lookups:
        fixed = url_params_from_lookup_dict(limits() if callable(limits) else limits)
        if (lookup, value) in fixed.items():
            return not reveals(model, lookup)
    return False


def shown_columns(page: Any, request: Any) -> frozenset[str]:
    """Columns that the list or the form of a row shows."""
    form = page.fields or [
        name for _title, options in page.fieldsets or () for name in options["fields"]
    ]
    listed = page.list_display if request is None else page.get_list_display(request)
    columns = [*listed, *flatten(form)]
    return frozenset(column for column in columns if isinstance(column, str))


def searchable(model: Any, name: str, shown: frozenset[str]) -> bool:
    """Whether a search may use it: the column is shown, the lookup is no regex."""
    return not reveals(model, name.lstrip("^=@"), shown) and "regex" not in name


def orders(page: Any, column: Any) -> list[str]:
    """The paths that sorting by a column of the list compares."""
    if isinstance(column, str) and [*fields_along(page.model, column)]:
        return [*ordering_paths(page.model, column)]
    target = column if callable(column) else getattr(page, column, None)
    target = target or getattr(page.model, column, None)
    target = target.fget if isinstance(target, property) else target
    paths = names_in(getattr(target, "admin_order_field", None))
    return [path for name in paths for path in ordering_paths(page.model, name)]


def names_in(order: Any) -> Iterator[str]:
    """The columns of an order: a name, F("name"), Lower("name").desc() ..."""
    if isinstance(order, str):
        yield order.lstrip("-")
    elif isinstance(order, models.F):
        yield str(vars(order)["name"])
    for part in getattr(order, "get_source_expressions", list)():
        yield from names_in(part)


def ordering_paths(model: Any, path: str, depth: int = 0) -> Iterator[str]:
    """The path, and the default order of a relation at its end."""
    yield path
    fields = [*fields_along(model, path)]
    if fields and fields[-1].is_relation and depth < 3:
        for order in fields[-1].related_model._meta.ordering:
            for name in names_in(order):
                yield from ordering_paths(model, f"{path}__{name}", depth + 1)


def exceeds_limits(query: QueryDict) -> bool:
    """Whether the query string has more or longer values than links ever have."""
    values = [value for _name, several in query.lists() for value in several]
    if len(values) > MOST_VALUES or len(query.get(SEARCH_VAR, "")) > LONGEST_SEARCH:
        return True
    return any(len(value) > LONGEST_VALUE or NUL in value for value in values)


def is_key(model: Any, text: str) -> bool:
    """Whether a row could have this primary key."""
    try:
        model._meta.pk.clean(text, None)
    except (ValidationError, ValueError):
        return False
    return NUL not in text


GUARD_METHODS = ("lookup_allowed", "to_field_allowed", "get_changelist_instance")
"""Methods that every list must inherit from DeclaredLookups."""


def missing_guards(page: Any) -> list[str]:
    """Methods of GUARDED that a list does not inherit from DeclaredLookups."""
    kind = type(page)
    return [
        name
        for name in GUARD_METHODS
        if getattr(kind, name) is not getattr(DeclaredLookups, name)
    ]


def revealing_columns(page: Any) -> Iterable[str]:
    """Declared columns that would reveal secrets; the mixin leaves them out."""
    shown, model = shown_columns(page, None), page.model
    declared = [path_of(one) for one in page.list_filter]
    declared += [*page.linked_lookups, page.date_hierarchy or ""]
    yield from (path for path in declared if reveals(model, path, shown))
    searched = [*page.search_fields, *getattr(page, "search_lookups", ())]
    yield from (name for name in searched if not searchable(model, name, shown))
    sorted_by = [path for column in page.list_display for path in orders(page, column)]
    yield from (path for path in sorted_by if reveals(model, path, shown))
