"""The part of `make lint` that runs Django and mypy: types, deployment, migrations."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.fork_server import quick_python

ROOT = Path(__file__).resolve().parent.parent.parent
PRODUCTION = {
    "ENVIRONMENT": "production",
    "ISSUER_URL": "https://portico.example.com",
    "SECRET_KEY": "lint only, not a secret, long enough and varied 0123456789",
    "KEY_ENCRYPTION_KEY": "lint only, not a secret, long enough",
    "DATABASE_URL": "postgres://portico@127.0.0.1:1/portico",
    "TRUSTED_PROXIES": "127.0.0.1",
}
CI = "CI" in os.environ
CHECKS: list[tuple[list[str], dict[str, str]]] = [
    (["manage.py", "check", "--deploy", "--fail-level", "WARNING"], PRODUCTION),
    (["manage.py", "check", "--fail-level", "WARNING"], {}),
    (["manage.py", "makemigrations", "--check", "--dry-run"], {}),
    (["-m", "config.settings_docs", "--check"], {}),
    (["-m", "tests.tools.spec_table", "--check"], {}),
    (["-m", "tests.tools.client_pages", "--check"], {}),
]
# A cache that nobody reads again takes a tenth of the time.
MYPY = [sys.executable, "-m", "mypy", *(["--cache-dir=/dev/null"] if CI else []), "."]


def main() -> int:
    """Run all in parallel; returns the number of failures."""
    python = quick_python()
    commands = [([python, *command], more) for command, more in CHECKS]
    commands.append((MYPY, {"EXTRA_APPS": "examples.products"}))
    with tempfile.TemporaryDirectory() as folder:
        running = [
            subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, "DATA_DIR": tempfile.mkdtemp(dir=folder), **more},
            )
            for command, more in commands
        ]
        return sum(process.wait() != 0 for process in running)


if __name__ == "__main__":
    sys.exit(main())
