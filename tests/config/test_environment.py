"""Settings: typed, all errors at once, each with its fix."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from config import settings_docs
from config.database_urls import SCHEMES
from config.environment import (
    STORES,
    Environment,
    files_with_secrets,
    importable_module,
    is_secret,
    kept_secret,
    read,
    split_secrets,
    version,
)
from tests.support import fork_server
from tests.support.server import ROOT

pytestmark = pytest.mark.once


def manage(folder: Path, *arguments: str, **environment: str) -> tuple[int, str, str]:
    """(exit code, output, errors) of manage.py with only these variables."""
    env = {"PATH": os.environ["PATH"], "DATA_DIR": str(folder), **environment}
    files = [folder / "out", folder / "errors"]
    for file in files:
        file.unlink(missing_ok=True)
    code = fork_server.start(["manage.py", *arguments], env, *files).wait(240)
    output, errors = (file.read_text() for file in files)
    return code, output, errors


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
    code, _output, errors = manage(tmp_path, "check", **wrong)
    assert code == 1 and "Traceback" not in errors
    assert all(f"  {name}: " in errors for name in wrong)
    assert "docs/settings.md" in errors


@pytest.mark.spec("OAuth 2.1 1.5: https")
def test_production_requires_secrets_and_https(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SECRET_KEY", "KEY_ENCRYPTION_KEY"):
        monkeypatch.delenv(name, raising=False)
    unsafe = {"ENVIRONMENT": "production", "ISSUER_URL": "http://portico.example"}
    told = settings_error(monkeypatch, DATA_DIR=str(tmp_path), **unsafe)
    for name in ("SECRET_KEY", "KEY_ENCRYPTION_KEY", "ISSUER_URL"):
        assert f"  {name}: set it to" in told
    assert list(tmp_path.iterdir()) == []


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


@pytest.mark.parametrize(
    "url",
    [
        "postgres://u:se/cret@h/d",
        "postgres://u:secret@h1:x,h2:5432/d",
        "postgres://u:secret@[::1/d",
    ],
)
def test_an_odd_database_url_is_one_sentence(url: str) -> None:
    """It names the form, and repeats no password."""
    with pytest.raises(ValidationError) as refused:
        Environment(_env_file=None, DATABASE_URL=url)
    assert "the password as %XX" in str(refused.value)
    assert "cret" not in str(refused.value)


def test_older_secrets_are_separated_by_commas() -> None:
    found = Environment(_env_file=None, KEY_ENCRYPTION_KEY_FALLBACKS="one, two\nthree,")
    assert split_secrets(found.KEY_ENCRYPTION_KEY_FALLBACKS) == ["one", "two", "three"]
    assert split_secrets(found.SECRET_KEY_FALLBACKS) == []
    assert "three" not in repr(found)


@pytest.mark.parametrize("command", ["doctor", "issue_token x"])
def test_an_unprepared_database_is_one_sentence(tmp_path: Path, command: str) -> None:
    """The exit code is 1 and the error names the fix, without a traceback."""
    code, output, errors = manage(tmp_path, *command.split())
    assert code == 1 and "Traceback" not in errors
    assert "run manage.py migrate" in errors + output


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
    [(1, "auto", True), (2, "auto", True), (2, "on", True), (1, "off", False)],
)
def test_sessions_are_on_unless_off(workers: int, asked: str, on: bool) -> None:
    found = Environment(_env_file=None, WORKERS=workers, MCP_SESSIONS=asked)
    assert found.sessions is on


def test_up_prepares_everything_and_can_be_repeated(tmp_path: Path) -> None:
    """The generated password is printed once; no check stops the first `migrate`."""
    code, output, errors = manage(tmp_path, "migrate", "--verbosity", "0")
    assert code == 0, errors
    code, output, errors = manage(tmp_path, "up", "--prepare-only")
    assert code == 0, errors
    assert "First admin   admin" in output and "shown this once" in output
    code, output, _errors = manage(tmp_path, "up", "--prepare-only")
    assert code == 0 and "Password" not in output
    code, output, _errors = manage(tmp_path, "doctor")
    assert code == 0, output


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


def environment(**variables: Any) -> Environment:
    return Environment(_env_file=None, **variables)


LOOPBACK_HOSTS = ["localhost", "127.0.0.1", "[::1]"]
SAFE: dict[str, Any] = {
    "ENVIRONMENT": "production",
    "ISSUER_URL": "https://h.example",
    "SECRET_KEY": "0123456789abcdef" * 4,
    "KEY_ENCRYPTION_KEY": "fedcba9876543210" * 3,
    "DATABASE_URL": "postgres://h/d",
    "VALKEY_URL": "redis://h",
}


def names_of_problems(**variables: Any) -> list[str]:
    """The settings that are wrong in production with these variables."""
    found = environment(**{**SAFE, **variables}).problems()
    return [line.partition(":")[0] for line in found]


BOUNDS: dict[str, tuple[float, float | None]] = {
    "PORT": (1, 65535),
    "WORKERS": (1, 64),
    "ACCESS_TOKEN_LIFETIME": (1, 86400),
    "UPSTREAM_DISCOVERY_INTERVAL": (0, 86400),
    "REFRESH_TOKEN_LIFETIME": (60, 365 * 86400),
    "REFRESH_TOKEN_GRACE": (0, 300),
    "CLOCK_LEEWAY": (0, 300),
    "LOCKOUT_AFTER": (1, None),
    "LOCKOUT_SECONDS": (1, 86400),
    "EMAIL_PORT": (1, 65535),
    "HASHING_AT_ONCE": (1, 64),
    "HASHING_WAIT": (0, 60),
    "UNUSED_CLIENTS_AFTER": (1, None),
    "MAX_BODY_SIZE": (1024, None),
    "MAX_FORM_SIZE": (16384, None),
    "MAX_UPLOAD_SIZE": (16384, None),
    "DATABASE_CONNECTIONS": (3, 100),
    "BODY_TIMEOUT": (0.001, 3600),
    "HEAD_TIMEOUT": (0.001, 3600),
    "SEND_TIMEOUT": (0.001, 3600),
    "SESSION_IDLE": (0.001, 86400),
    "MAX_HEAD_SIZE": (8192, None),
    "MAX_HEADERS": (50, None),
    **dict.fromkeys(
        (
            "MAX_SESSIONS_PER_USER MAX_SESSIONS MAX_STREAMS_PER_USER "
            "MAX_STREAMS_PER_TOKEN MAX_STREAMS "
            "MAX_CALLS_PER_USER MAX_CALLS AUDIT_RETENTION"
        ).split(),
        (1, None),
    ),
    "INVITATION_LIFETIME": (1, 90),
    "ROLE_ENDING_NOTICE": (0, 60),
    "MAX_BODIES_PER_USER": (1024, None),
    "MAX_BODIES": (1024, None),
}
"""Setting -> its lowest and highest value."""


def numeric_settings() -> set[str]:
    fields = Environment.model_fields.items()
    return {name for name, field in fields if field.annotation in (int, float)}


def test_every_number_has_bounds() -> None:
    """TOKEN_MAX_IDLE has another rule, below."""
    assert numeric_settings() - {"TOKEN_MAX_IDLE"} == BOUNDS.keys()


@pytest.mark.parametrize("name", BOUNDS)
def test_a_number_is_within_its_bounds(name: str) -> None:
    low, high = BOUNDS[name]
    step = 1 if Environment.model_fields[name].annotation is int else 0.001
    assert getattr(environment(**{name: low}), name) == low
    outside = [low - step]
    if high is not None:
        assert getattr(environment(**{name: high}), name) == high
        outside.append(high + step)
    for value in outside:
        with pytest.raises(ValidationError):
            environment(**{name: value})


@pytest.mark.parametrize(
    ("idle", "valid"),
    [(0, True), (1, False), (299, False), (300, True), (-1, False)],
)
def test_an_idle_limit_is_longer_than_the_precision_of_use(
    idle: int, valid: bool
) -> None:
    if valid:
        assert environment(TOKEN_MAX_IDLE=idle).TOKEN_MAX_IDLE == idle
        return
    with pytest.raises(ValidationError):
        environment(TOKEN_MAX_IDLE=idle)


LIMITS = [name for name in Environment.model_fields if name.startswith("LIMIT_")]


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_is_a_rate_or_off(name: str) -> None:
    for rate in ("off", "1/second", "60/minute", "999999999/hour", "5/day"):
        assert getattr(environment(**{name: rate}), name) == rate
    for rate in ("0/day", "1000000000/day", "1/week", "1/days", "x1/day", "no", "1"):
        with pytest.raises(ValidationError):
            environment(**{name: rate})


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("ISSUER_URL", "h.example", "scheme://host"),
        ("ISSUER_URL", "https://", "scheme://host"),
        ("ISSUER_URL", "ftp://h.example", "scheme://host"),
        ("ISSUER_URL", "https://h.example/", "leave away the path"),
        ("ISSUER_URL", "https://h.example?a", "leave away the path"),
        ("ISSUER_URL", "https://h.example#a", "leave away the path"),
        ("ALLOWED_ORIGINS", "https://a.example,b.example", "'b.example'"),
        ("ALLOWED_ORIGINS", "://h", "scheme://host"),
        ("ALLOWED_ORIGINS", "https://", "scheme://host"),
        ("ALLOWED_ORIGINS", "https://h/", "scheme://host"),
        ("VALKEY_URL", "http://h", "redis, rediss"),
        ("VALKEY_URL", "memcached://h", "redis, rediss"),
        ("VALKEY_URL", "h:6379", "redis, rediss"),
        ("DATABASE_URL", "mysql://h/d", "postgres, postgresql, sqlite"),
        ("DATABASE_URL", "postgres://u:p@h:x/d", "postgres://user:password@"),
        ("EXTRA_APPS", "examples.products, no_such_module", "no_such_module"),
        ("EXTRA_APPS", "no.such.Config", "no module no.such.Config"),
        ("EXTRA_APPS", "nosuch", "no module nosuch"),
        ("EXTRA_APPS", ".", "no module"),
        ("TRUSTED_PROXIES", "10.0.0.1, everybody", "'everybody'"),
        ("TRUSTED_PROXIES", "10.0.0.1/64", "'10.0.0.1/64'"),
        ("ENVIRONMENT", "staging", "development"),
    ],
)
def test_a_wrong_value_is_explained(name: str, value: str, told: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(told)):
        environment(**{name: value})


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("ISSUER_URL", "HTTPS://H.Example:8443", "https://h.example:8443"),
        ("ISSUER_URL", "http://h.example", "http://h.example"),
        ("ALLOWED_HOSTS", " a , ,b,", ["a", "b"]),
        ("ALLOWED_HOSTS", ["a"], ["a"]),
        ("ALLOWED_ORIGINS", "http://h:*, app://x", ["http://h:*", "app://x"]),
        *(("VALKEY_URL", f"{scheme}://h", f"{scheme}://h") for scheme in STORES),
        *(("DATABASE_URL", f"{kind}://h/d", f"{kind}://h/d") for kind in SCHEMES),
        ("DATABASE_URL", "postgres://a:1,b:2/d", "postgres://a:1,b:2/d"),
        ("EXTRA_APPS", "examples.products", ["examples.products"]),
        (
            "EXTRA_APPS",
            "accounts.apps.AccountsConfig",
            ["accounts.apps.AccountsConfig"],
        ),
        (
            "TRUSTED_PROXIES",
            "unix, 10.0.0.5/24, ::1",
            ["unix", "10.0.0.5/24", "::1"],
        ),
    ],
)
def test_a_right_value_is_kept(name: str, value: Any, found: Any) -> None:
    assert getattr(environment(**{name: value}), name) == found


def test_stores_and_databases_are_these() -> None:
    assert set(STORES) == {
        *("redis", "rediss", "valkey", "valkeys", "redis+unix", "valkey+unix")
    }
    assert set(SCHEMES) == {"postgres", "postgresql", "sqlite"}


@pytest.mark.parametrize(
    ("variables", "hosts"),
    [
        ({}, ["127.0.0.1", "localhost", "[::1]"]),
        ({"ISSUER_URL": "https://h.example:1"}, ["h.example", *LOOPBACK_HOSTS]),
        ({"ALLOWED_HOSTS": "a,a"}, ["127.0.0.1", "a", "localhost", "[::1]"]),
        (SAFE | {"ALLOWED_HOSTS": "a"}, ["h.example", "a"]),
        (SAFE | {"ISSUER_URL": "https://[2001:db8::1]"}, ["[2001:db8::1]"]),
    ],
)
def test_the_issuers_host_is_first(variables: Any, hosts: list[str]) -> None:
    assert environment(**variables).hosts == hosts


@pytest.mark.parametrize(
    ("variables", "origins"),
    [
        ({}, [f"http://{host}:*" for host in LOOPBACK_HOSTS]),
        ({"ALLOWED_ORIGINS": "http://a"}, ["http://a"]),
        (SAFE | {"ALLOWED_ORIGINS": "http://a"}, ["http://a"]),
        (SAFE, []),
    ],
)
def test_loopback_origins_are_for_development(variables: Any, origins: Any) -> None:
    assert environment(**variables).origins_allowed == origins


@pytest.mark.parametrize(
    ("asked", "extra", "on"),
    [
        ("auto", {}, False),
        ("auto", SAFE, True),
        ("on", {}, True),
        ("off", SAFE, False),
    ],
)
def test_staff_need_a_second_factor_in_production(
    asked: str, extra: Any, on: bool
) -> None:
    assert environment(**extra, STAFF_SECOND_FACTOR=asked).staff_second_factor is on


@pytest.mark.parametrize(
    ("variables", "kind"),
    [
        ({}, "console"),
        (SAFE, "dummy"),
        ({"EMAIL_HOST": "m"}, "smtp"),
        (SAFE | {"EMAIL_HOST": "m"}, "smtp"),
    ],
)
def test_mails_go_to_the_server_if_there_is_one(variables: Any, kind: str) -> None:
    backend = f"django.core.mail.backends.{kind}.EmailBackend"
    assert environment(**variables).email_backend == backend


def test_the_issuer_follows_the_port() -> None:
    assert environment(PORT=81).issuer == "http://127.0.0.1:81"
    assert environment(**SAFE).production and not environment().production


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({}, []),
        ({"ISSUER_URL": "http://h.example"}, ["ISSUER_URL"]),
        ({"ISSUER_URL": ""}, ["ISSUER_URL"]),
        (
            {"SECRET_KEY": "", "KEY_ENCRYPTION_KEY": ""},
            ["SECRET_KEY", "KEY_ENCRYPTION_KEY"],
        ),
        ({"SECRET_KEY": "0123456789" * 5}, []),
        ({"SECRET_KEY": ("0123456789" * 5)[1:]}, ["SECRET_KEY"]),
        ({"KEY_ENCRYPTION_KEY": "01234567" * 4}, []),
        ({"KEY_ENCRYPTION_KEY": ("01234567" * 4)[1:]}, ["KEY_ENCRYPTION_KEY"]),
        ({"KEY_ENCRYPTION_KEY": "0123456" * 9}, ["KEY_ENCRYPTION_KEY"]),
        ({"KEY_ENCRYPTION_KEY": SAFE["SECRET_KEY"]}, ["KEY_ENCRYPTION_KEY"]),
        ({"WORKERS": 2}, []),
        ({"WORKERS": 2, "DATABASE_URL": "sqlite:///x"}, ["DATABASE_URL"]),
        ({"WORKERS": 1, "DATABASE_URL": "", "VALKEY_URL": ""}, []),
        (
            {"WORKERS": 2, "DATABASE_URL": "", "VALKEY_URL": ""},
            ["DATABASE_URL", "VALKEY_URL"],
        ),
        ({"CLIENT_REGISTRATION": "token"}, ["REGISTRATION_TOKEN"]),
        (
            {"CLIENT_REGISTRATION": "token", "REGISTRATION_TOKEN": "x" * 19},
            ["REGISTRATION_TOKEN"],
        ),
        ({"CLIENT_REGISTRATION": "token", "REGISTRATION_TOKEN": "x" * 20}, []),
        ({"CLIENT_REGISTRATION": "open", "REGISTRATION_TOKEN": "x"}, []),
        ({"METRICS_TOKEN": "x" * 19}, ["METRICS_TOKEN"]),
        ({"METRICS_TOKEN": "x" * 20}, []),
    ],
)
def test_production_names_exactly_what_is_wrong(
    variables: dict[str, Any], told: list[str]
) -> None:
    assert names_of_problems(**variables) == told


def test_development_needs_no_secrets_but_no_short_tokens() -> None:
    assert environment().problems() == []
    found = environment(METRICS_TOKEN="x").problems()
    assert found == ["METRICS_TOKEN: set it to 20 characters or more."]


@pytest.mark.parametrize(
    ("name", "value", "confidential"),
    [
        ("SECRET_KEY", "x", True),
        ("secret_key", "x", True),
        ("EMAIL_PASSWORD", "x", True),
        ("SECRET_KEY", "", False),
        ("SECRET_KEY", None, False),
        ("DATABASE_URL", "postgres://u:p@h/d", True),
        ("DATABASE_URL", "postgres://u@h/d", False),
        ("DATABASE_URL", "postgres://[::1/d", True),
        ("PORT", "8000", False),
        ("UNKNOWN", "postgres://u:p@h/d", False),
    ],
)
def test_secrets_and_passwords_are_confidential(
    name: str, value: str | None, confidential: bool
) -> None:
    assert is_secret(name, value) is confidential


@pytest.mark.parametrize(
    ("text", "private"),
    [("PORT=1\nSECRET_KEY=x\n", True), ("PORT=1\n", False), (None, False)],
)
def test_an_env_file_with_secrets_is_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, private: bool
) -> None:
    path = tmp_path / ".env"
    if text is not None:
        path.write_text(text)
    monkeypatch.setitem(Environment.model_config, "env_file", path)
    assert files_with_secrets() == ([path] if private else [])


def test_a_secret_of_the_environment_is_not_stored(tmp_path: Path) -> None:
    found = environment(DATA_DIR=tmp_path, SECRET_KEY="given")
    assert found.secret("SECRET_KEY") == "given" and not list(tmp_path.iterdir())
    made = found.secret("KEY_ENCRYPTION_KEY")
    assert (tmp_path / "key_encryption_key").read_text() == made


def test_a_secret_folder_is_private(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "secret_key"
    before = os.umask(0)
    try:
        kept_secret(path)
    finally:
        os.umask(before)
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_folder_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match="DATA_DIR: .* set it to a folder"):
        environment(DATA_DIR=tmp_path / "file" / "x").secret("SECRET_KEY")


def test_a_secret_that_another_process_writes_is_awaited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, waits = tmp_path / "secret_key", list[float]()
    path.write_text("")

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            path.write_text("theirs\n")

    monkeypatch.setattr("time.sleep", sleep)
    assert kept_secret(path) == "theirs" and len(waits) == 3


def test_a_secret_that_stays_empty_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret_key").write_text(" \n")
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    with pytest.raises(OSError, match="is empty: delete it"):
        kept_secret(tmp_path / "secret_key")
    assert sum(waits) == pytest.approx(1)


def settings_error(monkeypatch: pytest.MonkeyPatch, **variables: str) -> str:
    """What `read` prints with these variables, which stop it."""
    monkeypatch.setitem(Environment.model_config, "env_file", None)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as stopped:
        read()
    return str(stopped.value)


def test_every_wrong_variable_is_printed_without_its_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = settings_error(monkeypatch, PORT="hunter2", ISSUER_URL="x")
    assert told.startswith("Portico cannot start with these settings:\n  ")
    assert "  PORT: " in told and "  ISSUER_URL: " in told and "hunter2" not in told
    assert told.endswith("\nSee docs/settings.md and docs/troubleshooting.md.")


def test_unsafe_settings_stop_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    told = settings_error(monkeypatch, METRICS_TOKEN="short")
    assert "  METRICS_TOKEN: set it to 20 characters or more." in told


def test_safe_settings_are_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(Environment.model_config, "env_file", None)
    monkeypatch.setenv("PORT", "81")
    assert read().PORT == 81


def test_an_empty_variable_is_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "")
    assert environment().PORT == 8000


OF_BROWSERS = (
    "about blob chrome data devtools edge file filesystem ftp http https intent "
    "javascript mailto sms tel vbscript view-source ws wss"
)


@pytest.mark.parametrize(
    "scheme",
    [*OF_BROWSERS.split(), "file:", "Blob", "a b", "1a", "é", "a/b", "z" * 101],
)
def test_redirects_go_to_no_scheme_of_the_browser(scheme: str) -> None:
    """RFC 8252 7.1; such a redirect would run code or open a file."""
    with pytest.raises(ValidationError, match="is not a private-use scheme"):
        environment(REDIRECT_SCHEMES=f"zed,{scheme}")
    longest = "z" * 100
    found = environment(REDIRECT_SCHEMES=f"Zed://, my-app,{longest}").REDIRECT_SCHEMES
    assert found == ["zed", "my-app", longest]


@pytest.mark.parametrize(
    ("module", "found"),
    [
        ("accounts", True),
        ("accounts.models", True),
        ("accounts.nothing", False),
        ("nothing.at.all", False),
        ("json.decoder.x", False),
        ("", False),
        (".", False),
        (".accounts", False),
    ],
)
def test_a_module_that_is_no_name_is_not_found(module: str, found: bool) -> None:
    assert importable_module(module) is found
