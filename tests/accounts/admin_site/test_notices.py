"""Notices: each finder is asked for those with its permission only."""

from __future__ import annotations

from typing import Any

import pytest

from accounts.admin_site import notices
from accounts.admin_site.notices import Notice, notice_finder
from tests.accounts.admin_site.test_dashboard import Person

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def finders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "_finders", [])
    monkeypatch.setattr(notices, "covered_checks", set())

    @notice_finder("a.view", instead_of="portico.X")
    def some() -> Any:
        yield Notice("later", "/x")
        yield Notice("now", urgent=True)

    @notice_finder("b.view")
    def other() -> Any:
        return [Notice("other", urgent=True)]

    assert callable(some) and callable(other)


def found(*permissions: str) -> list[str]:
    request: Any = type("Request", (), {"user": Person(*permissions)})
    return [str(notice.text) for notice in notices.notices(request)]


def test_urgent_notices_come_first() -> None:
    assert found("a.view", "b.view") == ["now", "other", "later"]


def test_a_finder_is_asked_with_its_permission_only() -> None:
    assert found("b.view") == ["other"] and found() == []


def test_replaced_checks_are_known() -> None:
    assert "portico.X" in notices.covered_checks
