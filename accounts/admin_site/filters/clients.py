"""Clients by name in lists whose rows have only a `client_id`.

The id outlives the client, so these tables have no foreign key to it.
"""

from __future__ import annotations

from typing import Any

from django.utils.html import format_html

from accounts.models import OAuthClient

SEARCHED_CLIENTS = 20
"""Clients with a matching name that a search or a filter includes."""


def name_clients(rows: list[Any]) -> None:
    """Set `client_name` of each row in one query; the id of a client without a name."""
    names = OAuthClient.objects.all().names_of(row.client_id for row in rows)
    for row in rows:
        row.client_name = names.get(row.client_id, row.client_id)


def client_cell(row: Any) -> str:
    """The client's name, with its id as a tooltip."""
    if not row.client_id:
        return "-"
    name = getattr(row, "client_name", None)
    if name is None:
        name = OAuthClient.objects.all().name_of(row.client_id)
    return format_html('<span title="{}">{}</span>', row.client_id, name)


def client_ids(text: str) -> list[str]:
    """The ids of the clients with this id or name; the text itself if there are none.

    Deleted clients have events and tokens, but no name.
    """
    named = OAuthClient.objects.filter(name__iexact=text).order_by("-pk")
    ids = list(named.values_list("client_id", flat=True)[:SEARCHED_CLIENTS])
    return [text] if text in ids or not ids else ids


def named_like(word: str) -> list[str]:
    """The ids of the newest clients whose name contains the word."""
    named = OAuthClient.objects.filter(name__icontains=word).order_by("-pk")
    return list(named.values_list("client_id", flat=True)[:SEARCHED_CLIENTS])
