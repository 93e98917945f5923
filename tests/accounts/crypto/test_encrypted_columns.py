"""Everything under KEY_ENCRYPTION_KEY is registered and moves to a new key."""

from __future__ import annotations

import ast
import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal.auth import TOTP
from django.apps import apps
from django.core.management import CommandError
from django.db import connection, models
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.crypto import encrypted_columns
from accounts.crypto.encrypted_columns import ENCRYPTED, EncryptedColumn, Progress
from accounts.crypto.encryption import KeyUnreadable, reseal, seal, unseal
from accounts.crypto.signing_keys import can_decrypt, load_private_key
from accounts.models import (
    AuditEvent,
    AuditHead,
    AuditSeal,
    NotificationChannel,
    SigningKey,
    SignInProvider,
    User,
)
from accounts.models.audit.verification import Verification
from accounts.tokens.issue import issue_tokens
from accounts.tokens.refresh import rotate_refresh_token
from tests.support.commands import new_events, run_command
from tests.support.database_prompt import empty_audit
from tests.support.notification_rows import channel_row
from tests.support.users import public_client

OLD, NEW = "an old key of the tests, long enough", "a new key of the tests, long too"
ROOT = Path(__file__).resolve().parent.parent.parent.parent
NOT_ENCRYPTED = {"accounts.AuditSeal.marks", "accounts.AuditSeal.sealed_at"}
"""Columns that look encrypted and are not."""
TOTP_SECRET = "JBSWY3DPEHPK3PXP"
URL = "https://hooks.example/of-the-channel"


@pytest.fixture(autouse=True)
def old_key(settings: Any) -> Iterator[None]:
    settings.KEY_ENCRYPTION_KEY, settings.KEY_ENCRYPTION_KEY_FALLBACKS = OLD, []
    load_private_key.cache_clear()
    yield
    load_private_key.cache_clear()


def roll(settings: Any, *fallbacks: str) -> None:
    """The next key, with these older ones."""
    settings.KEY_ENCRYPTION_KEY = NEW
    settings.KEY_ENCRYPTION_KEY_FALLBACKS = list(fallbacks)
    load_private_key.cache_clear()


@pytest.mark.parametrize("about", [b"", b"row 1"])
def test_an_older_key_is_read_and_replaced(settings: Any, about: bytes) -> None:
    older = seal(b"tests v1", b"secret", about)
    assert reseal(b"tests v1", older, about) is None
    roll(settings)
    with pytest.raises(KeyUnreadable):
        reseal(b"tests v1", older, about)
    roll(settings, "another", OLD)
    assert unseal(b"tests v1", older, about) == b"secret"
    newer = reseal(b"tests v1", older, about)
    assert newer is not None and reseal(b"tests v1", newer, about) is None
    roll(settings)
    assert unseal(b"tests v1", newer, about) == b"secret"


@pytest.fixture
def secrets(alice: User) -> dict[str, Any]:
    """One of each: a value of every registered column, and two seals."""
    empty_audit()
    SigningKey.objects.all().delete()
    SigningKey.objects.ensure_active()
    provider = SignInProvider(slug="corp", name="Corp", issuer="https://i.example")
    provider.set_secret("of the provider")
    provider.save()
    channel = channel_row(url=URL)
    totp = TOTP.activate(alice, TOTP_SECRET)
    codes = RecoveryCodes.activate(alice)
    pair = issue_tokens(
        alice, issued_via="command", client_id=public_client("one"), opaque=True
    )
    next_pair = rotate_refresh_token(pair.refresh, client_id="one")
    for _seal in range(2):
        AuditEvent(action="test.x", at=timezone.now()).save()
        AuditSeal.objects.all().seal()
    return {
        "totp": totp.instance.pk,
        "channel": channel.secret,
        "codes": codes.generate_codes(),
        "refresh": (pair.refresh, next_pair.refresh),
    }


