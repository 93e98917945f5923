"""Primitive: a row for each tool, resource, resource template or prompt."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.db import models, transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from accounts.models import Scope


class PrimitiveKind(models.TextChoices):
    """The MCP specification's kinds of server primitive."""

    TOOL = "tool", _("tool")
    RESOURCE = "resource", _("resource")
    RESOURCE_TEMPLATE = "resource_template", _("resource template")
    PROMPT = "prompt", _("prompt")


SCOPE_PREFIX = {
    PrimitiveKind.TOOL: "tool",
    PrimitiveKind.RESOURCE: "resource",
    PrimitiveKind.RESOURCE_TEMPLATE: "resource",
    PrimitiveKind.PROMPT: "prompt",
}


def own_scope(kind: str, name: str) -> str:
    """The scope for one primitive alone, such as `tool:whoami`."""
    return f"{SCOPE_PREFIX[PrimitiveKind(kind)]}:{name}"


@dataclass(frozen=True, slots=True)
class Offer:
    """A primitive as registered in code, with the scopes its author proposes."""

    kind: str
    name: str
    title: str
    description: str
    scopes: tuple[str, ...]
    sensitive: bool
    definition: str
    """SHA-256 (hex) of everything that clients see of it."""

    @property
    def own_scope(self) -> str:
        return own_scope(self.kind, self.name)


class PrimitiveQuerySet(models.QuerySet["Primitive"]):
    """Sync with the primitives in code."""

    def sync(self, offers: Iterable[Offer]) -> dict[str, int]:
        """Add new offers, mark changed ones, disable vanished ones; count each.

        An admin's access settings are never overwritten. Commits in one transaction.
        """
        counts = dict.fromkeys(("added", "changed", "vanished", "returned"), 0)
        offered = {(offer.kind, offer.name): offer for offer in offers}
        with transaction.atomic():
            rows = {(row.kind, row.name): row for row in self.all().select_for_update()}
            for key, offer in offered.items():
                row = rows.get(key)
                outcome = row.update_from(offer) if row else self._add(offer)
                if outcome:
                    counts[outcome] += 1
            for key, row in rows.items():
                if key not in offered and row.vanished_at is None:
                    row.mark_vanished()
                    counts["vanished"] += 1
        return counts

    def _add(self, offer: Offer) -> str:
        row = self.create(
            kind=offer.kind,
            name=offer.name,
            title=offer.title,
            description=offer.description,
            sensitive=offer.sensitive,
            definition=offer.definition,
        )
        scopes = [offer.own_scope, *offer.scopes]
        row.required_scopes.set(
            [Scope.objects.get_or_create(name=name)[0] for name in scopes]
        )
        return "added"


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
    required_scopes = models.ManyToManyField(
        Scope,
        blank=True,
        related_name="primitives",
        help_text=_(
            "Any one of these scopes is enough. Without a scope, no one can use it."
        ),
        verbose_name=_("required scopes"),
    )
    definition = models.CharField(max_length=64, editable=False)
    changed_at = models.DateTimeField(
        _("definition changed"),
        null=True,
        blank=True,
        editable=False,
        help_text=_(
            "Its definition changed in the code and has not been accepted yet."
        ),
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
    enabled_before = models.BooleanField(default=True, editable=False)

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

    def update_from(self, offer: Offer) -> str:
        """Update from the code. Returns `changed`, `returned` or an empty string."""
        now, outcome = timezone.now(), ""
        self.last_seen_at = now
        self.title, self.description = offer.title, offer.description
        if self.vanished_at is not None:
            self.vanished_at, self.enabled = None, self.enabled_before
            outcome = "returned"
        if self.definition != offer.definition:
            self.definition, self.changed_at = offer.definition, now
            outcome = "changed"
        self.save()
        return outcome

    def mark_vanished(self) -> None:
        """Disable a primitive that the code no longer offers."""
        self.enabled_before, self.enabled = self.enabled, False
        self.vanished_at = timezone.now()
        self.save()

    def accept_definition(self) -> None:
        """Record that an admin has accepted the changed definition."""
        self.changed_at = None
        self.save(update_fields=["changed_at"])


def summary(counts: dict[str, int]) -> dict[str, Any]:
    """The non-zero counts of a sync."""
    return {name: count for name, count in counts.items() if count}
