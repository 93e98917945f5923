"""Mark strings of libraries whose own catalogues lack a good translation.

No code uses these names. `make messages` collects the marks, and Django looks strings
up in every catalogue.
"""

from django.utils.translation import gettext_noop as _

DJANGO = (
    _("users"),
    _("The password is too similar to the %(verbose_name)s."),
)
"""Replace the translations of Django's own catalogue."""

ALLAUTH = (
    _("Bad Token"),
    _(
        "The password reset link was invalid, possibly because it has already been "
        'used.  Please request a <a href="%(passwd_reset_url)s">new password reset</a>.'
    ),
    _(
        "We have sent you an email. If you have not received it please check your spam "
        "folder. Otherwise contact us if you do not receive it in a few minutes."
    ),
    _(
        "You're receiving this email because you or someone else has requested a "
        "password reset for your user account.\n"
        "It can be safely ignored if you did not request a password reset. Click the "
        "link below to reset your password."
    ),
    _("This account is inactive."),
    _("Enter your password:"),
    _(
        "Your account is protected by two-factor authentication. Please enter an "
        "authenticator code:"
    ),
    _("Use a security key"),
    _("The username and/or password you specified are not correct."),
    _("A third-party account from %(provider)s has been connected to your account."),
    _(
        "A third-party account from %(provider)s has been disconnected from your "
        "account."
    ),
)
"""Replace wrong or unclear translations of allauth's own catalogue."""

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
