"""Every path of the project, found by walking the URLconf."""

from __future__ import annotations

from collections.abc import Iterator

from django.urls import URLResolver, get_resolver
from django.utils.regex_helper import normalize


def walk(resolver: URLResolver, before: str = "/") -> Iterator[str]:
    """A path of every view; each parameter is 1."""
    for entry in resolver.url_patterns:
        form, names = normalize(entry.pattern.regex.pattern)[0]
        path = before + form % dict.fromkeys(names, "1")
        if isinstance(entry, URLResolver):
            yield from walk(entry, path)
        else:
            yield path


PATHS = sorted(set(walk(get_resolver())))
