"""The `networks` field: a token, client or role counts only from these networks."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.http.client_address import parse_network, split_networks

HELP = gettext_lazy(
    "Enter IP addresses or networks such as 10.0.0.0/8, "
    "separated by spaces. Leave empty to allow any address."
)


def validate_networks(value: str) -> None:
    """Raises ValidationError that names the first invalid network."""
    for network in split_networks(value):
        try:
            parse_network(network)
        except ValueError as error:
            message = _("%s is not an IP address or a network such as 10.0.0.0/8.")
            raise ValidationError(message % network[:50]) from error


def covers(outer: str, inner: str) -> bool:
    """Whether `outer` contains every address of `inner`; empty means everywhere."""
    wide, narrow = split_networks(outer), split_networks(inner)
    if not wide:
        return True
    return bool(narrow) and all(any(is_subnet(n, w) for w in wide) for n in narrow)


def is_subnet(network: str, other: str) -> bool:
    """Whether `other` contains `network`; False across IP versions."""
    part, whole = parse_network(network), parse_network(other)
    return bool(part.version == whole.version and part.subnet_of(whole))


def network_field_options() -> dict[str, Any]:
    """Options that all `networks` columns share."""
    return {
        "blank": True,
        "default": "",
        "validators": [validate_networks],
        "help_text": HELP,
    }
