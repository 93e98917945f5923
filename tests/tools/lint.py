"""The part of `make lint` that runs Django and mypy: types, deployment, migrations."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PRODUCTION = {
    "ENVIRONMENT": "production",
    "ISSUER_URL": "https://portico.example.com",
    "SECRET_KEY": "lint only, not a secret, long enough and varied 0123456789",
    "KEY_ENCRYPTION_KEY": "lint only, not a secret, long enough",
    "DATABASE_URL": "postgres://portico@127.0.0.1:1/portico",
    "TRUSTED_PROXIES": "127.0.0.1",
}
CHECKS: list[tuple[list[str], dict[str, str]]] = [
    (["manage.py", "check", "--deploy", "--fail-level", "WARNING"], PRODUCTION),
    (["manage.py", "check", "--fail-level", "WARNING"], {}),
    (["manage.py", "makemigrations", "--check", "--dry-run"], {}),
    (["-m", "config.settings_docs", "--check"], {}),
    (["-m", "tests.tools.spec_table", "--check"], {}),
    (["-m", "tests.tools.client_pages", "--check"], {}),
    (["-m", "mypy", "."], {"EXTRA_APPS": "examples.products"}),
]


def main() -> int:
    """Run all in parallel; returns the number of failures."""
    with tempfile.TemporaryDirectory() as folder:
        running = [
            subprocess.Popen(
                [sys.executable, *command],
                cwd=ROOT,
                env={**os.environ, "DATA_DIR": tempfile.mkdtemp(dir=folder), **more},
            )
            for command, more in CHECKS
        ]
        return sum(process.wait() != 0 for process in running)


if __name__ == "__main__":
    sys.exit(main())
