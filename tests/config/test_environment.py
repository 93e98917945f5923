"""Settings: typed, all errors at once, each with its fix."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from shutil import copytree

import pytest

from config import settings_docs
from config.environment import Environment, kept_secret, version
from tests.support.ports import free_port
from tests.support.server import ROOT, prepared_folder

pytestmark = pytest.mark.once


def manage(
    folder: Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run manage.py with only these variables."""
    env = {"PATH": os.environ["PATH"], "DATA_DIR": str(folder), **environment}
    command = [sys.executable, "manage.py", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=240
    )


@pytest.mark.spec("RFC 8414 3.1: an issuer without a path")
def test_every_error_is_reported_at_once(tmp_path: Path) -> None:
    """Each error names the variable and the fix, without a traceback."""
    wrong = {
        "PORT": "eighty",
        "ISSUER_URL": "https://h.example/path/",
        "ALLOWED_ORIGINS": "h.example",
        "LIMIT_TOKEN": "many",
        "VALKEY_URL": "http://h",
        "DATABASE_URL": "mysql://h/x",
        "EXTRA_APPS": "examples.products, no.such",
        "TRUSTED_PROXIES": "10.0.0.0/8, everybody",
        "SIGNING_ALGORITHM": "none",
        "ACCESS_TOKEN_LIFETIME": "0",
        "ENVIRONMENT": "staging",
    }
    done = manage(tmp_path, "check", **wrong)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert all(f"  {name}: " in done.stderr for name in wrong)
    assert "docs/settings.md" in done.stderr


@pytest.mark.spec("OAuth 2.1 1.5: https")
def test_production_requires_secrets_and_https(tmp_path: Path) -> None:
    unsafe = {"ENVIRONMENT": "production", "ISSUER_URL": "http://portico.example"}
    done = manage(tmp_path, "check", **unsafe)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    for name in ("SECRET_KEY", "KEY_ENCRYPTION_KEY", "ISSUER_URL"):
        assert f"  {name}: set it to" in done.stderr
    assert not (tmp_path / "secret_key").exists()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"SECRET_KEY": "x" * 60}, "SECRET_KEY"),
        ({"SECRET_KEY": "django-insecure-" + "0123456789" * 5}, "SECRET_KEY"),
        ({"KEY_ENCRYPTION_KEY": "0123456789abcdef" * 4}, "KEY_ENCRYPTION_KEY"),
        ({"WORKERS": "2", "DATABASE_URL": ""}, "DATABASE_URL"),
        ({"WORKERS": "2", "VALKEY_URL": ""}, "VALKEY_URL"),
        ({"METRICS_TOKEN": "short"}, "METRICS_TOKEN"),
    ],
)
def test_production_refuses_what_is_unsafe(given: dict[str, str], told: str) -> None:
    """Each unsafe setting is named; no other is reported."""
    safe = {
        "ENVIRONMENT": "production",
        "ISSUER_URL": "https://h.example",
        "SECRET_KEY": "0123456789abcdef" * 4,
        "KEY_ENCRYPTION_KEY": "fedcba9876543210" * 3,
        "DATABASE_URL": "postgres://h/d",
        "VALKEY_URL": "redis://h",
    }
    assert not Environment(_env_file=None, **safe).problems()  # type: ignore[arg-type]
    found = Environment(_env_file=None, **{**safe, **given}).problems()  # type: ignore[arg-type]
    assert [line.partition(":")[0] for line in found] == [told]


def test_a_folder_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    done = manage(blocked / "var", "check")
    assert done.returncode == 1 and "DATA_DIR" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["demo", "doctor", "issue_token x"])
def test_an_unprepared_database_is_one_sentence(tmp_path: Path, command: str) -> None:
    """The exit code is 1 and the error names the fix, without a traceback."""
    done = manage(tmp_path, *command.split())
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "run manage.py migrate" in done.stderr + done.stdout


def test_secrets_are_generated_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "secret_key"
    first = kept_secret(path)
    assert kept_secret(path) == first and len(first) > 50
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_settings_pages_are_current() -> None:
    assert settings_docs.main(["--check"]) == 0
    table = settings_docs.table()
    assert all(f"| `{name}` |" in table for name in Environment.model_fields)


def test_the_version_is_in_pyproject_only() -> None:
    folders = ("accounts", "mcp_bridge", "config", "deploy", "bench")
    files = [path for name in folders for path in (ROOT / name).rglob("*")]
    texts = {p: p.read_text() for p in files if p.suffix in (".py", ".yaml", ".html")}
    copies = (f'"{version()}"', f":{version()}\n")
    assert [p.name for p, text in texts.items() if any(c in text for c in copies)] == []


def test_origins_default_to_loopback_in_development_only() -> None:
    near = Environment(_env_file=None)
    far = Environment(
        _env_file=None, ENVIRONMENT="production", ISSUER_URL="https://[2001:db8::1]"
    )
    assert "http://localhost:*" in near.origins_allowed
    assert far.origins_allowed == [] and far.hosts == ["[2001:db8::1]"]


