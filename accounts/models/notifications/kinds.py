"""The kinds of notifications. Other apps add theirs with `add_kind`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.urls import reverse
from django.utils.translation import gettext_lazy as _

Data = Mapping[str, Any]
"""What a notification says: names and numbers, no secrets and no arguments of calls."""


@dataclass(frozen=True)
class NotificationKind:
    """A kind of event that channels may ask for."""

    name: str
    label: Any
    """What the form of a channel calls it."""
    text: Any
    """One sentence with the names of the data, such as %(object)s."""
    page: Callable[[Data], str]
    """The path of the page in the admin that shows more."""

    def sentence(self, data: Data) -> str:
        """The text, in the current language."""
        known: defaultdict[str, Any] = defaultdict(str, data)
        return str(self.text) % known


KINDS: dict[str, NotificationKind] = {}
"""Every kind by its name, in the order of the form."""


def add_kind(kind: NotificationKind) -> NotificationKind:
    KINDS[kind.name] = kind
    return kind


def list_path(model: str, **query: Any) -> str:
    """The path of an admin list, with filters."""
    path = reverse(f"admin:{model}_changelist")
    return f"{path}?{urlencode(query)}" if query else path


def row_path(model: str, subject: str) -> str:
    """The path of the row that a subject (`model:ID`) names, or of its list."""
    key = subject.partition(":")[2]
    if not key.isdecimal():
        return list_path(model)
    return reverse(f"admin:{model}_change", args=[key])


def failures_path(name: str) -> str:
    """The failed sign-ins of a user; all of them if the name is of something else."""
    return list_path("axes_accessattempt", **({} if " " in name else {"q": name}))


REQUESTED = add_kind(
    NotificationKind(
        "access.requested",
        _("Access requests"),
        _("Access request: %(object)s. Reason: %(reason)s"),
        lambda data: row_path("accounts_accessrequest", str(data.get("subject", ""))),
    )
)
LOCKED_OUT = add_kind(
    NotificationKind(
        "user.locked_out",
        _("Lock-outs"),
        _(
            "Sign-in is locked after too many failures: %(object)s, "
            "from address %(address)s."
        ),
        lambda data: failures_path(str(data.get("object", ""))),
    )
)
REPLAYED = add_kind(
    NotificationKind(
        "token.replayed",
        _("Replayed refresh tokens"),
        _(
            "A refresh token was used again: %(object)s, from address %(address)s. "
            "Its family is revoked."
        ),
        lambda data: list_path("accounts_auditevent", action="token.replayed"),
    )
)
ROLE_ENDING = add_kind(
    NotificationKind(
        "role.ending",
        _("Roles that end soon"),
        _("A role ends soon: %(object)s until %(until)s."),
        lambda data: row_path(
            "accounts_roleassignment", str(data.get("assignment", ""))
        ),
    )
)
CHECK_FAILED = add_kind(
    NotificationKind(
        "check.failed",
        _("Failing checks"),
        _("A check fails: %(problem)s Fix: %(fix)s"),
        lambda data: reverse("admin:system"),
    )
)
AUDIT = add_kind(
    NotificationKind(
        "audit.events",
        _("Every audit event, in order (signed webhooks only)"),
        _("Audit events"),
        lambda data: list_path("accounts_auditevent"),
    )
)
"""Not a notification: `accounts/models/notifications/audit_feeds.py` sends these."""
TEST = NotificationKind(
    "test",
    _("Test"),
    _("This is a test of the channel %(object)s."),
    lambda data: list_path("accounts_notificationchannel"),
)
"""Sent by a button only, so no channel subscribes to it."""

RECORDED = frozenset(kind.name for kind in (REQUESTED, LOCKED_OUT, REPLAYED))
"""Kinds that are audit events of the same name."""


def kind_named(name: str) -> NotificationKind:
    """The kind; one of an app that is not installed any more has only its name."""
    unknown = NotificationKind(name, name, name.replace("%", "%%"), TEST.page)
    return TEST if name == TEST.name else KINDS.get(name, unknown)
