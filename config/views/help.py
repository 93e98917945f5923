"""/help/: some pages of docs/, for links from errors and from the pages themselves.

They are public: people who cannot sign in need them. They name no installation.
"""

from __future__ import annotations

import re
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.safestring import SafeString, mark_safe
from django.views.decorators.http import require_safe

from accounts.http.help.links import ERRORS, GUIDES, guide_file, guide_url, slug

if TYPE_CHECKING:
    from markdown_it.token import Token

IMAGE = re.compile(r"!\[[^]]*\]\([^)]*\)")


def titles() -> list[tuple[str, str]]:
    """(title, URL) of each guide that is installed."""
    installed = [name for name in GUIDES if guide_url(name)]
    return [(title_of(name), guide_url(name)) for name in installed]


@cache
def title_of(name: str) -> str:
    return guide_file(name).read_text("utf-8").partition("\n")[0].removeprefix("# ")


@cache
def page(name: str = ERRORS) -> SafeString:
    """A guide as HTML. Raises OSError if the installation has no docs."""
    return to_html(guide_file(name).read_text("utf-8"))


def to_html(source: str) -> SafeString:
    """Markdown as HTML with anchors; it escapes HTML, and has no images."""
    # Only these pages need the library.
    from markdown_it import MarkdownIt

    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = reader.parse(IMAGE.sub("", source))
    for opened, inner in pairwise(tokens):
        if opened.type == "heading_open":
            opened.attrSet("id", slug(inner.content))
    for token in tokens:
        rewrite_links(token.children or [])
    html: str = reader.renderer.render(tokens, reader.options, {})
    return mark_safe(html)  # noqa: S308


def rewrite_links(tokens: list[Token]) -> None:
    """Links to other pages of docs/ lead to /help/, or are plain text."""
    served = True
    for token in tokens:
        if token.type == "link_open":
            target = served_at(str(token.attrGet("href")))
            token.attrSet("href", target)
            served = bool(target)
        if token.type in ("link_open", "link_close") and not served:
            token.type, token.tag, token.nesting = "text", "", 0


def served_at(href: str) -> str:
    """The address here of a link in docs/; empty if this page is not served."""
    name, found, rest = href.partition(".md")
    if href.startswith(("https:", "http:", "#")):
        return href
    guide = guide_url(name) if found and name in GUIDES else ""
    return guide and guide + rest


@require_safe
def help_page(request: HttpRequest, name: str = ERRORS) -> HttpResponse:
    """GET /help/ and /help/NAME/, in English as the docs are."""
    if name not in GUIDES:
        raise Http404
    try:
        content = page(name)
    except OSError as error:
        raise Http404 from error
    context = {"page": content, "title": title_of(name), "guides": titles()}
    return render(request, "help.html", context)
