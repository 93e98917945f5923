"""The part of `make lint` that runs Django: deployment checks, migrations, docs."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
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
    (["-m", "tests.manifest", "--check"], {}),
]


def main() -> int:
    """Run all; how many failed."""
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for command, environment in CHECKS:
            env = {**os.environ, "DATA_DIR": folder, **environment}
            failed += (
                subprocess.call([sys.executable, *command], cwd=ROOT, env=env) != 0
            )
    return failed


if __name__ == "__main__":
    sys.exit(main())
