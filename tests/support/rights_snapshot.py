"""All rights as comparable words, and all rows as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import cache
from typing import Any

from allauth.usersessions.models import UserSession
from django.apps import apps
from django.core import serializers
from django.db import connection
from django.db.models import Count, Exists, Model, OuterRef, Q

from accounts.http.client_address import in_networks, split_networks
from accounts.models import (
    ClaimRule,
    IssuedToken,
    OAuthClient,
    RevokedToken,
    RoleAssignment,
    SigningKey,
    SignInProvider,
    User,
)
from mcp_bridge.models import Primitive

OWN_TRACES = (
    "auditevent",
    "auditseal",
    "audithead",
    "session",
    "logentry",
    "savedview",
    "clientsession",
    "sessionmessage",
    "accesslog",
    "usersession",
)
"""Tables written by reading, signing in and saving one's own links."""
TOKENS = ("issuedtoken", "revokedtoken", "permission")
DERIVED = ("change", "changecounter", "audithour", "usedassertion")
MOVING = ("last_login", "last_used_at", "last_used_from")
"""Columns that give no rights, and those written by using an account."""
PLACES = ("10.99.0.1", "127.0.0.1", "203.0.113.9", "2001:db8::1")
"""Client addresses for which rights and tokens are compared."""
TRUSTED = "accounts.change_issuedtoken"
"""A user with this permission may revoke tokens of all who do not administer."""
ADMINISTERS = {"flag is_superuser", "flag is_staff", "scope Admin.Write at 127.0.0.1"}


def network_addresses(networks: str) -> Iterator[str]:
    """The addresses that a column of networks contains."""
    yield from (
        a for a in PLACES if not networks or in_networks(a, split_networks(networks))
    )


class Rights:
    """The rights of all accounts, username -> words, read in a few queries."""

    def __init__(self, ends: Iterable[datetime] = ()) -> None:
        """`ends`: times at which a longer grant matters."""
        self.ends = [end for end in ends if end is not None]
        self.rules = list(Primitive.objects.prefetch_related("required_scopes"))
        self.found: dict[str, set[str]] = {}
        for user in User.objects.prefetch_related("groups"):
            self.found[user.username] = set(self.of_account(user))
        self.of_roles()
        self.of_clients()
        self.of_rules()

    def of_account(self, user: User) -> Iterator[str]:
        flags = ("is_superuser", "is_staff", "is_active")
        yield from (f"flag {flag}" for flag in flags if getattr(user, flag))
        yield from (f"group {group}" for group in user.groups.all())
        if user.is_staff and not user.is_superuser:
            yield from (f"admin {perm}" for perm in user.get_all_permissions())

    def of_roles(self) -> None:
        """Scopes with their networks and, where it matters, their end."""
        assignments = RoleAssignment.objects.unexpired()
        columns = ("user__username", "role__scopes__name", "role__networks")
        for name, scope, networks, end in assignments.values_list(
            *columns, "expires_at"
        ):
            words = {
                f"scope {scope} at {place}" for place in network_addresses(networks)
            }
            late = [e for e in self.ends if end is None or end > e]
            words |= {f"scope {scope} after {e}" for e in late}
            self.found[name] |= words if scope else set()

    def of_clients(self) -> None:
        clients = OAuthClient.objects.filter(blocked=False)
        for client in clients.exclude(service_account=None):
            words = {
                f"client {client} at {p}" for p in network_addresses(client.networks)
            }
            self.found[client.service_account.username] |= words

    def of_rules(self) -> None:
        """The primitives they may use at /mcp, and whether a token may."""
        for rule in self.rules:
            rules = {s.name for s in rule.required_scopes.all()} if rule.enabled else []
            told = {f"use {rule}"} | (
                set() if rule.sensitive else {f"use {rule} by any token"}
            )
            scopes = {f"scope {s} at {p}" for s in rules for p in PLACES}
            for words in self.found.values():
                if scopes & words:
                    words |= told


def rights() -> dict[str, set[str]]:
    return Rights().found


def open_access(names: Iterable[str]) -> dict[str, set[str]]:
    """Valid tokens and browser sessions of these users, with their networks."""
    found: dict[str, set[str]] = {name: set() for name in names}
    gone = SigningKey.objects.filter(kid=OuterRef("kid"), state="retired")
    clients = dict(OAuthClient.objects.values_list("client_id", "networks"))
    live = IssuedToken.objects.live().filter(~Exists(gone), username__in=found)
    columns = ("username", "jti", "client_id", "networks")
    for name, jti, client, networks in live.values_list(*columns):
        bound = set(network_addresses(networks)) & set(
            network_addresses(clients.get(client, ""))
        )
        found[name] |= {f"token {jti} at {place}" for place in bound}
    sessions = UserSession.objects.filter(user__username__in=found)
    for name, key in sessions.values_list("user__username", "pk"):
        found[name].add(f"session {key}")
    return found


def sign_in_methods() -> dict[str, str]:
    """Credentials of accounts: their own, their clients' and allauth's rows."""
    users = User.objects.all()
    credentials = {u.username: f"{u.password} {u.email} {u.is_active}" for u in users}
    clients = OAuthClient.objects.exclude(service_account=None)
    for client in clients.select_related("service_account"):
        secrets_text = f"{client.client_id} {client.client_secret} {client.client_jwks}"
        credentials[client.service_account.username] += f" {secrets_text}"
    for model in apps.get_models():
        if model.__module__.startswith("allauth.") and model is not UserSession:
            fields = {field.name for field in model._meta.get_fields()}
            if "user" in fields:
                rows: Any = model._default_manager.order_by("pk")
                for row in rows.select_related("user"):
                    credentials[row.user.username] += serializers.serialize(
                        "json", [row]
                    )
    return credentials


