"""Each script of pages with a small DOM: the files `scripts/*.mjs`, run by Node.js.

A browser runs them with real pages in `tests/flows/browser/`.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.requirements_skip import skip_or_fail

ROOT = Path(__file__).parent.parent
FILES = sorted(ROOT.glob("*/scripts/*.mjs"))
STATIC = ROOT.parent.glob("*/static/*/*.js")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_scripts_do_what_their_tests_say(file: Path) -> None:
    node = shutil.which("node")
    if node is None:
        skip_or_fail("node", "install Node.js 20 or newer: apt-get install nodejs")
    command = [str(node), "--test", str(file)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_script_has_a_test() -> None:
    texts = "".join(file.read_text(encoding="utf-8") for file in FILES)
    missing = [path.stem for path in STATIC if path.stem not in texts]
    assert not missing
