"""Networks a token, a client or a role is bound to, as people write them in a field."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.http.client_address import parse_network, split_networks

HELP = gettext_lazy(
    "Addresses or networks such as 10.0.0.0/8, blanks between. Empty: from anywhere."
)


def validate_networks(value: str) -> None:
    """Each is an address or a network. Raises ValidationError naming the first bad."""
    for network in split_networks(value):
        try:
            parse_network(network)
        except ValueError as error:
            told = _("%s is neither an address nor a network such as 10.0.0.0/8.")
            raise ValidationError(told % network[:50]) from error


def covers(outer: str, inner: str) -> bool:
    """Whether every address that `inner` lets in is in `outer`; empty is everywhere."""
    wide, narrow = split_networks(outer), split_networks(inner)
    if not wide:
        return True
    return bool(narrow) and all(any(inside(n, w) for w in wide) for n in narrow)


def inside(network: str, other: str) -> bool:
    """Whether a network is a part of another."""
    part, whole = parse_network(network), parse_network(other)
    return bool(part.version == whole.version and part.subnet_of(whole))


def network_field_options() -> dict[str, Any]:
    """What the columns have in common."""
    return {
        "blank": True,
        "default": "",
        "validators": [validate_networks],
        "help_text": HELP,
    }