def all_readable(secrets: dict[str, Any]) -> bool:
    """Whether every secret is read as it was written."""
    keys = SigningKey.objects.all().values_list("kid", "private_encrypted")
    try:
        provider = SignInProvider.objects.get(slug="corp").secret
        channel = NotificationChannel.objects.get()
        of_channel = (channel.secret, channel.url)
        row = Authenticator.objects.get(type=Authenticator.Type.RECOVERY_CODES)
        codes = RecoveryCodes(row).generate_codes()
        totp = unseal(
            encrypted_columns.SECOND_FACTORS.purpose,
            base64.b64decode(
                Authenticator.objects.get(pk=secrets["totp"]).data["secret"]
            ),
        ).decode()
    except KeyUnreadable:
        return False
    again = rotate_refresh_token(secrets["refresh"][0], client_id="one").refresh
    return (
        len(keys) == 2
        and all(can_decrypt(kid, bytes(data)) for kid, data in keys)
        and provider == "of the provider"
        and totp == TOTP_SECRET
        and codes == secrets["codes"]
        and again == secrets["refresh"][1]
        and of_channel == (secrets["channel"], URL)
        and not [r for r in AuditSeal.objects.all().verify() if r.problem]
        and Verification(AuditSeal.objects.all()).checks_macs
    )


def macs() -> list[Any]:
    """Of the head and the seals of the audit."""
    models = (AuditHead, AuditSeal)
    return [mac for model in models for mac in model.objects.values_list("mac")]


