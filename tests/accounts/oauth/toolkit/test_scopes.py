"""The scopes that a client can ask for."""

from __future__ import annotations

import pytest

from accounts.models import Scope
from accounts.oauth.toolkit.scopes import DatabaseScopes

pytestmark = pytest.mark.django_db


def test_scopes_are_the_rows() -> None:
    Scope.objects.all().delete()
    Scope.objects.create(name="mcp", description="Use the tools.")
    Scope.objects.create(name="Docs.Read", description="")
    scopes = DatabaseScopes()
    assert scopes.get_all_scopes() == {
        "mcp": "Use the tools.",
        "Docs.Read": "Docs.Read",
    }
    assert set(scopes.get_available_scopes()) == {"mcp", "Docs.Read"}
    assert scopes.get_default_scopes() == ["mcp"]
