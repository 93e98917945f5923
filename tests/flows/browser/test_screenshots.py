"""The command that takes the screenshots of docs/screenshots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.server import Portico
from tests.support.users import PASSWORD
from tests.tools import screenshots

pytestmark = [
    pytest.mark.browser,
    pytest.mark.once,
    pytest.mark.usefixtures("default_users"),
]


def test_the_command_takes_screenshots(
    server: Portico, chromium: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It opens the first page, of the admin, and the last, of the portal."""
    monkeypatch.setattr(screenshots, "DEMO_PASSWORD", PASSWORD)
    pages = [screenshots.PAGES[0], screenshots.PAGES[-1]]
    screenshots.pictures(chromium, server, tmp_path, pages)
    taken = sorted(path.name for path in tmp_path.iterdir())
    looks = [
        f"{page}-{scheme}.png"
        for page in ("dashboard", "portal-tools")
        for scheme in ("dark", "light")
    ]
    assert taken == looks
