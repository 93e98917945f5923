"""deploy/: every file is valid, and the names in it exist."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import get_commands

from config.environment import Environment
from tests.support.ports import free_port
from tests.support.proxy_files import served
from tests.support.requirements_skip import skip_or_fail
from tests.support.server import ROOT

pytestmark = pytest.mark.once
DEPLOY = ROOT / "deploy"
INSTALLED = "/opt/portico/.venv/bin/"
OURS = set(Environment.model_fields)
FOREIGN = {"PATH", "PYTHONUNBUFFERED", "PORTICO_HOST", "PORTICO_UPSTREAMS"} | {
    "POSTGRES_USER",
    "POSTGRES_DB",
    "POSTGRES_PASSWORD_FILE",
    "POSTGRES_PASSWORD",
}


def text(name: str) -> str:
    return (DEPLOY / name).read_text()


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text("compose.yaml"))
    return found


def manifests() -> dict[str, dict[str, Any]]:
    listed = yaml.safe_load(text("kubernetes/portico.yaml"))["items"]
    return {item["kind"]: item for item in listed}


def pods() -> list[dict[str, Any]]:
    listed = yaml.safe_load(text("kubernetes/portico.yaml"))["items"]
    specs = [item.get("spec", {}) for item in listed]
    specs = [spec.get("jobTemplate", {}).get("spec", spec) for spec in specs]
    return [spec["template"]["spec"] for spec in specs if "template" in spec]


def test_every_named_setting_exists() -> None:
    """Environment blocks, secrets, systemd units and the image."""
    named = set(manifests()["ConfigMap"]["data"]) | set(compose()["secrets"])
    for service in compose()["services"].values():
        named |= set(service.get("environment", {}))
    image = re.findall(r"^ENV (.*)$", text("Dockerfile"), re.MULTILINE)
    units = re.findall(r"^Environment=(.*)$", text("systemd/portico@.service"), re.M)
    for line in image + units:
        named |= {pair.partition("=")[0] for pair in line.split()}
    assert named - FOREIGN <= OURS, named - FOREIGN - OURS


def proxies_shipped() -> dict[str, str]:
    """TRUSTED_PROXIES as each file of deploy/ sets it."""
    lines = [
        (path.name, line)
        for path in DEPLOY.rglob("*")
        if path.is_file()
        for line in re.findall(
            r"^[^#\n]*TRUSTED_PROXIES[:=] *(.*)$", path.read_text(), re.M
        )
    ]
    return {name: value.strip("\"' ") for name, value in lines}


def test_no_file_trusts_a_network_with_clients(tmp_path: Path) -> None:
    """Compose assigns an address to its proxy; other files must be edited first."""
    found = proxies_shipped()
    network = compose()["services"]["proxy"]["networks"]["inside"]
    assert found.pop("compose.yaml") == network["ipv4_address"]
    assert "portico.yaml" in found
    for value in found.values():
        env = {"PATH": os.environ["PATH"], "DATA_DIR": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "manage.py", "check"],
            cwd=ROOT,
            env={**env, "TRUSTED_PROXIES": value},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1 and "Traceback" not in done.stderr
        assert f"TRUSTED_PROXIES: Value error, write {value!r}" in done.stderr


def test_every_command_named_exists() -> None:
    everything = "\n".join(p.read_text() for p in DEPLOY.rglob("*") if p.is_file())
    everything += (ROOT / "docs" / "runbooks.md").read_text()
    commands = set(re.findall(r"manage\.py[\",]*\s+([a-z_]+)", everything))
    names = {"migrate", "purge", "revoke_tokens", "collectstatic", "seal_audit"}
    assert names <= commands
    assert commands <= set(get_commands()), commands - set(get_commands())
    command = [sys.executable, "-m", "uvicorn", "--help"]
    known = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for option in set(served(8001)) | set(compose()["services"]["web"]["command"]):
        assert not option.startswith("--") or option in known, option


def test_containers_have_minimal_rights() -> None:
    """No root, read-only root, no capabilities, no service account token."""
    for pod in pods():
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            rights = container["securityContext"]
            assert rights["readOnlyRootFilesystem"]
            assert rights["allowPrivilegeEscalation"] is False
            assert rights["capabilities"] == {"drop": ["ALL"]}
    for name in ("web", "migrate", "purge"):
        service = compose()["services"][name]
        assert service["read_only"] and service["cap_drop"] == ["ALL"]
    assert re.search(r"^USER 10001$", text("Dockerfile"), re.MULTILINE)


def test_writable_paths_are_mounted_where_needed() -> None:
    """On a read-only root, DATA_DIR is in the image and only read."""
    assert "collectstatic" in text("Dockerfile")
    assert "metrics:/data/metrics" in compose()["services"]["web"]["volumes"]
    # A volume takes its owner from the image's folder; without one it is root's.
    assert "mkdir -p /data/metrics" in text("Dockerfile")


def test_probes_send_an_allowed_host() -> None:
    """A pod's own address is refused."""
    container = manifests()["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    issuer = manifests()["ConfigMap"]["data"]["ISSUER_URL"]
    for kind, path in (("readiness", "/readyz"), ("liveness", "/healthz")):
        probe = container[f"{kind}Probe"]["httpGet"]
        assert probe["path"] == path
        hosts = [h["value"] for h in probe["httpHeaders"] if h["name"] == "Host"]
        assert f"https://{hosts[0]}" == issuer


def test_selectors_match_their_pods() -> None:
    """Each selector matches the pods of the Deployment."""
    found = manifests()
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    chosen = [
        found["Service"]["spec"]["selector"],
        found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ]
    assert all(selector.items() <= labels.items() for selector in chosen)


def test_the_images_steps_work(tmp_path: Path) -> None:
    """The copied files are enough to collect static files and to start."""
    steps = text("Dockerfile")
    copied = re.findall(r"^COPY (\S+) \S+$", steps.partition("FROM python")[2], re.M)
    application = tmp_path / "app"
    application.mkdir()
    for name in copied:
        if name not in ("requirements.txt", "deploy/healthcheck.py"):
            (application / name).parent.mkdir(exist_ok=True)
            (application / name).symlink_to(ROOT / name)
    env = {"PATH": os.environ["PATH"], "DATA_DIR": str(tmp_path / "data")}
    command = [sys.executable, "manage.py", "collectstatic", "--noinput", "-v", "0"]
    subprocess.run(command, cwd=application, env=env, check=True)
    assert (tmp_path / "data" / "static" / "staticfiles.json").exists()
    check = [sys.executable, str(DEPLOY / "healthcheck.py")]
    env["PORT"] = str(free_port())
    assert subprocess.run(check, env=env).returncode == 1


def test_the_image_has_no_installer(tmp_path: Path) -> None:
    """Neither /venv nor the base has pip or setuptools."""
    stages = re.split(r"^FROM ", text("Dockerfile").replace("\\\n", ""), flags=re.M)
    build, final = stages[1], stages[-1]
    (environment,) = re.findall(r"python (-m venv .*?/venv) ", build)
    venv = tmp_path / "venv"
    command = [sys.executable, *environment.replace("/venv", str(venv)).split()]
    subprocess.run(command, check=True)
    assert [*venv.rglob("pip*"), *venv.rglob("setuptools*")] == []
    assert "/venv/bin/pip" not in build and "--require-hashes" in build
    (removed,) = re.findall(r"^RUN .*pip uninstall --yes (.*?)&&", final, re.M)
    assert {"pip", "setuptools", "wheel"} <= set(removed.split())
    assert "/ensurepip" in final
    for name in ("pip", "setuptools"):
        assert not re.search(
            rf"^{name}==", (ROOT / "requirements.txt").read_text(), re.M
        )


def test_shell_scripts_parse() -> None:
    for script in DEPLOY.glob("*.sh"):
        subprocess.run(["sh", "-n", str(script)], check=True)


def test_systemd_units_are_valid(tmp_path: Path) -> None:
    """systemd-analyze checks them where installed; sections are always checked."""
    copies = []
    for unit in (DEPLOY / "systemd").iterdir():
        sections = re.findall(r"^\[(\w+)\]$", unit.read_text(), re.MULTILINE)
        assert sections[0] == "Unit", unit.name
        assert len(sections) >= 2, unit.name
        ours = f"{sys.prefix}/bin/"
        copies.append(tmp_path / unit.name)
        copies[-1].write_text(unit.read_text().replace(INSTALLED, ours))
    if shutil.which("systemd-analyze"):
        command = ["systemd-analyze", "verify", *map(str, copies)]
        result = subprocess.run(command, capture_output=True, text=True)
        assert not result.returncode and not result.stderr, result.stderr


def test_skips_are_failures_in_ci(monkeypatch: Any) -> None:
    """A CI machine without nginx must not skip silently."""
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception):
        skip_or_fail("nginx", "apt-get install nginx-light")


