"""Figures of a long run, for the pages that quote them (bench/reliability.py)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from django.db import connection


def write_figure(what: str, **figures: Any) -> None:
    """Append a line to the file FIGURES, if it is set."""
    target = os.environ.get("FIGURES")
    if target:
        line = {"what": what, "database": connection.vendor, **figures}
        with Path(target).open("a") as out:
            out.write(f"{json.dumps(line)}\n")
