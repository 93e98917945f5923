"""Audits sign-ins by Django's signals, which every page and API sends."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import signals
from django.http import HttpRequest

from accounts.audit.record import record


def connect_sign_in_audit() -> None:
    signals.user_logged_in.connect(record_sign_in, dispatch_uid="portico-in")
    signals.user_logged_out.connect(record_sign_out, dispatch_uid="portico-out")
    signals.user_login_failed.connect(
        record_failed_sign_in, dispatch_uid="portico-failed"
    )


def record_sign_in(request: HttpRequest, user: Any, **kwargs: Any) -> None:
    record("user.signed_in", request=request, actor=user, object=user.username)


def record_sign_out(request: HttpRequest, user: Any, **kwargs: Any) -> None:
    if user is not None:
        record("user.signed_out", request=request, actor=user, object=user.username)


def record_failed_sign_in(
    credentials: dict[str, Any], request: HttpRequest | None = None, **kwargs: Any
) -> None:
    """Record the user name and the reason, never the password."""
    name = str(credentials.get("username", ""))
    locked = getattr(request, "axes_locked_out", False)
    factor = "second_factor" if "factor" in credentials else "credentials"
    reason = "locked_out" if locked else factor
    record("user.sign_in_failed", request=request, object=name, denied=reason)
