"""Tags of the portal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from accounts.templatetags.portico_portal import guide_of_portal

pytestmark = pytest.mark.once


def test_the_portal_links_to_its_guide(settings: Any, tmp_path: Path) -> None:
    assert guide_of_portal() == "/help/connecting/"
    settings.BASE_DIR = tmp_path
    assert guide_of_portal() == ""
