"""Words of libraries whose own catalogues lack them: marked here.

Nothing uses these names; `make messages` finds the marks, and Django looks the words
up in every catalogue.
"""

from django.utils.translation import gettext_noop as _

DJANGO = (_("users"),)
"""Said better than in Django's own catalogue."""

TOOLKIT = (
    _("created"),
    _("updated"),
    _("expires"),
    _("client ID"),
    _("client type"),
    _("client secret"),
    _("redirect URIs"),
    _("redirect uri"),
    _("application"),
    _("Allowed URIs list, space separated"),
    _("Confidential"),
    _("Public"),
    _("Manual"),
    _("Dynamic Client Registration"),
    _("Client ID Metadata Document"),
)
"""Of django-oauth-toolkit's models."""

OAUTHLIB = (
    _("Invalid client_id parameter value."),
    _("Missing client_id parameter."),
    _("Invalid redirect URI."),
    _("Missing redirect URI."),
    _("Mismatching redirect URI."),
    _("Missing response_type parameter."),
    _("Code challenge required."),
)
"""Of oauthlib's refusals that people see at /oauth/authorize."""

AXES = (
    _("Axes"),
    _("access attempt"),
    _("access attempts"),
    _("Attempted Access"),
    _("IP Address"),
    _("Username"),
    _("User Agent"),
    _("Path"),
    _("Attempt Time"),
    _("Failed Logins"),
)
"""Of django-axes' list of wrong passwords."""