def providers() -> str:
    """Providers and the roles of their claims, which superusers set."""
    rows = [*SignInProvider.objects.order_by("pk"), *ClaimRule.objects.order_by("pk")]
    return str(serializers.serialize("json", rows))


class RightsMonitor:
    """What an actor must not change, compared in full once a row has changed.

    No rights may grow beyond the actor's, and users with rights that the actor lacks
    lose nothing: roles, tokens, sessions, factors, clients.
    """

    def __init__(self, actor: str, *people: str) -> None:
        """`people`: users whose tokens and sessions are compared; all if empty."""
        self.actor, self.people = actor, people
        own = RoleAssignment.objects.filter(user__username=actor).unexpired()
        ends = own.exclude(expires_at=None).values_list("expires_at", flat=True)
        self.ends = [end for end in ends if end is not None]
        self.before = Rights(self.ends).found
        mine = self.before[actor]
        self.above = {
            name
            for name, words in self.before.items()
            if name != actor and direct_rights(words) - mine
        }
        job = User.objects.get(username=actor).has_perm(TRUSTED)
        self.kept = {
            name for name in self.above if not job or ADMINISTERS & self.before[name]
        }
        self.commits = seen_commits()
        self.opened, self.rows = sign_in_methods(), decision_rows()
        self.access, self.providers = self.tokens(), providers()
        self.revoked = revocations()

    def tokens(self) -> dict[str, set[str]]:
        """Valid tokens and sessions of the compared users."""
        named = set(self.people) or set(self.before)
        return open_access(named)

    def check(self, what: str) -> None:
        """No user has more, no user above the actor has lost anything."""
        if (commits := seen_commits()) == self.commits:
            return
        rows, self.commits = decision_rows(), commits
        if rows != self.rows:
            self.rows = rows
            self.check_all(what)

    def check_all(self, what: str) -> None:
        """The same, whether rows have changed or not."""
        now = Rights(self.ends).found
        assert self.grown(now) == {}, what
        assert self.lost(now) == {}, what
        opened = sign_in_methods()
        changed = {n for n in self.above if opened.get(n) != self.opened[n]}
        assert changed == set(), what
        assert providers() == self.providers, what
        assert revocations() >= self.revoked, what
        self.check_access(what)

    def check_access(self, what: str) -> None:
        """Tokens: none has more networks, none of users above has ended."""
        access = self.tokens()
        for name, before in self.access.items():
            known = {word.split()[1] for word in before}
            wider = {w for w in access.get(name, ()) if w.split()[1] in known} - before
            assert wider == set(), what
            if name in self.kept:
                assert before - access.get(name, set()) == set(), what

    def grown(self, now: dict[str, set[str]]) -> dict[str, set[str]]:
        """New rights of any user beyond the actor's."""
        gave = self.before[self.actor]
        found = {
            name: words
            - self.before.get(name, set())
            - (gave if name != self.actor else set())
            for name, words in now.items()
        }
        return {name: more for name, more in found.items() if more - {"flag is_active"}}

    def lost(self, now: dict[str, set[str]]) -> dict[str, set[str]]:
        """Lost rights of users above; tools may be disabled for all."""
        found = {
            name: direct_rights(self.before[name]) - now.get(name, set())
            for name in self.above
        }
        return {name: less for name, less in found.items() if less}


def direct_rights(words: set[str]) -> set[str]:
    """The rights of a user; those of tools and tokens follow from them."""
    derived = {w for w in words if w.startswith("use ") or " after " in w}
    return words - derived


def revocations() -> set[str]:
    """Ids of revoked tokens: all must stay revoked."""
    return set(RevokedToken.objects.values_list("pk", flat=True))


def seen_commits() -> Any:
    """What another value of means that a row was written; on PostgreSQL always new."""
    if connection.vendor != "sqlite":
        return object()
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA data_version")
        return cursor.fetchone()[0], connection.connection.total_changes


@cache
def query_of(model: type[Model]) -> str:
    """All rows of its table, without what reading changes."""
    quote, columns = connection.ops.quote_name, model._meta.concrete_fields
    names = [quote(str(f.column)) for f in columns if f.name not in MOVING]
    key, table = quote(str(model._meta.pk.column)), quote(model._meta.db_table)
    return f"SELECT {', '.join(names)} FROM {table} ORDER BY {key}"  # noqa: S608


def raw_rows(models: Iterable[type[Model]]) -> list[list[tuple[Any, ...]]]:
    """Their rows as the database returns them: tests compare them after each request.

    Making objects or Python values of them would take forty times as long.
    """
    found = []
    with connection.cursor() as cursor:
        for model in models:
            cursor.execute(query_of(model))
            found.append(cursor.fetchall())
    return found


def decision_rows() -> list[Any]:
    """The relevant rows, in a few quick queries."""
    every = apps.get_models(include_auto_created=True)
    found: list[Any] = raw_rows(model for model in every if is_relevant(model))
    found.append(RevokedToken.objects.count())
    bound = Count("pk", filter=~Q(networks=""))
    found.append(IssuedToken.objects.aggregate(all=Count("pk"), bound=bound))
    found.append(list(UserSession.objects.order_by("pk").values_list("pk")))
    return found


def is_relevant(model: Any) -> bool:
    """Whether the table is about users, roles, rules or clients, not reading."""
    app, name = model._meta.app_label, model._meta.model_name
    if name in (*OWN_TRACES, *TOKENS, *DERIVED):
        return False
    return app in ("accounts", "auth", "mcp_bridge", "account", "mfa", "socialaccount")


def everything() -> list[Any]:
    """All rows, except those that reading changes."""
    models = apps.get_models(include_auto_created=True)
    return raw_rows(m for m in models if m._meta.model_name not in OWN_TRACES)
