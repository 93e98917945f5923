"""Who may invite a person, with which roles, and until when a link works."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils.translation import gettext as _

from accounts.audit.record import record
from accounts.authorization.delegation import (
    NotAllowed,
    objection_to_granting,
    outranks,
)
from accounts.models import Role, RoleAssignment, User
from accounts.models.onboarding.invitations import Invitation, InvitationState

REASON = "invited"
BATCH = 200

Issued = tuple[Invitation, str]
"""An invitation and its token, which exists nowhere else."""


class InvitationOver(Exception):
    """The link was used, withdrawn or replaced, or it expired."""


def invitation_url(raw: str) -> str:
    return f"{settings.ISSUER_URL}/accounts/invitation/{raw}/"


def can_sign_in(user: User) -> bool:
    """Whether the account has a password, a passkey or an account at a provider."""
    passkeys = Authenticator.objects.filter(type=Authenticator.Type.WEBAUTHN)
    # Django calls an empty column usable, but no password matches it.
    return bool(
        (user.password and user.has_usable_password())
        or passkeys.filter(user_id=user.pk).exists()
        or SocialAccount.objects.filter(user_id=user.pk).exists()
    )


def objection_to_inviting(actor: User | str, user: User) -> str:
    """Why `actor` may not make a link for this account; empty if allowed.

    The link makes its holder this user, so it needs the rights to change the account.
    """
    if user.is_service_account:
        return _("%s is a service account. It signs in with client credentials.") % user
    if not user.is_active:
        return _("%s is not active. Activate the account first.") % user
    if can_sign_in(user):
        return _("%s can sign in already and needs no invitation.") % user
    if not isinstance(actor, str) and outranks(actor, user):
        return _("%s has more permissions than you. Ask a superuser.") % user
    return ""


def objection_to_roles(
    actor: User | str, user: User, roles: Iterable[Role], until: datetime | None
) -> str:
    """Why `actor` may not give all of `roles`; empty if allowed."""
    if isinstance(actor, str):
        return ""
    texts = (objection_to_granting(actor, user, role, until) for role in roles)
    return next(filter(None, texts), "")


@transaction.atomic
def invite(
    user: User, roles: Iterable[Role], until: datetime | None, *, actor: User | str
) -> Issued:
    """Add the account if it is new, grant the roles, and issue a link.

    Raises NotAllowed.
    """
    roles, new = list(roles), user.pk is None
    text = objection_to_inviting(actor, user)
    text = text or objection_to_roles(actor, user, roles, until)
    if text:
        raise NotAllowed(text)
    if new:
        add_account(user, actor)
    for role in roles:
        give_role(user, role, until, actor=actor, reason=REASON)
    return Invitation.objects.issue(user, actor=actor, made_account=new)


def add_account(user: User, actor: User | str) -> None:
    """Save the account without a password. Raises NotAllowed if its name is taken."""
    user.set_unusable_password()
    try:
        with transaction.atomic():
            user.save()
    except IntegrityError as error:
        text = _("A user %s exists already. Choose a name that differs more.")
        raise NotAllowed(text % user) from error
    record("user.added", actor=actor, object=user)


def give_role(
    user: User,
    role: Role,
    until: datetime | None,
    *,
    actor: User | str,
    reason: str = "",
) -> RoleAssignment:
    """Grant the role until then; an assignment that lasts longer stays unchanged."""
    current = RoleAssignment.objects.filter(user=user, role=role).first()
    if current is not None and current.lasts_until(until):
        return current
    granter = None if isinstance(actor, str) else actor
    assignment, is_new = RoleAssignment.objects.grant(
        user, role, granted_by=granter, reason=reason, expires_at=until
    )
    verb = "role.granted" if is_new else "role.extended"
    before = str(current.expires_at or "") if current else ""
    ends = {"expires_at": [before, str(until or "")]}
    record(verb, actor=actor, object=assignment, reason=reason, changes=ends)
    return assignment


def invite_imported(names: Sequence[str], *, actor: User | str) -> Iterator[Issued]:
    """Invite those of these accounts that cannot sign in and have no link that works.

    Commits each invitation, as the caller takes it.
    """
    for start in range(0, len(names), BATCH):
        pending = Invitation.objects.all().in_state(InvitationState.PENDING)
        users = User.objects.filter(username__in=names[start : start + BATCH])
        for user in users.exclude(pk__in=pending.values("user")):
            if not objection_to_inviting(actor, user):
                yield Invitation.objects.issue(user, actor=actor)


def withdraw_invitation(row: Invitation, *, actor: User | str) -> bool:
    """End the link. Also deactivate an account that was added for it and never used.

    Otherwise the person could ask for a password mail. Returns whether it did.
    """
    user, reason = row.user, "invitation withdrawn"
    unused = row.made_account and user.last_login is None and not can_sign_in(user)
    with transaction.atomic():
        Invitation.objects.filter(pk=row.pk).withdraw(actor=actor, reason=reason)
        account = User.objects.filter(pk=user.pk)
        if not unused or not account.deactivate(actor=actor, reason=reason):
            return False
        record("user.deactivated", actor=actor, object=user, reason=reason)
        return True


def usable_invitation(hashed: str) -> Invitation | None:
    """The invitation for this hash of a token, if the inviter may still invite.

    Who made the link could have kept it. It must not outlive their rights, nor serve
    for an account that has got more rights than theirs.
    """
    row = Invitation.objects.all().with_token_hash(hashed)
    if row is None:
        return None
    actor = row.invited_by
    if row.by_command:
        return None if objection_to_inviting(row.inviter, row.user) else row
    if actor is None or not (actor.is_active and actor.is_staff):
        return None
    return None if objection_to_inviting(actor, row.user) else row


def accept_invitation(hashed: str, address: str) -> User:
    """Use the link once; the caller stores a password or passkey and commits.

    Locks the account, as ending its access does. Raises InvitationOver.
    """
    row = Invitation.objects.all().with_token_hash(hashed)
    if row is not None:
        User.objects.filter(pk=row.user_id).lock_rows()
        row = usable_invitation(hashed)
    if row is None or not row.claim(address):
        raise InvitationOver
    return row.user
