"""Sign-in providers in the admin: the secret, the claim rules and their events."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib import admin

from accounts.models import AuditEvent, ClaimRule, Role, SignInProvider
from tests.support.admin_browser import (
    AdminBrowser,
    events_by,
    newest_event,
    row_url,
    staff_member,
)

pytestmark = pytest.mark.django_db
ADD = "/admin/accounts/signinprovider/add/"
FIELDS = {
    "name": "Corp",
    "slug": "corp",
    "issuer": "https://corp.example",
    "client_id": "portico",
}


@pytest.fixture
def corp() -> SignInProvider:
    row: SignInProvider = SignInProvider.objects.create(**FIELDS)
    row.set_secret("first")
    row.save()
    return row


def key_of(role: str) -> str:
    return str(Role.objects.get(name=role).pk)


def rule_of(corp: SignInProvider, value: str, role: str = "User") -> ClaimRule:
    row: ClaimRule = ClaimRule.objects.create(
        provider=corp, claim="groups", value=value, role=Role.objects.get(name=role)
    )
    return row


def test_a_secret_is_set_and_never_shown(root: AdminBrowser) -> None:
    root.save(ADD, **FIELDS, client_secret="hush-hush")
    row = SignInProvider.objects.get()
    assert row.secret == "hush-hush" and "hush" not in str(row.secret_encrypted)
    event = newest_event("provider.added")
    assert (event.actor, event.object) == ("root", "Corp")
    assert event.changes["client_secret"] == ["(hidden)", "(hidden)"]
    assert "hush" not in str(AuditEvent.objects.values_list())
    path = row_url(SignInProvider, row)
    assert "hush" not in root.open(path).page.text
    assert 'type="password" name="client_secret"' in root.page.text


def test_an_empty_secret_keeps_the_present_one(
    root: AdminBrowser, corp: SignInProvider
) -> None:
    path = row_url(SignInProvider, corp)
    root.save(path, name="Corp 2")
    row = SignInProvider.objects.get()
    assert (row.name, row.secret) == ("Corp 2", "first")
    assert newest_event("provider.changed").changes == {"name": ["Corp", "Corp 2"]}
    root.save(path, client_secret="second")
    assert SignInProvider.objects.get().secret == "second"


def test_each_change_of_a_rule_is_recorded(
    root: AdminBrowser, corp: SignInProvider
) -> None:
    kept, gone = rule_of(corp, "kept"), rule_of(corp, "gone", "Guest")
    about_gone = str(gone)
    form = root.open(row_url(SignInProvider, corp)).form("_save")
    prefix = next(n for n in form.fields if n.endswith("-TOTAL_FORMS"))[:-12]
    ids = [form.fields[f"{prefix}-{n}-id"] for n in range(2)]
    first, second = ids.index(str(kept.pk)), ids.index(str(gone.pk))
    root.save(
        row_url(SignInProvider, corp),
        **{
            f"{prefix}-{first}-value": "moved",
            f"{prefix}-{second}-DELETE": "on",
            f"{prefix}-2-claim": "groups",
            f"{prefix}-2-value": "new",
            f"{prefix}-2-role": key_of("Admin"),
        },
    )
    values = ClaimRule.objects.values_list("value", flat=True)
    assert set(values) == {"moved", "new"}
    found = AuditEvent.objects.filter(action__startswith="provider.rule").order_by("id")
    moved, new = (str(ClaimRule.objects.get(value=v)) for v in ("moved", "new"))
    assert [(e.action, e.object, e.changes["rule"]) for e in found] == [
        ("provider.rule_set", "Corp", [None, new]),
        ("provider.rule_set", "Corp", [None, moved]),
        ("provider.rule_deleted", "Corp", [about_gone, None]),
    ]
    assert {e.actor for e in found} == {"root"}


def test_the_form_is_bounded() -> None:
    page: Any = admin.site.get_model_admin(SignInProvider)
    inline = page.inlines[0](SignInProvider, admin.site)
    assert inline.most == 200 and inline.model is ClaimRule


def test_only_superusers_change_providers(corp: SignInProvider) -> None:
    names = [f"{v}_signinprovider" for v in ("add", "change", "delete", "view")]
    names += [f"{v}_claimrule" for v in ("add", "change", "delete", "view")]
    mallory = AdminBrowser(staff_member("mallory", *names))
    path = row_url(SignInProvider, corp)
    assert mallory.open(path).page.status_code == 200
    assert "_save" not in [b[0] for form in mallory.forms for b in form.buttons]
    assert mallory.post(path, **FIELDS).status_code == 403
    assert mallory.post(ADD, **FIELDS).status_code == 403
    assert mallory.delete(SignInProvider, corp).status_code == 403
    assert events_by(mallory.user) == []


def test_a_deleted_provider_is_recorded(
    root: AdminBrowser, corp: SignInProvider
) -> None:
    root.delete(SignInProvider, corp)
    assert not SignInProvider.objects.exists()
    assert events_by(root.user) == [("provider.deleted", "Corp", "")]


def test_the_callback_url_to_register_is_shown(
    root: AdminBrowser, corp: SignInProvider, settings: Any
) -> None:
    """Before the provider is saved, with NAME in place of its short name."""
    url = f"{settings.ISSUER_URL}/accounts/oidc/{{}}/login/callback/"
    assert url.format("NAME") in root.open(ADD).page.text
    assert url.format("corp") in root.open(row_url(SignInProvider, corp)).page.text