def test_the_image_can_copy_the_database_of_compose() -> None:
    """pg_dump refuses a server that is newer than itself."""
    (client,) = re.findall(r"postgresql-client-(\d+)", text("Dockerfile"))
    assert compose()["services"]["database"]["image"] == f"postgres:{client}"


def test_only_servers_have_a_health_check() -> None:
    """The image's own would fail in containers that serve nothing."""
    for name, service in compose()["services"].items():
        if service.get("image") == "portico":
            disabled = service.get("healthcheck", {}).get("disable", False)
            assert disabled is ("uvicorn" not in service["command"]), name


def test_every_way_to_deploy_makes_copies() -> None:
    """Each runs `manage.py backup` in the server's own environment."""
    units = (DEPLOY / "systemd" / "portico-backup.service").read_text()
    server = text("systemd/portico@.service")
    for line in ("EnvironmentFile=/etc/portico/environment", "User=portico"):
        assert line in units and line in server
    service = compose()["services"]["backup"]
    web = compose()["services"]["web"]
    assert service["secrets"] == web["secrets"]
    assert service["environment"] == web["environment"]
    jobs = [pod["containers"][0] for pod in pods()]
    (job,) = [job for job in jobs if job["name"] == "backup"]
    (server_pod,) = [one for one in jobs if one["name"] == "web"]
    assert job["envFrom"] == server_pod["envFrom"]
    for command in (units, str(service["command"]), str(job["command"])):
        assert "manage.py backup" in command
    # A volume takes its owner from the image's folder; without one it is root's.
    assert "/data/backups" in text("Dockerfile")


