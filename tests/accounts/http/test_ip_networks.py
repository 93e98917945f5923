"""The networks field: valid networks, and one list inside another."""

from __future__ import annotations

import pytest
from django.core.exceptions import ValidationError

from accounts.http.ip_networks import covers, network_field_options, validate_networks

pytestmark = pytest.mark.once


@pytest.mark.parametrize("text", ["", "10.0.0.1", "10.0.0.0/8, 2001:db8::/32\n::1"])
def test_networks_are_valid(text: str) -> None:
    validate_networks(text)
    assert network_field_options()["validators"] == [validate_networks]
    assert network_field_options()["blank"] and network_field_options()["default"] == ""


@pytest.mark.parametrize(
    ("text", "named"),
    [("10.0.0.1 office", "office"), ("10.0.0.0/33", "10.0.0.0/33")],
)
def test_the_first_invalid_network_is_named(text: str, named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        validate_networks(text)
    with pytest.raises(ValidationError) as refused:
        validate_networks("x" * 60)
    assert refused.value.message.startswith("x" * 50 + " is not")


@pytest.mark.parametrize(
    ("outer", "inner", "covered"),
    [
        ("", "", True),
        ("", "10.0.0.1", True),
        ("10.0.0.0/8", "", False),
        ("10.0.0.0/8", "10.0.0.0/8", True),
        ("10.0.0.0/8", "10.1.0.0/16 10.2.0.1", True),
        ("10.0.0.0/8", "10.0.0.0/7", False),
        ("10.0.0.0/8", "10.1.0.0/16 192.0.2.1", False),
        ("10.0.0.0/8 192.0.2.1", "192.0.2.1", True),
        ("0.0.0.0/0", "::1", False),
        ("::/0", "10.0.0.1", False),
        ("::/0", "2001:db8::/32", True),
    ],
)
def test_a_list_covers_another(outer: str, inner: str, covered: bool) -> None:
    assert covers(outer, inner) == covered
