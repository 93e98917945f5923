"""OAuth clients and consents."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from math import inf
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import admin, messages
from django.db import transaction
from django.db.models import Count, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe
from django.utils.text import capfirst
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from accounts.admin_site.base import (
    ActorFormMixin,
    DelegatedAdmin,
    ReadOnlyAdmin,
    badge,
    changeable_rows,
)
from accounts.admin_site.confirmation import (
    confirmation_page,
    reason_given,
    revocable_tokens,
    revocation_effect,
)
from accounts.admin_site.navigation.groups import Section
from accounts.authorization.delegation import (
    NOT_YOURS,
    more_privileged_users,
    objection_to_client,
    objection_to_host,
    objection_to_tokens_of,
)
from accounts.errors import InvalidRedirectURI
from accounts.http.ip_networks import covers
from accounts.models import (
    Consent,
    DocumentHost,
    IssuedToken,
    OAuthAccessToken,
    OAuthClient,
    OAuthGrant,
    OAuthIDToken,
    OAuthRefreshToken,
    User,
)
from accounts.models.oauth import AUTH_METHODS, CLIENT_CREDENTIALS
from accounts.oauth.clients.register import REGISTRABLE_GRANTS
from accounts.oauth.redirect_uris import validate_redirect_uri
from accounts.parsing.host_names import HostField
from accounts.tokens.assertions import public_keys

for toolkit_model in (
    OAuthAccessToken,
    OAuthClient,
    OAuthGrant,
    OAuthIDToken,
    OAuthRefreshToken,
):
    admin.site.unregister(toolkit_model)


AGREEING_FIELDS = (
    "redirect_uris",
    "token_endpoint_auth_method",
    "grant_types",
    "client_jwks",
    "service_account",
)
"""Fields that `OAuthClient.problems` compares with each other."""


class OAuthClientForm(forms.ModelForm):  # type: ignore[type-arg]
    """The registration rules apply to administrators too."""

    grant_types = forms.MultipleChoiceField(
        label=capfirst(_("grant types")),
        choices=[(grant, grant) for grant in (*REGISTRABLE_GRANTS, CLIENT_CREDENTIALS)],
        widget=forms.CheckboxSelectMultiple,
        initial=["authorization_code", "refresh_token"],
    )

    actor: User

    class Meta:
        model = OAuthClient
        fields = ("name", "redirect_uris", "token_endpoint_auth_method")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Offer the present account, too: saving must not remove it."""
        super().__init__(*args, **kwargs)
        # Clients that registered themselves may have no name.
        if "name" in self.fields and (self.instance.pk is None or self.instance.name):
            self.fields["name"].required = True
        accounts: Any = self.fields.get("service_account")
        if accounts is not None and self.instance.service_account_id:
            present = User.objects.filter(pk=self.instance.service_account_id)
            accounts.queryset = accounts.queryset | present

    def clean_redirect_uris(self) -> str:
        """Allow https, loopback http and private schemes."""
        try:
            uris = [
                validate_redirect_uri(u)
                for u in self.cleaned_data["redirect_uris"].split()
            ]
        except InvalidRedirectURI as error:
            raise forms.ValidationError(str(error)) from error
        return " ".join(uris)

    def clean_client_jwks(self) -> dict[str, Any]:
        """Accept public keys only."""
        jwks = self.cleaned_data.get("client_jwks")
        try:
            return public_keys(jwks) if jwks else {}
        except ValueError as error:
            raise forms.ValidationError(str(error)) from error

    def clean(self) -> dict[str, Any]:
        """Its parts must agree; looser limits need the rights over its tokens."""
        data = super().clean() or self.cleaned_data
        client = OAuthClient(**{name: data.get(name) for name in AGREEING_FIELDS})
        client.registered = self.instance.registered
        for name, text in client.problems().items():
            # A refused value is not missing, too.
            if name not in self.errors:
                self.add_error(name, text)
        for name in self.loosened_limits(data):
            problem = objection_to_tokens_of(self.actor, self.instance)
            if problem:
                self.add_error(name, forms.ValidationError(problem, NOT_YOURS))
        return data

    def loosened_limits(self, data: dict[str, Any]) -> Iterator[str]:
        """Names of the limits that the form would loosen."""
        before = self.initial
        networks = data.get("networks")
        if networks is not None and not covers(before.get("networks", ""), networks):
            yield "networks"
        if (data.get("max_idle") or inf) > (before.get("max_idle") or inf):
            yield "max_idle"


