"""Linking an identity at a sign-in provider to an account by its mail address.

OpenID Connect Core 1.0 5.7: an address identifies nobody for ever, so it serves for
the first sign-in only, and only if an administrator gave it to exactly one account.
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
    """Nobody is signed in; the text is for the person, `reason` for the audit."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def verified_address(told: dict[str, Any]) -> str:
    """The address that the provider says it has verified, in lower case, or nothing.

    Address and claim come from one document: UserInfo where it has an address, else
    the ID token. "false" is a true string, so only JSON's true counts.
    """
    userinfo, id_token = told.get("userinfo") or {}, told.get("id_token") or {}
    claims = userinfo if "email" in userinfo else id_token
    address = claims.get("email")
    if claims.get("email_verified") is not True or not isinstance(address, str):
        return ""
    try:
        validate_email(address)
    except ValidationError:
        return ""
    return address.lower()[:254]


def account_for(row: SignInProvider, told: dict[str, Any]) -> User | None:
    """The one account to link, None if the address has none. Raises LinkRefused."""
    address = verified_address(told)
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
    """Raises LinkRefused for accounts that an address must not open.

    Staff: whoever can write addresses at the provider would administer Portico.
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
    """Raises LinkRefused where the account has an identity at this provider.

    An address that was given to somebody else must not give them the account too.
    """
    if SocialAccount.objects.filter(user=user, provider=row.slug).exists():
        text = _(
            "The account with your email address is linked to another "
            "identity at %s. Ask your administrator to unlink it."
        )
        raise LinkRefused("other_identity", text % row.name)


def link(request: HttpRequest, row: SignInProvider, account: SocialAccount) -> bool:
    """Give the identity its account for the first time; False if there is none.

    Whoever used the account before may have had it ready for this moment: all that
    opens it ends here, in one transaction. Raises LinkRefused.
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
            object=user.username,
            reason=f"at provider {row.slug}",
        )
    return True


def revoke_previous_access(user: User, row: SignInProvider) -> None:
    """Tokens, sessions, password, second factors, consents and other identities."""
    reason = f"linked {row.reason}"
    user.set_unusable_password()
    user.save(update_fields=["password"])
    # On the row itself: the session that follows is made of what it says afterwards.
    user.revoke_tokens(actor=None, reason=reason)
    Authenticator.objects.filter(user=user).delete()
    for other in SocialAccount.objects.filter(user=user):
        if not has_same_verified_address(other, user.email):
            other.delete()


def has_same_verified_address(other: SocialAccount, address: str) -> bool:
    """Whether another provider that links by address said the same of this person."""
    linking = SignInProvider.objects.filter(
        slug=other.provider, enabled=True, link_by_email=True
    )
    return verified_address(other.extra_data) == address and linking.exists()


def unlink(request: HttpRequest, account: SocialAccount, actor: Any) -> None:
    """Record that an identity is taken off its account; its roles go with it."""
    about, user = f"at provider {account.provider}", account.user
    record("user.unlinked", request=request, actor=actor, object=user, reason=about)
    for row in SignInProvider.objects.filter(slug=account.provider):
        row.apply(user, {}, keep=request)
