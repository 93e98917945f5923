"""The policy in the admin: export, upload, review, apply."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from accounts.models import AuditEvent, ImportDraft, Role, Scope, User
from mcp_bridge.access.policy_file import export_text, policy_diff
from tests.support.static_files import UNCOLLECTED
from tests.support.users import account, browser_of

pytestmark = pytest.mark.django_db
EXPORT, IMPORT = "/admin/policy/export/", "/admin/policy/"
PERMISSIONS = ("view_scope", "view_role", "view_primitive")


@pytest.fixture(autouse=True)
def static_files(settings: Any) -> None:
    settings.STORAGES = UNCOLLECTED


@pytest.fixture
def carol() -> User:
    return account("carol", is_staff=True, is_superuser=True)


def staff(name: str, *codenames: str) -> User:
    user = account(name, is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    return user


def policy(**sections: Any) -> bytes:
    added = {"scopes": [{"name": "New.Read", "description": "<b>new</b>"}]}
    return json.dumps({"format": "portico-policy-1", **(sections or added)}).encode()


def upload(browser: Client, raw: bytes) -> Any:
    return browser.post(IMPORT, {"file": SimpleUploadedFile("policy.json", raw)})


def exists() -> bool:
    return bool(Scope.objects.filter(name="New.Read").exists())


def recorded(action: str) -> list[str]:
    rows = AuditEvent.objects.filter(action=action)
    return list(rows.values_list("actor", flat=True))


# ------------------------------------------------------------------------ export


def test_an_export_is_a_file_and_is_recorded() -> None:
    user = staff("rita", *PERMISSIONS)
    answer = browser_of(user).get(EXPORT)
    assert answer.status_code == 200
    assert answer["Content-Type"] == "application/json"
    name = r'attachment; filename="policy-\d{8}-\d{6}\.json"'
    assert re.fullmatch(name, answer["Content-Disposition"])
    assert answer.content.decode() == export_text()
    event = AuditEvent.objects.get(action="policy.exported")
    assert (event.actor, event.actor_id, event.address) == (
        "rita",
        user.pk,
        "127.0.0.1",
    )


@pytest.mark.parametrize("missing", PERMISSIONS)
def test_an_export_needs_every_permission(missing: str) -> None:
    user = staff("rita", *(set(PERMISSIONS) - {missing}))
    assert browser_of(user).get(EXPORT).status_code == 403
    assert recorded("policy.exported") == []


# ------------------------------------------------------------------------ import


def test_only_superusers_import(carol: User) -> None:
    user = staff("rita")
    user.user_permissions.set(Permission.objects.all())
    rita = browser_of(user)
    ImportDraft.objects.create(owner=user, kind="policy", content=policy().decode())
    mark = policy_diff(policy()).mark
    assert rita.get(IMPORT).status_code == 403
    assert upload(rita, policy()).status_code == 403
    assert rita.post(IMPORT, {"apply": mark}).status_code == 403
    assert not exists()
    assert browser_of(carol).get(IMPORT).status_code == 200


def test_an_upload_is_reviewed_and_changes_nothing(carol: User) -> None:
    browser = browser_of(carol)
    answer = upload(browser, policy())
    page = answer.content.decode()
    assert answer.status_code == 200 and not exists()
    assert "scopes: New.Read" in page and policy_diff(policy()).mark in page
    assert "&lt;b&gt;new" in page and "<b>new" not in page
    draft = ImportDraft.objects.get()
    assert (draft.owner, draft.kind) == (carol, "policy")
    assert draft.content == policy().decode()


def test_an_applied_draft_is_used_once(carol: User) -> None:
    browser = browser_of(carol)
    upload(browser, policy())
    mark = policy_diff(policy()).mark
    answer = browser.post(IMPORT, {"apply": mark})
    assert (answer.status_code, answer["Location"]) == (302, IMPORT)
    assert "Done: 1 item was added or changed." in browser.get(IMPORT).content.decode()
    assert exists() and not ImportDraft.objects.exists()
    assert recorded("policy.imported") == ["carol"]
    again = browser.post(IMPORT, {"apply": mark})
    assert again.status_code == 400
    assert "Nothing to apply" in again.content.decode()


def test_a_draft_of_another_person_or_kind_is_not_applied(carol: User) -> None:
    other = account("other", is_staff=True, is_superuser=True)
    content = policy().decode()
    ImportDraft.objects.create(owner=other, kind="policy", content=content)
    ImportDraft.objects.create(owner=carol, kind="users", content=content)
    answer = browser_of(carol).post(IMPORT, {"apply": policy_diff(policy()).mark})
    assert answer.status_code == 400 and not exists()
    assert ImportDraft.objects.count() == 2


def test_a_policy_that_changed_since_the_review_is_409(carol: User) -> None:
    browser = browser_of(carol)
    upload(browser, policy())
    mark = policy_diff(policy()).mark
    Scope.objects.create(name="New.Read", description="other")
    answer = browser.post(IMPORT, {"apply": mark})
    assert answer.status_code == 409
    assert "The data changed after you reviewed it" in answer.content.decode()
    assert Scope.objects.get(name="New.Read").description == "other"
    assert ImportDraft.objects.exists() and recorded("policy.imported") == []


def test_who_loses_the_right_meanwhile_is_403(
    carol: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows are read again, because an upload may take long."""
    browser = browser_of(carol)
    upload(browser, policy())
    monkeypatch.setattr(
        "mcp_bridge.access.policy_file.objection_to_importing", lambda actor: "Not you."
    )
    answer = browser.post(IMPORT, {"apply": policy_diff(policy()).mark})
    assert answer.status_code == 403 and "Not you." in answer.content.decode()
    assert not exists() and ImportDraft.objects.exists()


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"{", "line 1"),
        (b"{}", "this is not a policy file"),
        (policy(roles=[{"name": "x", "scopes": ["None.Such"]}]), "unknown scope"),
    ],
)
def test_a_file_with_problems_is_400_and_not_kept(
    carol: User, raw: bytes, text: str
) -> None:
    roles = Role.objects.count()
    answer = upload(browser_of(carol), raw)
    assert answer.status_code == 400 and text in answer.content.decode()
    assert not ImportDraft.objects.exists() and Role.objects.count() == roles


def test_without_a_file_the_form_says_so(carol: User) -> None:
    answer = browser_of(carol).post(IMPORT, {})
    assert answer.status_code == 400
    assert "Choose a file." in answer.content.decode()


def test_a_form_of_another_site_is_refused(carol: User) -> None:
    browser = browser_of(carol, enforce_csrf_checks=True)
    assert upload(browser, policy()).status_code == 403
    assert not ImportDraft.objects.exists()
