"""Sign-in providers: their secret, and the roles that claims grant and withdraw."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone

from accounts.crypto.encryption import KeyUnreadable
from accounts.models import ClaimRule, Role, RoleAssignment, SignInProvider, User
from accounts.models.identity_providers import https_or_loopback
from tests.support.model_rows import events_of, person, token_row

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 5, 10, 12, 30, tzinfo=UTC)


@pytest.fixture
def corp() -> SignInProvider:
    """groups = staff gives User; groups = guests gives Guest."""
    made = provider("corp")
    for value, role in (("staff", "User"), ("guests", "Guest")):
        rule(made, value, role)
    return made


def provider(slug: str, **columns: Any) -> SignInProvider:
    return SignInProvider.objects.create(
        slug=slug, name=slug.title(), issuer=f"https://{slug}.example", **columns
    )


def rule(of: SignInProvider, value: str, role: str, claim: str = "groups") -> ClaimRule:
    found = Role.objects.get(name=role)
    return ClaimRule.objects.create(provider=of, claim=claim, value=value, role=found)


@pytest.fixture
def ann() -> User:
    return person("ann")


def held(user: User) -> dict[str, str]:
    """Name of each role -> reason of its assignment."""
    rows = RoleAssignment.objects.filter(user=user)
    return dict(rows.values_list("role__name", "reason"))


def objects_of(action: str) -> list[str]:
    return [event.object for event in events_of(action)]


ISSUERS = {
    "https://login.example": True,
    "http://127.0.0.1:9000": True,
    "http://localhost:9000": True,
    "http://login.example": False,
    "http://127.0.0.1.evil.example": False,
    "http://localhost.evil.example": False,
    "http://localhost": False,
    "HTTPS://login.example": False,
    "ftp://login.example": False,
    " https://login.example": False,
    "x https://login.example": False,
    "https:/login.example": False,
    "": False,
    "http://[::1]:9000/realm": True,
    "https://login.example:8443/a/v2.0": True,
    "https://[2001:db8::1]/a": True,
    "https://login.example/.well-known/openid-configuration?p=b2c": True,
    "https://[tenant].example.com": False,
    "https://{tenant}.example.com": False,
    "https://login.example/{tenant}/v2.0": False,
    "https://<tenant>.example": False,
    "https://login.example:99999": False,
    "https://login.example:x": False,
    "https://[::1": False,
    "https://": False,
    "https:///realm": False,
    "https://a..b": False,
    "https://login\u2100.example": False,
    "https://a:b@login.example": False,
    "https://a@login.example": False,
    "http://a@127.0.0.1:9000": False,
    "https://login.example/#x": False,
    "https://login.example\n": False,
    "http://127.0.0.1:1@evil.example/": False,
    "http://localhost:x/": False,
}


@pytest.mark.parametrize("issuer", ISSUERS)
def test_secrets_are_sent_only_by_https_or_to_this_machine(issuer: str) -> None:
    row = SignInProvider(slug="corp", name="Corp", issuer=issuer, client_id="x")
    errors: dict[str, Any] = {}
    try:
        row.full_clean()
    except ValidationError as error:
        errors = error.message_dict
    assert ("issuer" not in errors) is ISSUERS[issuer]


def test_the_refusal_of_an_issuer_says_what_is_needed() -> None:
    with pytest.raises(ValidationError, match="must start with https://"):
        https_or_loopback("http://login.example")
    with pytest.raises(ValidationError, match="tenant].example is not a URL such as"):
        https_or_loopback("https://[tenant].example")


def test_the_secret_is_stored_encrypted(corp: SignInProvider) -> None:
    assert corp.secret == ""
    corp.set_secret("hünter2")
    corp.save()
    found = SignInProvider.objects.get()
    assert found.secret == "hünter2" and "hünter2" not in found.secret_encrypted
    before = found.secret_encrypted
    found.set_secret("hünter2")
    assert found.secret_encrypted != before and found.secret == "hünter2"


def test_setting_a_secret_does_not_save(corp: SignInProvider) -> None:
    corp.set_secret("x")
    assert SignInProvider.objects.get().secret_encrypted == ""


@pytest.mark.parametrize("stored", ["?", "A", "AAAA", "é"])
def test_an_unreadable_secret_is_named(corp: SignInProvider, stored: str) -> None:
    corp.secret_encrypted = stored
    with pytest.raises(KeyUnreadable, match="secret of corp cannot be decrypted"):
        _ = corp.secret


def test_a_secret_needs_its_key(corp: SignInProvider, settings: Any) -> None:
    corp.set_secret("x")
    settings.KEY_ENCRYPTION_KEY = "another key of thirty-two characters"
    with pytest.raises(KeyUnreadable, match="enter it again"):
        _ = corp.secret


def test_claims_grant_their_roles_for_the_set_time(
    corp: SignInProvider, ann: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timezone, "now", lambda: NOW)
    corp.roles_last = 3
    corp.apply(ann, {"groups": ["staff", "others"]})
    assert held(ann) == {"User": "from provider corp"}
    row = RoleAssignment.objects.get(user=ann)
    assert row.expires_at == NOW + timedelta(days=3) and row.granted_by is None
    (event,) = events_of("role.granted")
    assert (event.object, event.reason) == ("ann has User", "from provider corp")
    assert (event.actor, event.actor_id) == ("ann", ann.pk)
    assert event.subject == f"user:{ann.pk}"


def test_each_sign_in_renews_without_another_event(
    corp: SignInProvider, ann: User
) -> None:
    corp.apply(ann, {"groups": "staff"})
    RoleAssignment.objects.filter(user=ann).update(expires_at=NOW)
    corp.apply(ann, {"groups": "staff"})
    expires = RoleAssignment.objects.get(user=ann).expires_at
    assert expires is not None and expires > timezone.now() + timedelta(days=29)
    assert objects_of("role.granted") == ["ann has User"]
    assert not events_of("role.withdrawn")


def test_a_missing_claim_withdraws_its_role(corp: SignInProvider, ann: User) -> None:
    corp.apply(ann, {"groups": ["staff", "guests"]})
    bea = person("bea")
    corp.apply(bea, {"groups": ["staff"]})
    corp.apply(ann, {"groups": ["guests"]})
    assert set(held(ann)) == {"Guest"} and set(held(bea)) == {"User"}
    (event,) = events_of("role.withdrawn")
    assert (event.object, event.reason) == ("ann has User", "from provider corp")
    assert (event.actor, event.actor_id) == ("ann", ann.pk)
    assert event.subject == f"user:{ann.pk}"


def test_the_last_withdrawn_role_ends_access(corp: SignInProvider, ann: User) -> None:
    corp.apply(ann, {"groups": "staff"})
    token_row(ann)
    corp.apply(ann, {})
    assert held(ann) == {} and not ann.tokens.live().exists()
    (event,) = events_of("token.revoked")
    assert (event.actor, event.reason) == ("from provider corp",) * 2


def test_a_change_of_role_keeps_tokens(corp: SignInProvider, ann: User) -> None:
    """Roles are granted before others are withdrawn."""
    corp.apply(ann, {"groups": "staff"})
    row = token_row(ann)
    corp.apply(ann, {"groups": "guests"})
    assert set(held(ann)) == {"Guest"} and row.state == "active"


def test_the_request_that_signs_in_is_kept(
    corp: SignInProvider, ann: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    corp.apply(ann, {"groups": "staff"})
    monkeypatch.setattr(
        RoleAssignment, "withdraw", lambda self, **options: given.append(options)
    )
    corp.apply(ann, {}, keep="request")  # type: ignore[arg-type]
    assert [options["keep"] for options in given] == ["request"]


@pytest.mark.parametrize("reason", ["", "from provider other", "from provider cor"])
@pytest.mark.parametrize("groups", [["staff"], []])
def test_assignments_of_others_are_not_changed(
    corp: SignInProvider, ann: User, reason: str, groups: list[str]
) -> None:
    """Neither replaced by a shorter one nor withdrawn."""
    user = Role.objects.get(name="User")
    RoleAssignment.objects.grant(ann, user, reason=reason)
    corp.apply(ann, {"groups": groups})
    row = RoleAssignment.objects.get(user=ann)
    assert (row.reason, row.expires_at) == (reason, None)
    assert not events_of("role.granted") and not events_of("role.withdrawn")


def test_assignments_of_another_user_do_not_count(
    corp: SignInProvider, ann: User
) -> None:
    role = Role.objects.get(name="User")
    RoleAssignment.objects.grant(person("bea"), role)
    corp.apply(ann, {"groups": "staff"})
    assert set(held(ann)) == {"User"}


def test_rules_of_another_provider_do_not_count(
    corp: SignInProvider, ann: User
) -> None:
    other = provider("other")
    rule(other, "staff", "Admin")
    corp.apply(ann, {"groups": "staff"})
    assert set(held(ann)) == {"User"}
    other.apply(ann, {"groups": "staff"})
    assert set(held(ann)) == {"User", "Admin"}


def test_two_rules_for_one_role_need_one_match(corp: SignInProvider, ann: User) -> None:
    rule(corp, "bosses", "User")
    corp.apply(ann, {"groups": ["staff", "bosses"]})
    corp.apply(ann, {"groups": ["bosses"]})
    assert set(held(ann)) == {"User"} and len(events_of("role.granted")) == 1


def test_long_names_are_cut_in_events(corp: SignInProvider) -> None:
    long = person("n" * 150)
    Role.objects.filter(name="User").update(name="r" * 100)
    corp.apply(long, {"groups": "staff"})
    assert objects_of("role.granted") == [f"{'n' * 150} has {'r' * 100}"[:255]]
    corp.record_role_event("role.granted", long, Role(name="r" * 200))
    assert len(objects_of("role.granted")[1]) == 255


CLAIMS: list[tuple[str, Any, bool]] = [
    ("groups", {"groups": "staff"}, True),
    ("groups", {"groups": ["a", "staff"]}, True),
    ("groups", {"groups": "staff2"}, False),
    ("groups", {"groups": "Staff"}, False),
    ("groups", {"groups": ["a", "staffs", " staff"]}, False),
    ("groups", {"groups": {"staff": True}}, False),
    ("groups", {"groups": [["staff"]]}, False),
    ("groups", {"groups": []}, False),
    ("groups", {"groups": None}, False),
    ("groups", {}, False),
    ("groups", {"roles": "staff"}, False),
    ("realm.roles", {"realm": {"roles": ["staff"]}}, True),
    ("realm.roles", {"realm": {"roles": "staff"}}, True),
    ("realm.roles", {"realm": ["roles"]}, False),
    ("realm.roles", {"realm": "staff"}, False),
    ("realm.roles", {"realm.roles": "staff"}, False),
    ("realm.roles", {"roles": "staff"}, False),
    ("realm.roles", {}, False),
]


@pytest.mark.parametrize(("claim", "claims", "matches"), CLAIMS)
def test_a_claim_matches_exactly(claim: str, claims: Any, matches: bool) -> None:
    assert ClaimRule(claim=claim, value="staff").matches(claims) is matches


@pytest.mark.parametrize("value", ["1", "True", "None"])
def test_only_text_matches(value: str) -> None:
    row = ClaimRule(claim="a", value=value)
    for other in (1, True, None, [1], [True], [None]):
        assert not row.matches({"a": other})
    assert row.matches({"a": [1, value]})


def test_a_rule_exists_once(corp: SignInProvider) -> None:
    rule(corp, "staff", "Guest"), rule(corp, "staff", "User", claim="roles")
    rule(provider("other"), "staff", "User")
    with pytest.raises(IntegrityError), transaction.atomic():
        rule(corp, "staff", "User")


def test_rules_and_providers_are_named_and_sorted(corp: SignInProvider) -> None:
    rule(corp, "zoo", "User", claim="a")
    shown = [str(row) for row in ClaimRule.objects.all()]
    assert shown == ["a = zoo: User", "groups = guests: Guest", "groups = staff: User"]
    provider("acme")
    assert [str(row) for row in SignInProvider.objects.all()] == ["Acme", "Corp"]


def test_a_new_provider_neither_makes_nor_links_accounts(corp: SignInProvider) -> None:
    corp.refresh_from_db()
    assert not corp.sign_up and not corp.link_by_email
    assert corp.enabled and corp.roles_last == 30
