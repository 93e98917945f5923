"""Admin pages that take a file: read, kept as a draft, confirmed."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.utils.translation import gettext as _

from accounts.admin_site.site import SitePage
from accounts.models import ImportDraft

LARGEST = 20 * 1024 * 1024


class SuperusersPage(SitePage):
    """A page that can raise rights."""

    superusers_only = True


def uploaded_file(request: HttpRequest) -> tuple[bytes, str]:
    """The file of a form, or why there is none."""
    sent: Any = request.FILES.get("file")
    if sent is None:
        return b"", _("Choose a file.")
    if sent.size > LARGEST:
        return b"", _("The file is larger than 20 MB.")
    return sent.read(), ""


def kept_draft(request: Any, kind: str, raw: bytes) -> None:
    """Keep a file until it is applied; another upload takes its place."""
    text = raw.decode("utf-8-sig", "replace")
    ImportDraft.objects.filter(owner=request.user, kind=kind).delete()
    ImportDraft.objects.create(owner=request.user, kind=kind, content=text)
