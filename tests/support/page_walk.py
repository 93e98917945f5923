"""Follows the links of pages, one of each kind."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit, urlunsplit

from django.test import Client
from django.urls import resolve

LINK = re.compile(r'<a\b[^>]*?\bhref="([^"#]+)')


def kind_of(path: str) -> str:
    """Links of one kind share a view and the names of their parameters."""
    parts = urlsplit(path)
    route = resolve(parts.path).route
    names = ",".join(sorted(parse_qs(parts.query, keep_blank_values=True)))
    # A generic redirect leads to the pages of many models.
    return f"{parts.path if route.startswith('admin/r/') else route}?{names}"


def links_on(page: str, text: str) -> Iterator[str]:
    """Links to this site; a page with parameters has those of the page without."""
    for found in () if urlsplit(page).query else LINK.findall(text):
        target = urlsplit(urljoin(page, html.unescape(found)))
        if not target.scheme and not target.netloc:
            yield urlunsplit(target)


def walk(browser: Client, *starts: str) -> Iterator[tuple[str, Any, str]]:
    """(path, response, HTML) of the pages that can be reached; "" for a download."""
    waiting, known = [*starts], {kind_of(path) for path in starts}
    for path in waiting:  # Grows meanwhile.
        answer: Any = browser.get(path, follow=True)
        text = "" if answer.streaming else answer.content.decode()
        yield path, answer, text
        for link in links_on(path, text):
            if kind_of(link) not in known:
                known.add(kind_of(link))
                waiting.append(link)
