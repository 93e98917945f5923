"""/help/: docs/troubleshooting.md as a page, for links from errors.

The page is public: people who cannot sign in need it. It names no installation.
"""

from __future__ import annotations

import re
from functools import cache

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe
from django.views.decorators.http import require_safe

from accounts.http.help.links import slug

INLINE = (
    (re.compile(r"`([^`]+)`"), r"<code>\1</code>"),
    (re.compile(r"\*\*([^*]+)\*\*"), r"<strong>\1</strong>"),
    (re.compile(r"\*([^*]+)\*"), r"<em>\1</em>"),
)
"""The marks inside paragraphs that the page uses."""


def block(text: str) -> str:
    """One block of the page as HTML: a heading, a fenced text or a paragraph."""
    if text.startswith("```"):
        return f"<pre>{escape(text.partition(chr(10))[2].removesuffix('```'))}</pre>"
    if text.startswith("#"):
        marks, _space, title = text.partition(" ")
        level = len(marks)
        return f'<h{level} id="{slug(title)}">{escape(title)}</h{level}>'
    html = str(escape(text))
    for known, tag in INLINE:
        html = known.sub(tag, html)
    return f"<p>{html}</p>"


@cache
def page() -> SafeString:
    """The page as HTML. Raises OSError if the installation has no docs."""
    source = settings.BASE_DIR / "docs" / "troubleshooting.md"
    blocks = source.read_text("utf-8").strip().split("\n\n")
    return mark_safe("\n".join(block(text) for text in blocks))  # noqa: S308


@require_safe
def help_page(request: HttpRequest) -> HttpResponse:
    """GET /help/, in English as the docs are."""
    try:
        content = page()
    except OSError as error:
        raise Http404 from error
    return render(request, "help.html", {"page": content})
