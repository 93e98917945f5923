"""The import of users: upload, preview, apply with progress."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import DatabaseError

from accounts.admin import user_import as module
from accounts.models import AuditEvent, ImportDraft, Invitation, User
from tests.support.admin_browser import AdminBrowser, events_by, staff_member
from tests.support.page_tables import rows_on
from tests.support.users import account, unguarded_users

pytestmark = pytest.mark.django_db
PATH = "/admin/users/import/"


@pytest.fixture(autouse=True)
def same_thread(monkeypatch: Any) -> None:
    """The import sees the rows of this test's transaction."""
    monkeypatch.setattr(module, "stream_from_thread", lambda make: make())
    monkeypatch.setattr(module, "run_on_thread", lambda make: make())


def upload(browser: AdminBrowser, text: str) -> str:
    browser.post(PATH, file=SimpleUploadedFile("users.csv", text.encode()))
    return str(browser.page.text)


def mark_on(page: str) -> str:
    found = re.search(r'name="apply" value="([^"]+)"', page)
    assert found, "nothing can be applied"
    return found[1]


def usernames() -> set[str]:
    return set(User.objects.values_list("username", flat=True))


def test_a_preview_changes_nothing(root: AdminBrowser) -> None:
    account("ada")
    page = upload(root, "username,email,roles\nada,,\nbea,bea@example.org,User\n")
    assert root.page.status_code == 200 and usernames() == {"root", "ada"}
    text = re.sub(r"<[^>]+>|\s+", " ", page)
    assert re.search(r"added: +1 +changed: +0 +unchanged: +1", text)
    assert "bea@example.org" in page and ">ada<" not in page
    draft = ImportDraft.objects.get()
    assert (draft.owner, draft.kind) == (root.user, "users")
    assert events_by(root.user) == []


def test_applying_shows_progress_and_deletes_the_draft(root: AdminBrowser) -> None:
    account("ada")
    other = account("otto", is_superuser=True)
    kept = ImportDraft.objects.create(owner=other, kind="users", content="x")
    policy = ImportDraft.objects.create(owner=root.user, kind="policy", content="x")
    page = upload(root, "username,email\nada,ada@example.org\nbea,\n")
    text = root.post(PATH, apply=mark_on(page)).text
    assert '<progress max="2" value="0"></progress> 0 of 2</p>' in text
    assert '<progress max="2" value="2"></progress> 2 of 2</p>' in text
    done = '<p class="effect" role="status">Done: 2 users were added or changed.</p>'
    assert done in text and text.rstrip().endswith("</html>")
    assert {"ada", "bea"} <= usernames()
    assert User.objects.get(username="ada").email == "ada@example.org"
    assert set(ImportDraft.objects.all()) == {kept, policy}
    found = AuditEvent.objects.filter(actor="root", actor_id=root.user.pk)
    actions = found.order_by("id").values_list("action", flat=True)
    assert list(actions) == ["user.added", "user.changed", "users.imported"]


def test_a_file_without_changes_is_not_offered(root: AdminBrowser) -> None:
    account("ada")
    assert "The file changes nothing." in upload(root, "username\nada\n")


def test_a_file_with_problems_is_not_kept(root: AdminBrowser) -> None:
    page = upload(root, "username,roles\nada,Boss\n")
    assert root.page.status_code == 400 and "line 2, roles" in page
    assert 'name="apply"' not in page and not ImportDraft.objects.exists()
    assert "username, email" in page


def test_a_missing_or_large_file_is_refused(root: AdminBrowser, settings: Any) -> None:
    assert "Choose a file." in root.post(PATH).text
    assert root.page.status_code == 400
    settings.MAX_UPLOAD_SIZE = 2 * 1024
    assert "The file may have up to 2.0\xa0KB." in root.open(PATH).page.text
    assert "larger than 2.0\xa0KB" in upload(root, "username\n" + "ada\n" * 512)
    assert root.page.status_code == 400 and not ImportDraft.objects.exists()


def test_nothing_is_applied_without_a_preview_of_ones_own(root: AdminBrowser) -> None:
    other = account("otto", is_superuser=True)
    content = "username\nnew\n"
    ImportDraft.objects.create(owner=other, kind="users", content=content)
    ImportDraft.objects.create(owner=root.user, kind="policy", content=content)
    page = root.post(PATH, apply="x")
    assert page.status_code == 400
    assert "Nothing to apply. Choose the file again." in page.text
    assert "new" not in usernames() and ImportDraft.objects.count() == 2


