"""Deleting an account or a client ends its access first, however it is deleted.

Django's own signals, for cascades and `QuerySet.delete` call no method of a row. Who
deletes on a page is named by that page, which ends the access before.
"""

from __future__ import annotations

from typing import Any

from django.db.models.signals import pre_delete

from accounts.models import OAuthClient, User


def connect_deletions() -> None:
    """Listen to both models."""
    pre_delete.connect(end_account, sender=User, dispatch_uid="portico-account")
    pre_delete.connect(end_client, sender=OAuthClient, dispatch_uid="portico-client")


def end_account(instance: User, **kwargs: Any) -> None:
    """The list of tokens outlives the account: they are revoked in it."""
    same = User.objects.filter(pk=instance.pk)
    same.revoke_all_sessions(actor=None, reason="account deleted")


def end_client(instance: OAuthClient, **kwargs: Any) -> None:
    """A client of the same id may register again: no token must wait for it."""
    same = OAuthClient.objects.filter(pk=instance.pk)
    same.end_access(actor=None, reason="client deleted")
