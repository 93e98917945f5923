"""The system page: results of the checks, versions and settings, no secrets."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.checks import Error, Warning

from accounts.admin_site import system_status
from tests.support.admin_browser import AdminBrowser, staff_member

pytestmark = pytest.mark.django_db
PATH = "/admin/system/"


def test_findings_are_shown_with_their_severity(
    root: AdminBrowser, monkeypatch: Any
) -> None:
    found = [
        Error("broken <b>", hint="fix it", id="portico.E900"),
        Warning("odd", id="portico.W900"),
    ]
    monkeypatch.setattr(system_status, "findings", lambda: found)
    text = root.open(PATH).page.text
    assert '<span class="badge bad">error</span> broken &lt;b&gt;' in text
    assert '<span class="badge warn">warning</span> odd' in text
    assert "[portico.E900]" in text and "fix it" in text
    assert "No errors found." not in text
    monkeypatch.setattr(system_status, "findings", lambda: found[1:])
    assert "No errors found." in root.open(PATH).page.text


def test_versions_and_settings_are_shown_without_secrets(
    root: AdminBrowser, settings: Any
) -> None:
    settings.WORKERS = 77
    text = root.open(PATH).page.text
    assert "<dt>Python</dt>" in text and "<dt>django</dt>" in text
    assert "<dt>workers</dt><dd>77</dd>" in text
    for name in system_status.SHOWN_SETTINGS:
        assert f"<dt>{name}</dt>" in text
    for name in system_status.SECRET_SETTINGS:
        value = getattr(settings, name)
        assert f"<dt>{name}</dt>" in text and (not value or f">{value}<" not in text)


def test_the_page_needs_its_permission() -> None:
    for codename, status in (("view_system", 200), ("view_user", 403)):
        browser = AdminBrowser(staff_member(f"with-{codename}", codename))
        assert browser.open(PATH).page.status_code == status
        assert (PATH in browser.open("/admin/").page.text) == (status == 200)
