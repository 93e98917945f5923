"""Second factors: codes once, lock-out, enforcement for staff, and their events."""

from __future__ import annotations

import time
from typing import Any

import pytest
from allauth.core import context
from allauth.mfa import signals
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal.auth import TOTP, format_hotp_value, hotp_value
from allauth.usersessions.models import UserSession
from axes.models import AccessAttempt
from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.core.cache import cache
from django.core.exceptions import ValidationError
from django.http import HttpResponse
from django.test import RequestFactory, override_settings
from django.utils import translation

from accounts.authentication import mfa
from accounts.authentication.lockout import reserve_attempt
from accounts.authentication.mfa import MFAAdapter, StaffFactorMiddleware
from accounts.crypto.encryption import KeyUnreadable
from accounts.errors import InvalidGrant, SecondFactorRequired
from accounts.models import AuditEvent, IssuedToken, User
from accounts.rate_limits.errors import RateLimited
from accounts.tokens.issue import issue_tokens
from tests.support.model_rows import record_locks
from tests.support.users import account, browser_of

SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
NOW = 1_800_000_000.0


@pytest.fixture(autouse=True)
def stopped_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    cache.clear()  # allauth keeps used codes there
    monkeypatch.setattr(time, "time", lambda: NOW)


@pytest.fixture
def alice(db: None) -> User:
    """With an authenticator app."""
    user = account("alice", "User")
    TOTP.activate(user, SECRET)
    return user


