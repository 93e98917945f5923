"""The documentation builds as a site without a warning: every link leads somewhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools.run import ROOT

pytestmark = pytest.mark.once


def build(source: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    options = ["-q", "-W", "-n", "--keep-going", "-b", "html"]
    command = [sys.executable, "-m", "sphinx", *options, str(source), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_every_page_is_in_the_site_and_every_link_leads_somewhere(
    tmp_path: Path,
) -> None:
    done = build(ROOT / "docs", tmp_path)
    assert done.returncode == 0, done.stderr
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert pages <= {path.stem for path in tmp_path.glob("*.html")}
    notes = (tmp_path / "release-notes.html").read_text()
    assert "Unreleased" in notes


def test_a_dead_link_fails_the_build(tmp_path: Path) -> None:
    source = tmp_path / "docs"
    source.mkdir()
    settings = 'extensions = ["myst_parser"]\nmyst_heading_anchors = 3\n'
    (source / "conf.py").write_text(settings)
    (source / "index.md").write_text("# Page\n\n[gone](other.md#nowhere)\n")
    done = build(source, tmp_path / "site")
    assert done.returncode != 0 and "other.md" in done.stderr
