"""Links an identity of a sign-in provider to an account by email address.

OpenID Connect Core 1.0 5.7: an address may pass to another person. It therefore links
at the first sign-in only, and only if an administrator set it on exactly one account.
"""

from __future__ import annotations

from typing import Any

from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import transaction
from django.http import HttpRequest
from django.utils.translation import gettext as _

from accounts.audit.record import record
from accounts.models import SignInProvider, User


class LinkRefused(Exception):
    """The sign-in is refused; the text is for the user, `reason` for the audit."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def verified_address(documents: dict[str, Any]) -> str:
    """The address that the provider has verified, in lower case; empty if none.

    `email` and `email_verified` must be in one document: UserInfo if it has an address,
    else the ID token. Only JSON true counts, because the string "false" is truthy.
    """
    userinfo = documents.get("userinfo") or {}
    id_token = documents.get("id_token") or {}
    claims = userinfo if "email" in userinfo else id_token
    address = claims.get("email")
    if claims.get("email_verified") is not True or not isinstance(address, str):
        return ""
    try:
        validate_email(address)
    except ValidationError:
        return ""
    return address.lower()[:254]


def account_for(row: SignInProvider, documents: dict[str, Any]) -> User | None:
    """The account to link; None if no account has the address. Raises LinkRefused."""
    address = verified_address(documents)
    if not row.link_by_email or not address:
        return None
    users: list[User] = User.objects.with_admin_set_email(address)
    active = [user for user in users if user.is_active]
    if len(active) > 1:
        text = _("Several accounts use your email address. Ask your administrator.")
        raise LinkRefused("several_accounts", text)
    if users and not active:
        text = _(
            "The account with your email address is deactivated. Ask "
            "your administrator."
        )
        raise LinkRefused("account_closed", text)
    for user in active:
        refuse_unlinkable(row, user)
        return user
    return None


def refuse_unlinkable(row: SignInProvider, user: User) -> None:
    """Raise LinkRefused for accounts that must not be linked by address.

    Staff are refused: an attacker who can set addresses at the provider would
    administer Portico.
    """
    if user.is_staff or user.is_superuser:
        text = _(
            "Your account administers Portico, so an email address "
            "cannot link to it. Sign in with your password."
        )
        raise LinkRefused("staff", text)
    if user.is_service_account:
        text = _(
            "The account with your email address is a service account. "
            "Ask your administrator."
        )
        raise LinkRefused("service_account", text)
    refuse_second_identity(row, user)


def refuse_second_identity(row: SignInProvider, user: User) -> None:
    """Raise LinkRefused if the account has another identity at this provider.

    Otherwise the next owner of the address would get the account.
    """
    if SocialAccount.objects.filter(user=user, provider=row.slug).exists():
        text = _(
            "The account with your email address is linked to another "
            "identity at %s. Ask your administrator to unlink it."
        )
        raise LinkRefused("other_identity", text % row.name)


def link(request: HttpRequest, row: SignInProvider, account: SocialAccount) -> bool:
    """Link the identity to its account; False if no account has the address.

    Locks the account and revokes its previous access in one transaction, because an
    attacker may have prepared the account. Raises LinkRefused.
    """
    with transaction.atomic():
        user = account_for(row, account.extra_data)
        if user is None:
            return False
        user = User.objects.select_for_update().get(pk=user.pk)
        refuse_unlinkable(row, user)
        revoke_previous_access(user, row)
        account.user = user
        account.save()
        record(
            "user.linked",
            request=request,
            actor=user,
            object=user,
            reason=f"at provider {row.slug}",
        )
    return True


def revoke_previous_access(user: User, row: SignInProvider) -> None:
    """Revoke tokens, sessions and consents; delete password, factors and identities."""
    reason = f"linked {row.reason}"
    user.set_unusable_password()
    user.save(update_fields=["password"])
    # On this instance: the new session uses the session epoch that it has afterwards.
    user.revoke_tokens(actor=None, reason=reason)
    Authenticator.objects.filter(user=user).delete()
    for other in SocialAccount.objects.filter(user=user):
        if not has_same_verified_address(other, user.email):
            other.delete()


def has_same_verified_address(other: SocialAccount, address: str) -> bool:
    """Whether another enabled provider that links by address verified it too."""
    linking = SignInProvider.objects.filter(
        slug=other.provider, enabled=True, link_by_email=True
    )
    return verified_address(other.extra_data) == address and linking.exists()


def unlink(request: HttpRequest, account: SocialAccount, actor: Any) -> None:
    """Record that an identity is unlinked, and remove the roles from its claims."""
    about, user = f"at provider {account.provider}", account.user
    record("user.unlinked", request=request, actor=actor, object=user, reason=about)
    for row in SignInProvider.objects.filter(slug=account.provider):
        row.apply(user, {}, keep=request)
