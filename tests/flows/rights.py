"""What everybody may do, as sets that can be compared; and all rows, as text."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.core import serializers

from accounts.models import OAuthClient, User
from accounts.principal import roles_of
from mcp_bridge.models import Primitive

OWN_TRACES = (
    "auditevent",
    "auditseal",
    "session",
    "logentry",
    "savedview",
    "accesslog",
    "usersession",
)
"""What looking, signing in and keeping one's own links write."""
TOKENS = ("issuedtoken", "revokedtoken", "permission")
MOVING = ("last_login", "last_used_at", "last_used_from")
"""Many rows that give nobody more, and what using an account writes."""


def reach(user: User) -> set[str]:
    """Everything an account may do, as words that can be compared."""
    _roles, grants, _ends = roles_of(user.pk)
    found = {f"scope {name}" for name in grants}
    found |= {f"admin {perm}" for perm in user.get_all_permissions()}
    flags = ("is_superuser", "is_staff")
    found |= {f"flag {flag}" for flag in flags if getattr(user, flag)}
    rules = Primitive.objects.filter(
        enabled=True, required_scopes__name__in=list(grants)
    ).prefetch_related("required_scopes")
    found |= {f"use {p}" for p in rules}
    found |= {f"use {p} by any token" for p in rules if not p.sensitive}
    for client in OAuthClient.objects.filter(service_account=user):
        found.add(f"client {client.client_id}")
    return found


def rights() -> dict[str, set[str]]:
    """What everybody may do now."""
    return {user.username: reach(user) for user in User.objects.all()}


def secrets() -> dict[str, str]:
    """What carol's and other superusers' accounts are opened with."""
    above = User.objects.filter(is_superuser=True)
    held = {u.username: f"{u.password} {u.email} {u.username}" for u in above}
    clients = OAuthClient.objects.filter(service_account__in=above)
    held |= {c.client_id: str(c.client_secret) for c in clients}
    for model in apps.get_models():
        if model.__module__.startswith("allauth."):
            fields = {field.name for field in model._meta.get_fields()}
            if "user" in fields:
                rows = model._default_manager.filter(user__in=above).order_by("pk")
                held[model._meta.label] = str(serializers.serialize("python", rows))
    return held


def grown(before: dict[str, set[str]], actor: str) -> dict[str, set[str]]:
    """Rights that somebody has now and had not, beyond what the actor held."""
    now = rights()
    gave = before[actor]
    found = {
        name: now[name] - before.get(name, set()) - (gave if name != actor else set())
        for name in now
    }
    return {name: more for name, more in found.items() if more}


class Watch:
    """What an actor must not change: looked at in full where a row of it has moved."""

    def __init__(self, actor: str) -> None:
        self.actor = actor
        self.before, self.opened, self.rows = rights(), secrets(), deciding()

    def check(self, what: str) -> None:
        """Nobody's rights have grown, no superuser's way in has changed."""
        rows = deciding()
        if rows != self.rows:
            self.rows = rows
            self.check_all(what)

    def check_all(self, what: str) -> None:
        """The same, whether rows have moved or not."""
        assert grown(self.before, self.actor) == {}, what
        assert secrets() == self.opened, what


def deciding() -> list[list[Any]]:
    """The rows that `rights` and `secrets` read, in a few quick queries."""
    models = [m for m in apps.get_models(include_auto_created=True) if decides(m)]
    found = []
    for model in models:
        names = [f.attname for f in model._meta.concrete_fields]
        kept = [name for name in names if name not in MOVING]
        found.append(list(model._default_manager.order_by("pk").values_list(*kept)))
    return found


def decides(model: Any) -> bool:
    """Whether it is about people, roles, rules or clients, and no trace of looking."""
    app, name = model._meta.app_label, model._meta.model_name
    if name in (*OWN_TRACES, *TOKENS):
        return False
    return app in ("accounts", "auth", "mcp_bridge", "account", "mfa", "socialaccount")


def everything() -> str:
    """All rows but the traces of looking, as text."""
    kept = [m for m in apps.get_models() if m._meta.model_name not in OWN_TRACES]
    text = []
    for model in kept:
        rows = model._default_manager.order_by("pk")
        if model is User:
            rows = rows.defer("last_login")
        found = serializers.serialize("python", rows)
        for row in found:
            for moving in MOVING:
                row["fields"].pop(moving, None)
        text.append(str(found))
    return "\n".join(text)
