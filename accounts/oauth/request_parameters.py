"""Request parameters of all endpoints (OAuth 2.1 3.1, 3.2; RFC 8707)."""

from __future__ import annotations

from django.conf import settings
from django.http import QueryDict
from django.utils.translation import gettext as _

from accounts.models import Scope

IGNORED_SCOPES = frozenset({"openid", "offline_access"})
"""Many clients request them; Portico issues no ID tokens, and refresh tokens anyway."""
CLAIM_SCOPES = frozenset({"profile", "email", "address", "phone"})
"""OpenID Connect Core 1.0 5.4; ignored unless an administrator added such a scope."""

RESERVED_PARAMETERS = frozenset(
    "access_token claims client encoding expires_in extra_credentials grant id_token "
    "refresh_token_instance scopes user using_default_redirect_uri".split()
)
"""Attributes that oauthlib and the toolkit read from a request before they set them.

oauthlib sets parameters as attributes. Such a parameter would replace a row or choose a
codec. It is ignored like every unknown parameter (OAuth 2.1 3.1).
"""


def normalized_form(query: QueryDict) -> QueryDict:
    """A copy without empty and reserved parameters (OAuth 2.1 3.1) and ignored scopes.

    Raises ValueError for a repeated parameter or one with a NUL character.
    """
    clean = QueryDict(mutable=True)
    for name, values in query.lists():
        if name in RESERVED_PARAMETERS:
            continue
        present = [value for value in values if value]
        if any("\x00" in value for value in present):
            text = _("The parameter %s contains a NUL character.")
            raise ValueError(text % name[:40])
        if len(present) > 1 and name != "resource":
            raise ValueError(_("The parameter %s appears more than once.") % name[:40])
        if present:
            clean.setlist(name, present)
    scopes = without_openid_scopes(clean.get("scope", "").split())
    clean.pop("scope", None)
    if scopes:
        clean["scope"] = " ".join(scopes)
    return clean


def without_openid_scopes(names: list[str]) -> list[str]:
    """The names without those of OpenID Connect that no row of Scope has."""
    ignored = set(IGNORED_SCOPES)
    claims = CLAIM_SCOPES.intersection(names)
    if claims:
        rows = Scope.objects.filter(name__in=claims)
        ignored |= claims.difference(rows.values_list("name", flat=True))
    return [name for name in names if name not in ignored]


def resource_objection(query: QueryDict) -> str:
    """An error text if a `resource` is not this MCP endpoint, else empty."""
    ours = settings.RESOURCE_URL.rstrip("/").lower()
    if all(r.rstrip("/").lower() == ours for r in query.getlist("resource")):
        return ""
    return _("This server issues tokens for %s only.") % settings.RESOURCE_URL
