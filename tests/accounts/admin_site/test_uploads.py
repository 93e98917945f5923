"""Uploaded files: their size, and one draft for each person and kind."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from accounts.admin_site import uploads
from accounts.models import ImportDraft, User
from tests.support.users import browser_of, unguarded_users

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


@pytest.mark.parametrize("megabytes", [2, 20])
def test_a_file_up_to_the_limit_is_read(settings: Any, megabytes: int) -> None:
    settings.MAX_UPLOAD_SIZE = most = megabytes * 1024 * 1024
    assert uploaded(Sent(most)) == (b"content", "")
    told = f"The file is larger than {megabytes}.0\xa0MB. Choose a smaller file."
    assert uploaded(Sent(most + 1)) == (b"", told)
    assert uploaded(None) == (b"", "Choose a file.")


def store(user: User, kind: str, text: str) -> None:
    uploads.store_draft(SimpleNamespace(user=user), kind, text)


def test_a_new_draft_replaces_ones_own_of_the_kind(alice: User, bob: User) -> None:
    for user in (alice, bob):
        for kind in ("users", "policy"):
            store(user, kind, "old")
    store(alice, "users", "new")
    rows = ImportDraft.objects.order_by("owner__username", "kind")
    assert list(rows.values_list("owner__username", "kind", "content")) == [
        ("alice", "policy", "old"),
        ("alice", "users", "new"),
        ("bob", "policy", "old"),
        ("bob", "users", "old"),
    ]


def test_imports_are_for_superusers() -> None:
    assert uploads.SuperusersPage.superusers_only is True


def test_the_pages_that_take_files_are_known() -> None:
    assert uploads.upload_paths() == {"/admin/users/import/", "/admin/policy/"}


def cookies(user: User) -> str:
    jar = browser_of(user).cookies
    return "; ".join(f"{name}={morsel.value}" for name, morsel in jar.items())


def test_only_a_superuser_may_send_a_large_body(
    carol: User, alice: User, settings: Any
) -> None:
    """A page of the admin is also reached by people without rights."""
    settings.MAX_UPLOAD_SIZE = 1000
    name = settings.SESSION_COOKIE_NAME
    assert uploads.largest_upload(cookies(carol)) == 1000 + 64 * 1024
    for text in (cookies(alice), "", f"{name}=x", f"{name}=\x00", "a=b; ;=", name):
        assert uploads.largest_upload(text) == 0
    kept = cookies(carol)
    unguarded_users().filter(pk=carol.pk).update(is_active=False)
    assert uploads.largest_upload(kept) == 0
