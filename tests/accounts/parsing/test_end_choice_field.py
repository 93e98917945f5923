"""An end that is chosen as a duration or typed as a date."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.utils import timezone

from accounts.parsing.end_choice_field import (
    CHOICES,
    DURATIONS,
    FOREVER,
    EndChoiceField,
)

MINUTE = timedelta(minutes=1)


def cleaned(*value: Any) -> Any:
    return EndChoiceField().clean(list(value))


HOURS = {"hours": 1, "days": 24, "week": 168}


@pytest.mark.parametrize(("choice", "label"), DURATIONS)
def test_a_duration_lasts_what_its_label_says(choice: str, label: Any) -> None:
    number, unit = str(label).split()
    left = cleaned(choice, ["", ""]) - timezone.now()
    assert abs(left - timedelta(hours=int(number) * HOURS[unit])) < MINUTE


def test_the_choices_end_with_a_date_and_no_end() -> None:
    shown = [(value, str(label)) for value, label in CHOICES]
    assert shown[-2:] == [("until", "until ..."), ("none", "no end date")]
    assert [value for value, _ in shown] == ["8h", "2d", "7d", "30d", "until", "none"]


@pytest.mark.parametrize(
    ("choice", "hours"), [("8h", 8), ("2d", 48), ("7d", 168), ("30d", 720)]
)
def test_a_duration_starts_now(choice: str, hours: int) -> None:
    left = cleaned(choice, ["", ""]) - timezone.now()
    assert abs(left - timedelta(hours=hours)) < MINUTE


def test_no_end_ignores_a_date_that_is_hidden() -> None:
    assert cleaned(FOREVER, ["2001-01-01", ""]) is None


def test_a_date_without_time_means_its_end() -> None:
    end = timezone.localtime(cleaned("until", ["2999-12-31", ""]))
    assert (end.year, end.day, end.hour, end.minute) == (2999, 31, 23, 59)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (("until", ["", ""]), "Enter a date"),
        (("until", ["2001-01-01", ""]), "in the past"),
        (("until", ["x", ""]), "such as 2026-12-31"),
        (("forever", ["", ""]), "valid choice"),
        ((None, None), "Choose how long"),
        ((), "Choose how long"),
    ],
)
def test_anything_else_is_explained(value: Any, text: str) -> None:
    with pytest.raises(ValidationError) as refused:
        EndChoiceField().clean(list(value))
    assert text in " ".join(refused.value.messages)
