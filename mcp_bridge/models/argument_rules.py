"""ArgumentRule: a condition on one argument of a tool or prompt, by role."""

from __future__ import annotations

from django.core.validators import RegexValidator
from django.db import models
from django.utils.translation import gettext_lazy as _

from accounts.models import Role
from mcp_bridge.models.primitives import Primitive


class ArgumentOperator(models.TextChoices):
    """How an argument is compared with the rule's value."""

    ONE_OF = "one_of", _("is one of")
    MATCHES = "matches", _("matches the regular expression")
    AT_MOST = "at_most", _("is at most")
    AT_LEAST = "at_least", _("is at least")
    STARTS_WITH = "starts_with", _("starts with")
    ABSENT = "absent", _("is absent")


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
        max_length=200,
        validators=[
            RegexValidator(
                r"\A(?:/(?:[^~/]|~[01])*)+\Z",
                _("Write a JSON pointer, for example /amount or /order/total."),
            )
        ],
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
        return f"{self.pointer} {self.get_operator_display()} {self.value}".strip()