@pytest.mark.django_db
def test_everything_moves_to_the_new_key(
    settings: Any, secrets: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both keys serve meanwhile; afterwards the new one alone is enough."""
    monkeypatch.setattr(encrypted_columns, "BATCH_ROWS", 1)
    assert all_readable(secrets)
    roll(settings)
    assert not all_readable(secrets)
    roll(settings, OLD)
    assert all_readable(secrets)
    before = macs()
    with pytest.raises(CommandError, match="older key: 10 values"):
        run_command("rotate_secrets", "--check")
    assert macs() == before and len(before) == 3
    assert not AuditEvent.objects.filter(action="secrets.rotated").exists()
    events = new_events(lambda: run_command("rotate_secrets"))
    counts = (
        "2 signing keys, 1 secrets of sign-in providers, 2 second factors, "
        "1 successors of refresh tokens, 1 secrets of notification channels, "
        "3 seals of the audit"
    )
    assert events == [("command line", "secrets.rotated", counts, "")]
    assert new_events(lambda: run_command("rotate_secrets")) == []
    report = run_command("rotate_secrets", "--check")
    assert "can be removed" in report
    for part in counts.split(", "):
        many, label = part.split(" ", 1)
        assert f"{label}: 0 under an older key, {many} current, 0 unreadable" in report
    roll(settings)
    assert all_readable(secrets)
    assert "can be removed" not in run_command("rotate_secrets", "--check")


@pytest.mark.django_db
@pytest.mark.usefixtures("secrets")
def test_a_value_that_no_key_reads_stops_nothing_else(settings: Any) -> None:
    """It is counted and stays, in case its key is found."""
    stored = ("public" * 20, base64.b64encode(b"x" * 40).decode())
    SignInProvider.objects.update(secret_encrypted=stored[1])
    other = SignInProvider(slug="b", issuer="https://b.example")
    other.secret_encrypted = stored[0]
    other.save()
    roll(settings, OLD)
    with pytest.raises(CommandError, match="decrypted: 2 values"):
        run_command("rotate_secrets")
    kept = SignInProvider.objects.values_list("secret_encrypted", flat=True)
    assert {*kept} == {*stored}
    roll(settings)
    keys = SigningKey.objects.values_list("kid", "private_encrypted")
    assert all(can_decrypt(kid, bytes(data)) for kid, data in keys)


@pytest.mark.django_db
def test_text_is_base64_without_other_characters(settings: Any) -> None:
    """One that reads without its line break is unreadable, not silently repaired."""
    provider = SignInProvider(slug="corp", issuer="https://i.example")
    provider.set_secret("of the provider")
    provider.secret_encrypted += "\n"
    provider.save()
    roll(settings, OLD)
    assert encrypted_columns.SIGN_IN_PROVIDERS.rotate() == Progress(unreadable=1)


@pytest.mark.django_db
@pytest.mark.usefixtures("secrets")
def test_current_values_are_not_written(settings: Any) -> None:
    with CaptureQueriesContext(connection) as queries:
        assert encrypted_columns.SIGNING_KEYS.rotate() == Progress(current=2)
    assert not [one for one in queries if one["sql"].startswith("UPDATE")]
    assert len([one for one in queries if "accounts_signingkey" in one["sql"]]) == 2


@pytest.mark.django_db
@pytest.mark.usefixtures("secrets")
def test_a_forged_mac_is_not_made_valid(settings: Any) -> None:
    AuditSeal.objects.filter(number=2).update(mac="0" * 64)
    roll(settings, OLD)
    run_command("rotate_secrets")
    results = [(r.number, bool(r.problem)) for r in AuditSeal.objects.all().verify()]
    assert results == [(1, False), (2, True)]


@pytest.mark.django_db
def test_a_retired_key_and_empty_secrets_are_left_alone(settings: Any) -> None:
    SigningKey.objects.all().delete()
    key = SigningKey.objects.ensure_active()
    SigningKey.objects.filter(pk=key.pk).update(private_encrypted=b"")
    SignInProvider(slug="public", name="Public", issuer="https://p.example").save()
    roll(settings, OLD)
    run_command("rotate_secrets")
    key.refresh_from_db()
    assert bytes(key.private_encrypted) == b""


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("member", "parts"), [("secret", 0), ("seed", 0), ("migrated_codes", 2)]
)
def test_every_secret_of_a_second_factor_moves(
    settings: Any, alice: User, member: str, parts: int
) -> None:
    """These are all members that allauth decrypts; codes of an older app are a list."""
    column = encrypted_columns.SECOND_FACTORS
    assert {*column.members} == {"secret", "seed", "migrated_codes"}
    sealed = base64.b64encode(seal(column.purpose, b"of the factor")).decode()
    data = {member: [sealed] * parts or sealed, "used_mask": 3}
    row = Authenticator.objects.create(user=alice, type="totp", data=data)
    roll(settings, OLD)
    assert column.rotate().renewed == (parts or 1)
    roll(settings)
    row.refresh_from_db()
    assert row.data.pop("used_mask") == 3 and [*row.data] == [member]
    stored = row.data[member] if parts else [row.data[member]]
    found = [unseal(column.purpose, base64.b64decode(text)) for text in stored]
    assert found == [b"of the factor"] * (parts or 1)


def looks_encrypted(field: Any) -> bool:
    words = ("encrypt", "sealed", "cipher")
    binary = isinstance(field, models.BinaryField)
    return binary or any(word in field.name for word in words)


def test_every_column_that_looks_encrypted_is_registered() -> None:
    """A new one is added to ENCRYPTED, or here if it is not encrypted."""
    registered = {f"{one.model}.{one.column}" for one in ENCRYPTED}
    found = {
        f"{model._meta.label}.{field.name}"
        for model in apps.get_models()
        if model._meta.app_label in ("accounts", "mcp_bridge")
        for field in model._meta.local_concrete_fields
        if looks_encrypted(field)
    }
    assert found - registered - NOT_ENCRYPTED == set()
    assert {one for one in registered if one.startswith("accounts.")} <= found


def purposes_used(path: Path) -> Iterator[str]:
    """The first arguments of `seal(...)` and `derived_key(...)` in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in ("seal", "derived_key", "accepted_keys") and node.args:
                yield ast.unparse(node.args[0])


def test_every_purpose_is_registered() -> None:
    """Nothing is encrypted for a purpose that `rotate_secrets` does not know."""
    names = {
        name
        for name, value in vars(encrypted_columns).items()
        if isinstance(value, EncryptedColumn)
    }
    assert len(names) == len(ENCRYPTED) == len({one.purpose for one in ENCRYPTED})
    not_stored = {
        "accounts/models/audit/digests.py",
        "mcp_bridge/admin/upstreams/add_form.py",
        "mcp_bridge/sessions/sealed_ids.py",
    }
    for app in ("accounts", "mcp_bridge", "config"):
        for path in sorted((ROOT / app).rglob("*.py")):
            where = str(path.relative_to(ROOT))
            if where == "accounts/crypto/encryption.py" or not [*purposes_used(path)]:
                continue
            assert set(purposes_used(path)) == {"PURPOSE"}, where
            text = path.read_text(encoding="utf-8")
            known = any(f"PURPOSE = {name}.purpose" in text for name in names)
            assert known or where in not_stored, where


def test_only_one_module_encrypts() -> None:
    """Another cipher would escape the new key."""
    found = {
        str(path.relative_to(ROOT))
        for app in ("accounts", "mcp_bridge", "config")
        for path in (ROOT / app).rglob("*.py")
        if "AESGCM" in path.read_text() or "Fernet" in path.read_text()
    }
    assert found == {"accounts/crypto/encryption.py"}
