"""oauthlib's request validator on Portico's tables.

OAuth 2.1 4.1, 7.5; RFC 7636; RFC 8252 7.3; RFC 8707.
"""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.utils import timezone
from oauth2_provider.oauth2_validators import OAuth2Validator
from oauthlib.oauth2.rfc6749 import errors

from accounts.authentication.lockout import CLIENT_PREFIX, limit_attempts
from accounts.crypto.secrets import code_hash
from accounts.errors import InvalidGrant
from accounts.models import AuditEvent, IssuedToken, OAuthClient, OAuthGrant
from accounts.oauth.clients.assertions import authenticate_assertion
from accounts.parsing.text import counted
from accounts.tokens.issue import lock


class PorticoValidator(OAuth2Validator):
    """Hashes codes, revokes the tokens of a replayed code, stores no bearer tokens."""

    def __init__(
        self,
        authenticated: OAuthClient | None = None,
        http_request: HttpRequest | None = None,
    ) -> None:
        """`authenticated` is a client that was authenticated before in this request.

        `http_request` is the request that the lock-out counts wrong secrets for.
        """
        self.authenticated, self.http_request = authenticated, http_request
        self.claimed_client_id = ""

    def _extract_basic_auth(self, request: Any) -> str | None:
        """Accept the scheme in any case (RFC 9110 11.1), unlike the toolkit."""
        scheme, _, value = str(
            request.headers.get("HTTP_AUTHORIZATION") or ""
        ).partition(" ")
        return value.strip() if scheme.lower() == "basic" and value.strip() else None

    def _authenticate_basic_auth(self, request: Any) -> bool:
        """Refuse values that are not ASCII, for which the toolkit raises ValueError."""
        sent = self._extract_basic_auth(request) or ""
        return sent.isascii() and bool(super()._authenticate_basic_auth(request))

    def client_authentication_required(self, request: Any, *a: Any, **k: Any) -> bool:
        """Also require authentication if the request contains an assertion."""
        if self.authenticated is not None:
            return True
        if getattr(request, "client_assertion", None):
            return True
        return bool(super().client_authentication_required(request, *a, **k))

    def authenticate_client(self, request: Any, *a: Any, **k: Any) -> bool:
        """Authenticate by assertion if the client has keys, else by its secret.

        Only a public client may send an empty secret.
        """
        if self.authenticated is not None:
            request.client = self.authenticated
            return True
        if getattr(request, "client_assertion", None):
            request.client = authenticate_assertion(request)
            return request.client is not None
        if not super().authenticate_client(request, *a, **k):
            return False
        client, stated = request.client, request.client_id
        if client.uses_private_key_jwt or stated not in (None, client.client_id):
            return False
        public = client.client_type == client.CLIENT_PUBLIC
        return bool(public or not super()._check_secret("", client.client_secret))

    def _check_secret(self, provided_secret: str, stored_secret: str) -> bool:
        """Count a wrong secret for this client and address. Raises RateLimited."""

        def compare() -> bool:
            return bool(
                super(PorticoValidator, self)._check_secret(
                    provided_secret, stored_secret
                )
            )

        if self.http_request is None or not provided_secret:
            return compare()
        return limit_attempts(
            self.http_request, f"{CLIENT_PREFIX}{self.claimed_client_id}", compare
        )

    def _load_application(self, client_id: str | None, request: Any) -> Any:
        """The usable client with this id.

        The toolkit would fetch metadata documents here, inside a transaction;
        `metadata_documents.refresh` fetches them earlier.
        """
        client = self.authenticated
        if client is None or client.client_id != client_id:
            # PostgreSQL cannot store NUL, so no client_id contains it.
            name = "" if "\x00" in (client_id or "") else client_id or ""
            client = OAuthClient.objects.filter(client_id=name).first()
        usable = client is not None and client.is_usable(request)
        request.client = client if usable else None
        self.claimed_client_id = client_id or ""
        return request.client

    def _create_authorization_code(
        self, request: Any, code: dict[str, Any], expires: Any = None
    ) -> Any:
        """Store the code's hash, and the digest that a revocation changes."""
        hashed = {**code, "code": code_hash(code["code"])}
        grant = super()._create_authorization_code(request, hashed, expires)
        grant.auth_digest = request.user.auth_digest
        grant.save(update_fields=["auth_digest"])
        return grant

    def validate_code(
        self, client_id: str, code: str, client: Any, request: Any, *a: Any, **k: Any
    ) -> bool:
        """Accept a code once, for an active account; a replay revokes its tokens.

        Locks client, account and grant until the caller's transaction ends.
        """
        rows = OAuthGrant.objects.filter(code=code_hash(code), application=client)
        owner = rows.values_list("user_id", flat=True).first()
        try:
            user = lock(owner or 0, client.client_id)
        except InvalidGrant:
            return False
        # Read again after the lock: a revocation meanwhile deleted the grant.
        grant = rows.select_for_update(of=("self",)).first()
        if grant is None:
            return False
        if grant.redeemed_at is not None:
            self.revoke_replayed(grant)
            return False
        if grant.is_expired() or not user.accepts_digest(grant.auth_digest):
            return False
        request.grant, request.user = grant, user
        request.scopes = grant.scope.split()
        return True

    def revoke_replayed(self, grant: OAuthGrant) -> None:
        """Revoke all tokens issued for the code (OAuth 2.1 4.1.3), and audit it."""
        family = IssuedToken.objects.filter(family=grant.family)
        revoked = family.revoke(actor=None, reason="authorization code replayed")
        event = AuditEvent(
            action="code.replayed",
            object=f"authorization code of {grant.user}"[:255],
            client_id=grant.application.client_id,
            reason=f"{counted(revoked, 'live token')} revoked",
        )
        event.about(grant.user).acted_by(grant.user).save()

    def get_code_challenge(self, code: str, request: Any) -> str | None:
        """The challenge of the grant that `validate_code` set."""
        return request.grant.code_challenge or None

    def get_code_challenge_method(self, code: str, request: Any) -> str | None:
        """The method of the grant that `validate_code` set."""
        return request.grant.code_challenge_method or None

    def get_default_redirect_uri(
        self, client_id: str, request: Any, *args: Any, **kwargs: Any
    ) -> str:
        """The grant's URI: a token request may omit it (OAuth 2.1 10.2)."""
        grant = getattr(request, "grant", None)
        if grant is not None:
            return str(grant.redirect_uri)
        return str(super().get_default_redirect_uri(client_id, request))

    def confirm_redirect_uri(
        self,
        client_id: str,
        code: str,
        redirect_uri: str,
        client: Any,
        *args: Any,
        **kwargs: Any,
    ) -> bool:
        """Require the URI of the authorization request. Raises InvalidGrantError."""
        grant = OAuthGrant.objects.get(code=code_hash(code), application=client)
        if redirect_uri != grant.redirect_uri:
            text = "The authorization request had another redirect_uri."
            raise errors.InvalidGrantError(text)
        return True

    def invalidate_authorization_code(
        self, client_id: str, code: str, request: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Mark the grant as redeemed; the row stays, so that a replay is detected."""
        unused = OAuthGrant.objects.filter(pk=request.grant.pk, redeemed_at=None)
        if not unused.update(redeemed_at=timezone.now()):
            raise errors.InvalidGrantError(request=request)
        request.client.update_last_used()

    def get_authorization_code_scopes(
        self, client_id: str, code: str, redirect_uri: str, request: Any
    ) -> list[str]:
        """The scopes of the grant that `validate_code` set."""
        return list(request.scopes)

    def save_bearer_token(self, token: Any, request: Any, *a: Any, **k: Any) -> None:
        """Store nothing: the token generator stored the IssuedToken rows."""