@pytest.mark.parametrize(
    ("workers", "asked", "on"),
    [(1, "auto", True), (2, "auto", False), (2, "on", True), (1, "off", False)],
)
def test_sessions_are_on_with_one_worker(workers: int, asked: str, on: bool) -> None:
    found = Environment(_env_file=None, WORKERS=workers, MCP_SESSIONS=asked)
    assert found.sessions is on


def test_up_prepares_everything_and_can_be_repeated(tmp_path: Path) -> None:
    """The generated password is printed once, a given password never."""
    first = manage(tmp_path, "up", "--prepare-only")
    assert first.returncode == 0, first.stderr
    assert "First admin   admin" in first.stdout and "shown this once" in first.stdout
    again = manage(tmp_path, "up", "--prepare-only")
    assert again.returncode == 0 and "Password" not in again.stdout
    output = manage(tmp_path, "doctor")
    assert output.returncode == 0, output.stdout


def test_migrate_works_on_an_empty_database(tmp_path: Path) -> None:
    """Checks whose fix is `migrate` must not stop `migrate`."""
    done = manage(tmp_path, "migrate", "--verbosity", "0")
    assert done.returncode == 0, done.stderr


def test_up_takes_the_first_admin_from_the_environment(tmp_path: Path) -> None:
    variables = {
        "DJANGO_SUPERUSER_USERNAME": "root",
        "DJANGO_SUPERUSER_PASSWORD": "given-horse-1",
        "DJANGO_SUPERUSER_EMAIL": "root@example.com",
    }
    done = manage(tmp_path, "up", "--prepare-only", **variables)
    assert "First admin   root" in done.stdout
    assert "given-horse-1" not in done.stdout + done.stderr


def test_up_is_not_for_production(tmp_path: Path) -> None:
    production = {
        "ENVIRONMENT": "production",
        "SECRET_KEY": "0123456789abcdef" * 4,
        "KEY_ENCRYPTION_KEY": "fedcba9876543210" * 3,
        "ISSUER_URL": "https://h.example",
    }
    done = manage(tmp_path, "up", **production)
    assert done.returncode == 1 and "development" in done.stderr
    demo = manage(tmp_path, "demo", **production)
    assert demo.returncode == 1 and "development" in demo.stderr


def test_an_address_of_another_machine_is_one_sentence(tmp_path: Path) -> None:
    """Another PORT would not fix it."""
    done = manage(tmp_path, "up", HOST="203.0.113.9", PORT=str(free_port()))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "set HOST to an address of this machine" in done.stderr


def test_a_taken_port_is_one_sentence(tmp_path: Path) -> None:
    import socket

    port = free_port()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        done = manage(tmp_path, "up", PORT=str(port))
    assert done.returncode == 1 and f"PORT={port + 1}" in done.stderr
    assert not (tmp_path / "portico.sqlite3").exists()


def test_a_locked_database_is_one_sentence(tmp_path: Path) -> None:
    import sqlite3

    copytree(prepared_folder(), tmp_path, dirs_exist_ok=True)
    holder = sqlite3.connect(tmp_path / "portico.sqlite3", isolation_level=None)
    holder.execute("UPDATE accounts_user SET is_superuser = 0")
    holder.execute("BEGIN IMMEDIATE")
    try:
        url = f"sqlite:///{tmp_path}/portico.sqlite3?timeout=1"
        done = manage(tmp_path, "up", "--prepare-only", DATABASE_URL=url)
    finally:
        holder.rollback()
        holder.close()
    assert done.returncode == 1 and "locked by another process" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unreachable_postgres_is_one_sentence(tmp_path: Path) -> None:
    url = f"postgres://nobody@127.0.0.1:{free_port()}/none?connect_timeout=1"
    done = manage(tmp_path, "up", "--prepare-only", DATABASE_URL=url)
    assert done.returncode == 1 and "check DATABASE_URL" in done.stderr
    assert "Traceback" not in done.stderr


def test_make_without_python_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    (tmp_path / "requirements.txt").write_text("")
    bare = tmp_path / "bin"
    bare.mkdir()
    for tool in ("make", "sh", "echo", "rm", "touch"):
        found = subprocess.run(["which", tool], capture_output=True, text=True)
        (bare / tool).symlink_to(found.stdout.strip() or f"/bin/{tool}")
    env = {"PATH": str(bare)}
    command = [str(bare / "make"), "serve"]
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode and "Python 3.11 or newer" in done.stderr


def test_make_without_the_venv_module_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    (tmp_path / "requirements.txt").write_text("")
    bare = tmp_path / "bin"
    bare.mkdir()
    fake = bare / "python3"
    fake.write_text('#!/bin/sh\n[ "$1" = "-c" ] && exit 0\nexit 1\n')
    fake.chmod(0o755)
    env = {"PATH": f"{bare}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["make", "serve"], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode and "apt-get install python3-venv" in done.stderr
