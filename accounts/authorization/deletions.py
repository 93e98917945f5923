"""Revokes the access of an account or a client before it is deleted.

Uses Django's signals, because cascades and `QuerySet.delete` call no model method.
Admin pages revoke before they delete, so that the audit names the actor.
"""

from __future__ import annotations

from typing import Any

from django.db.models.signals import pre_delete

from accounts.models import OAuthClient, User
from accounts.models.audit.origins import current_actor


def connect_deletions() -> None:
    pre_delete.connect(
        revoke_account_access, sender=User, dispatch_uid="portico-account"
    )
    pre_delete.connect(
        revoke_client_access, sender=OAuthClient, dispatch_uid="portico-client"
    )


def revoke_account_access(instance: User, **kwargs: Any) -> None:
    """Revoke the account's tokens: their rows stay when the account is deleted."""
    same = User.objects.filter(pk=instance.pk)
    same.revoke_all_sessions(actor=current_actor(), reason="account deleted")


def revoke_client_access(instance: OAuthClient, **kwargs: Any) -> None:
    """Revoke the client's tokens, or a new client with the same id revives them."""
    same = OAuthClient.objects.filter(pk=instance.pk)
    same.end_access(actor=current_actor(), reason="client deleted")
