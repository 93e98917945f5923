"""Saved views are private unless they are shared."""

from __future__ import annotations

import pytest
from django.db import IntegrityError, transaction

from accounts.models import SavedView
from tests.support.model_rows import person

pytestmark = pytest.mark.django_db


def test_a_user_sees_own_and_shared_views() -> None:
    ann, bea = person("ann"), person("bea")
    for owner in (ann, bea):
        SavedView.objects.create(name="private", owner=owner)
        SavedView.objects.create(name="shared", owner=owner, shared=True)
    for user, other in ((ann, bea), (bea, ann)):
        seen = SavedView.objects.all().visible_to(user)
        assert {(str(view), view.owner) for view in seen} == {
            ("private", user),
            ("shared", user),
            ("shared", other),
        }


def test_views_are_private_sorted_and_named_once() -> None:
    ann = person("ann")
    for name in ("b", "a"):
        SavedView.objects.create(name=name, owner=ann)
    views = list(SavedView.objects.all())
    assert [view.name for view in views] == ["a", "b"] and not views[0].shared
    with pytest.raises(IntegrityError), transaction.atomic():
        SavedView.objects.create(name="a", owner=ann)
    SavedView.objects.create(name="a", owner=person("bea"))
