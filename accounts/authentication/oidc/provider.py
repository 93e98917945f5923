"""OpenID Connect as a client: allauth's adapter and provider, with more refused.

OpenID Connect Core 1.0 2, 3.1.3.7, 5.3.2; OpenID Connect Discovery 1.0 4.3.
"""

from __future__ import annotations

import unicodedata
from typing import Any

import jwt
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
from django.http import Http404, HttpRequest

from accounts.authentication.oidc.account_linking import verified_address

MAX_SUB_LENGTH = 191
"""The width of SocialAccount.uid; OpenID Connect allows 255 ASCII characters."""
PROFILE_CLAIMS = {
    "name": "name",
    "first_name": "given_name",
    "last_name": "family_name",
}
"""Our name for a claim that is only shown -> the claim."""


class OIDCAdapter(OpenIDConnectOAuth2Adapter):
    """Checks what allauth leaves out before anybody is looked up."""

    @property
    def openid_config(self) -> Any:
        """The discovery document. Raises OAuth2Error if it is another issuer's."""
        config = super().openid_config
        configured = self.get_provider().app.settings["server_url"]
        if not isinstance(config, dict) or not same_issuer(
            config.get("issuer"), configured
        ):
            raise OAuth2Error("The discovery document names another issuer")
        return config

    def complete_login(
        self, request: HttpRequest, app: SocialApp, token: Any, **kwargs: Any
    ) -> Any:
        """The login of one person. Raises OAuth2Error where the documents disagree."""
        refuse_unsigned(kwargs["response"].get("id_token"))
        login = super().complete_login(request, app, token, **kwargs)
        told = login.account.extra_data
        if told["userinfo"].get("sub") != told["id_token"].get("sub"):
            raise OAuth2Error("UserInfo is about somebody else than the ID token")
        refuse_other_issuer(login.account)
        # allauth would look accounts up by these.
        login.email_addresses = []
        return login

    def _fetch_user_info(self, access_token: str) -> dict[str, Any]:
        found = super()._fetch_user_info(access_token)
        if not isinstance(found, dict):
            raise OAuth2Error("UserInfo is no JSON object")
        return found


class OIDCProvider(OpenIDConnectProvider):
    """Takes from the claims what has the right type, and an address once verified."""

    oauth2_adapter_class = OIDCAdapter

    def extract_uid(self, data: dict[str, Any]) -> str:
        """`sub`. Raises OAuth2Error."""
        sub = data["id_token"].get("sub")
        if not isinstance(sub, str) or not 0 < len(sub) <= MAX_SUB_LENGTH:
            raise OAuth2Error("The ID token has no sub")
        if not sub.isprintable():
            raise OAuth2Error("The sub has control characters")
        return sub

    def extract_common_fields(self, data: dict[str, Any]) -> dict[str, Any]:
        """What a new account is made of."""
        claims = {**data["id_token"], **data["userinfo"]}
        found = {
            ours: text_of(claims.get(name)) for ours, name in PROFILE_CLAIMS.items()
        }
        wanted = text_of(claims.get("preferred_username"))
        found["username"] = safe_username(wanted)
        found["email"] = verified_address(data)
        return found

    def extract_email_addresses(self, data: dict[str, Any]) -> list[Any]:
        """None: an account's address is in its own column."""
        return []


def text_of(claim: Any) -> str:
    """A claim that is a text of printable characters, or nothing."""
    return claim if isinstance(claim, str) and claim.isprintable() else ""


def safe_username(wanted: str) -> str:
    """The wanted name in its usual form; nothing if it mixes alphabets.

    A Cyrillic letter among Latin ones makes a name that looks like somebody else's.
    """
    name = unicodedata.normalize("NFKC", wanted)
    letters = [c for c in name if c.isalpha()]
    alphabets = {unicodedata.name(c, "?").partition(" ")[0] for c in letters}
    return "" if len(alphabets) > 1 else name


def same_issuer(one: Any, other: str) -> bool:
    """Issuers compared; an administrator may have pasted the whole address."""
    base = other.partition("/.well-known/")[0]
    return isinstance(one, str) and one.rstrip("/") == base.rstrip("/")


def refuse_unsigned(id_token: Any) -> None:
    """Raises OAuth2Error for no ID token, or one with alg none.

    TLS may stand in for the check of a signature (3.1.3.7), not for a signature.
    """
    try:
        header = jwt.get_unverified_header(id_token)
    except (jwt.PyJWTError, TypeError) as error:
        raise OAuth2Error("There is no readable ID token") from error
    if str(header.get("alg", "none")).lower() == "none":
        raise OAuth2Error("The ID token is not signed")


def refuse_other_issuer(account: SocialAccount) -> None:
    """Raises OAuth2Error where this `sub` was another issuer's before.

    A provider made again under an old short name has other people behind the same
    identifiers: `sub` is unique within its issuer only.
    """
    rows = SocialAccount.objects.filter(provider=account.provider, uid=account.uid)
    for known in rows:
        before = (known.extra_data.get("id_token") or {}).get("iss")
        if before and before != account.extra_data["id_token"]["iss"]:
            raise OAuth2Error("This identity was linked through another issuer")


def login(request: HttpRequest, provider_id: str) -> Any:
    """To the provider."""
    return run_allauth_view(OAuth2LoginView, request, provider_id)


def callback(request: HttpRequest, provider_id: str) -> Any:
    """Back from the provider."""
    return run_allauth_view(OAuth2CallbackView, request, provider_id)


def run_allauth_view(view: Any, request: HttpRequest, provider_id: str) -> Any:
    """allauth's view with our adapter. Raises Http404."""
    try:
        return view.adapter_view(OIDCAdapter(request, provider_id))(request)
    except SocialApp.DoesNotExist as error:
        raise Http404 from error
