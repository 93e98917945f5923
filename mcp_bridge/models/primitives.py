"""Primitive: a row for each tool, resource, resource template or prompt."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from django.db import models, transaction
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from accounts.models import Scope
from accounts.models.roles import name_through
from mcp_bridge.models.definition_notices import notify_of_changes
from mcp_bridge.models.upstream_servers import UpstreamServer


class PrimitiveKind(models.TextChoices):
    """The MCP specification's kinds of server primitive."""

    TOOL = "tool", _("tool")
    RESOURCE = "resource", _("resource")
    RESOURCE_TEMPLATE = "resource_template", _("resource template")
    PROMPT = "prompt", _("prompt")


WITH_ARGUMENTS = (PrimitiveKind.TOOL, PrimitiveKind.PROMPT)
"""Kinds whose calls have arguments."""

SCOPE_PREFIX = {
    PrimitiveKind.TOOL: "tool",
    PrimitiveKind.RESOURCE: "resource",
    PrimitiveKind.RESOURCE_TEMPLATE: "resource",
    PrimitiveKind.PROMPT: "prompt",
}


class RecordedArguments(models.TextChoices):
    """What the audit records of the arguments of a call."""

    OFF = "off", _("nothing")
    NAMES = "names", _("names only")
    MASKED = "masked", _("names, and types and lengths of values")
    FULL = "full", _("names and values")


class DefinitionState(models.TextChoices):
    """What an administrator has to know about a definition."""

    ACCEPTED = "accepted", _("accepted")
    HELD = "held", _("held")
    """New; nobody sees it until it is accepted."""
    CHANGED = "changed", _("changed")
    """Clients see the accepted definition; the source offers another one."""
    GONE = "gone", _("gone")
    REJECTED = "rejected", _("rejected")
    UNUSABLE = "unusable", _("unusable")
    """The source offers something that cannot be served; `problem` says why."""


SERVED_STATES = (DefinitionState.ACCEPTED, DefinitionState.CHANGED)
"""States in which clients see the accepted definition."""


def own_scope(kind: str, name: str) -> str:
    """The scope for one primitive alone, such as `tool:whoami`."""
    return f"{SCOPE_PREFIX[PrimitiveKind(kind)]}:{name}"


@dataclass(frozen=True, slots=True)
class Offer:
    """A primitive that a source offers: the code, or an upstream server."""

    kind: str
    name: str
    title: str
    description: str
    scopes: tuple[str, ...]
    sensitive: bool
    definition: str
    """SHA-256 (hex) of everything that clients see of it."""
    shown: Mapping[str, Any] = field(default_factory=dict)
    """What clients see of it, in the wire form of the MCP specification."""
    upstream_name: str = ""
    """The upstream server's own name or URI; empty for code."""
    problem: str = ""
    """Why it cannot be served; empty if it can."""

    @property
    def own_scope(self) -> str:
        return own_scope(self.kind, self.name)

    @property
    def key(self) -> tuple[str, str]:
        return self.kind, self.name

    def unusable(self, problem: str) -> Offer:
        """The same offer with the reason why it cannot be served, and a free name."""
        mark = hashlib.sha256(
            f"{problem} {self.upstream_name} {self.definition}".encode()
        ).hexdigest()[:8]
        # So short that its own scope fits its column, too.
        return replace(self, name=f"{self.name[:230]}#{mark}", problem=problem)


