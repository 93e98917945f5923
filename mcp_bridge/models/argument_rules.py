"""ArgumentRule: a condition on one argument of a tool or prompt, by role."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.db import models
from django.utils.translation import gettext, gettext_noop
from django.utils.translation import gettext_lazy as _
from pydantic_core import SchemaError, SchemaValidator, core_schema

from accounts.models import Role
from mcp_bridge.models.primitives import WITH_ARGUMENTS, Primitive, PrimitiveKind

MAX_RULES = 50
"""Rules of one primitive: every call evaluates them."""
MAX_POINTER = 200
"""Characters."""
MAX_VALUES = 200
MAX_TEXT = 500
"""Characters of a text or pattern in a rule."""
MAX_MATCHED = 100_000
"""Characters of an argument that a pattern is compared with; longer ones fail."""


pointer_validator = RegexValidator(
    r"\A(?:/(?:[^~/]|~[01])*)+\Z",
    _("Write a JSON pointer, for example /amount or /order/total."),
)


class ArgumentOperator(models.TextChoices):
    """How an argument is compared with the rule's value."""

    ONE_OF = "one_of", _("is one of")
    MATCHES = "matches", _("matches the regular expression")
    AT_MOST = "at_most", _("is at most")
    AT_LEAST = "at_least", _("is at least")
    STARTS_WITH = "starts_with", _("starts with")
    ABSENT = "absent", _("is absent")


WORDS: dict[str, str] = {
    ArgumentOperator.ONE_OF: gettext_noop("{pointer} must be one of {value}"),
    ArgumentOperator.MATCHES: gettext_noop("{pointer} must match {value}"),
    ArgumentOperator.AT_MOST: gettext_noop(
        "{pointer} must be a number of at most {value}"
    ),
    ArgumentOperator.AT_LEAST: gettext_noop(
        "{pointer} must be a number of at least {value}"
    ),
    ArgumentOperator.STARTS_WITH: gettext_noop("{pointer} must start with {value}"),
    ArgumentOperator.ABSENT: gettext_noop("{pointer} must be left out"),
}
"""Operator -> sentence about the argument; English for clients."""

UNSTORABLE = re.compile("[\0\ud800-\udfff]")
"""PostgreSQL stores neither in JSON."""


@lru_cache(maxsize=512)
def whole_text(pattern: str) -> SchemaValidator:
    """A validator of texts that `pattern` matches from start to end.

    Rust's engine takes linear time for every pattern and text, so a rule cannot block a
    worker. Raises ValueError for a pattern that it does not know.
    """
    try:
        # Alone first: `a)|(?:b` is a pattern only inside the parentheses below.
        for text in (pattern, rf"\A(?:{pattern})\z"):
            schema = core_schema.str_schema(
                pattern=text, regex_engine="rust-regex", strict=True
            )
            validator = SchemaValidator(schema)
    except SchemaError as error:
        reason = re.search(r"error: (.+)", str(error))
        raise ValueError(reason[1] if reason else "too large") from error
    return validator


def text_matches(pattern: str, text: str) -> bool:
    """Whether the pattern matches the whole text; a wrong pattern never does."""
    if len(text) > MAX_MATCHED:
        return False
    try:
        return whole_text(pattern).isinstance_python(text)
    except ValueError:
        return False


def is_finite(value: Any) -> bool:
    """Whether it is a finite JSON number; in Python, true is a number too."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < float("inf")


def is_text(value: Any) -> bool:
    """Whether it is a text that a rule can have."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT:
        return False
    return not UNSTORABLE.search(value)


def rule_problem(kind: str, operator: str, value: Any) -> str:
    """Why a rule of a `kind` cannot have this value; empty if it can."""
    if kind not in WITH_ARGUMENTS:
        return gettext("Only tools and prompts have arguments.")
    problem = VALUE_PROBLEMS.get(operator)
    if problem is None:
        return gettext("Unknown condition; known: %s.") % ", ".join(
            ArgumentOperator.values
        )
    numbers = operator in (ArgumentOperator.AT_MOST, ArgumentOperator.AT_LEAST)
    if kind == PrimitiveKind.PROMPT and numbers:
        return gettext("Arguments of prompts are texts. Use another condition.")
    return problem(value)


def _list_problem(value: Any) -> str:
    if not isinstance(value, list) or not 0 < len(value) <= MAX_VALUES:
        return (
            gettext('Give a list of 1 to %d values, such as ["EUR", "USD"].')
            % MAX_VALUES
        )
    for one in value:
        if not (one is None or one == "" or isinstance(one, bool)):
            if not is_finite(one) and not is_text(one):
                text = gettext("Every value is a number, true, false, null or a text.")
                return text
    return ""


def _pattern_problem(value: Any) -> str:
    if problem := _text_problem(value):
        return problem
    try:
        whole_text(value)
    except ValueError as error:
        return gettext("This regular expression cannot be used: %s.") % error
    return ""


def _text_problem(value: Any) -> str:
    if is_text(value):
        return ""
    return gettext("Give a text of 1 to %d characters.") % MAX_TEXT


def _number_problem(value: Any) -> str:
    return "" if is_finite(value) else gettext("Give a number, such as 100.")


def _absent_problem(value: Any) -> str:
    return (
        "" if value is None else gettext("This condition has no value. Leave it empty.")
    )


VALUE_PROBLEMS = {
    ArgumentOperator.ONE_OF.value: _list_problem,
    ArgumentOperator.MATCHES.value: _pattern_problem,
    ArgumentOperator.AT_MOST.value: _number_problem,
    ArgumentOperator.AT_LEAST.value: _number_problem,
    ArgumentOperator.STARTS_WITH.value: _text_problem,
    ArgumentOperator.ABSENT.value: _absent_problem,
}
"""Operator -> check of the rule's value."""


def shown_value(value: Any) -> str:
    """A rule's value in a sentence."""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


class ArgumentRule(models.Model):
    """A condition on one argument; `role` is empty if it applies to every role."""

    primitive = models.ForeignKey(
        Primitive, on_delete=models.CASCADE, related_name="argument_rules"
    )
    role = models.ForeignKey(
        Role, on_delete=models.CASCADE, null=True, blank=True, verbose_name=_("role")
    )
    pointer = models.CharField(
        _("argument"),
        max_length=MAX_POINTER,
        validators=[pointer_validator],
        help_text=_("A JSON pointer (RFC 6901) into the arguments, such as /amount."),
    )
    operator = models.CharField(_("condition"), max_length=12, choices=ArgumentOperator)
    value = models.JSONField(
        _("value"),
        null=True,
        blank=True,
        help_text=_("A number, a text, or a list of values for *is one of*."),
    )

    class Meta:
        ordering = ("primitive", "role", "pointer", "operator")
        verbose_name = _("argument rule")
        verbose_name_plural = _("argument rules")

    def __str__(self) -> str:
        """A sentence with the whole value, in the reader's language."""
        words = gettext(WORDS.get(self.operator, "{pointer}"))
        return words.format(pointer=self.pointer, value=shown_value(self.value))

    def clean(self) -> None:
        """Raises ValidationError for a value that does not fit the condition."""
        problem = rule_problem(self.primitive.kind, self.operator, self.value)
        if problem:
            raise ValidationError({"value": problem})
