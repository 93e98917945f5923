"""Admin pages with an uploaded file: read, store as a draft, confirm."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.utils.translation import gettext as _

from accounts.admin_site.site import SitePage
from accounts.models import ImportDraft

MAX_UPLOAD_SIZE = 20 * 1024 * 1024


class SuperusersPage(SitePage):
    """A page that can grant rights."""

    superusers_only = True


def uploaded_file(request: HttpRequest) -> tuple[bytes, str]:
    """(content, error message); one of them is empty."""
    sent: Any = request.FILES.get("file")
    if sent is None:
        return b"", _("Choose a file.")
    if sent.size > MAX_UPLOAD_SIZE:
        return b"", _("The file is larger than 20 MB. Choose a smaller file.")
    return sent.read(), ""


def store_draft(request: Any, kind: str, raw: bytes) -> None:
    """Store the file until it is applied; replaces the user's earlier draft."""
    text = raw.decode("utf-8-sig", "replace")
    ImportDraft.objects.filter(owner=request.user, kind=kind).delete()
    ImportDraft.objects.create(owner=request.user, kind=kind, content=text)