class PrimitiveQuerySet(models.QuerySet["Primitive"]):
    """Sync with what one source offers: the code, or one upstream server."""

    def sync(
        self,
        offers: Iterable[Offer],
        upstream: UpstreamServer | None = None,
        *,
        hold: bool = False,
        cut: Collection[str] = (),
    ) -> dict[str, int]:
        """Add new offers, mark changed ones and those that are gone; count each.

        Only rows of this source are touched. Of the kinds in `cut` the source may offer
        more, so none of them is gone. An admin's access settings are never
        overwritten. With `hold`, new definitions wait until they are accepted, and so
        do changed ones of the code. Commits in one transaction.
        """
        counts = dict.fromkeys(("added", "changed", "vanished", "returned"), 0)
        changed = []
        with transaction.atomic():
            mine = self.filter(upstream=upstream).select_for_update()
            rows = {(row.kind, row.name): row for row in mine}
            offered = {offer.key: offer for offer in self._named(offers, upstream)}
            for key, offer in offered.items():
                row = rows.get(key)
                outcome = (
                    row.update_from(offer, hold=hold)
                    if row
                    else self._add(offer, upstream, hold=hold)
                )
                if outcome:
                    counts[outcome] += 1
                if outcome == "changed":
                    changed.append(offer.name)
            for key, row in rows.items():
                gone = key not in offered and key[0] not in cut
                if gone and row.state != DefinitionState.GONE:
                    row.mark_vanished()
                    counts["vanished"] += 1
            notify_of_changes(changed, upstream)
        return counts

    def _named(
        self, offers: Iterable[Offer], upstream: UpstreamServer | None
    ) -> Iterator[Offer]:
        """The offers; one whose name is taken gets another name and the reason."""
        others = self.exclude(upstream=upstream) if upstream else self.none()
        taken = {(row.kind, row.name): row for row in others.select_related("upstream")}
        seen: set[tuple[str, str]] = set()
        for offer in offers:
            other = taken.get(offer.key)
            if other is not None:
                source = str(other.upstream) if other.upstream else "Portico"
                yield offer.unusable(f"{source} already provides {offer.name}.")
            elif offer.key in seen:
                yield offer.unusable(f"It is offered twice as {offer.name}.")
            else:
                seen.add(offer.key)
                yield offer

    def _add(self, offer: Offer, upstream: UpstreamServer | None, *, hold: bool) -> str:
        row = self.model(
            kind=offer.kind,
            name=offer.name,
            upstream=upstream,
            sensitive=offer.sensitive,
        )
        row.offer(offer)
        row.state = DefinitionState.HELD if hold else DefinitionState.ACCEPTED
        row.problem = offer.problem[:500]
        if offer.problem:
            row.state = DefinitionState.UNUSABLE
        elif not hold:
            row.accepted, row.accepted_hash = row.offered, row.definition
        row.save()
        scopes = [offer.own_scope, *offer.scopes]
        row.required_scopes.set(
            [Scope.objects.get_or_create(name=name)[0] for name in scopes]
        )
        return "added"

    def announce(self, upstream_id: int, uris: Collection[str]) -> int:
        """Count an update of these resources of a server; open streams then tell."""
        served = self.filter(upstream=upstream_id, kind=PrimitiveKind.RESOURCE)
        rows = served.filter(state__in=SERVED_STATES, upstream_name__in=uris)
        return rows.update(updates=models.F("updates") + 1)

    def servable(self) -> PrimitiveQuerySet:
        """Those that exist for the roles that grant them: enabled and accepted."""
        rows = self.filter(enabled=True, state__in=SERVED_STATES)
        return rows.exclude(upstream__enabled=False)


