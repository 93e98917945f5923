"""Scopes an OAuth client can ask for: the Scope rows."""

from __future__ import annotations

from typing import Any

from oauth2_provider.scopes import BaseScopes

from accounts.models.roles import ACT_WITHIN_ROLES, Scope


class DatabaseScopes(BaseScopes):
    """The toolkit's scopes backend; consent narrows scopes to those of the user."""

    def get_all_scopes(self) -> dict[str, str]:
        """Name -> description; the name if there is none."""
        return {s.name: s.description or s.name for s in Scope.objects.all()}

    def get_available_scopes(
        self, application: Any = None, request: Any = None, *args: Any, **kwargs: Any
    ) -> list[str]:
        return list(Scope.objects.values_list("name", flat=True))

    def get_default_scopes(
        self, application: Any = None, request: Any = None, *args: Any, **kwargs: Any
    ) -> list[str]:
        """`mcp`: the token acts within the user's roles."""
        return [ACT_WITHIN_ROLES]
