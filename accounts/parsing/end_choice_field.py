"""An end of access, chosen from durations or typed as a date."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.parsing.end_of_day_field import EndOfDayField
from accounts.parsing.moments import parse_future_moment

FOREVER, TYPED = "none", "until"
DURATIONS = (
    ("8h", gettext_lazy("8 hours")),
    ("2d", gettext_lazy("2 days")),
    ("7d", gettext_lazy("1 week")),
    ("30d", gettext_lazy("30 days")),
)
CHOICES = (
    *DURATIONS,
    (TYPED, gettext_lazy("until ...")),
    (FOREVER, gettext_lazy("no end date")),
)


class EndChoiceWidget(forms.MultiWidget):
    """Radio buttons that look like chips; CSS shows the inputs for a date with them."""

    use_fieldset = True

    def __init__(self, attrs: Any = None) -> None:
        day: Any = {"type": "date", "aria-label": gettext_lazy("date")}
        clock: Any = {"type": "time", "aria-label": gettext_lazy("time")}
        typed = forms.SplitDateTimeWidget(
            date_attrs=day, time_attrs=clock, date_format="%Y-%m-%d"
        )
        chips = forms.RadioSelect(attrs={"class": "chips"}, choices=CHOICES)
        super().__init__([chips, typed], attrs)

    def decompress(self, value: Any) -> list[Any]:
        return [value or FOREVER, None]


def refuse_past(end: datetime) -> None:
    """Raises ValidationError."""
    if end <= timezone.now():
        text = _("This time is in the past. Choose a later one.")
        raise ValidationError(text, "past")


class LaterField(forms.DateTimeField):
    """The end as one datetime; None means no end date."""

    default_validators = [refuse_past]


class EndChoiceField(forms.MultiValueField):
    """The end as a datetime; None means no end date. Initial values are choices."""

    widget = EndChoiceWidget

    def __init__(self, **kwargs: Any) -> None:
        fields = (forms.ChoiceField(choices=CHOICES), EndOfDayField(required=False))
        super().__init__(
            **{
                "fields": fields,
                "require_all_fields": False,
                "required": False,
                "label": gettext_lazy("Until"),
                "initial": FOREVER,
                **kwargs,
            }
        )

    def clean(self, value: Any) -> datetime | None:
        """Raises ValidationError."""
        choice, typed = self.parts(value)
        if choice == FOREVER:
            return None
        if choice != TYPED:
            return parse_future_moment(choice)
        end: datetime | None = self.fields[1].clean(typed)
        if end is None:
            raise ValidationError(_("Enter a date, or choose a duration."))
        refuse_past(end)
        return end

    def parts(self, value: Any) -> tuple[str, Any]:
        """The choice, and the typed date and time. Raises ValidationError."""
        choice, typed = value if value else (None, None)
        if not choice:
            raise ValidationError(_("Choose how long the access lasts."))
        return self.fields[0].clean(choice), typed
