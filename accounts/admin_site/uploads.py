"""Admin pages with an uploaded file: read, store as a draft, confirm."""

from __future__ import annotations

from functools import cache
from typing import Any, cast

from django.conf import settings
from django.contrib import admin, auth
from django.http import HttpRequest, HttpResponse, parse_cookie
from django.template.defaultfilters import filesizeformat
from django.urls import reverse
from django.utils.translation import gettext as _

from accounts.admin_site.site import PorticoSite, SitePage
from accounts.http.session_store import SessionStore
from accounts.models import ImportDraft

FORM_SIZE = 64 * 1024
"""Bytes of an upload besides the file: other fields, and the heads of the parts."""


class SuperusersPage(SitePage):
    """A page that takes a file and can grant rights."""

    superusers_only = True

    def page(self, context: dict[str, Any], status: int = 200) -> HttpResponse:
        """Show how large a file may be."""
        return super().page({"largest": settings.MAX_UPLOAD_SIZE, **context}, status)


@cache
def upload_paths() -> frozenset[str]:
    """Paths of the pages that take a file."""
    pages = cast(PorticoSite, admin.site).pages.values()
    names = [page.name for page in pages if issubclass(page, SuperusersPage)]
    return frozenset(reverse(f"admin:{name}") for name in names)


def largest_upload(cookies: str) -> int:
    """The largest body that the owner of these cookies may upload, in bytes.

    It is 0 unless the session is a superuser's: anybody else could fill the disk.
    """
    key = parse_cookie(cookies).get(settings.SESSION_COOKIE_NAME)
    request = HttpRequest()
    request.session = SessionStore(key)
    user: Any = auth.get_user(request)
    return settings.MAX_UPLOAD_SIZE + FORM_SIZE if user.is_superuser else 0


def uploaded_file(request: HttpRequest) -> tuple[bytes, str]:
    """(content, error message); one of them is empty."""
    sent: Any = request.FILES.get("file")
    if sent is None:
        return b"", _("Choose a file.")
    if sent.size > settings.MAX_UPLOAD_SIZE:
        size = filesizeformat(settings.MAX_UPLOAD_SIZE)
        text = _("The file is larger than %(size)s. Choose a smaller file.")
        return b"", text % {"size": size}
    return sent.read(), ""


def store_draft(request: Any, kind: str, text: str) -> None:
    """Store the file until it is applied; replaces the user's earlier draft."""
    ImportDraft.objects.filter(owner=request.user, kind=kind).delete()
    ImportDraft.objects.create(owner=request.user, kind=kind, content=text)