def test_a_stale_preview_is_reported_and_kept(root: AdminBrowser) -> None:
    ada = account("ada")
    mark = mark_on(upload(root, "username,email\nada,x@example.org\n"))
    User.objects.filter(pk=ada.pk).update(email="y@example.org")
    text = root.post(PATH, apply=mark).text
    assert '<p class="errornote" role="alert">The data changed after' in text
    assert "Done:" not in text and ImportDraft.objects.exists()
    assert User.objects.get(pk=ada.pk).email == "y@example.org"
    assert not AuditEvent.objects.filter(action="users.imported").exists()


def test_a_right_lost_after_the_preview_is_reported(
    root: AdminBrowser, monkeypatch: Any
) -> None:
    draft = ImportDraft.objects.create(
        owner=root.user, kind="users", content="username\nnew\n"
    )
    unguarded_users().filter(pk=root.user.pk).update(is_superuser=False)
    (text,) = module.progress_paragraphs(draft, "x", root.user)
    assert "Only superusers can import users or a policy." in text
    assert "new" not in usernames()


def test_an_error_of_the_database_is_reported(
    root: AdminBrowser, monkeypatch: Any
) -> None:
    def broken(*_args: Any) -> Any:
        raise DatabaseError("<no such table>")

    monkeypatch.setattr(module, "apply_users", broken)
    mark = mark_on(upload(root, "username\nnew\n"))
    text = root.post(PATH, apply=mark).text
    assert "rejected the import (&lt;no such table&gt;). Nothing was changed." in text
    assert "Done:" not in text and ImportDraft.objects.exists()


def test_no_step_at_all_is_full_progress(root: AdminBrowser, monkeypatch: Any) -> None:
    """HTML allows no maximum of 0."""
    draft = ImportDraft.objects.create(owner=root.user, kind="users", content="")
    monkeypatch.setattr(module, "apply_users", lambda *_args: iter([(0, 0)]))
    texts = list(module.progress_paragraphs(draft, "x", root.user))
    assert texts[0] == '<p><progress max="1" value="0"></progress> 0 of 0</p>'


def test_only_so_many_lines_are_shown(root: AdminBrowser, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "MAX_ROWS", 2)
    page = upload(root, "username\nada\nbea\nzoe\n")
    assert "Shows the first 2 of 3 lines with changes." in page
    assert ">bea<" in page and ">zoe<" not in page
    page = upload(root, "username\n a b\n c d\n e f\n")
    assert page.count("<li>line ") == 2


def test_only_superusers_import(root: AdminBrowser) -> None:
    mark = mark_on(upload(root, "username\nnew\n"))
    every = ("add_user", "change_user", "delete_user", "view_user", "view_system")
    ines = AdminBrowser(staff_member("ines", *every))
    ImportDraft.objects.update(owner=ines.user)
    assert ines.open(PATH).page.status_code == 403
    assert ines.post(PATH, apply=mark).status_code == 403
    assert "new" not in usernames()
    assert root.open(PATH).page.status_code == 200


def test_people_of_a_file_are_invited_by_the_actor(root: AdminBrowser) -> None:
    account("ada")
    page = upload(root, "username,email\nada,ada@example.org\nbea,\n")
    text = root.post(PATH, apply=mark_on(page), invite="on").text
    rows = rows_on(text, "User", "Link", "Mailed to")
    assert [row["User"] for row in rows] == ["ada", "bea"]
    assert all("/accounts/invitation/" in row["Link"] for row in rows)
    assert {row["Mailed to"] for row in rows} <= {"-", "ada@example.org"}
    for row in Invitation.objects.all():
        assert (row.inviter, row.invited_by) == ("root", root.user)
    sent = AuditEvent.objects.filter(action="invitation.created")
    assert sorted(sent.values_list("actor", "object")) == [
        ("root", "ada"),
        ("root", "bea"),
    ]


def test_a_preview_has_its_columns(root: AdminBrowser) -> None:
    account("ada", email="old@example.org")
    page = upload(root, "username,email\nada,new@example.org\nbea,bea@example.org\n")
    ada, bea = rows_on(page, "Line", "User", "Action", "Before and after")
    shown = ["2", "ada", "change", "email: old@example.org new@example.org"]
    assert list(ada.values()) == shown
    assert list(bea.values())[:3] == ["3", "bea", "add"]
    assert "email: bea@example.org" in bea["Before and after"]
