"""What `manage.py doctor` says of the database's connections."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection

from accounts.checks import statements_are_bounded


@pytest.mark.django_db
def test_a_pool_that_drops_the_timeouts_is_warned_of(settings: Any) -> None:
    """PostgreSQL itself says what reached it."""
    assert found() == []
    settings.SERVING_OPTIONS = ""
    assert found() == (["portico.W009"] if connection.vendor == "postgresql" else [])


def found() -> list[str | None]:
    """The ids of what the check says."""
    return [message.id for message in statements_are_bounded(databases=["default"])]
