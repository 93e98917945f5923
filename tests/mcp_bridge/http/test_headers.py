"""Headers of an ASGI scope."""

from __future__ import annotations

import pytest

from mcp_bridge.http.headers import header

pytestmark = pytest.mark.once
SCOPE = {"headers": [(b"a", b"first"), (b"b", b"\xe9"), (b"a", b"second")]}


@pytest.mark.parametrize(
    ("name", "value"), [(b"a", "first"), (b"b", "é"), (b"c", None), (b"A", None)]
)
def test_the_first_value_of_a_name_is_read(name: bytes, value: str | None) -> None:
    assert header(SCOPE, name) == value