UNVERIFIED = _("unverified (self-registered)")


@admin.register(OAuthClient)
class OAuthClientAdmin(ActorFormMixin[OAuthClient], DelegatedAdmin[OAuthClient]):
    """Client names come from outside; they are escaped and shown as text."""

    noun = "client"
    place = (Section.CLIENTS, 10)
    intro = _(
        "Applications that sign users in. Self-registered clients "
        "are unverified until an administrator approves them."
    )
    nothing_yet = _(
        "No clients yet. Clients register themselves when a user "
        "connects; you can also add one here."
    )
    list_display = (
        "name",
        "standing",
        "registration_source",
        "returns_to",
        "people",
        "last_used_at",
    )
    list_per_page = 50
    list_filter = ("registration_source", "blocked", "client_type")
    search_fields = ("name", "client_id", "redirect_uris")
    form = OAuthClientForm
    fields = (
        "name",
        "client_id",
        "registration_source",
        "document_copy",
        "redirect_uris",
        "token_endpoint_auth_method",
        "grant_types",
        "client_jwks",
        "service_account",
        "networks",
        "max_idle",
        "approved",
        "standing",
        "people",
        "created",
        "last_used_at",
    )
    readonly_fields = (
        "client_id",
        "registration_source",
        "document_copy",
        "standing",
        "people",
        "created",
        "last_used_at",
    )
    actions = ("approve", "block", "unblock", "revoke_tokens", "rotate_secret")

    def may_change_row(self, actor: Any, obj: OAuthClient) -> bool:
        """Changing a client with a service account needs the account's rights."""
        return not objection_to_client(actor, obj)

    def has_delete_permission(self, request: Any, obj: Any = None) -> bool:
        """Deleting a client ends its tokens, also those of users with more rights."""
        allowed = super().has_delete_permission(request, obj)
        if obj is None or not allowed:
            return allowed
        return not objection_to_tokens_of(request.user, obj)

    def formfield_for_foreignkey(
        self, db_field: Any, request: Any, **kwargs: Any
    ) -> Any:
        """Offer service accounts that have no more rights than the actor."""
        if db_field.name == "service_account":
            programs = User.objects.filter(is_service_account=True)
            kwargs["queryset"] = programs.exclude(
                pk__in=more_privileged_users(request.user)
            )
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def get_queryset(self, request: HttpRequest) -> QuerySet[OAuthClient]:
        """Annotate the number of consents."""
        rows = super().get_queryset(request)
        clients: QuerySet[OAuthClient] = rows.annotate(allowed_by=Count("consents"))
        return clients

    @admin.display(description=_("status"))
    def standing(self, obj: OAuthClient) -> SafeString:
        """The verification status that the consent page shows."""
        if obj.pk is None:
            return mark_safe("-")
        if obj.blocked:
            return badge(_("blocked"), "bad")
        verified = obj.verified
        return badge(_("verified"), "good") if verified else badge(UNVERIFIED, "warn")

    @admin.display(description=_("redirects to"))
    def returns_to(self, obj: OAuthClient) -> SafeString:
        uris = ((uri,) for uri in obj.redirect_uris.split())
        lines = format_html_join(mark_safe("<br>"), "<code>{}</code>", uris)
        return lines or badge("-")

    @admin.display(description=_("people"), ordering="allowed_by")
    def people(self, obj: OAuthClient) -> SafeString | str:
        """Number of users who consented, linked to the list."""
        number = getattr(obj, "allowed_by", 0)
        url = reverse("admin:accounts_consent_changelist")
        query = urlencode({"client__id__exact": obj.pk})
        link = format_html('<a href="{}?{}">{}</a>', url, query, number)
        return link if number else "0"

    @admin.action(
        description=_("Block the selected clients and revoke their tokens"),
        permissions=["change"],
    )
    def block(self, request: HttpRequest, queryset: Any) -> Any:
        clients = changeable_rows(self, request, queryset, objection_to_client)
        page = self.confirm(request, gettext("Block clients"), clients)
        if page is not None:
            return page
        self.end_clients(request, clients, "client blocked")
        for client in clients:
            self.switch(request, client, True)
        return None

    @admin.action(description=_("Unblock the selected clients"), permissions=["change"])
    def unblock(self, request: HttpRequest, queryset: Any) -> None:
        blocked = queryset.filter(blocked=True)
        for client in changeable_rows(self, request, blocked, objection_to_client):
            self.switch(request, client, False)

    @admin.action(
        description=_("Approve the selected clients as verified"),
        permissions=["change"],
    )
    def approve(self, request: HttpRequest, queryset: Any) -> None:
        """Mark the client as verified by staff."""
        others = queryset.filter(approved=False)
        for client in changeable_rows(self, request, others, objection_to_client):
            client.approved = True
            client.save(update_fields=["approved"])
            self.record_change(request, "approved", client)

    def switch(self, request: HttpRequest, client: OAuthClient, on: bool) -> None:
        """Block or unblock one client; records a change."""
        if client.blocked == on:
            return
        client.blocked = on
        client.save(update_fields=["blocked"])
        self.record_change(request, "changed", client, {"blocked": [not on, on]})

    @admin.action(
        description=_("Revoke all tokens of the selected clients"),
        permissions=["change"],
    )
    def revoke_tokens(self, request: HttpRequest, queryset: Any) -> Any:
        clients = changeable_rows(self, request, queryset, objection_to_client)
        page = self.confirm(request, gettext("Revoke tokens"), clients)
        if page is not None:
            return page
        self.end_clients(request, clients, "client ended")
        return None

    def confirm(
        self, request: HttpRequest, question: str, clients: list[OAuthClient]
    ) -> Any:
        """The page that names the clients, and asks for a reason, if any may change."""
        if not clients:
            return None
        ids = [client.client_id for client in clients]
        tokens = IssuedToken.objects.filter(client_id__in=ids)
        return confirmation_page(
            self,
            request,
            question,
            revocation_effect(tokens),
            about=[client.name or client.client_id for client in clients],
            asks_reason=True,
        )

    def end_clients(
        self, request: HttpRequest, clients: list[OAuthClient], reason: str
    ) -> None:
        """Revoke their tokens and say how many; an entered reason comes first."""
        count = end_access(self, request, clients, reason_given(request) or reason)
        message = ngettext("%d token revoked.", "%d tokens revoked.", count) % count
        self.message_user(request, message, messages.SUCCESS)

    @admin.action(
        description=_("Create a new secret (shown once)"), permissions=["change"]
    )
    def rotate_secret(self, request: HttpRequest, queryset: Any) -> None:
        """The old secret stops working at once; public clients have none."""
        secret = queryset.filter(client_type=OAuthClient.CLIENT_CONFIDENTIAL)
        for client in changeable_rows(self, request, secret, objection_to_client):
            self.rotate(request, client)

    def rotate(self, request: HttpRequest, client: OAuthClient) -> str:
        """Replace the secret of a client; records the change, returns the secret."""
        client.client_secret = secret = self.issue_secret(request, client)
        client.save(update_fields=["client_secret"])
        self.record_change(request, "secret_rotated", client)
        return secret

    def issue_secret(self, request: HttpRequest, client: OAuthClient) -> str:
        """A new secret, shown in a message of the next page only.

        The administration API shows `shown_once` in its response instead.
        """
        client.shown_once = secret = secrets.token_urlsafe(48)
        for label, value in (
            (gettext("Client ID of %s:"), client.client_id),
            (gettext("Secret of %s, shown only once:"), secret),
        ):
            shown = copyable(label % (client.name or client.client_id), value)
            self.message_user(request, shown, messages.SUCCESS)
        return secret

    def save_model(self, request: Any, obj: Any, form: Any, change: bool) -> None:
        """Add id and secret to a new client."""
        public = obj.token_endpoint_auth_method == AUTH_METHODS[0]
        obj.client_type = "public" if public else "confidential"
        obj.authorization_grant_type = OAuthClient.GRANT_AUTHORIZATION_CODE
        if not change:
            obj.client_id = secrets.token_hex(16)
            secret = "" if public or obj.uses_private_key_jwt else None
            obj.client_secret = (
                self.issue_secret(request, obj) if secret is None else secret
            )
        super().save_model(request, obj, form, change)

    def delete_model(self, request: HttpRequest, obj: OAuthClient) -> None:
        """Revoke first: the tokens' rows outlive the client."""
        end_access(self, request, [obj], "client deleted")
        super().delete_model(request, obj)


