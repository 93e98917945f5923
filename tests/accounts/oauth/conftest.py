"""Pages of the OAuth server without collectstatic."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.static_files import UNCOLLECTED


@pytest.fixture(autouse=True)
def uncollected(settings: Any) -> None:
    settings.STORAGES = {**settings.STORAGES, **UNCOLLECTED}
