"""Each page of the admin has a section of the guides that exists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from accounts.admin_site.navigation.guides import PLACES, guide_at
from accounts.http.help.links import GUIDES, guide_file

pytestmark = pytest.mark.once


@pytest.mark.parametrize("place", sorted(set(PLACES.values())))
def test_the_section_exists(place: str) -> None:
    name, _hash, title = place.partition("#")
    headings = re.findall(r"^#+ (.+)$", guide_file(name).read_text("utf-8"), re.M)
    assert name in GUIDES and (not title or title in headings)


@pytest.mark.parametrize(
    ("path", "end"),
    [
        ("", "administration/#the-dashboard"),
        ("accounts/user/3/change/", "administration/#the-page-of-a-person"),
        ("users/invite/", "administration/#inviting-people"),
        ("system/", "administration/#where-things-are"),
        ("mcp_bridge/upstreamserver/add/", "upstreams/"),
    ],
)
def test_a_page_has_the_nearest_section(path: str, end: str) -> None:
    assert guide_at(path) == f"/help/{end}"


def test_without_documentation_there_is_no_link(settings: Any, tmp_path: Path) -> None:
    settings.BASE_DIR = tmp_path
    assert guide_at("accounts/user/") == ""
