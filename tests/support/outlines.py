"""Compares many texts with files, which `NEW_OUTLINES=1` writes."""

from __future__ import annotations

import os
import shutil
from difflib import unified_diff
from pathlib import Path


def difference(known: str, found: str) -> str:
    """The lines that are missing (-) and added (+)."""
    lines = unified_diff(known.splitlines(), found.splitlines(), n=0, lineterm="")
    return "".join(f"{line}\n" for line in [*lines][2:] if not line.startswith("@@"))


def compare(found: dict[str, str], folder: Path) -> None:
    """Each page with its file; NEW_OUTLINES writes the files."""
    if os.environ.get("NEW_OUTLINES"):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for file, lines in found.items():
            (folder / file).write_text(lines, encoding="utf-8")
    known = {one.name: one.read_text(encoding="utf-8") for one in folder.iterdir()}
    assert sorted(found) == sorted(known)
    changed = [
        f"{file}\n{difference(known[file], lines)}"
        for file, lines in found.items()
        if lines != known[file]
    ]
    assert not changed, "\n".join(changed)
