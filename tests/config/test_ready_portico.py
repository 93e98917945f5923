"""Starts that share their imports: each has its own settings."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings

from tests.support import fork_server
from tests.support.ready_portico import IMPORTED_WITH, imported_with

ROOT = Path(settings.BASE_DIR)
RECORD = """
import json, os, sys
sys.path.insert(0, os.getcwd())
from django.conf import LazySettings
from tests.support import ready_portico
read, plain = set(), LazySettings.__getattr__
LazySettings.__getattr__ = lambda self, name: (read.add(name), plain(self, name))[1]
ready_portico.load(dict(os.environ))
print(json.dumps(sorted(read)))
"""
READ_AGAIN = {"DATABASES", "LOGGING"}
"""For DATABASES, `read_settings` forgets what was made of them; setup reads LOGGING."""
ENVIRONMENT = {
    "SECRET_KEY": "a secret key of these tests, long enough",
    "KEY_ENCRYPTION_KEY": "another secret key of these tests, long enough",
}
TOLD = """
from django.conf import settings as s
from django.db import connection
name = connection.settings_dict["NAME"]
print(s.ISSUER_URL, s.SESSION_COOKIE_NAME, s.LIMIT_API, name)
"""


def run(folder: Path, *program: str, **environment: str) -> str:
    """The output of a program, in the order of its lines."""
    out = folder / "out"
    out.unlink(missing_ok=True)
    env = {"DATA_DIR": str(folder), **ENVIRONMENT, **environment}
    assert fork_server.start(list(program), env, out).wait(60) == 0, out.read_text()
    return out.read_text()


def assignments() -> Iterator[tuple[str, ast.AST]]:
    """(name, value) of the statements of config/settings.py, in their order."""
    for node in ast.parse((ROOT / "config/settings.py").read_text()).body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        for part in ast.walk(node):
            if isinstance(part, ast.Assign):
                pairs = [(target, part.value) for target in part.targets]
                if isinstance(part.value, ast.Tuple):
                    (several,) = part.targets
                    assert isinstance(several, ast.Tuple)
                    pairs = list(zip(several.elts, part.value.elts, strict=True))
                for target, value in pairs:
                    yield ast.unparse(target), value


def fields_of_settings() -> dict[str, set[str]]:
    """Setting -> the attributes of `env` on which config/settings.py lets it depend."""
    found: dict[str, set[str]] = {}
    for name, value in assignments():
        used: set[str] = set()
        for part in ast.walk(value):
            if isinstance(part, ast.Attribute) and ast.unparse(part.value) == "env":
                used.add(part.attr)
            elif isinstance(part, ast.Name):
                used |= found.get(part.id, set())
        found.setdefault(name, set()).update(used)
    return found


def test_importing_reads_no_other_variable(tmp_path: Path) -> None:
    script = tmp_path / "record.py"
    script.write_text(RECORD)
    read = json.loads(run(tmp_path, str(script)).splitlines()[-1])
    fields = fields_of_settings()
    assert {"INSTALLED_APPS", "METRICS_TOKEN", "SECRET_KEY"} <= set(read) & set(fields)
    # `env.secret("SECRET_KEY")`: the argument names the variable.
    equal = {*IMPORTED_WITH, "secret"}
    unequal = {name for name in read if fields.get(name, set()) - equal}
    assert unequal == READ_AGAIN


def test_each_start_has_its_own_settings(tmp_path: Path) -> None:
    """The third is a fork of a process that had the settings of the second."""
    for issuer, cookie in (
        ("http://127.0.0.1:1", "sessionid"),
        ("https://one.example", "__Host-session"),
        ("http://127.0.0.1:2", "sessionid"),
    ):
        limit = f"{len(issuer)}/minute"
        database = str(tmp_path / limit[0])
        told = run(
            tmp_path,
            *("manage.py", "shell", "--no-imports", "-c", TOLD),
            ISSUER_URL=issuer,
            LIMIT_API=limit,
            DATABASE_URL=f"sqlite:///{database}",
        )
        assert told.split() == [issuer, cookie, limit, database]


def test_starts_share_imports_only_if_what_these_read_is_equal() -> None:
    serve = ["uvicorn", "config.asgi:application"]
    one = {**ENVIRONMENT, "DATA_DIR": "one", "DATABASE_URL": "sqlite:///one"}
    two = {**one, "DATA_DIR": "two", "LIMIT_API": "1/minute", "DATABASE_URL": "sqlite:"}
    assert imported_with(serve, one) == imported_with(["manage.py"], two)
    for name in (*IMPORTED_WITH, "DATABASE_URL"):
        assert imported_with(serve, one) != imported_with(serve, {**one, name: "x"})
    for folders in ({}, {"SECRET_KEY": ""}):
        here, there = (imported_with(serve, {**e, **folders}) for e in (one, two))
        assert (here == there) == (not folders), folders
    assert imported_with(["script.py"], one) is None
    assert imported_with(["uvicorn", "other:app"], one) is None
    measured = {**one, "METRICS_TOKEN": "x", "WORKERS": "2"}
    assert imported_with(serve, measured) is None
