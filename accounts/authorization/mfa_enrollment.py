"""Who has a second factor, and which staff must enroll one."""

from __future__ import annotations

from typing import Any

from allauth.mfa.models import Authenticator
from django.conf import settings
from django.db.models import Exists, OuterRef

from accounts.models.statements.queries import CompiledQuery, Given

FACTOR_TYPES = (Authenticator.Type.TOTP, Authenticator.Type.WEBAUTHN)


FACTORS = Authenticator.objects.filter(type__in=FACTOR_TYPES)
FACTORS_OF = CompiledQuery(
    lambda: FACTORS.filter(user_id=Given(Authenticator, "user")).values_list("pk")
)


def has_mfa(user: Any) -> bool:
    return FACTORS_OF.first(user=user.pk) is not None


def with_mfa(users: Any) -> Any:
    """The accounts of `users` that have a second factor."""
    return users.filter(Exists(FACTORS.filter(user_id=OuterRef("pk"))))


def without_mfa(users: Any) -> Any:
    """The accounts of `users` that have no second factor."""
    return users.filter(~Exists(FACTORS.filter(user_id=OuterRef("pk"))))


def must_enroll_mfa(user: Any) -> bool:
    """Whether STAFF_SECOND_FACTOR requires this user to enroll a second factor."""
    staff = settings.STAFF_SECOND_FACTOR and getattr(user, "is_staff", False)
    return bool(staff and not has_mfa(user))
