"""`manage.py seal_audit`, `verify_audit` and `export_audit`."""

from __future__ import annotations

import io
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from accounts.audit.record import record
from accounts.crypto.signing_keys import load_private_key
from accounts.management.commands import export_audit, seal_audit, verify_audit
from accounts.models import AuditEvent, AuditSeal, SigningKey
from accounts.models.audit.digests import EventUnreadable
from tests.support.commands import new_events, refusal, run_command
from tests.support.database_prompt import empty_audit, raw_events

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def new_audit() -> None:
    empty_audit()
    SigningKey.objects.ensure_active()
    empty_audit()


def test_events_are_sealed_once() -> None:
    assert run_command("seal_audit") == "0 seals added; newest: none.\n"
    record("test.one")
    told = run_command("seal_audit")
    head = AuditSeal.objects.all().head()
    assert head and told == f"1 seal added; newest: seal 1, digest {head.digest}.\n"
    assert run_command("seal_audit").startswith("0 seals added; newest: seal 1, ")


def test_nothing_is_sealed_while_transactions_write(monkeypatch: Any) -> None:
    monkeypatch.setattr(seal_audit, "highest_settled_id", lambda: None)
    record("test.one")
    assert refusal("seal_audit").startswith("Nothing was sealed, because transactions")
    assert not AuditSeal.objects.exists()


def test_an_unreadable_event_is_named(monkeypatch: Any) -> None:
    def seal(_rows: Any) -> int:
        raise EventUnreadable(7)

    monkeypatch.setattr(type(AuditSeal.objects.all()), "seal", seal)
    told = refusal("seal_audit")
    assert told.startswith("event 7 cannot be read, so events from there on cannot be")


@pytest.mark.parametrize("broken", [False, True])
def test_reauthenticating_records_what_was_wrong(broken: bool) -> None:
    """It must not hide a problem."""
    record("test.first")
    run_command("seal_audit")
    record("test.one")
    run_command("seal_audit")
    problem = "no problem"
    if broken:
        raw_events(action="test.one").update(object="changed")
        problem = list(AuditSeal.objects.all().verify())[-1].problem
        assert problem
    told: list[str] = []
    found = new_events(
        lambda: told.append(run_command("seal_audit", "--reauthenticate"))
    )
    summary = f"2 seals; before: {problem}"
    assert found == [("command line", "audit.reauthenticated", summary[:255], "")]
    assert told[0].splitlines()[0] == f"Authenticated {summary}."
    assert "1 seal added; newest: seal 3, " in told[0]


def test_reauthenticating_an_empty_audit_is_recorded() -> None:
    found = new_events(lambda: run_command("seal_audit", "--reauthenticate"))
    assert [event[2] for event in found] == ["0 seals; before: no problem"]


def test_seals_that_match_are_counted() -> None:
    for _seal in range(2):
        record("test.one"), record("test.two")
        run_command("seal_audit")
    assert run_command("verify_audit").splitlines()[0] == (
        "2 seals match 4 events (events of 0 seals were deleted by AUDIT_RETENTION)."
    )
    assert run_command("verify_audit", "--newest", "1").startswith(
        "1 seal matches 2 events"
    )


def test_a_changed_event_is_named() -> None:
    record("test.one")
    run_command("seal_audit")
    raw_events(action="test.one").update(object="changed")
    assert refusal("verify_audit").startswith("The audit was tampered with: ")


def test_events_without_seals_are_an_error() -> None:
    record("test.one")
    told = refusal("verify_audit")
    assert told.startswith("The audit has events but no seals to check: run manage.py")


def test_an_empty_audit_has_nothing_to_check() -> None:
    assert run_command("verify_audit").startswith("0 seals match 0 events")


def test_a_digest_stored_elsewhere_must_exist() -> None:
    record("test.one")
    run_command("seal_audit")
    head = AuditSeal.objects.get().digest
    assert "1 seal matches" in run_command(
        "verify_audit", "--head", f" {head.upper()}\n"
    )
    told = refusal("verify_audit", "--head", "abc")
    assert told == "No seal has the digest abc: seals were replaced or removed."


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--head", "x", "--newest", "1"], "--head checks the whole chain"),
        (["--head", "x", "--newest", "0"], "--head checks the whole chain"),
        (["--newest", "0"], "--newest must be 1 or more."),
        (["--newest", "-1"], "--newest must be 1 or more."),
    ],
)
def test_wrong_options_check_nothing(arguments: list[str], told: str) -> None:
    assert told in refusal("verify_audit", *arguments)


