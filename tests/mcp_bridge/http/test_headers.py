"""Headers of an ASGI scope."""

from __future__ import annotations

import pytest

from mcp_bridge.http.headers import HeaderPairs, header

pytestmark = pytest.mark.once
SCOPE = {"headers": [(b"a", b"first"), (b"b", b"\xe9"), (b"a", b"second")]}


@pytest.mark.parametrize(
    ("name", "value"), [(b"a", "first"), (b"b", "é"), (b"c", None), (b"A", None)]
)
def test_the_first_value_of_a_name_is_read(name: bytes, value: str | None) -> None:
    assert header(SCOPE, name) == value


def test_an_added_header_is_found_but_replaces_none() -> None:
    pairs = HeaderPairs(SCOPE["headers"])
    pairs.add(b"a", b"third")
    pairs.add(b"c", b"new")
    scope = {"headers": pairs}
    assert (header(scope, b"a"), header(scope, b"c")) == ("first", "new")
    assert pairs == [*SCOPE["headers"], (b"a", b"third"), (b"c", b"new")]