def copyable(label: str, value: str) -> SafeString:
    """A label and a value, with a place for the button that copies the value."""
    return format_html(
        '{} {}<span data-value="{}" data-copy="{}" data-copied="{}"></span>',
        label,
        value,
        value,
        gettext("Copy"),
        gettext("Copied"),
    )


def end_access(
    page: Any, request: HttpRequest, clients: Iterable[OAuthClient], reason: str
) -> int:
    """Delete pending codes, and revoke the tokens that the actor may revoke."""
    names = [client.client_id for client in clients]
    with transaction.atomic():
        same = OAuthClient.objects.filter(client_id__in=names)
        same.end_pending(actor=request.user, reason=reason)
        tokens = IssuedToken.objects.filter(client_id__in=names)
        return revocable_tokens(page, request, tokens).revoke(
            actor=request.user, reason=reason
        )


class HostForm(forms.ModelForm):  # type: ignore[type-arg]
    """Adding a host needs rights too: a refused host blocks its clients."""

    actor: User

    class Meta:
        model = DocumentHost
        fields = ("host", "trusted")

    def clean_host(self) -> str:
        """Refuse the host of a client that acts for a user with more rights."""
        # The form has plain text; clients are matched by the normalized host only.
        host: str = HostField().to_python(self.cleaned_data["host"])
        problem = objection_to_host(self.actor, DocumentHost(host=host))
        if problem:
            raise forms.ValidationError(problem)
        return host


