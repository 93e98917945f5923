"""Accounts that administer: the last one stays, and one's own end is confirmed."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import F, Value

from accounts.imports.user_csv_plan import plan_users
from accounts.models import AuditEvent, User
from accounts.models.users import LastSuperuser
from tests.support.admin_browser import AdminBrowser, row_url, staff_member
from tests.support.users import account

pytestmark = pytest.mark.django_db
LAST = "This is the last active superuser."


def second() -> User:
    """Another superuser."""
    return account("carol", "Admin", is_staff=True, is_superuser=True)


def untick(root: AdminBrowser, box: str, **more: Any) -> str:
    """Save the own account without this box."""
    path = row_url(User, root.user)
    root.open(path)
    form = root.form("_save")
    form.fields.pop(box)
    root.submit(form, "_save", **more)
    return str(root.page.text)


@pytest.mark.parametrize("box", ["is_active", "is_superuser", "is_staff"])
def test_the_last_superuser_stays_one_by_form(root: AdminBrowser, box: str) -> None:
    account("former", is_staff=True, is_superuser=True, is_active=False)
    account("outside", is_superuser=True)
    for confirmed in ({}, {"end_own_access": "on"}):
        assert LAST in untick(root, box, **confirmed)
    root.user.refresh_from_db()
    assert root.user.is_active and root.user.is_superuser and root.user.is_staff


@pytest.mark.parametrize("box", ["is_active", "is_superuser", "is_staff"])
def test_ending_ones_own_rights_is_confirmed(root: AdminBrowser, box: str) -> None:
    second()
    assert "This is your own account." in untick(root, box)
    root.user.refresh_from_db()
    assert getattr(root.user, box)
    assert untick(root, box, end_own_access="on")
    root.user.refresh_from_db()
    assert not getattr(root.user, box) and root.page.status_code in (200, 403)


def test_only_the_own_page_of_a_superuser_has_the_box(root: AdminBrowser) -> None:
    carol = second()
    assert "end_own_access" in root.open(row_url(User, root.user)).page.text
    assert "end_own_access" not in root.open(row_url(User, carol)).page.text
    root.submit(root.form("_save"), "_save", first_name="Carol")
    carol.refresh_from_db()
    assert carol.first_name == "Carol" and carol.is_superuser


def test_the_last_superuser_is_not_deleted(root: AdminBrowser) -> None:
    page = root.delete(User, root.user)
    assert LAST in page.text and page.url == row_url(User, root.user)
    for action in ("delete_selected", "deactivate"):
        assert LAST in root.run(User, action, root.user)
        bob = account(f"b{action}")
        assert LAST in root.run(User, action, root.user, bob)
        bob.refresh_from_db()
        assert bob.is_active
    root.user.refresh_from_db()
    assert root.user.is_active


def test_all_superusers_at_once_are_not_deleted(root: AdminBrowser) -> None:
    carol = second()
    for action in ("delete_selected", "deactivate"):
        assert LAST in root.run(User, action, root.user, carol)
    assert User.objects.all().administrators().count() == 2


@pytest.mark.parametrize("how", ["delete", "delete_selected", "deactivate"])
def test_a_superuser_who_is_not_the_last_may_leave(
    root: AdminBrowser, how: str
) -> None:
    """With a warning before, and the sign-in page after: the session has ended."""
    second()
    if how == "delete":
        text = root.open(row_url(User, root.user, "delete")).page.text
        assert "This is your own account." in text
        page: Any = root.delete(User, root.user)
    else:
        text = root.run(User, how, root.user, confirmed="", post="")
        assert "our own account is among them" in text
        root.run(User, how, root.user)
        page = root.page
    assert page.status_code == 200 and page.url.startswith("/accounts/login/")
    assert not User.objects.filter(username="root", is_active=True).exists()
    assert AuditEvent.objects.filter(action__startswith="user.de").exists()


def test_others_are_deleted_without_the_warning(root: AdminBrowser) -> None:
    bob, carol = account("bob"), second()
    for user in (bob, carol):
        text = root.open(row_url(User, user, "delete")).page.text
        assert "your own account" not in text
    root.delete(User, carol)
    root.run(User, "delete_selected", bob)
    assert User.objects.count() == 1 and root.still_signed_in()


def test_staff_learn_nothing_about_the_last_superuser(root: AdminBrowser) -> None:
    vera = AdminBrowser(staff_member("vera", "view_user", "delete_user"))
    page = vera.delete(User, root.user)
    assert page.status_code == 403 and LAST not in page.text


def test_no_other_way_removes_the_last_superuser(root: AdminBrowser) -> None:
    """Models refuse it, whoever calls them: commands, tools, an API, the shell."""
    me = root.user
    with pytest.raises(LastSuperuser):
        me.delete()
    with pytest.raises(LastSuperuser):
        User.objects.filter(pk=me.pk).deactivate(actor="a program")
    for column in ("is_active", "is_superuser", "is_staff"):
        user = User.objects.get(pk=me.pk)
        setattr(user, column, False)
        with pytest.raises(ValidationError, match="last active superuser"):
            user.full_clean()
        with pytest.raises(LastSuperuser):
            user.save()
        with pytest.raises(LastSuperuser):
            user.save(update_fields=[column, "last_login"])
        with pytest.raises(LastSuperuser), transaction.atomic():
            User.objects.bulk_update([user], [column])
        for value in (False, ~F(column), Value(False)):
            with pytest.raises(LastSuperuser):
                User.objects.filter(pk=me.pk).update(**{column: value})
    with pytest.raises(LastSuperuser):
        User.objects.filter(pk=me.pk).delete()
    with pytest.raises(LastSuperuser):
        User.objects.update(is_active=False, first_name="x")
    assert User.objects.all().administrators().get() == me


def test_models_let_one_of_two_superusers_go(root: AdminBrowser) -> None:
    """What is not about administration is saved without a question."""
    carol = second()
    with pytest.raises(LastSuperuser):
        User.objects.all().delete()
    User.objects.filter(pk=carol.pk).update(is_staff=False)
    User.objects.filter(pk=carol.pk).update(is_staff=True)
    root.user.is_superuser = False
    root.user.save()
    alice = account("alice")
    alice.is_active = False
    alice.save()
    me = User.objects.get(pk=carol.pk)
    me.first_name = "Carol"
    me.save()
    User.objects.exclude(pk=carol.pk).delete()
    assert [*User.objects.values_list("first_name", flat=True)] == ["Carol"]


def test_an_import_does_not_deactivate_the_last_superusers(root: AdminBrowser) -> None:
    second()
    both = b"username,active\ncarol,no\nroot,no\n"
    problems = [str(problem) for problem in plan_users(both, "command line").problems]
    assert len(problems) == 2 and all(LAST in text for text in problems)
    assert problems[0].startswith("line 2, active") and "line 3" in problems[1]
    one = b"username,active\ncarol,no\n"
    assert plan_users(one, "command line").problems == []


def test_a_password_is_shown_without_its_hash(root: AdminBrowser) -> None:
    alice = account("alice")
    for algorithm in ("argon2", "pbkdf2_sha256"):
        User.objects.filter(pk=alice.pk).update(
            password=f"{algorithm}$argon2id$v=19$m=102400,t=2,p=8$c2FsdHNhbHQ$aGFzaA"
            if algorithm == "argon2"
            else "pbkdf2_sha256$10$saltsalt$hash"
        )
        text = root.open(row_url(User, alice)).page.text
        assert "A password is set." in text
        for word in ("memory cost", "iterations", "salt", algorithm, "algorithm"):
            assert word not in text
    alice.set_unusable_password()
    alice.save()
    assert "No password set." in root.open(row_url(User, alice)).page.text
