"""Every kind has a sentence, and a page of the admin that exists."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from django.urls import resolve

from accounts.models.notifications.kinds import (
    KINDS,
    RECORDED,
    TEST,
    kind_named,
    row_path,
)

EVERY = [*KINDS, "test", "of.an.app-that-is-gone", "100%s"]


@pytest.mark.parametrize("name", EVERY)
def test_a_kind_without_data_has_a_sentence_and_a_page(name: str) -> None:
    """Rows outlive the code that wrote them."""
    kind = kind_named(name)
    assert kind.name == name and kind.sentence({})
    assert resolve(urlsplit(kind.page({})).path).url_name
    assert name in KINDS or name == TEST.name or kind.sentence({}) == name


def test_data_appears_as_text() -> None:
    data = {"object": "a %s b", "reason": "50%"}
    text = KINDS["access.requested"].sentence(data)
    assert text == "Access request: a %s b. Reason: 50%"


def test_a_page_of_a_row_or_of_its_list() -> None:
    path = row_path("accounts_accessrequest", "accessrequest:7")
    assert path == "/admin/accounts/accessrequest/7/change/"
    for subject in ("", "accessrequest:", "accessrequest:x"):
        listing = row_path("accounts_accessrequest", subject)
        assert listing == "/admin/accounts/accessrequest/"


def test_channels_may_ask_for_all_but_the_test() -> None:
    assert TEST.name not in KINDS and RECORDED < set(KINDS)
    assert kind_named(TEST.name) is TEST
    assert {"access.requested", "user.locked_out", "token.replayed"} == RECORDED
    assert set(KINDS) == {
        "access.requested",
        "audit.events",
        "check.failed",
        "definition.changed",
        "role.ending",
        "token.replayed",
        "user.locked_out",
    }
