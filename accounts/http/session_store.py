"""Browser sessions: the cookie holds the key, the database only its hash.

What a list, a query or a backup shows of a session is therefore no cookie. allauth's
UserSession rows, the list of where people are signed in, hold the same hash.
"""

from __future__ import annotations

import hashlib
from typing import Any

from allauth.account.adapter import get_adapter
from allauth.core import context
from allauth.usersessions.models import UserSession, UserSessionManager
from django.contrib.sessions.backends import db
from django.contrib.sessions.backends.base import SessionBase
from django.contrib.sessions.models import Session
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone


def stored_key(raw: str) -> str:
    """What is kept of a session key: as much of its SHA-256 as the column takes.

    A key has 165 random bits, so it needs no salt and no slow hash.
    """
    return hashlib.sha256(raw.encode()).hexdigest()[:40]


class SessionStore(db.SessionStore):
    """Django's own; keys are hashed, and UserSession rows follow their sessions."""

    def stored(self, raw: str) -> str:
        """The key of the row."""
        return stored_key(raw)

    @property
    def key_salt(self) -> str:
        """As Django's, so that `Session.get_decoded` reads the rows."""
        return "django.contrib.sessions.SessionStore"

    def _get_session_from_db(self) -> Session | None:
        rows = Session.objects.filter(expire_date__gt=timezone.now())
        row = rows.filter(pk=self.stored(self.session_key or "")).first()
        if row is None:
            self._session_key = None
        return row

    def exists(self, session_key: str) -> bool:
        """Whether there is a session of this key."""
        return super().exists(self.stored(session_key))

    def create_model_instance(self, data: dict[str, Any]) -> Any:
        """The row to save."""
        row = super().create_model_instance(data)
        row.session_key = self.stored(row.session_key)
        return row

    def cycle_key(self) -> None:
        """As Django's. The row in the list moves along: it would be lost otherwise."""
        data, before = dict(self.items()), self.session_key
        self.create()
        self.update(data)
        if before:
            self.listed(before).update(session_key=self.stored(self.session_key or ""))
            self.delete(before)

    async def acycle_key(self) -> None:
        """The same for asynchronous callers."""
        data, before = dict(await self.aitems()), self.session_key
        await self.acreate()
        await self.aupdate(data)
        if before:
            key = self.stored(self.session_key or "")
            await self.listed(before).aupdate(session_key=key)
            await self.adelete(before)

    def listed(self, raw: str) -> QuerySet[UserSession]:
        """Its row in the list."""
        rows: QuerySet[UserSession] = UserSession.objects.filter(
            session_key=self.stored(raw)
        )
        return rows

    def delete(self, session_key: str | None = None) -> None:
        """Drop the session and its row in the list."""
        raw = session_key or self.session_key
        if raw is not None:
            self.listed(raw).delete()
            super().delete(self.stored(raw))

    @classmethod
    def clear_expired(cls) -> None:
        """Drop what ran out, in the list too."""
        super().clear_expired()
        alive = Session.objects.values("pk")
        UserSession.objects.exclude(session_key__in=alive).delete()

    # Django's twins of these for asynchronous callers would go past the methods above.
    aexists = SessionBase.aexists
    acreate = SessionBase.acreate
    aload = SessionBase.aload
    asave = SessionBase.asave
    adelete = SessionBase.adelete
    aclear_expired = SessionBase.aclear_expired


class StoredKeySession(SessionStore):
    """A session by what its row in the list holds of the key, not by a cookie."""

    def stored(self, raw: str) -> str:
        """It is hashed already."""
        return raw

    def cycle_key(self) -> None:
        """Do nothing: looking at a session must not change what its cookie holds."""


def current_key(request: HttpRequest | None) -> str:
    """The stored key of the session a request came with, empty without one."""
    raw = request.session.session_key if request is not None else None
    return stored_key(raw) if raw else ""


def create_from_request(manager: Any, request: HttpRequest) -> None:
    """For UserSessionManager: list the session of somebody who has just signed in."""
    if not request.session.session_key:
        request.session.save()
    agent = request.META.get("HTTP_USER_AGENT", "")
    manager.update_or_create(
        session_key=current_key(request),
        defaults={
            "user": request.user,
            "ip": get_adapter().get_client_ip(request),
            "user_agent": agent[: UserSession._meta.get_field("user_agent").max_length],
            "last_seen_at": timezone.now(),
        },
    )


def is_current(row: UserSession) -> bool:
    """For UserSession: whether the request being answered came with it."""
    return bool(row.session_key == current_key(context.request))


def end(row: UserSession) -> None:
    """For UserSession: sign that browser out."""
    StoredKeySession().delete(row.session_key)


def install_session_hashing() -> None:
    """Put them in allauth's place, which knows no hashes; a test looks that it fits."""
    replaced: dict[tuple[type[Any], str], Any] = {
        (UserSessionManager, "create_from_request"): create_from_request,
        (UserSession, "is_current"): is_current,
        (UserSession, "end"): end,
        (UserSession, "_session_store"): lambda _row, *key: StoredKeySession(*key),
    }
    for (owner, name), ours in replaced.items():
        setattr(owner, name, ours)
