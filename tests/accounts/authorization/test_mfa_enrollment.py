"""Which accounts have a second factor, and which staff must enroll one."""

from __future__ import annotations

from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from django.contrib.auth.models import AnonymousUser

from accounts.authorization.mfa_enrollment import (
    has_mfa,
    must_enroll_mfa,
    with_mfa,
    without_mfa,
)
from accounts.models import User
from tests.support.users import account

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("kind", "counts"), [("totp", True), ("webauthn", True), ("recovery_codes", False)]
)
def test_apps_and_passkeys_are_factors_and_recovery_codes_are_not(
    kind: str, counts: bool
) -> None:
    user, other = account("u"), account("other")
    Authenticator.objects.create(user=user, type=kind, data={})
    assert has_mfa(user) is counts and has_mfa(other) is False
    everybody = User.objects.filter(pk__in=(user.pk, other.pk))
    assert set(with_mfa(everybody)) == ({user} if counts else set())
    assert set(without_mfa(everybody)) == ({other} if counts else {user, other})


@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize("is_staff", [True, False])
@pytest.mark.parametrize("has_one", [True, False])
def test_staff_without_a_factor_must_enroll_where_it_is_required(
    settings: Any, required: bool, is_staff: bool, has_one: bool
) -> None:
    settings.STAFF_SECOND_FACTOR = required
    user = account("u", is_staff=is_staff)
    if has_one:
        Authenticator.objects.create(user=user, type="totp", data={})
    assert must_enroll_mfa(user) is (required and is_staff and not has_one)


def test_visitors_need_not_enroll(settings: Any) -> None:
    settings.STAFF_SECOND_FACTOR = True
    assert must_enroll_mfa(AnonymousUser()) is False
    assert must_enroll_mfa(object()) is False
