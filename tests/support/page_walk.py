"""Follows the links of pages, one of each kind."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit, urlunsplit

from django.db import transaction
from django.test import Client
from django.urls import resolve

from tests.support.html_browser import Form, FormReader

LINK = re.compile(r'<a\b[^>]*?\bhref="([^"#]+)')
NAME = re.compile(r"\(\?P<(\w+)>[^)]*\)|<(?:\w+:)?(\w+)>")
"""A parameter of a route."""
LEAVING = ("/logout/", "/accounts/language/")
"""Forms of every page: they end the session, or only change the language."""


def kind_of(path: str) -> str:
    """Links of one kind share a view and the names of their parameters."""
    parts = urlsplit(path)
    route = resolve(parts.path).route
    names = ",".join(sorted(parse_qs(parts.query, keep_blank_values=True)))
    # A generic redirect leads to the pages of many models.
    return f"{parts.path if route.startswith('admin/r/') else route}?{names}"


def file_name(path: str) -> str:
    words = NAME.sub(r"\1\2", kind_of(path))
    return re.sub(r"[^\w.-]+", "_", words).strip("_") + ".txt"


def is_compared(path: str) -> bool:
    """Guides have tests of their own; a filtered list is like the whole one."""
    parts = urlsplit(path)
    filtered = parts.query and str(resolve(parts.path).url_name).endswith("changelist")
    return not (filtered or path.startswith("/help/"))


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


def buttons_on(page: str, text: str) -> Iterator[tuple[str, Form, Any]]:
    """(kind, form, button) of the forms that post; a button may have no name."""
    reader = FormReader()
    reader.feed(text)
    for form in reader.forms:
        target = urljoin(page, form.action)
        if form.method != "post" or any(word in target for word in LEAVING):
            continue
        for button in form.buttons:
            yield f"{kind_of(page)} -> {kind_of(target)} {button[0]}", form, button


def press(
    browser: Client,
    page: str,
    form: Form,
    button: Any,
    read: Callable[[Any], None] = lambda answer: None,
    **options: Any,
) -> Any:
    """The response to this button; nothing is kept, and the reader stays signed in.

    `read` sees it before the rows are rolled back.
    """
    cookies: Any = browser.cookies.copy()
    sent = {name: value for name, value in form.fields.items() if value is not None}
    with transaction.atomic():
        target = urljoin(page, form.action)
        pushed = {button[0]: button[1]} if button[0] else {}
        answer = browser.post(target, {**sent, **pushed}, **options)
        read(answer)
        transaction.set_rollback(True)
    browser.cookies = cookies
    return answer
