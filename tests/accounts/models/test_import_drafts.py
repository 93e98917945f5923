"""Drafts of imports are deleted after a day."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.db import IntegrityError, transaction

from accounts.models import ImportDraft
from tests.support.model_rows import person

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 5, 10, 12, 30, tzinfo=UTC)
DAY = timedelta(days=1)


def test_a_purge_deletes_drafts_older_than_a_day() -> None:
    ann = person("ann")
    ages = {"old": DAY + timedelta(microseconds=1), "edge": DAY, "new": timedelta()}
    for kind, age in ages.items():
        ImportDraft.objects.create(owner=ann, kind=kind, made_at=NOW - age)
    assert ImportDraft.objects.all().purge(NOW) == 1
    assert {str(row) for row in ImportDraft.objects.all()} == {
        "edge draft of ann",
        "new draft of ann",
    }


def test_a_user_has_one_draft_of_a_kind() -> None:
    ann, bea = person("ann"), person("bea")
    for owner, kind in ((ann, "users"), (bea, "users"), (ann, "roles")):
        ImportDraft.objects.create(owner=owner, kind=kind)
    with pytest.raises(IntegrityError), transaction.atomic():
        ImportDraft.objects.create(owner=ann, kind="users")
