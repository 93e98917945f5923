"""What a request may say at whichever endpoint (OAuth 2.1 3.1, 3.2; RFC 8707)."""

from __future__ import annotations

from django.conf import settings
from django.http import QueryDict
from django.utils.translation import gettext as _

IGNORED_SCOPES = {"offline_access"}
"""Asked for by habit; refresh tokens come without it."""

RESERVED_PARAMETERS = frozenset(
    "access_token claims client encoding expires_in extra_credentials grant id_token "
    "refresh_token_instance scopes user using_default_redirect_uri".split()
)
"""Attributes that oauthlib and the toolkit set on a request, and read before they do.

oauthlib gives parameters as attributes: one so named would stand in for a row or name
a codec. They are ignored, as every unknown parameter (OAuth 2.1 3.1).
"""


def normalized_form(query: QueryDict) -> QueryDict:
    """Empty parameters are left out (OAuth 2.1 3.1), tolerated scopes too.

    Raises ValueError naming a parameter that comes twice or cannot be text.
    """
    clean = QueryDict(mutable=True)
    for name, values in query.lists():
        if name in RESERVED_PARAMETERS:
            continue
        kept = [value for value in values if value]
        if any("\x00" in value for value in kept):
            text = _("The parameter %s contains a NUL character.")
            raise ValueError(text % name[:40])
        if len(kept) > 1 and name != "resource":
            raise ValueError(_("The parameter %s appears more than once.") % name[:40])
        clean.setlist(name, kept) if kept else None
    asked = [s for s in clean.get("scope", "").split() if s not in IGNORED_SCOPES]
    clean.pop("scope", None)
    if asked:
        clean["scope"] = " ".join(asked)
    return clean


def resource_objection(query: QueryDict) -> str:
    """What is wrong where a `resource` is not our endpoint, empty if nothing is."""
    ours = settings.RESOURCE_URL.rstrip("/").lower()
    if all(r.rstrip("/").lower() == ours for r in query.getlist("resource")):
        return ""
    return _("This server issues tokens for %s only.") % settings.RESOURCE_URL
