"""A form field for JSON that refuses every text which `json` or UTF-8 refuses."""

from __future__ import annotations

import json
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.forms.fields import InvalidJSONInput

JSON_ERRORS = (ValueError, RecursionError)
"""Huge numbers and lone surrogates raise the first, deep nesting the second."""


class JSONFormField(forms.JSONField):
    """Django's catches JSONDecodeError only; anything else was a 500."""

    def to_python(self, value: Any) -> Any:
        """The parsed value. Raises ValidationError."""
        try:
            parsed = super().to_python(value)
            json.dumps(parsed, ensure_ascii=False).encode()
        except JSON_ERRORS as error:
            raise ValidationError(
                self.error_messages["invalid"], code="invalid", params={"value": "..."}
            ) from error
        return parsed

    def bound_data(self, data: Any, initial: Any) -> Any:
        """What the form shows again."""
        try:
            return super().bound_data(data, initial)
        except JSON_ERRORS:
            return InvalidJSONInput(data)

    def prepare_value(self, value: Any) -> Any:
        """Text that a page can hold: a lone surrogate as its escape."""
        text = str(super().prepare_value(value))
        return text.encode("utf-8", "backslashreplace").decode()
