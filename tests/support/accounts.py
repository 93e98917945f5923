"""Roles with scopes, and a stopped clock."""

from __future__ import annotations

import time
from datetime import datetime, timedelta

import pytest
from django.utils import timezone

from accounts.models import Role, Scope

HOUR = timedelta(hours=1)


def role_of(name: str, *scopes: str, networks: str = "") -> Role:
    """A new role with these scopes, which are created if they do not exist."""
    role = Role.objects.create(name=name, networks=networks)
    role.scopes.set([Scope.objects.get_or_create(name=scope)[0] for scope in scopes])
    return role


def stop_clock(monkeypatch: pytest.MonkeyPatch, at: datetime | None = None) -> datetime:
    """Stop Django's clock and `time.time` at this moment (default: now)."""
    moment = at or timezone.now()
    monkeypatch.setattr(timezone, "now", lambda: moment)
    monkeypatch.setattr(time, "time", moment.timestamp)
    return moment
