"""Reasons of decisions in words; the audit stores codes."""

from __future__ import annotations

from typing import Any

from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _

REASONS: dict[str, Any] = {
    "granted": _("role allows it"),
    "open_method": _("open to everyone"),
    "unknown_method": _("unknown method"),
    "malformed": _("invalid message"),
    "unknown_primitive": _("unknown tool, resource or prompt"),
    "disabled": _("disabled"),
    "not_served": _("not accepted, or no longer offered"),
    "definition_changed": _("definition changed, needs review"),
    "argument_refused": _("arguments outside the limits"),
    "role_lacks_scope": _("role lacks access"),
    "token_lacks_scope": _("token lacks scope"),
    "credentials": _("wrong password"),
    "second_factor": _("wrong second factor"),
    "locked_out": _("locked out"),
}
"""Code -> words. Other reasons are words already."""


def reason_in_words(code: str) -> str:
    return str(REASONS.get(code, code))


def reason_cell(code: str) -> str:
    """The reason in words, with the code as a tooltip: filters take the code."""
    if code not in REASONS:
        return code or "-"
    return format_html('<span title="{}">{}</span>', code, REASONS[code])
