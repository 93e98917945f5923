"""/healthz, and the response to filters that a list does not declare."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.admin.exceptions import DisallowedModelAdminLookup
from django.test import RequestFactory, override_settings

from accounts.admin_site.declared_lookups import LookupRefused
from config.views.health import healthz, undeclared_lookup
from tests.support.static_files import UNCOLLECTED

pytestmark = pytest.mark.once


def test_a_process_that_serves_is_healthy() -> None:
    """Without the database, which the test does not allow."""
    response = healthz(RequestFactory().get("/healthz"))
    assert (response.status_code, json.loads(response.content)) == (
        200,
        {"status": "ok"},
    )
    assert response["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (LookupRefused("user__pässword"), r"'user__p\xe4ssword'"),
        (DisallowedModelAdminLookup("x"), "''"),
    ],
)
def test_a_program_is_told_the_lookup(error: Exception, named: str) -> None:
    response = undeclared_lookup(RequestFactory().get("/admin/x/"), error)
    assert response.status_code == 400 and response["Cache-Control"] == "no-store"
    assert json.loads(response.content) == {
        "error": "invalid_request",
        "error_description": f"This list cannot be filtered by {named}. "
        "Use the filters it shows.",
    }


@pytest.mark.django_db
@override_settings(STORAGES=UNCOLLECTED)
def test_a_browser_is_shown_a_page_with_the_list(rf: Any) -> None:
    request = rf.get("/admin/accounts/user/", headers={"accept": "text/html"})
    response = undeclared_lookup(request, LookupRefused("<b>x"))
    page = response.content.decode()
    assert response.status_code == 400 and "&lt;b&gt;x" in page and "<b>x" not in page
    assert 'href="/admin/accounts/user/"' in page
