"""Two users of the portal, signed in."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from accounts.models import User
from tests.support.static_files import UNCOLLECTED
from tests.support.users import account, browser_of


@pytest.fixture(autouse=True)
def plain(settings: Any) -> None:
    settings.STORAGES = UNCOLLECTED


@pytest.fixture
def alice(db: None) -> User:
    """May call: role User."""
    return account("alice", "User")


@pytest.fixture
def bob(db: None) -> User:
    """May call: role User."""
    return account("bob", "User")


@pytest.fixture
def browser(alice: User) -> Client:
    """alice's browser."""
    return browser_of(alice)
