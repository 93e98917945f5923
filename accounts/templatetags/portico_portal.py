"""Template tags of the portal."""

from __future__ import annotations

from django import template

from accounts.http.help.links import guide_url

register = template.Library()


@register.simple_tag
def guide_of_portal() -> str:
    """The guide for people who connect clients; empty if it is not installed."""
    return guide_url("connecting")
