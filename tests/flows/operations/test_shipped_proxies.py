"""deploy/nginx.conf and deploy/Caddyfile, unchanged, in front of two processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from config.environment import Environment
from tests.support.fork_server import quick_python
from tests.support.requirements_skip import skip_or_fail
from tests.support.server import LIMITS, ROOT, manage, prepared_folder
from tests.support.shipped_proxy import FEWEST_CALLS, HOSTS

pytestmark = pytest.mark.once
PRIVATE = ["unshare", "-nm"] if os.geteuid() == 0 else ["unshare", "-rnm"]
SECRETS = ("secret_key", "key_encryption_key")
REFUSED = {
    "form": [413],
    "chunked form": [413],
    "no token": [401],
    "expired": [401],
    "chunked": [401],
    "too large": [413],
    "no page": [413],
    "method": [401],
    "static file": [413],
}


@cache
def private_network() -> bool:
    """Whether this account may have a network and mounts that others do not see."""
    command = [*PRIVATE, "true"]
    return bool(shutil.which("unshare")) and not subprocess.run(command).returncode


def production(folder: Path, proxy: str) -> dict[str, str]:
    """The settings of docs/production.md, on SQLite."""
    copytree(prepared_folder(), folder, dirs_exist_ok=True)
    env = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    env |= {name.upper(): (folder / name).read_text() for name in SECRETS}
    env |= {
        "ENVIRONMENT": "production",
        "DATA_DIR": str(folder),
        "ISSUER_URL": f"https://{HOSTS[proxy]}",
        "VALKEY_URL": "redis://127.0.0.1:6379/0",
        "TRUSTED_PROXIES": "127.0.0.1",
        **dict.fromkeys(LIMITS, "100000/minute"),
    }
    assert set(env) - {"PATH", "HOME"} <= set(Environment.model_fields)
    return env


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
@pytest.mark.parametrize("proxy", ["nginx", "caddy"])
def test_large_refused_bodies_and_a_lost_store_disturb_nobody(
    proxy: str, tmp_path: Path
) -> None:
    """A stranger's refused bodies get their answer, and others get no 502.

    Without the store of the limits, calls go on.
    """
    if not shutil.which(proxy, path=f"{os.environ['PATH']}:/usr/sbin"):
        skip_or_fail(proxy, f"apt-get install {proxy}")
    if not private_network():
        skip_or_fail("unshare", "allow user namespaces")
    env = production(tmp_path / "data", proxy)
    manage(tmp_path / "data", "add_user", "dana", "--role", "User", **env)
    arguments = [quick_python(), "manage.py", "issue_token", "dana"]
    token = subprocess.run(
        arguments, cwd=ROOT, env=env, check=True, capture_output=True, text=True
    ).stdout.strip()
    module = "tests.support.shipped_proxy"
    command = [*PRIVATE, sys.executable, "-m", module, proxy, str(tmp_path)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**env, "TEST_TOKEN": token, "DJANGO_SETTINGS_MODULE": "config.settings"},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert found["stranger"] == REFUSED
    assert found["others"] == [200] and found["calls"] >= FEWEST_CALLS
    assert found["without store"] == [200] * 6
