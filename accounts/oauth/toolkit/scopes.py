"""Scopes an OAuth client can ask for: the Scope rows."""

from __future__ import annotations

from typing import Any

from oauth2_provider.scopes import BaseScopes

from accounts.models.roles import ACT_WITHIN_ROLES, Scope


class DatabaseScopes(BaseScopes):
    """The toolkit's seam; narrowing to what a person holds comes with consent."""

    def get_all_scopes(self) -> dict[str, str]:
        """Name -> words for people."""
        return {s.name: s.description or s.name for s in Scope.objects.all()}

    def get_available_scopes(
        self, application: Any = None, request: Any = None, *args: Any, **kwargs: Any
    ) -> list[str]:
        """All names."""
        return list(Scope.objects.values_list("name", flat=True))

    def get_default_scopes(
        self, application: Any = None, request: Any = None, *args: Any, **kwargs: Any
    ) -> list[str]:
        """Without a wish: act within one's roles."""
        return [ACT_WITHIN_ROLES]
