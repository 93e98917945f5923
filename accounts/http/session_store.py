"""Browser sessions: the cookie holds the key, the database only its hash.

Rows in a list, a query or a backup therefore reveal no cookie. The rows of allauth's
UserSession, which list where people are signed in, hold the same hash.
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
    """Return the first 40 hex digits of the key's SHA-256; the column holds no more.

    A key has 165 random bits, so it needs no salt and no slow hash.
    """
    return hashlib.sha256(raw.encode()).hexdigest()[:40]


class SessionStore(db.SessionStore):
    """Django's store with hashed keys; it updates UserSession rows, too."""

    def row_key(self, raw: str) -> str:
        """Return the key of the session's row."""
        return stored_key(raw)

    @property
    def key_salt(self) -> str:
        """Keep Django's salt, so that `Session.get_decoded` can read the rows."""
        return "django.contrib.sessions.SessionStore"

    def _get_session_from_db(self) -> Session | None:
        rows = Session.objects.filter(expire_date__gt=timezone.now())
        row = rows.filter(pk=self.row_key(self.session_key or "")).first()
        if row is None:
            self._session_key = None
        return row

    def exists(self, session_key: str) -> bool:
        return super().exists(self.row_key(session_key))

    def create_model_instance(self, data: dict[str, Any]) -> Any:
        row = super().create_model_instance(data)
        row.session_key = self.row_key(row.session_key)
        return row

    def cycle_key(self) -> None:
        """Change the key of the session and of its UserSession row."""
        data, before = dict(self.items()), self.session_key
        self.create()
        self.update(data)
        if before:
            self.user_sessions(before).update(
                session_key=self.row_key(self.session_key or "")
            )
            self.delete(before)

    async def acycle_key(self) -> None:
        data, before = dict(await self.aitems()), self.session_key
        await self.acreate()
        await self.aupdate(data)
        if before:
            key = self.row_key(self.session_key or "")
            await self.user_sessions(before).aupdate(session_key=key)
            await self.adelete(before)

    def user_sessions(self, raw: str) -> QuerySet[UserSession]:
        """Return the UserSession row of this key, as a queryset."""
        rows: QuerySet[UserSession] = UserSession.objects.filter(
            session_key=self.row_key(raw)
        )
        return rows

    def delete(self, session_key: str | None = None) -> None:
        """Delete the session and its UserSession row."""
        raw = session_key or self.session_key
        if raw is not None:
            self.user_sessions(raw).delete()
            super().delete(self.row_key(raw))

    @classmethod
    def clear_expired(cls) -> None:
        """Delete expired sessions and their UserSession rows."""
        super().clear_expired()
        alive = Session.objects.values("pk")
        UserSession.objects.exclude(session_key__in=alive).delete()

    # The async methods of db.SessionStore would bypass the methods above.
    aexists = SessionBase.aexists
    acreate = SessionBase.acreate
    aload = SessionBase.aload
    asave = SessionBase.asave
    adelete = SessionBase.adelete
    aclear_expired = SessionBase.aclear_expired


class StoredKeySession(SessionStore):
    """A session found by the stored hash of its key instead of by a cookie."""

    def row_key(self, raw: str) -> str:
        """Return `raw`, which is a hash already."""
        return raw

    def cycle_key(self) -> None:
        """Do nothing: reading a session must not invalidate its cookie."""


def current_key(request: HttpRequest | None) -> str:
    """Return the stored key of the request's session; empty without one."""
    raw = request.session.session_key if request is not None else None
    return stored_key(raw) if raw else ""


def create_from_request(manager: Any, request: HttpRequest) -> None:
    """UserSessionManager method: add the row of a user who has just signed in."""
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
    """UserSession method: whether the current request belongs to this session."""
    return bool(row.session_key == current_key(context.request))


def end_browser_session(row: UserSession) -> None:
    """UserSession method: sign that browser out."""
    StoredKeySession().delete(row.session_key)


def install_session_hashing() -> None:
    """Patch allauth, which expects plain keys; a test compares the signatures."""
    replacements: dict[tuple[type[Any], str], Any] = {
        (UserSessionManager, "create_from_request"): create_from_request,
        (UserSession, "is_current"): is_current,
        (UserSession, "end"): end_browser_session,
        (UserSession, "_session_store"): lambda _row, *key: StoredKeySession(*key),
    }
    for (owner, name), replacement in replacements.items():
        setattr(owner, name, replacement)
