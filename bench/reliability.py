"""`python -m bench.reliability [kills] [consistency] [proxied]`: long runs of tests.

`make test` runs them too, for a shorter time. This writes docs/reliability.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import host_info
from bench.processes import ROOT
from bench.report_page import table, write_section

PAGE = ROOT / "docs" / "reliability.md"
RUNS = {
    "kills": ("tests/flows/consistency/test_kill.py", {"KILLS": "50"}),
    "consistency": (
        "tests/flows/consistency/test_consistency.py",
        {"CONSISTENCY_FLIPS": "1000"},
    ),
    "proxied": (
        "tests/flows/operations/test_production.py::"
        "test_no_process_behind_the_proxy_uses_an_old_state",
        {"CONSISTENCY_FLIPS": "2000"},
    ),
}
TITLES = {
    "kills": "Kills during calls",
    "consistency": "No stale decisions",
    "proxied": "No stale decisions behind a proxy",
}
COLUMNS = {
    "flips": "changes",
    "messages": "messages after a change",
    "in_passing": "other messages",
    "ended": "slowest end of a running call, s",
}
NAMES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


def run(test: str, longer: dict[str, str]) -> list[dict[str, Any]]:
    """Run a test on both databases; returns its figures, exits if it failed."""
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder) / "figures"
        patient = {"PYTEST_ADDOPTS": "-o faulthandler_timeout=1800"}
        env = {**os.environ, **patient, **longer, "FIGURES": str(figures)}
        command = [sys.executable, "-m", "tests.tools.run", test]
        if subprocess.call(command, cwd=ROOT, env=env):
            sys.exit(f"{test} failed: no figures are written.")
        return [json.loads(line) for line in figures.read_text().splitlines()]


def shown(rows: list[dict[str, Any]]) -> str:
    every = dict.fromkeys(name for row in rows for name in row)
    names = [name for name in every if name not in ("what", "database")]
    head = ["run", "database", *(COLUMNS.get(name, name) for name in names)]
    lines = [
        [row["what"], NAMES[row["database"]], *(cell(row, name) for name in names)]
        for row in rows
    ]
    return table(head, lines)


def cell(row: dict[str, Any], name: str) -> str:
    """A figure as text; empty if this run has none."""
    return f"{row[name]:,}" if name in row else ""


def main() -> None:
    """Run the named tests, or all, and write a section for each."""
    for name in sys.argv[1:] or list(RUNS):
        test, longer = RUNS[name]
        rows = run(
            test, {**longer, **{k: os.environ[k] for k in longer if k in os.environ}}
        )
        source = (
            f"Measured {host_info.stamp()} with `python -m bench.reliability {name}`."
        )
        text = f"{shown(rows)}\n\n{source}"
        write_section(name, text, TITLES[name], PAGE)


if __name__ == "__main__":
    main()
