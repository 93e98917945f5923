"""A date and time input for an end: the time may be left out."""

from __future__ import annotations

from datetime import MAXYEAR, datetime
from typing import Any

from django import forms
from django.contrib.admin.widgets import AdminSplitDateTime
from django.core.exceptions import ValidationError
from django.db import models
from django.utils.translation import gettext as _

from accounts.parsing.moments import SkippedTime, end_of_day, local_moment


class EndOfDayField(forms.SplitDateTimeField):
    """A date without a time means the end of that day, as in CSV files and commands."""

    def compress(self, data_list: Any) -> datetime | None:
        """Join date and time. Raises ValidationError."""
        day, clock = data_list or (None, None)
        if day is None:
            if clock is not None:
                raise ValidationError(_("Enter a date for this time."))
            return None
        if day.year == MAXYEAR:
            raise ValidationError(
                _("This date is too late. Leave it empty for no end date.")
            )
        if clock is None:
            return end_of_day(day)
        try:
            return local_moment(datetime.combine(day, clock))
        except SkippedTime as error:
            raise ValidationError(str(error), "invalid_time") from error


END_OF_DAY: dict[Any, dict[str, Any]] = {
    models.DateTimeField: {"form_class": EndOfDayField, "widget": AdminSplitDateTime}
}
"""`formfield_overrides` of pages whose dates are ends."""
