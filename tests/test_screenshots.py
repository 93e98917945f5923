"""The command that takes the screenshots of docs/screenshots."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.chromium import require_chromium
from tests.support.subprocess_python import python_output

pytestmark = pytest.mark.once
ONE_OF_EACH = """
from pathlib import Path
from tests.tools.screenshots import PAGES, main
main(Path({folder!r}), [PAGES[0], PAGES[-1]])
"""
"""Takes the first page, of the admin, and the last, of the portal."""


def test_the_command_takes_screenshots(tmp_path: Path) -> None:
    """The command starts its own server, makes calls, and opens admin and portal."""
    require_chromium()
    python_output(ONE_OF_EACH.format(folder=str(tmp_path / "taken")), timeout=300)
    taken = sorted(path.name for path in (tmp_path / "taken").iterdir())
    looks = [
        f"{page}-{scheme}.png"
        for page in ("dashboard", "portal-tools")
        for scheme in ("dark", "light")
    ]
    assert taken == looks
