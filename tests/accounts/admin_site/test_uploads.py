"""Uploaded files: their size, and one draft for each person and kind."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from accounts.admin_site import uploads
from accounts.models import ImportDraft, User

pytestmark = pytest.mark.django_db


class Sent:
    """A file of a form."""

    def __init__(self, size: int) -> None:
        self.size = size

    def read(self) -> bytes:
        return b"content"


def uploaded(file: Any) -> tuple[bytes, str]:
    request: Any = SimpleNamespace(FILES={"file": file} if file else {})
    return uploads.uploaded_file(request)


def test_a_file_of_at_most_twenty_megabytes_is_read() -> None:
    most = 20 * 1024 * 1024
    assert uploaded(Sent(most)) == (b"content", "")
    told = "The file is larger than 20 MB. Choose a smaller file."
    assert uploaded(Sent(most + 1)) == (b"", told)
    assert uploaded(None) == (b"", "Choose a file.")


def store(user: User, kind: str, raw: bytes) -> None:
    uploads.store_draft(SimpleNamespace(user=user), kind, raw)


def test_a_new_draft_replaces_ones_own_of_the_kind(alice: User, bob: User) -> None:
    for user in (alice, bob):
        for kind in ("users", "policy"):
            store(user, kind, b"old")
    store(alice, "users", b"\xef\xbb\xbfnew \xff")
    rows = ImportDraft.objects.order_by("owner__username", "kind")
    assert list(rows.values_list("owner__username", "kind", "content")) == [
        ("alice", "policy", "old"),
        ("alice", "users", "new \ufffd"),
        ("bob", "policy", "old"),
        ("bob", "users", "old"),
    ]


def test_imports_are_for_superusers() -> None:
    assert uploads.SuperusersPage.superusers_only is True
