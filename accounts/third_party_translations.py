"""Mark strings of libraries whose own catalogues lack a translation.

No code uses these names. `make messages` collects the marks, and Django looks strings
up in every catalogue.
"""

from django.utils.translation import gettext_noop as _

DJANGO = (_("users"),)
"""Replaces the translation of Django's own catalogue."""

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
"""From the models of django-oauth-toolkit."""

OAUTHLIB = (
    _("Invalid client_id parameter value."),
    _("Missing client_id parameter."),
    _("Invalid redirect URI."),
    _("Missing redirect URI."),
    _("Mismatching redirect URI."),
    _("Missing response_type parameter."),
    _("Code challenge required."),
)
"""Errors of oauthlib that users see at /oauth/authorize."""

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
"""From django-axes' list of failed sign-ins."""
