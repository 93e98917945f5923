"""A JSON form field that reports every text `json` or UTF-8 cannot handle."""

from __future__ import annotations

import json
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.forms.fields import InvalidJSONInput
from django.utils.translation import gettext_lazy as _

JSON_ERRORS = (ValueError, RecursionError)
"""Huge numbers and lone surrogates raise ValueError, deep nesting RecursionError."""


class JSONFormField(forms.JSONField):
    """Django's field catches JSONDecodeError only; other errors became a 500."""

    default_error_messages = {
        "invalid": _("This is not valid JSON. Check quotes, commas and brackets."),
    }

    def to_python(self, value: Any) -> Any:
        """Return the parsed value. Raises ValidationError."""
        try:
            parsed = super().to_python(value)
            json.dumps(parsed, ensure_ascii=False).encode()
        except JSON_ERRORS as error:
            raise ValidationError(
                self.error_messages["invalid"], code="invalid", params={"value": "..."}
            ) from error
        return parsed

    def bound_data(self, data: Any, initial: Any) -> Any:
        try:
            return super().bound_data(data, initial)
        except JSON_ERRORS:
            return InvalidJSONInput(data)

    def prepare_value(self, value: Any) -> Any:
        """Return text that UTF-8 can encode: lone surrogates become escapes.

        A field that may be empty shows nothing instead of "null".
        """
        if value is None and not self.required:
            return ""
        text = str(super().prepare_value(value))
        return text.encode("utf-8", "backslashreplace").decode()