@admin.register(DocumentHost)
class DocumentHostAdmin(ActorFormMixin[DocumentHost], DelegatedAdmin[DocumentHost]):
    noun = "document_host"
    place = (Section.CLIENTS, 60)
    intro = _("Hosts whose client metadata documents are trusted or blocked.")
    nothing_yet = _(
        "No hosts yet. Clients with a metadata document are "
        "unverified until you add their host."
    )
    list_display = ("host", "trusted")
    search_fields = ("host",)
    form = HostForm

    def may_change_row(self, actor: Any, obj: DocumentHost) -> bool:
        """A client of the host may act for a user with more rights."""
        return not objection_to_host(actor, obj)

    def save_model(
        self, request: HttpRequest, obj: DocumentHost, form: Any, change: bool
    ) -> None:
        """Save; a refused host ends the access of its clients."""
        super().save_model(request, obj, form, change)
        if not obj.trusted:
            end_access(self, request, obj.clients(), "host refused")


# The toolkit calls it an application; migrations ignore this label.
OAuthGrant._meta.get_field("application").verbose_name = _("client")


@admin.register(OAuthGrant)
class OAuthGrantAdmin(ReadOnlyAdmin[OAuthGrant]):
    """Authorization codes, pending and used; their hashes are not shown."""

    place = (Section.CLIENTS, 50)
    intro = _(
        "Authorization codes of sign-ins in progress. Only their hashes are stored."
    )
    nothing_yet = _(
        "No sign-ins are in progress. A code appears here while a client signs in."
    )
    list_display = ("user", "application", "scope", "created", "expires", "redeemed_at")
    fields = (*list_display, "redirect_uri", "family")
    search_fields = ("user__username", "application__name")


@admin.register(Consent)
class ConsentAdmin(ReadOnlyAdmin[Consent]):
    place = (Section.CLIENTS, 40)
    intro = _("Apps that users have approved. Users can revoke them in the portal.")
    nothing_yet = _("No consents yet. One appears here when a user allows an app.")
    list_display = ("user", "client", "scope", "redirect_host", "given_at")
    search_fields = ("user__username", "client__name", "client__client_id")
    linked_lookups = ("client__id__exact",)
