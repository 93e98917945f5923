"""Links to the documentation that /help/ serves: guides, and sections about errors.

A test compares the table of errors with docs/troubleshooting.md, and each text with
the code.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from django.conf import settings
from django.utils.translation import get_language, gettext

SECTIONS: dict[str, tuple[str, ...]] = {
    "The document of a client cannot be used": (
        "Portico cannot identify the client %s.",
        "This server cannot look up the name %(host)s.",
        "This server cannot reach %(host)s.",
        "%(host)s did not answer this server in time.",
        "This server does not trust the certificate of %(host)s.",
        "%(host)s answered with HTTP status %(status)d.",
        "The copy of the client's document is switched off.",
    ),
    "A client is unknown": ("Invalid client_id parameter value.",),
    "A redirect URI does not match": ("Mismatching redirect URI.",),
    "A client cannot register": (
        "Registration is off; ask the administrator.",
        "Registration needs an initial access token.",
    ),
    "No requested scope is granted": (
        "Your roles include none of the requested scopes. Request a role in the "
        "portal.",
        "Unknown scope: %s.",
    ),
    "A token is for another server": ("This server issues tokens for %s only.",),
    "An account is locked": (
        "Too many failed sign-ins. Wait, or ask an administrator to unlock the "
        "account.",
    ),
    "Too many requests": (
        "Too many requests. Wait before you try again.",
        "Too many client lookups are in progress. Try again.",
    ),
    "A form has expired": ("This page has expired",),
    "A token is refused": ("The access token is invalid, expired or revoked.",),
    "A token lacks a scope": (
        "The access token lacks a scope that this message needs.",
    ),
    "A tool is unknown": ("Unknown tool: %s", "No role gives access to: %s."),
    "A definition changed": ("Changed definitions need review: %s.",),
    "A host is not allowed": (
        "This host is not in ALLOWED_HOSTS.",
        "This host name is not in ALLOWED_HOSTS.",
    ),
    "An origin is not allowed": ("This origin is not in ALLOWED_ORIGINS.",),
    "Every page redirects": (
        "TRUSTED_PROXIES is empty. Portico ignores the proxy's https header, so every "
        "page redirects to https again.",
    ),
    "The server does not start": ("Portico cannot start with these settings:",),
    "Migrations are missing": ("%(count)d migrations are not applied (%(names)s).",),
    "No key can sign": (
        "No signing key is active, so no token can be issued.",
        "This KEY_ENCRYPTION_KEY cannot decrypt signing key %s.",
        "Tokens cannot be signed: run manage.py doctor on the server.",
    ),
    "The database does not answer": (
        "The database cannot be reached; nothing was decided.",
        "The database cannot be reached or is busy; try again.",
        "The database did not respond to %(check)s: %(text)s",
    ),
    "A body is too large": ("The body is larger than %s bytes.",),
    "Other accounts can read files": (
        "Other accounts can read %s.",
        "Other accounts can replace files in %s.",
    ),
}
"""Title of the section -> the texts that it explains, as in the code."""

ERRORS = "troubleshooting"
GUIDES = (
    "start-team-lead",
    "administration",
    "connecting",
    "upstreams",
    "adding-tools",
    "notifications",
    "api",
    ERRORS,
)
"""Pages of docs/ that /help/ serves, in the order of its list."""

VALUE = re.compile(r"%(?:\(\w+\))?[sd]")


def slug(title: str) -> str:
    """The anchor of a heading, as Markdown viewers make it."""
    kept = re.sub(r"[^a-z0-9 -]", "", title.lower())
    return kept.replace(" ", "-")


def text_pattern(text: str) -> str:
    """A pattern for the text with any values."""
    return ".*".join(re.escape(part) for part in VALUE.split(text))


@lru_cache(maxsize=8)
def patterns(language: str | None) -> list[tuple[re.Pattern[str], str]]:
    """(pattern, title) for each text, in English and in this language."""
    return [
        (
            re.compile(
                f"{text_pattern(text)}|{text_pattern(gettext(text))}", re.DOTALL
            ),
            title,
        )
        for title, texts in SECTIONS.items()
        for text in texts
    ]


def help_url(text: str) -> str:
    """The URL of the section that explains this error; empty if there is none."""
    for known, title in patterns(get_language()):
        if known.fullmatch(text):
            return section_url(title)
    return ""


def section_url(title: str) -> str:
    return f"{settings.ISSUER_URL}/help/#{slug(title)}"


def guide_file(name: str) -> Path:
    """The source of a guide; an installation may lack it."""
    return Path(settings.BASE_DIR) / "docs" / f"{name}.md"


def guide_url(place: str) -> str:
    """The path of `guide` or of `guide#Title of a section`; empty if not installed."""
    name, _hash, title = place.partition("#")
    if not guide_file(name).exists():
        return ""
    path = "/help/" if name == ERRORS else f"/help/{name}/"
    return f"{path}#{slug(title)}" if title else path
