"""OpenID Connect relying party: allauth's adapter and provider with stricter checks.

OpenID Connect Core 1.0 2, 3.1.3.7, 5.3.2; OpenID Connect Discovery 1.0 4.3.
"""

from __future__ import annotations

import unicodedata
from typing import Any

import jwt
from allauth.socialaccount.internal import jwtkit
from allauth.socialaccount.models import SocialAccount, SocialApp
from allauth.socialaccount.providers.oauth2.client import OAuth2Error
from allauth.socialaccount.providers.oauth2.views import (
    OAuth2CallbackView,
    OAuth2LoginView,
)
from allauth.socialaccount.providers.openid_connect.provider import (
    OpenIDConnectProvider,
)
from allauth.socialaccount.providers.openid_connect.views import (
    OpenIDConnectOAuth2Adapter,
)
from django.conf import settings
from django.http import Http404, HttpRequest

from accounts.authentication.oidc.account_linking import verified_address

MAX_SUB_LENGTH = 191
"""The width of SocialAccount.uid; OpenID Connect allows 255 ASCII characters."""
PROFILE_CLAIMS = {
    "name": "name",
    "first_name": "given_name",
    "last_name": "family_name",
}
"""allauth's field -> OpenID Connect claim, for values that are only displayed."""


class OIDCAdapter(OpenIDConnectOAuth2Adapter):
    """Adds checks that allauth omits, before it looks an account up."""

    @property
    def openid_config(self) -> Any:
        """The discovery document. Raises OAuth2Error if its issuer differs."""
        try:
            config = super().openid_config
        except AttributeError as error:  # allauth calls a method of an object
            text = "The discovery document is not a JSON object"
            raise OAuth2Error(text) from error
        configured = self.get_provider().app.settings["server_url"]
        if not same_issuer(config.get("issuer"), configured):
            raise OAuth2Error("The discovery document names another issuer")
        return config

    def complete_login(
        self, request: HttpRequest, app: SocialApp, token: Any, **kwargs: Any
    ) -> Any:
        """Raises OAuth2Error if UserInfo, ID token and stored identity do not match."""
        refuse_unsigned(kwargs["response"].get("id_token"))
        login = super().complete_login(request, app, token, **kwargs)
        documents = login.account.extra_data
        if documents["userinfo"].get("sub") != documents["id_token"].get("sub"):
            raise OAuth2Error("UserInfo and the ID token have different sub values")
        refuse_other_issuer(login.account)
        # Otherwise allauth looks accounts up by these addresses.
        login.email_addresses = []
        return login

    def _decode_id_token(self, app: SocialApp, id_token: str) -> Any:
        """The claims, with CLOCK_LEEWAY for `exp`. Raises OAuth2Error.

        The signature is not verified: the token came over TLS from the provider itself
        (3.1.3.7). allauth has no setting for a leeway.
        """
        try:
            claims = jwt.decode(
                id_token,
                options={
                    "verify_signature": False,
                    "verify_iss": True,
                    "verify_aud": True,
                    "verify_exp": True,
                },
                issuer=self.openid_config["issuer"],
                audience=app.client_id,
                leeway=settings.CLOCK_LEEWAY,
            )
        except (jwt.PyJWTError, OverflowError) as error:
            raise OAuth2Error("Invalid id_token") from error
        jwtkit.verify_jti(claims)
        return claims

    def _fetch_user_info(self, access_token: str) -> dict[str, Any]:
        userinfo = super()._fetch_user_info(access_token)
        if not isinstance(userinfo, dict):
            raise OAuth2Error("UserInfo is not a JSON object")
        return userinfo


class OIDCProvider(OpenIDConnectProvider):
    """Accepts claims of the right type only, and the address only if verified."""

    oauth2_adapter_class = OIDCAdapter

    def extract_uid(self, data: dict[str, Any]) -> str:
        """The `sub` claim. Raises OAuth2Error."""
        sub = data["id_token"].get("sub")
        if not isinstance(sub, str) or not 0 < len(sub) <= MAX_SUB_LENGTH:
            raise OAuth2Error(
                f"The sub is not text of 1 to {MAX_SUB_LENGTH} characters"
            )
        if not sub.isprintable():
            raise OAuth2Error("The sub has control characters")
        return sub

    def extract_common_fields(self, data: dict[str, Any]) -> dict[str, Any]:
        """The fields of a new account."""
        claims = {**data["id_token"], **data["userinfo"]}
        fields = {
            ours: text_of(claims.get(name)) for ours, name in PROFILE_CLAIMS.items()
        }
        preferred = text_of(claims.get("preferred_username"))
        fields["username"] = safe_username(preferred)
        fields["email"] = verified_address(data)
        return fields

    def extract_email_addresses(self, data: dict[str, Any]) -> list[Any]:
        """Return nothing: User.email stores the address, not allauth's EmailAddress."""
        return []


def text_of(claim: Any) -> str:
    """The claim if it is printable text, else empty."""
    return claim if isinstance(claim, str) and claim.isprintable() else ""


def safe_username(preferred: str) -> str:
    """The name in NFKC; empty if it mixes alphabets.

    A Cyrillic letter among Latin ones makes a name that imitates another user's.
    """
    name = unicodedata.normalize("NFKC", preferred)
    letters = [c for c in name if c.isalpha()]
    alphabets = {unicodedata.name(c, "?").partition(" ")[0] for c in letters}
    return "" if len(alphabets) > 1 else name


def same_issuer(one: Any, other: str) -> bool:
    """Compare issuers; `other` may be the URL of the discovery document."""
    base = other.partition("/.well-known/")[0]
    return isinstance(one, str) and one.rstrip("/") == base.rstrip("/")


def refuse_unsigned(id_token: Any) -> None:
    """Raise OAuth2Error if the ID token is missing or has alg none.

    TLS may replace the validation of the signature (3.1.3.7), but not the signature.
    """
    try:
        header = jwt.get_unverified_header(id_token)
    except (jwt.PyJWTError, TypeError) as error:
        raise OAuth2Error("The ID token is missing or malformed") from error
    if str(header.get("alg", "none")).lower() == "none":
        raise OAuth2Error("The ID token is not signed")


def refuse_other_issuer(account: SocialAccount) -> None:
    """Raise OAuth2Error if this identity was linked with another issuer before.

    `sub` is unique per issuer only. A provider that was created again with the same
    short name may assign the same `sub` to another user.
    """
    rows = SocialAccount.objects.filter(provider=account.provider, uid=account.uid)
    for row in rows:
        issuer = (row.extra_data.get("id_token") or {}).get("iss")
        if issuer and issuer != account.extra_data["id_token"]["iss"]:
            raise OAuth2Error("This identity was linked through another issuer")


def login(request: HttpRequest, provider_id: str) -> Any:
    """Redirect to the provider. Raises Http404 if it is unknown."""
    return run_allauth_view(OAuth2LoginView, request, provider_id)


def callback(request: HttpRequest, provider_id: str) -> Any:
    """Handle the redirect from the provider. Raises Http404 if it is unknown."""
    return run_allauth_view(OAuth2CallbackView, request, provider_id)


def run_allauth_view(view: Any, request: HttpRequest, provider_id: str) -> Any:
    """Run allauth's view with OIDCAdapter. Raises Http404."""
    try:
        return view.adapter_view(OIDCAdapter(request, provider_id))(request)
    except SocialApp.DoesNotExist as error:
        raise Http404 from error
