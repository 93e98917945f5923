"""`python -m tests.tools.install LOCK`: install the packages of a hashed lock.

uv needs a tenth of pip's time. It does not read pip's configuration, so it gets what
that says. Where there is no uv, or a setting has no counterpart, pip installs.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
LOCK = ROOT / "tests" / "requirements.txt"
"""Names uv, like everything that the tests need."""
HASHED = ("install", "--quiet", "--no-deps", "--require-hashes")
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
OPTIONS = {
    "index-url": "--default-index",
    "extra-index-url": "--index",
    "find-links": "--find-links",
    "trusted-host": "--allow-insecure-host",
}
"""Settings of pip that have several values -> the option of uv for each."""
VARIABLES = {
    "cert": ("SSL_CERT_FILE",),
    "proxy": ("HTTP_PROXY", "HTTPS_PROXY"),
    "timeout": ("UV_HTTP_TIMEOUT",),
    "default-timeout": ("UV_HTTP_TIMEOUT",),
}
NO_MATTER = {
    "break-system-packages",
    "cache-dir",
    "constraint",
    "disable-pip-version-check",
    "no-cache-dir",
    "no-color",
    "no-input",
    "prefer-binary",
    "progress-bar",
    "quiet",
    "require-virtualenv",
    "retries",
    "root-user-action",
    "verbose",
}
"""They change neither where packages come from nor which: the lock pins all."""


@dataclass
class Uv:
    """What uv gets in place of pip's settings."""

    options: list[str] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    """Settings without a counterpart."""


def in_force(listed: str) -> dict[str, str]:
    """Setting -> value, from the output of `pip config list`.

    The environment precedes the section of `pip install`, that one all commands.
    """
    found: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        section, _, setting = name.partition(".")
        if section in found:
            found[section][setting] = str(ast.literal_eval(value))
    return found["global"] | found["install"] | found[":env:"]


def for_uv(settings: dict[str, str]) -> Uv:
    uv = Uv()
    for name, value in settings.items():
        if name in OPTIONS:
            uv.options += [x for each in value.split() for x in (OPTIONS[name], each)]
        elif name in VARIABLES:
            uv.variables |= dict.fromkeys(VARIABLES[name], value)
        elif name not in NO_MATTER:
            uv.unknown.append(name)
    return uv


def entry(lock: str, package: str) -> str:
    """The entry of a package in the text of a lock, with its hashes."""
    found = re.search(rf"^{package}==.*\n(?:[ \t].*\n)*", lock, re.MULTILINE)
    return found.group() if found else ""


def has_uv() -> bool:
    """Install the locked uv, unless this Python has it."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as only:
        only.write(entry(LOCK.read_text(), "uv"))
        only.flush()
        command = [*PIP, *HASHED, "-r", only.name]
        return not subprocess.run(command, capture_output=True).returncode


def by_uv(lock: Path, python: str) -> bool:
    """Whether uv installed the lock. Hashes make the order of indexes unimportant."""
    asked = subprocess.run([*PIP, "config", "list"], capture_output=True, text=True)
    uv = for_uv(in_force(asked.stdout))
    if asked.returncode or uv.unknown or not has_uv():
        return False
    command = [sys.executable, "-m", "uv", "--no-config", "pip", *HASHED]
    command += ["--python", python, "--index-strategy", "unsafe-best-match"]
    command += [*uv.options, "-r", str(lock)]
    return not subprocess.run(command, env={**os.environ, **uv.variables}).returncode


def by_pip(lock: Path, python: str) -> int:
    """The exit code of pip."""
    where = ["--python", python, *HASHED, "--no-compile"]
    return subprocess.call([*PIP, *where, "-r", str(lock)])


def install(lock: Path, python: str = sys.executable) -> int:
    """Install into that Python; returns an exit code."""
    return 0 if by_uv(lock, python) else by_pip(lock, python)


if __name__ == "__main__":
    sys.exit(install(Path(sys.argv[1])))
