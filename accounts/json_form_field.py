"""A form field for JSON that refuses every text which `json` refuses."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.exceptions import ValidationError


class JSONFormField(forms.JSONField):
    """Django's catches JSONDecodeError only.

    Huge numbers raise ValueError and deep nesting RecursionError: each was a 500.
    """

    def to_python(self, value: Any) -> Any:
        """The parsed value. Raises ValidationError."""
        try:
            return super().to_python(value)
        except (ValueError, RecursionError) as error:
            raise ValidationError(
                self.error_messages["invalid"], code="invalid", params={"value": "..."}
            ) from error
