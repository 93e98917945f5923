"""Browser sessions of users (allauth's UserSession rows), and how to end them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from allauth.usersessions.models import UserSession
from django.contrib.sessions.models import Session
from django.db import models
from django.db.models import Exists, OuterRef
from django.utils import timezone

from accounts.models.batches import Progress, delete_in_batches, unreported


def sessions_of(users: Any, keep: str = "") -> models.QuerySet[UserSession]:
    """Return unexpired sessions of these accounts (ids or a query of ids).

    `keep` is the stored key of a session to exclude: the reader's own.
    """
    alive = Session.objects.filter(expire_date__gt=timezone.now())
    sessions: models.QuerySet[UserSession] = UserSession.objects.filter(
        user_id__in=users, session_key__in=alive.values("pk")
    )
    return sessions.exclude(session_key=keep)


def end_sessions(sessions: models.QuerySet[UserSession]) -> list[Any]:
    """Delete the sessions; return the user of each, sorted by name."""
    rows = list(sessions.order_by("user__username").select_related("user"))
    Session.objects.filter(pk__in=[row.session_key for row in rows]).delete()
    UserSession.objects.filter(pk__in=[row.pk for row in rows]).delete()
    return [row.user for row in rows]


def purge_sessions(now: datetime, progress: Progress = unreported) -> int:
    """Delete expired sessions with their UserSession rows; return their number."""
    expired = Session.objects.filter(expire_date__lt=now)
    count = delete_in_batches(expired, "expire_date", progress)
    stored = Session.objects.filter(pk=OuterRef("session_key"))
    delete_in_batches(UserSession.objects.filter(~Exists(stored)), "pk")
    return count
