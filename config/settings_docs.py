"""Write docs/settings.md and .env.example from the class Environment.

`python -m config.settings_docs --check` only compares them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from config.environment import BASE_DIR, Environment

INTRODUCTION = """# Settings

Every setting is an environment variable, a line of `.env` in the project's folder,
or a file of that name in `/run/secrets`. Portico reports all errors together when
it starts. `python -m config.settings_docs` writes this table from
`config/environment.py`; `make lint` fails when the table is stale.

| variable | default | what it does |
| --- | --- | --- |
"""


def default_of(field: FieldInfo) -> str:
    """The default as a user would write it."""
    value: Any = field.default
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, Path):
        value = f"{value.name}/"
    if isinstance(value, list):
        value = ",".join(value)
    return str(value)


def choices_of(field: FieldInfo) -> str:
    """A sentence with the allowed values of a Literal; else empty."""
    kind: UnionType | Any = field.annotation
    if get_origin(kind) is not Literal:
        return ""
    return f" One of {', '.join(f'`{word}`' for word in get_args(kind))}."


def table() -> str:
    """The text of docs/settings.md."""
    rows = [
        f"| `{name}` | {f'`{default_of(field)}`' if default_of(field) else ''} "
        f"| {field.description}{choices_of(field)} |"
        for name, field in Environment.model_fields.items()
    ]
    return INTRODUCTION + "\n".join(rows) + "\n"


def example() -> str:
    """The text of .env.example: every setting, commented out."""
    lines = [
        "# Copy to .env and uncomment what you want to change; see docs/settings.md."
    ]
    for name, field in Environment.model_fields.items():
        lines += ["", f"# {field.description}", f"#{name}={default_of(field)}"]
    return "\n".join(lines) + "\n"


PAGES = {BASE_DIR / "docs" / "settings.md": table, BASE_DIR / ".env.example": example}


def main(arguments: list[str]) -> int:
    """Write the pages; with --check, print the stale ones and return their number."""
    stale = [
        p for p, make in PAGES.items() if not p.exists() or p.read_text() != make()
    ]
    if "--check" in arguments:
        for page in stale:
            print(f"{page.name} is stale: run python -m config.settings_docs")
        return len(stale)
    for page, make in PAGES.items():
        page.write_text(make())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
