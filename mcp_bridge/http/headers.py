"""Headers of an ASGI scope."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.types import Scope

Pair = tuple[bytes, bytes]


class HeaderPairs(list[Pair]):
    """The headers of a request, and by name the first value of each.

    Every step of a message reads some headers, so the index is made once.
    """

    __slots__ = ("first",)

    def __init__(self, pairs: Iterable[Pair]) -> None:
        super().__init__(pairs)
        self.first = dict(reversed(self))

    def add(self, name: bytes, value: bytes) -> None:
        """Append a header. Nothing else changes the list."""
        self.append((name, value))
        self.first.setdefault(name, value)


def header_pairs(scope: Scope) -> HeaderPairs:
    """The headers with their index; Application makes it for each request."""
    pairs = scope["headers"]
    return pairs if isinstance(pairs, HeaderPairs) else HeaderPairs(pairs)


def header(scope: Scope, name: bytes) -> str | None:
    """The first value of a header (lower-case name); None if absent."""
    value = header_pairs(scope).first.get(name)
    return None if value is None else value.decode("latin-1")