def test_remarks_are_no_problems(monkeypatch: Any) -> None:
    rows = type(AuditSeal.objects.all())
    record("test.one")
    run_command("seal_audit")
    monkeypatch.setattr(rows, "gaps", lambda rows: 3)
    found = [SimpleNamespace(retention_days=days) for days in (9, 7, 9)]
    monkeypatch.setattr(verify_audit, "records", lambda: found)
    told = run_command("verify_audit").splitlines()
    assert told[1].startswith("Within the seals, 3 ids have no event: ")
    assert told[2:] == [
        "Events were deleted with AUDIT_RETENTION=7.",
        "Events were deleted with AUDIT_RETENTION=9.",
    ]


def test_purged_seals_are_counted() -> None:
    record("test.one")
    run_command("seal_audit")
    run_command("verify_audit")
    AuditEvent(action="test.old", at=timezone.now() - timedelta(days=900)).save()
    run_command("seal_audit")
    AuditSeal.objects.filter(number=1).delete()
    assert refusal("verify_audit").startswith("The audit was tampered with")


def test_another_encryption_key_is_a_remark(settings: Any) -> None:
    record("test.one")
    run_command("seal_audit")
    errors = io.StringIO()
    call_command("verify_audit", stdout=io.StringIO(), stderr=errors)
    assert errors.getvalue() == ""
    settings.KEY_ENCRYPTION_KEY = "another"
    load_private_key.cache_clear()
    call_command("verify_audit", stdout=io.StringIO(), stderr=errors)
    assert errors.getvalue().startswith("KEY_ENCRYPTION_KEY decrypts no signing key")


@pytest.mark.parametrize("arguments", [True, False])
def test_an_export_is_recorded_before_it_is_written(
    capfdbinary: Any, arguments: bool
) -> None:
    given: dict[str, Any] = {"form": "csv", "since": "", "until": "2030-01-02"}
    found = new_events(
        lambda: call_command("export_audit", arguments=arguments, **given)
    )
    assert found == [("command line", "audit.exported", "csv", "")]
    event = AuditEvent.objects.get(action="audit.exported")
    assert event.changes == {"filter": ["", "the beginning to 2030-01-02"]}
    assert event.via == ("--arguments" if arguments else "")
    assert b"audit.exported" in capfdbinary.readouterr().out


def test_an_export_is_ordered_and_bounded_by_days(
    capfdbinary: Any, settings: Any
) -> None:
    settings.TIME_ZONE = "UTC"
    start = datetime.fromisoformat("2020-01-01T00:00:00+00:00")
    for name, at in (
        ("d", start + timedelta(days=1)),
        ("c", start + timedelta(days=1) - timedelta(microseconds=1)),
        ("f", start + timedelta(hours=1)),
        ("b", start),
        ("a", start - timedelta(microseconds=1)),
    ):
        AuditEvent(action=f"test.{name}", at=at).save()
    call_command("export_audit", since="2020-01-01", until="2020-01-02")
    out = capfdbinary.readouterr().out.decode()
    names = [part[:1] for part in out.split('"test.')[1:]]
    assert names == ["b", "f", "c"], "by time, not in the order of the rows"


@pytest.mark.parametrize("text", ["2026-13-01", "tomorrow", "2026-1"])
def test_a_day_is_written_as_a_date(text: str) -> None:
    with pytest.raises(CommandError, match=text):
        export_audit.day(text)


@pytest.mark.parametrize("options", [[], ["--arguments"]])
def test_arguments_are_exported_on_request_only(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: Any, options: list[str]
) -> None:
    def exported(events: Any, form: str, *, arguments: bool) -> list[bytes]:
        return [f"{form} {arguments}".encode()]

    monkeypatch.setattr(export_audit, "export_events", exported)
    call_command("export_audit", *options)
    assert capfdbinary.readouterr().out == f"jsonl {bool(options)}".encode()
