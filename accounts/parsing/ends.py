"""Ends of access in models, within the calendar."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.db import models
from django.utils.translation import gettext_lazy as _

from accounts.parsing.moments import (
    CALENDAR_END,
    too_late,
)

LAST_END = CALENDAR_END.replace(year=CALENDAR_END.year - 1)
"""What an end counts as that another program stored later than that."""


def refuse_late_end(moment: datetime) -> None:
    """Raises ValidationError."""
    if too_late(moment):
        raise ValidationError(
            _("This date is too late. Leave it empty for no end date.")
        )


class EndField(models.DateTimeField):  # type: ignore[type-arg]
    """When access ends, before CALENDAR_END."""

    default_validators = [refuse_late_end]

    def from_db_value(self, value: Any, *_backend: Any) -> Any:
        """A later end, from SQL or a fixture, must not overflow on pages."""
        return LAST_END if value is not None and too_late(value) else value

    def deconstruct(self) -> Any:
        """Appear in migrations as a DateTimeField."""
        name, _path, args, kwargs = super().deconstruct()
        return name, "django.db.models.DateTimeField", args, kwargs
