"""UpstreamServer: a row for each MCP server of others, and what was last seen of it."""

from __future__ import annotations

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from accounts.parsing.urls import split_url

SEPARATOR = "__"
"""Between a prefix and the upstream's own name of a tool or prompt."""

name_validators = (
    RegexValidator(
        r"\A[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?\Z",
        _("Use lower-case letters, digits, hyphens and underscores."),
    ),
    RegexValidator(
        SEPARATOR,
        _("Two underscores separate a prefix from a name."),
        inverse_match=True,
    ),
)


def http_url(value: str) -> None:
    """Raises ValidationError unless it is an absolute http or https URL."""
    # The grammar of `split_url` has neither of these two, and its error is less clear.
    if "@" in value.partition("//")[2].partition("/")[0]:
        text = _("Put the credential into its own fields, not into the URL.")
        raise ValidationError(text)
    if "#" in value:
        raise ValidationError(_("The URL must have no #fragment."))
    parts = split_url(value)
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        text = _("%s is not a URL such as https://mcp.example.com/mcp.")
        raise ValidationError(text % value[:80])


class Protocol(models.TextChoices):
    """How an upstream server is spoken to."""

    AUTO = "auto", _("detect")
    MODERN = "2026-07-28", _("2026-07-28")
    LEGACY = "legacy", _("2025-11-25 or older")


class CredentialMode(models.TextChoices):
    """How Portico authenticates to an upstream server; exactly one for each."""

    NONE = "none", _("no credential")
    STATIC_HEADER = "static_header", _("static header")
    CLIENT_CREDENTIALS = "client_credentials", _("OAuth client credentials")
    SIGNED_ASSERTION = "signed_assertion", _("signed assertion about the user")


class NewDefinitions(models.TextChoices):
    """What happens to a definition that an upstream server offers first."""

    HOLD = "hold", _("hold until accepted")
    ACCEPT = "accept", _("accept")


class UpstreamServer(models.Model):
    """An MCP server elsewhere; its tools, resources and prompts are Primitive rows."""

    name = models.CharField(
        _("name"),
        max_length=16,
        unique=True,
        validators=name_validators,
        help_text=_("A short name, for example github."),
    )
    title = models.CharField(_("title"), max_length=100, blank=True)
    url = models.CharField(
        _("URL"),
        max_length=500,
        validators=[http_url],
        help_text=_("The MCP endpoint, for example https://mcp.example.com/mcp."),
    )
    prefix = models.CharField(
        _("prefix"),
        max_length=16,
        blank=True,
        validators=name_validators,
        help_text=_("Tools are named PREFIX__NAME. Without a prefix, NAME alone."),
    )
    enabled = models.BooleanField(
        _("enabled"),
        default=True,
        help_text=_("Nothing of a disabled server can be used."),
    )
    protocol = models.CharField(
        _("protocol"), max_length=10, choices=Protocol, default=Protocol.AUTO
    )
    credential_mode = models.CharField(
        _("credential"),
        max_length=20,
        choices=CredentialMode,
        default=CredentialMode.NONE,
    )
    new_definitions = models.CharField(
        _("new definitions"),
        max_length=6,
        choices=NewDefinitions,
        default=NewDefinitions.HOLD,
    )
    call_timeout = models.PositiveIntegerField(
        _("call timeout (seconds)"),
        default=60,
        validators=[MinValueValidator(1), MaxValueValidator(3600)],
    )
    max_concurrency = models.PositiveIntegerField(
        _("calls at once"),
        default=50,
        validators=[MinValueValidator(1), MaxValueValidator(1000)],
        help_text=_("Per worker."),
    )
    calls_per_minute = models.PositiveIntegerField(
        _("calls per minute"),
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text=_("From all users together. Empty: no limit."),
    )
    created_at = models.DateTimeField(_("added at"), auto_now_add=True)

    class Meta:
        ordering = ("name",)
        verbose_name = _("upstream server")
        verbose_name_plural = _("upstream servers")

    def __str__(self) -> str:
        return self.title or self.name


class UpstreamCredential(models.Model):
    """What Portico sends to one upstream server; `user` is empty if all share it."""

    class State(models.TextChoices):
        """Whether the upstream server accepted it last time."""

        VALID = "valid", _("valid")
        REJECTED = "rejected", _("rejected")

    class ClientAuthentication(models.TextChoices):
        """RFC 6749 2.3.1, RFC 7523."""

        BASIC = "client_secret_basic", _("secret in a header")
        POST = "client_secret_post", _("secret in the body")
        PRIVATE_KEY_JWT = "private_key_jwt", _("assertion signed by Portico")

    upstream = models.ForeignKey(
        UpstreamServer, on_delete=models.CASCADE, related_name="credentials"
    )
    user = models.ForeignKey(
        "accounts.User", on_delete=models.CASCADE, null=True, blank=True, editable=False
    )
    header = models.CharField(
        _("header"), max_length=64, blank=True, default="Authorization"
    )
    secret_encrypted = models.TextField(blank=True, editable=False)
    token_url = models.CharField(
        _("token URL"), max_length=500, blank=True, validators=[http_url]
    )
    client_id = models.CharField(_("client ID"), max_length=255, blank=True)
    client_authentication = models.CharField(
        _("client authentication"),
        max_length=20,
        choices=ClientAuthentication,
        default=ClientAuthentication.BASIC,
    )
    scope = models.CharField(_("scope"), max_length=500, blank=True)
    audience = models.CharField(
        _("audience"),
        max_length=500,
        blank=True,
        help_text=_("The resource the token is for. Empty: the server's URL."),
    )
    expires_at = models.DateTimeField(_("expires at"), null=True, blank=True)
    version = models.PositiveIntegerField(default=1, editable=False)
    state = models.CharField(
        _("state"), max_length=8, choices=State, default=State.VALID, editable=False
    )

    class Meta:
        verbose_name = _("credential of an upstream server")
        verbose_name_plural = _("credentials of upstream servers")
        constraints = [
            models.UniqueConstraint(
                fields=("upstream",),
                condition=Q(user=None),
                name="one_shared_credential_per_upstream",
            ),
            models.UniqueConstraint(
                fields=("upstream", "user"), name="one_credential_per_upstream_and_user"
            ),
        ]

    def __str__(self) -> str:
        return f"credential of {self.upstream_id}"


class UpstreamStatus(models.Model):
    """Observations of an upstream server; no decision reads them."""

    upstream = models.OneToOneField(
        UpstreamServer,
        on_delete=models.CASCADE,
        primary_key=True,
        related_name="status",
    )
    checked_at = models.DateTimeField(_("last check"), null=True)
    contacted_at = models.DateTimeField(_("last contact"), null=True)
    error = models.CharField(_("error"), max_length=500, blank=True)
    server_name = models.CharField(_("server name"), max_length=255, blank=True)
    server_version = models.CharField(_("server version"), max_length=64, blank=True)
    protocol = models.CharField(_("protocol"), max_length=10, blank=True)
    latency_ms = models.FloatField(_("latency (ms)"), null=True)
    discovering_until = models.DateTimeField(
        null=True, help_text=_("One process discovers at a time, until then.")
    )
    listening_until = models.DateTimeField(
        null=True, help_text=_("One process listens to its notices, until then.")
    )

    class Meta:
        verbose_name = _("status of an upstream server")
        verbose_name_plural = _("statuses of upstream servers")

    def __str__(self) -> str:
        return self.error or f"{self.server_name} {self.server_version}".strip()