def code(steps: int = 0) -> str:
    return str(format_hotp_value(hotp_value(SECRET, int(NOW) // 30 + steps)))


def asked(address: str = "192.0.2.1") -> Any:
    return RequestFactory().post("/x", REMOTE_ADDR=address)


def test_a_code_is_accepted_once(alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 6238 5.2: also the codes of neighbouring steps, until the next step."""
    row = mfa.consume_code(alice, code())
    assert row is not None and row.type == "totp"
    for later in (0, 29):
        cache.clear()  # as another worker, whose cache of used codes is empty
        monkeypatch.setattr(time, "time", lambda at=NOW + later: at)
        assert mfa.consume_code(alice, code()) is None
    monkeypatch.setattr(time, "time", lambda: NOW + 30)
    assert mfa.consume_code(alice, code(1)) is not None
    assert mfa.TOTP_STEP == 30


def test_factors_are_locked_while_a_code_is_compared(
    alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite ignores row locks, so no other test notices one that is missing."""
    locked = record_locks(monkeypatch)
    assert mfa.consume_code(alice, code()) is not None
    assert locked == ["Authenticator"]


def test_a_recovery_code_is_accepted_once(alice: User) -> None:
    codes = RecoveryCodes.activate(alice).generate_codes()
    for one in codes[:2]:
        row = mfa.consume_code(alice, one)
        assert row is not None and row.type == "recovery_codes"
        assert mfa.consume_code(alice, one) is None


def test_a_code_of_another_user_is_wrong(alice: User) -> None:
    """And stays unused."""
    bob = account("bob")
    assert mfa.consume_code(bob, code()) is None
    TOTP.activate(bob, "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ")
    assert mfa.consume_code(bob, code()) is None
    assert mfa.consume_code(alice, "000000") is None
    assert mfa.consume_code(alice, code()) is not None


def test_a_step_claimed_by_another_worker_is_refused(alice: User) -> None:
    row = Authenticator.objects.get(user=alice)
    assert mfa.claim_time_step(row) and not mfa.claim_time_step(row)
    row.refresh_from_db()
    assert row.data["last_step"] == int(NOW) // 30
    row.type = "recovery_codes"
    assert mfa.claim_time_step(row)


def test_wrong_codes_lock_out(alice: User, settings: Any) -> None:
    """Before the right one is compared; another address is free."""
    settings.LOCKOUT_AFTER = settings.AXES_FAILURE_LIMIT = 2
    for _ in range(2):
        with pytest.raises(ValidationError, match="The code is wrong"):
            mfa.verify_code(asked(), alice, "000000")
    with pytest.raises(RateLimited):
        mfa.verify_code(asked(), alice, code())
    assert mfa.verify_code(asked("192.0.2.2"), alice, code()).user_id == alice.pk
    event = AuditEvent.objects.filter(action="user.sign_in_failed").last()
    assert event is not None and (event.object, event.reason) == (
        "alice",
        "second_factor",
    )


def test_the_password_grant_asks_for_a_code(alice: User) -> None:
    with pytest.raises(SecondFactorRequired, match="as otp"):
        mfa.check_otp(asked(), alice, "")
    with pytest.raises(InvalidGrant, match="The code is wrong"):
        mfa.check_otp(asked(), alice, "000000")
    mfa.check_otp(asked(), alice, code())
    bob = account("bob")
    RecoveryCodes.activate(bob)
    mfa.check_otp(asked(), bob, "")


def test_a_code_is_another_attempt_than_the_password(
    alice: User, settings: Any
) -> None:
    """Otherwise the right code would count as the second attempt at the same time."""
    settings.LOCKOUT_AFTER = 1
    request = asked()
    reserve_attempt(request, "alice")
    mfa.check_otp(request, alice, code())
    assert not AccessAttempt.objects.exists()


def test_staff_without_a_factor_get_no_token(db: None, settings: Any) -> None:
    settings.STAFF_SECOND_FACTOR, settings.ISSUER_URL = True, "https://p.example"
    carol = account("carol", is_staff=True)
    with pytest.raises(SecondFactorRequired) as refused:
        mfa.check_otp(asked(), carol, "000000")
    assert "https://p.example/portal/security/" in str(refused.value)
    mfa.check_otp(asked(), account("bob"), "")
    settings.STAFF_SECOND_FACTOR = False
    mfa.check_otp(asked(), carol, "")


PATHS = {
    "/admin/": True,
    "/admin/accounts/user/": True,
    "/portal/": True,
    "/portal/tokens/": True,
    "/oauth/authorize": True,
    "/device": True,
    "/portal/security/": False,
    "/portal/security/passkeys/": False,
    "/admin/logout/": False,
    "/admin/jsi18n/": False,
    "/accounts/2fa/totp/activate/": False,
    "/accounts/logout/": False,
    "/oauth/token": False,
    "/api/token/": False,
    "/": False,
}
"""Path -> whether staff without a factor are sent away."""


@pytest.mark.parametrize(("path", "enforced"), PATHS.items())
def test_staff_without_a_factor_are_sent_to_set_one_up(
    db: None, settings: Any, path: str, enforced: bool
) -> None:
    middleware = StaffFactorMiddleware(lambda request: HttpResponse("served"))
    request = RequestFactory().get(path)
    request.user = carol = account("carol", is_staff=True)
    settings.STAFF_SECOND_FACTOR = True
    answer = middleware.process_view(request)
    assert (answer is not None) == enforced
    if answer is not None:
        assert (answer.status_code, answer["Location"]) == (302, "/portal/security/")
    for user in (AnonymousUser(), account("bob")):
        request.user = user
        assert middleware.process_view(request) is None
    request.user = carol
    settings.STAFF_SECOND_FACTOR = False
    assert middleware.process_view(request) is None
    settings.STAFF_SECOND_FACTOR = True
    TOTP.activate(carol, SECRET)
    assert middleware.process_view(request) is None
    assert middleware(request).content == b"served"


@pytest.mark.parametrize("verb", ["added", "removed", "reset"])
def test_a_changed_factor_is_recorded_and_ends_other_sessions(
    alice: User, verb: str
) -> None:
    """Tokens stay: the account became safer. This browser stays signed in."""
    issue_tokens(alice, issued_via="password")
    here, there = browser_of(alice), browser_of(alice)
    others = browser_of(account("bob"))
    request = RequestFactory().get("/", REMOTE_ADDR="192.0.2.7")
    request.session, request.user = here.session, alice
    row = Authenticator.objects.get(user=alice)
    signal = getattr(signals, f"authenticator_{verb}")
    with translation.override("ko"):  # The audit is English for all readers.
        signal.send(__name__, request=request, user=alice, authenticator=row)
    request.session.save()
    here.cookies[settings.SESSION_COOKIE_NAME] = str(request.session.session_key)
    path = "/portal/connect/status"
    assert [b.get(path).status_code for b in (here, there, others)] == [200, 302, 200]
    assert IssuedToken.objects.filter(user=alice).live().count() == 2
    event = AuditEvent.objects.get(action=f"second_factor.{verb}")
    assert (event.actor, event.object) == ("alice", "authenticator app of alice")
    assert (event.address, event.subject) == ("192.0.2.7", f"user:{alice.pk}")
    ended = AuditEvent.objects.get(action="session.ended")
    assert (ended.actor, ended.reason) == ("alice", f"second factor {verb}")


def test_a_reset_ends_factors_and_access_of_one_account(alice: User) -> None:
    """The finder of a lost device may be signed in."""
    RecoveryCodes.activate(alice)
    bob = account("bob")
    for user in (alice, bob):
        issue_tokens(user, issued_via="password")
        browser_of(user)
    TOTP.activate(bob, SECRET)
    assert mfa.reset_mfa(alice, actor="carol") == 2
    assert set(Authenticator.objects.values_list("user__username", flat=True)) == {
        "bob"
    }
    assert not IssuedToken.objects.filter(user=alice).live().exists()
    assert IssuedToken.objects.filter(user=bob).live().count() == 2
    assert UserSession.objects.get().user == bob
    event = AuditEvent.objects.get(action="second_factor.reset")
    assert (event.actor, event.object) == ("carol", "alice")
    revoked = AuditEvent.objects.filter(action="token.revoked")
    assert {(e.actor, e.reason) for e in revoked} == {("carol", "second factor reset")}


def test_a_reset_keeps_the_browser_of_the_one_who_resets(alice: User) -> None:
    """People reset their own factors, too."""
    here, there = browser_of(alice), browser_of(alice)
    request = RequestFactory().post("/")
    request.session, request.user = here.session, alice
    mfa.reset_mfa(alice, actor=alice, keep=request)
    request.session.save()
    here.cookies[settings.SESSION_COOKIE_NAME] = str(request.session.session_key)
    path = "/portal/connect/status"
    assert [b.get(path).status_code for b in (here, there)] == [200, 302]


def test_a_failed_reset_keeps_the_factors(
    alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("no database")

    monkeypatch.setattr(User, "revoke_tokens", fails)
    with pytest.raises(RuntimeError):
        mfa.reset_mfa(alice, actor="carol")
    assert Authenticator.objects.filter(user=alice).exists()
    assert not AuditEvent.objects.filter(action="second_factor.reset").exists()


def test_secrets_are_encrypted_with_their_key_only() -> None:
    adapter = MFAAdapter()
    sealed = adapter.encrypt("secret")
    assert adapter.decrypt(sealed) == "secret" and "secret" not in sealed
    assert adapter.encrypt("secret") != sealed
    with override_settings(KEY_ENCRYPTION_KEY="another"):
        with pytest.raises(KeyUnreadable, match="second factor"):
            adapter.decrypt(sealed)
    for broken in ("", "%%%", sealed[:-4], f"{sealed} "):
        with pytest.raises(KeyUnreadable, match="second factor"):
            adapter.decrypt(broken)


def test_the_forms_check_codes_under_the_lock_out(alice: User) -> None:
    for form_class in (mfa.CodeForm, mfa.ReauthenticationCodeForm):
        cache.clear()
        Authenticator.objects.filter(user=alice).delete()
        row = TOTP.activate(alice, SECRET).instance
        with context.request_context(asked()):
            wrong = form_class(user=alice, data={"code": "000000"})
            assert not wrong.is_valid() and "code" in wrong.errors
            right = form_class(user=alice, data={"code": code()})
            assert right.is_valid() and right.authenticator == row
    failed = AuditEvent.objects.filter(action="user.sign_in_failed")
    assert failed.count() == 2
