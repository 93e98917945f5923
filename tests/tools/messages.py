"""`make messages`: collect marked strings, compile the catalogues (gettext)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile

from tests.support.translations import APPS, FILE, ROOT

COLLECT = (
    "makemessages --locale ko --no-obsolete --no-wrap --add-location file "
    "--ignore tests --ignore config --ignore bench --ignore deploy"
)
COMPILE = "compilemessages --locale ko --locale en --ignore .venv*"
DATED = re.compile(r'^"(POT-Creation-Date|Report-Msgid-Bugs-To):.*\n', re.M)
"""Header lines that differ on every run."""


def manage(command: str, folder: str) -> None:
    """Run a command of manage.py. Raises CalledProcessError."""
    call = [sys.executable, "manage.py", *command.split()]
    subprocess.run(call, cwd=ROOT, env={**os.environ, "DATA_DIR": folder}, check=True)


def main() -> None:
    """Do both; catalogues change only where strings do."""
    with tempfile.TemporaryDirectory() as folder:
        manage(COLLECT, folder)
        for app in APPS:
            path = ROOT / app / f"{FILE}.po"
            text = path.read_text(encoding="utf-8")
            path.write_text(DATED.sub("", text), encoding="utf-8")
        manage(COMPILE, folder)


if __name__ == "__main__":
    main()