def test_a_unit_may_open_many_connections() -> None:
    (limit,) = re.findall(
        r"^LimitNOFILE=(\d+)$", text("systemd/portico@.service"), re.M
    )
    streams = Environment.model_fields["MAX_STREAMS"].default
    assert int(limit) > 2 * streams


STUB = """#!/bin/sh
echo "$(basename "$0") $*: $(grep -c ' down;' "$SITE")" >> "$LOG"
"""


def test_a_rolling_restart_takes_out_one_process_at_a_time(tmp_path: Path) -> None:
    """The script on the shipped nginx.conf, with programs that only report."""
    site, log, programs = tmp_path / "site", tmp_path / "log", tmp_path / "bin"
    programs.mkdir()
    shutil.copy(DEPLOY / "nginx.conf", site)
    for name in ("nginx", "systemctl", "curl", "sleep"):
        (programs / name).write_text(STUB)
        (programs / name).chmod(0o755)
    env = {"PATH": f"{programs}:{os.environ['PATH']}", "HOST_NAME": "h.example"}
    env |= {"SITE": str(site), "LOG": str(log)}
    script = str(DEPLOY / "rolling-restart.sh")
    subprocess.run([script, "8001", "8002"], env=env, check=True)
    restarts = [x for x in log.read_text().splitlines() if x.startswith("systemctl")]
    assert restarts == [
        "systemctl restart portico@8001: 1",
        "systemctl restart portico@8002: 1",
    ]
    assert site.read_text() == text("nginx.conf")
