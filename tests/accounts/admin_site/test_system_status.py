"""The state of the installation: findings, versions, settings without secrets."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core import checks
from django.core.checks.registry import CheckRegistry

from accounts.admin_site import system_status
from accounts.admin_site.system_status import closing_line, report_lines

pytestmark = pytest.mark.once
INFO, WARNING = checks.Info("i", id="x.I"), checks.Warning("w", hint="fix", id="x.W")
ERROR, CRITICAL = checks.Error("e", id="x.E"), checks.Critical("c", id="x.C")


@pytest.mark.parametrize("production", [True, False])
def test_findings_are_sorted_by_severity(
    monkeypatch: Any, settings: Any, production: bool
) -> None:
    """In production with the checks for deployments."""
    settings.ENVIRONMENT = "production" if production else "development"
    ours = CheckRegistry()
    ours.register(lambda **given: [WARNING, CRITICAL], "portico")
    ours.register(lambda databases, **given: [INFO] if databases else [], "database")
    ours.register(lambda **given: [ERROR], "security", deploy=True)
    monkeypatch.setattr(system_status, "registry", ours)
    monkeypatch.setattr(system_status, "findings_in_code", lambda: ())
    error = [ERROR] if production else []
    assert system_status.findings() == [CRITICAL, *error, WARNING, INFO]


@pytest.mark.parametrize("way", [1, -1])
def test_equally_severe_findings_are_sorted_by_id(monkeypatch: Any, way: int) -> None:
    """Django's registry is a set, so checks run in another order at each start."""
    found = [
        checks.Warning("a"),
        checks.Warning("z", id="x.W1"),
        checks.Warning("a", id="x.W2"),
        checks.Warning("b", id="x.W2"),
    ]
    ours = CheckRegistry()
    ours.register(lambda **given: found[::way], "portico")
    monkeypatch.setattr(system_status, "registry", ours)
    monkeypatch.setattr(system_status, "findings_in_code", lambda: ())
    assert system_status.findings() == found


def test_checks_of_code_run_once_and_all_others_each_time(monkeypatch: Any) -> None:
    """Checks without a tag, such as those of other apps, are others."""
    ran: list[str] = []
    ours = CheckRegistry()

    def check(name: str) -> Any:
        def run(**given: Any) -> list[Any]:
            ran.append(name)
            return [WARNING]

        return run

    for name, tags in {"code": ["models"], "other": [], "both": ["x", "urls"]}.items():
        ours.register(check(name), *tags)
    monkeypatch.setattr(system_status, "registry", ours)
    monkeypatch.setattr(checks, "run_checks", ours.run_checks)
    system_status.findings_in_code.cache_clear()
    try:
        assert [len(system_status.findings()) for _again in range(2)] == [3, 3]
    finally:
        system_status.findings_in_code.cache_clear()
    assert sorted(ran) == ["both", "code", "other", "other"]


def test_a_report_has_the_fix_of_each_finding() -> None:
    assert list(report_lines([ERROR, WARNING])) == [
        "error: e  [x.E]",
        "warning: w  [x.W]",
        "  fix: fix",
    ]
    assert list(report_lines([WARNING]))[-1] == "No errors found."
    assert list(report_lines([])) == ["No problems found."]


@pytest.mark.parametrize(
    ("results", "line"),
    [
        ([], "No problems found."),
        ([INFO, WARNING], "No errors found."),
        ([WARNING, ERROR], ""),
        ([CRITICAL], ""),
    ],
)
def test_the_last_line_never_hides_an_error(results: list[Any], line: str) -> None:
    assert closing_line(results) == line


@pytest.mark.django_db
def test_versions_name_the_libraries_and_the_database() -> None:
    found = dict(system_status.versions())
    assert list(found)[:2] == ["Portico", "Python"] and set(
        system_status.VERSIONS
    ) < set(found)
    assert all(version[0].isdigit() for version in found.values())
    assert list(found)[-1] in ("sqlite", "postgresql")
    assert "." in list(found.values())[-1]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (timedelta(days=14), "14 days"),
        (timedelta(days=1), "1 day"),
        (timedelta(hours=36), "36 hours"),
        (timedelta(minutes=30), "30 minutes"),
        (timedelta(seconds=90), "90 seconds"),
        (timedelta(0), "0 days"),
        (True, "on"),
        ([], "(empty)"),
        (["a", "b"], "a, b"),
    ],
)
def test_settings_are_shown_in_words(value: Any, text: str) -> None:
    assert system_status.setting_text(value) == text


def test_secrets_are_shown_as_set_or_empty(settings: Any) -> None:
    settings.SECRET_KEY, settings.KEY_ENCRYPTION_KEY = "s3cret", "k3y"
    settings.REGISTRATION_TOKEN = ""
    shown = dict(system_status.settings_shown())
    secrets = ("SECRET_KEY", "KEY_ENCRYPTION_KEY", "REGISTRATION_TOKEN")
    assert [shown[name] for name in secrets] == ["(set)", "(set)", "(empty)"]
    assert "s3cret" not in str(shown) and "k3y" not in str(shown)
    assert shown["ISSUER_URL"] == settings.ISSUER_URL
    assert not set(system_status.SHOWN_SETTINGS) & set(system_status.SECRET_SETTINGS)
    assert not any(
        "TOKEN" in n or "PASSWORD" in n or "KEY" in n
        for n in shown
        if "LIFE" not in n
        and "GRACE" not in n
        and n not in system_status.SECRET_SETTINGS
    )