class Primitive(models.Model):
    """A primitive's access: enabled, sensitive, and its required scopes (any one)."""

    kind = models.CharField(_("kind"), max_length=20, choices=PrimitiveKind)
    name = models.CharField(
        _("name"),
        max_length=255,
        help_text=_("The name of a tool or prompt, or the URI of a resource."),
    )
    title = models.CharField(_("title"), max_length=255, blank=True)
    description = models.TextField(_("description"), blank=True)
    enabled = models.BooleanField(
        _("enabled"),
        default=True,
        help_text=_("Disabled items are hidden from everyone."),
    )
    sensitive = models.BooleanField(
        _("sensitive"),
        default=False,
        help_text=_(
            "Clients must request its scope explicitly. The general "
            "mcp scope is not enough."
        ),
    )
    recorded_arguments = models.CharField(
        _("recorded arguments"),
        max_length=6,
        choices=RecordedArguments,
        default=RecordedArguments.OFF,
        help_text=_(
            "What the audit records of the arguments of each call, allowed or denied. "
            "Only users with the permission to view recorded arguments see it."
        ),
    )
    required_scopes = models.ManyToManyField(
        Scope,
        blank=True,
        related_name="primitives",
        help_text=_(
            "Any one of these scopes is enough. Without a scope, no one can use it."
        ),
        verbose_name=_("required scopes"),
    )
    upstream = models.ForeignKey(
        UpstreamServer,
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        editable=False,
        related_name="primitives",
        verbose_name=_("upstream server"),
    )
    upstream_name = models.CharField(
        _("name at the upstream server"), max_length=2048, blank=True, editable=False
    )
    state = models.CharField(
        _("state"),
        max_length=8,
        choices=DefinitionState,
        default=DefinitionState.ACCEPTED,
        editable=False,
    )
    problem = models.CharField(_("reason"), max_length=500, blank=True, editable=False)
    accepted = models.JSONField(
        _("accepted definition"), null=True, blank=True, editable=False
    )
    offered = models.JSONField(
        _("offered definition"), null=True, blank=True, editable=False
    )
    calls_refused = models.BooleanField(
        default=False,
        editable=False,
        help_text=_("The change concerns what a call may contain."),
    )
    definition = models.CharField(max_length=64, editable=False)
    """SHA-256 (hex) of the offered definition."""
    accepted_hash = models.CharField(max_length=64, blank=True, editable=False)
    updates = models.PositiveIntegerField(
        default=0,
        editable=False,
        help_text=_("How often its upstream server reported new content."),
    )
    changed_at = models.DateTimeField(
        _("definition changed"),
        null=True,
        blank=True,
        editable=False,
        help_text=_("Its definition changed and has not been accepted yet."),
    )
    first_seen_at = models.DateTimeField(
        _("first seen at"), default=timezone.now, editable=False
    )
    last_seen_at = models.DateTimeField(
        _("last seen at"), default=timezone.now, editable=False
    )
    vanished_at = models.DateTimeField(
        _("removed at"), null=True, blank=True, editable=False
    )

    objects = PrimitiveQuerySet.as_manager()

    class Meta:
        ordering = ("kind", "name")
        verbose_name = _("tool, resource or prompt")
        verbose_name_plural = _("tools, resources and prompts")
        constraints = [
            models.UniqueConstraint(
                fields=("kind", "name"), name="one_row_per_primitive"
            )
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.name}"

    @property
    def own_scope(self) -> str:
        return own_scope(self.kind, self.name)

    @property
    def obstacle(self) -> str:
        """Why nobody can call it, whatever the roles grant; empty if they decide."""
        if not self.enabled:
            return gettext("disabled for everyone")
        if self.state not in SERVED_STATES:
            return str(self.get_state_display())
        if self.upstream is not None and not self.upstream.enabled:
            return gettext("its upstream server is disabled")
        return gettext("calls are refused") if self.calls_refused else ""

    def update_from(self, offer: Offer, *, hold: bool = False) -> str:
        """Update from its source. Returns `changed`, `returned` or an empty string."""
        before, last_hash = self.state, self.definition
        self.last_seen_at = timezone.now()
        if before == DefinitionState.ACCEPTED and self.accepted is None:
            # A row of before definitions were stored has only another form's hash.
            self.accepted_hash = offer.definition
        self.offer(offer)
        if self.definition == self.accepted_hash:
            self.accepted = self.offered
        self.state, self.calls_refused = self._next_state(
            offer, before, last_hash, hold
        )
        if self.state == DefinitionState.CHANGED:
            if last_hash != self.definition or self.changed_at is None:
                self.changed_at = self.last_seen_at
        else:
            self.changed_at = None
        self.vanished_at = None
        if self.state != DefinitionState.REJECTED:
            self.problem = offer.problem[:500]
        self.save()
        if self.state == DefinitionState.CHANGED and (
            before != DefinitionState.CHANGED or last_hash != self.definition
        ):
            return "changed"
        return "returned" if before == DefinitionState.GONE else ""

    def offer(self, offer: Offer) -> None:
        """Take over what the source offers, without a decision about it."""
        self.title, self.description = offer.title[:255], offer.description
        self.definition, self.offered = offer.definition, dict(offer.shown)
        self.upstream_name = offer.upstream_name

    def _next_state(
        self, offer: Offer, before: str, last_hash: str, hold: bool
    ) -> tuple[str, bool]:
        """The state after an offer, and whether calls are refused."""
        if not self.accepted_hash:
            if offer.problem:
                return DefinitionState.UNUSABLE, False
            rejected = before == DefinitionState.REJECTED
            if rejected and last_hash == offer.definition:
                return DefinitionState.REJECTED, False
            return DefinitionState.HELD, False
        if offer.problem:
            return DefinitionState.CHANGED, True
        if offer.definition == self.accepted_hash:
            return DefinitionState.ACCEPTED, False
        if before == DefinitionState.REJECTED and last_hash == offer.definition:
            return DefinitionState.REJECTED, False
        if self.upstream_id is None:
            # The code runs at once. A tool that was gone waits for a decision.
            waits = before == DefinitionState.GONE or (
                before == DefinitionState.CHANGED and self.calls_refused
            )
            return DefinitionState.CHANGED, waits or hold
        waits = before == DefinitionState.GONE or (
            self.calls_refused and last_hash == offer.definition
        )
        differs = concerns_calls(self.kind, self.accepted or {}, offer.shown)
        return DefinitionState.CHANGED, waits or differs

    def mark_vanished(self) -> None:
        """Its source no longer offers it, so nobody can use it."""
        self.state, self.vanished_at = DefinitionState.GONE, timezone.now()
        self.save()

    def accept_definition(self) -> None:
        """Record that an admin has accepted the offered definition.

        Raises ValueError if it cannot be served, or if its source no longer offers it.
        """
        if self.problem or self.state == DefinitionState.GONE:
            raise ValueError(self.problem or "Its source no longer offers it.")
        self.accepted, self.accepted_hash = self.offered, self.definition
        self.state, self.calls_refused = DefinitionState.ACCEPTED, False
        self.changed_at = None
        decided = ("accepted", "accepted_hash", "state", "calls_refused", "changed_at")
        self.save(update_fields=decided)

    def reject_definition(self, reason: str) -> None:
        """Record that an admin has rejected what is offered; nobody can use it."""
        self.state, self.problem = DefinitionState.REJECTED, reason[:500]
        self.save(update_fields=["state", "problem"])


CALL_KEYS = {
    PrimitiveKind.TOOL: ("inputSchema", "annotations"),
    PrimitiveKind.RESOURCE: ("uri", "mimeType", "annotations"),
    PrimitiveKind.RESOURCE_TEMPLATE: ("uriTemplate", "mimeType", "annotations"),
    PrimitiveKind.PROMPT: ("arguments",),
}
"""Kind -> the members of a definition that say what a call may contain or do."""


def concerns_calls(
    kind: str, before: Mapping[str, Any], after: Mapping[str, Any]
) -> bool:
    """Whether a changed definition changes what a call may contain or do."""
    keys = CALL_KEYS[PrimitiveKind(kind)]
    return any(before.get(key) != after.get(key) for key in keys)


def summary(counts: dict[str, int]) -> dict[str, Any]:
    """The non-zero counts of a sync."""
    return {name: count for name, count in counts.items() if count}


name_through(
    Primitive.required_scopes.through, _("required scope"), _("required scopes")
)
