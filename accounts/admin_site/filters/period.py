"""Filter a list by a period: presets, or a date and an optional time for each end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, ClassVar

from django.contrib.admin.options import IncorrectLookupParameters
from django.http import HttpRequest
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_time
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.admin_site.filters.typed import TypedFilter
from accounts.parsing.moments import past_moment

TIME = "_time"
"""Suffix of the parameter with the time of day."""
PRESETS = (
    ("1h", gettext_lazy("1 hour")),
    ("24h", gettext_lazy("24 hours")),
    ("7d", gettext_lazy("7 days")),
)
"""Start of the period before now -> label."""

Input = tuple[str, str, Any, str]
"""Name, type, label and value of an input."""


class PeriodFilter(TypedFilter):
    """A value that is no time is an error at its input, and the list is empty.

    Showing all rows instead would answer another question than the one that was asked.
    """

    title = gettext_lazy("time")
    template = "admin/period_filter.html"
    ends: ClassVar[tuple[str, str]]
    """The lookups of start and end, such as `at__gte` and `at__lt`."""

    def __init_subclass__(cls) -> None:
        start, end = cls.ends
        cls.inputs = (
            (start, "date", gettext_lazy("From")),
            (start + TIME, "time", gettext_lazy("From, time")),
            (end, "date", gettext_lazy("To")),
            (end + TIME, "time", gettext_lazy("To, time")),
        )

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.errors: dict[str, str] = {}

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        """The rows of the period. For an export, raises IncorrectLookupParameters."""
        period = self.period()
        if not self.errors:
            return queryset.filter(**period)
        if getattr(request, "exporting", False):
            raise IncorrectLookupParameters(" ".join(self.errors.values()))
        return queryset.none()

    def period(self) -> dict[str, datetime]:
        """Lookup -> moment, for the ends that are given; sets `errors`."""
        found: dict[str, datetime] = {}
        for name in self.ends:
            try:
                moment = end_of_period(self.used_parameters, name)
            except ValueError as error:
                self.errors[name] = str(error)
            else:
                found |= {name: moment} if moment is not None else {}
        start, end = map(found.get, self.ends)
        if start is not None and end is not None and end < start:
            self.errors[self.ends[1]] = _("The end is before the start.")
        return found

    def choices(self, changelist: Any) -> Iterator[dict[str, Any]]:
        """The presets as links, and the two ends as inputs with their errors."""
        (shown,) = super().choices(changelist)
        names, used = self.expected_parameters(), self.used_parameters
        chosen, others = used.get(self.ends[0], ""), [*names, "p", "e"]
        custom = any(used.get(name) for name in names)
        presets: list[tuple[Any, Any, bool]] = [
            (_("Any time"), changelist.get_query_string({}, others), not custom)
        ]
        for key, label in PRESETS:
            url = changelist.get_query_string({self.ends[0]: key}, others)
            presets.append((label, url, chosen == key))
            custom = custom and chosen != key
        labels = {name: label for name, _kind, label in self.inputs}
        yield {
            **shown,
            "presets": presets,
            "ends": [
                (name, labels[name], self.parts(name, labels), self.errors.get(name))
                for name in self.ends
            ],
            "custom": custom,
            "summary": self.summary(presets),
            "failed": bool(self.errors),
            "zone": timezone.get_current_timezone_name(),
        }

    def parts(self, name: str, labels: dict[str, Any]) -> list[Input]:
        """(name, type, label, value) of the inputs of one end.

        A browser shows nothing in a date input whose value is no date, so such a value
        is shown as text.
        """
        day, clock = str(self.used_parameters.get(name, "")), ""
        at = str(self.used_parameters.get(name + TIME, ""))
        if name not in self.errors and day and not is_plain(day, parse_date):
            day, clock = self.local_parts(day, name)
        kind = "date" if is_plain(day, parse_date) else "text"
        return [
            (name, kind, labels[name], day),
            (
                name + TIME,
                "time" if is_plain(at, parse_time) else "text",
                labels[name + TIME],
                at or clock,
            ),
        ]

    def local_parts(self, text: str, name: str) -> tuple[str, str]:
        """Date and time of a moment in a link, such as that of a chart's bar."""
        if text in dict(PRESETS):
            return "", ""
        moment = past_moment(text, end=name == self.ends[1])
        local = timezone.localtime(moment)
        return f"{local:%Y-%m-%d}", f"{local:%H:%M:%S}".removesuffix(":00")

    def summary(self, presets: list[tuple[Any, str, bool]]) -> str:
        """What the closed filter shows."""
        for label, _url, chosen in presets[1:]:
            if chosen:
                return str(label)
        days = [
            " ".join(filter(None, (value for *_n, value in self.parts(name, labels))))
            for labels in [{n: "" for n, *_rest in self.inputs}]
            for name in self.ends
        ]
        return " – ".join(days) if any(days) else ""


def is_plain(text: str, parse: Any) -> bool:
    """Whether a date or time input can show the text."""
    try:
        return not text or parse(text) is not None
    except ValueError:
        return False


def end_of_period(parameters: Mapping[str, Any], name: str) -> datetime | None:
    """The moment of one end; None if it is not given.

    A date without a time is its first moment, or its last as the end of the period.
    Raises ValueError with a sentence for the reader.
    """
    parts = (parameters.get(name) or "", parameters.get(name + TIME) or "")
    text = " ".join(part.strip() for part in parts).strip()
    if not text:
        return None
    moment = past_moment(text, end=name.endswith(("lt", "lte")))
    if moment is None:
        raise ValueError(
            _(
                "“%s” is not a date or time. Write 2026-12-31, or 2026-12-31 14:30, "
                "or 8h for the last 8 hours."
            )
            % text
        )
    return moment
