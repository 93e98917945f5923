"""Why the metadata document of a client cannot be used, in words for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import urllib3
from django.utils.translation import gettext as _
from oauth2_provider.cimd import CIMDError

from accounts.http.outbound_calls import NameNotResolved

SERVED_NOTHING = frozenset({403, 408, 425, 429})
"""Statuses besides 5xx that say nothing about the document.

Bot protection and firewalls answer 403 to servers in data centres, also for documents
that exist. 404 and 410 are the host's own word that it has no such client.
"""
NETWORK = frozenset({"unresolved", "unreachable", "timeout", "certificate", "private"})
ERRORS: tuple[tuple[type[Exception], str], ...] = (
    (NameNotResolved, "unresolved"),
    (urllib3.exceptions.SSLError, "certificate"),
    (urllib3.exceptions.TimeoutError, "timeout"),
    (TimeoutError, "timeout"),
)
"""The most special class first; every other error means that nothing connected."""


@dataclass(frozen=True)
class DocumentFailure:
    """What happened: `kind` is a key of `sentences`, `detail` is English text."""

    kind: str
    host: str
    detail: str = ""
    status: int = 0
    copy_off: bool = False
    """Whether an administrator switched off the copy that would have been used."""

    @property
    def unavailable(self) -> bool:
        """Whether the host served nothing, so that a copy of the document may do."""
        if self.kind == "status":
            return self.status >= 500 or self.status in SERVED_NOTHING
        return self.kind in NETWORK or self.kind == "off"

    @property
    def reason(self) -> str:
        """For the audit and the log."""
        return f"{self.kind}: {self.detail}"[:255]

    def text(self) -> str:
        """What happened, for the person who signs in."""
        values = {"host": self.host, "detail": self.detail, "status": self.status}
        text = str(sentences()[self.kind] % values)
        if self.copy_off:
            text += " " + _("The copy of the client's document is switched off.")
        return text

    def advice(self) -> str:
        """What an administrator can do."""
        if self.kind in ("host_blocked", "client_blocked"):
            return _("An administrator can unblock it in the admin.")
        if self.copy_off:
            return _("An administrator can switch the copy on in the admin.")
        if self.unavailable:
            return _(
                "An administrator can allow this server to reach %s, or paste the "
                "document in the admin under client document copies."
            ) % (self.host or _("the host"))
        return _("The publisher of the client must correct its document.")


def sentences() -> dict[str, str]:
    """Kind -> what happened, with %(host)s, %(status)d and %(detail)s."""
    return {
        "unresolved": _("This server cannot look up the name %(host)s."),
        "unreachable": _("This server cannot reach %(host)s."),
        "timeout": _("%(host)s did not answer this server in time."),
        "certificate": _("This server does not trust the certificate of %(host)s."),
        "private": _("%(host)s has no public address for this server."),
        "status": _("%(host)s answered with HTTP status %(status)d."),
        "invalid": _("The client's document is not valid: %(detail)s."),
        "off": _("This server fetches no client documents (FETCH_CLIENT_DOCUMENTS)."),
        "host_blocked": _("An administrator has blocked clients of %(host)s."),
        "client_blocked": _("An administrator has blocked this client."),
        "unexpected": _("The client's document could not be read."),
    }


class FetchFailed(CIMDError):
    """A fetch without a usable document."""

    def __init__(self, failure: DocumentFailure) -> None:
        super().__init__(failure.detail)
        self.failure = failure


def network_failure(host: str, error: Exception) -> FetchFailed:
    """The failure for an error of the network, TLS or DNS."""
    found = [kind for known, kind in ERRORS if isinstance(error, known)]
    kind = found[0] if found else "unreachable"
    detail = f"{host} did not answer: {error}"
    return FetchFailed(DocumentFailure(kind, name_only(host), detail))


def name_only(host: str) -> str:
    """The host without the port 443, which every document has."""
    return host.removesuffix(":443")


def failure_of(error: Any, host: str) -> DocumentFailure:
    """The failure of any CIMDError; one without its own breaks a rule of documents."""
    if isinstance(error, FetchFailed):
        return error.failure
    return DocumentFailure("invalid", name_only(host), str(error).rstrip("."))
