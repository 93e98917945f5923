"""Production as docs/production.md describes it: processes behind nginx with TLS."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx2

from accounts.models import SigningKey
from tests.support import fork_server
from tests.support.ports import free_port
from tests.support.proxy_files import HTTP_BLOCK, caddyfile, certificates, served
from tests.support.requirements_skip import skip_or_fail
from tests.support.server import ROOT, Portico, environment_of

STARTS_WITHIN = 90.0
METRICS_TOKEN = "metrics-token-of-these-tests"


@dataclass
class ProductionSetup(Portico):
    """The public side, and the processes behind it."""

    backends: list[Backend] = field(default_factory=list)
    authority: Path = Path()
    proxy: Nginx = field(default_factory=lambda: Nginx(Path()))

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    @property
    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.authority))

    def client(self, address: str = "127.0.0.1") -> httpx2.Client:
        """A client that trusts the authority and comes from this address."""
        way = httpx2.HTTPTransport(verify=self.context, local_address=address)
        return httpx2.Client(transport=way, timeout=30)

    def connected(self) -> socket.socket:
        raw = super().connected()
        return self.context.wrap_socket(raw, server_hostname="localhost")


@dataclass
class Backend:
    """One uvicorn process as deploy/systemd starts it."""

    port: int
    environment: dict[str, str]
    log: Path
    process: fork_server.Forked | None = None

    def start(self) -> None:
        self.process = fork_server.start(served(self.port), self.environment, self.log)
        end = time.monotonic() + STARTS_WITHIN
        while time.monotonic() < end:
            if self.ready():
                return
            time.sleep(0.1)
        raise AssertionError(self.log.read_text()[-3000:])

    def ready(self) -> bool:
        headers = {"host": "localhost", "x-forwarded-proto": "https"}
        try:
            url = f"http://127.0.0.1:{self.port}/readyz"
            return (
                httpx2.get(url, headers=headers, timeout=6, verify=False).status_code
                == 200
            )
        except httpx2.TransportError:
            return False

    def decided(self) -> int:
        """The messages it has decided since it started."""
        headers = {"host": "localhost", "authorization": f"Bearer {METRICS_TOKEN}"}
        headers["x-forwarded-proto"] = "https"
        response = httpx2.get(
            f"http://127.0.0.1:{self.port}/metrics", headers=headers, verify=False
        )
        counts = re.findall(r"^portico_decisions_total{.*} (\S+)$", response.text, re.M)
        return int(sum(map(float, counts)))

    def stop(self, how: int = signal.SIGTERM) -> None:
        """Stop as systemd does: SIGTERM, then wait."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(35)


def nginx_site(folder: Path, port: int, backends: list[Backend]) -> str:
    """deploy/nginx.conf with this test's ports, name and certificate."""
    text = with_ports((ROOT / "deploy/nginx.conf").read_text(), backends)
    certificate, key = certificates(folder)
    for old, new in (
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("listen 80", f"listen 127.0.0.1:{free_port()}"),
        ("portico.example.com", "localhost"),
        ("/etc/ssl/portico/fullchain.pem", str(certificate)),
        ("/etc/ssl/portico/privkey.pem", str(key)),
    ):
        assert old in text, old
        text = text.replace(old, new)
    return text


def with_ports(text: str, backends: list[Backend]) -> str:
    """The file with these ports for its two processes; more copy the second's lines."""
    first, *others = (str(backend.port) for backend in backends)

    def lines(line: re.Match[str]) -> str:
        return "".join(line[0].replace("8002", port) for port in others)

    assert "8001" in text and "8002" in text
    text = re.sub(r"^[^#\n]*8002.*\n", lines, text, flags=re.MULTILINE)
    return re.sub(r"(?<!\d)8001(?!\d)", first, text)


@dataclass
class Nginx:
    """Debian's nginx, from the shipped file."""

    folder: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
        if program is None:
            skip_or_fail("nginx", "apt-get install nginx-light")
        user = "user root;" if os.geteuid() == 0 else ""
        main = self.folder / "nginx.conf"
        main.write_text(HTTP_BLOCK.format(folder=self.folder, user=user))
        command = [str(program), "-c", str(main), "-e", str(self.folder / "nginx.log")]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(10)

    def workers(self) -> set[str]:
        """The process ids of nginx workers."""
        assert self.process is not None
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children")
        return set(children.read_text().split())

    def take_out(self, port: int) -> None:
        """Send no new requests to this process."""
        self.edit(f":{port} max_fails=0;", f":{port} down;")

    def put_back(self, port: int) -> None:
        self.edit(f":{port} down;", f":{port} max_fails=0;")

    def edit(self, old: str, new: str) -> None:
        """Change the site, reload, and wait until the old workers are gone."""
        site = self.folder / "site.conf"
        text = site.read_text()
        assert old in text
        site.write_text(text.replace(old, new))
        before = self.workers()
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)
        end = time.monotonic() + STARTS_WITHIN
        while self.workers() & before or not self.workers() - before:
            assert time.monotonic() < end, "nginx did not reload"
            time.sleep(0.02)


def beside_others(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings without port 80 and the admin's port, which others may use."""
    server = settings["apps"]["http"]["servers"]["srv0"]
    server["automatic_https"] = {"disable_redirects": True}
    return {**settings, "admin": {"disabled": True}}


@contextmanager
def caddy(front: ProductionSetup) -> Iterator[ProductionSetup]:
    """Debian's Caddy in place of nginx, from the shipped file."""
    program = shutil.which("caddy")
    if program is None:
        skip_or_fail("caddy", "apt-get install caddy")
    home = front.authority.parent / "caddy"
    home.mkdir()
    site = home / "caddy.json"
    upstreams = " ".join(f"127.0.0.1:{backend.port}" for backend in front.backends)
    env = {
        "HOME": str(home),
        "XDG_DATA_HOME": str(home),
        "XDG_CONFIG_HOME": str(home),
        "PORTICO_HOST": f"localhost:{front.port}",
        "PORTICO_UPSTREAMS": upstreams,
    }
    site.write_text(json.dumps(beside_others(caddyfile(env))))
    command = [str(program), "run", "--config", str(site)]
    front.proxy.stop()
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    passed = replace(front, authority=home / "caddy/pki/authorities/local/root.crt")
    try:
        end = time.monotonic() + STARTS_WITHIN
        while not passed.authority.exists():
            assert time.monotonic() < end, (home / "log").read_text()
            time.sleep(0.05)
        wait_for_nginx(passed)
        yield passed
    finally:
        process.terminate()
        process.wait(10)
        front.proxy.start()
        wait_for_nginx(front)


@contextmanager
def production(folder: Path, store: str, processes: int) -> Iterator[ProductionSetup]:
    """Processes behind nginx, on the run's database and a Valkey."""
    port, log = free_port(), folder / "backends.log"
    with ExitStack() as stack:
        backends = [
            Backend(own, production_environment(folder, port, own, store), log)
            for own in (free_port() for _ in range(processes))
        ]
        SigningKey.objects.ensure_active()
        for backend in backends:
            stack.callback(backend.stop)
            backend.start()
        (folder / "site.conf").write_text(nginx_site(folder, port, backends))
        proxy = Nginx(folder)
        proxy.start()
        stack.callback(proxy.stop)
        assert backends[0].process is not None
        front = ProductionSetup(port, backends[0].process, log, backends[0].environment)
        front.backends, front.proxy = backends, proxy
        front.authority = folder / "tls.crt"
        wait_for_nginx(front)
        yield front


def production_environment(
    folder: Path, port: int, own: int, store: str
) -> dict[str, str]:
    """The settings of docs/production.md, and this test's database."""
    shared = environment_of(folder, own)
    return {
        "PATH": os.environ["PATH"],
        **shared,
        "ENVIRONMENT": "production",
        "ISSUER_URL": f"https://localhost:{port}",
        "VALKEY_URL": store,
        "TRUSTED_PROXIES": "127.0.0.1",
        "LOG_FORMAT": "json",
        "METRICS_TOKEN": METRICS_TOKEN,
    }


def wait_for_nginx(front: ProductionSetup) -> None:
    """Wait until nginx passes requests on."""
    end = time.monotonic() + STARTS_WITHIN
    with front.client() as http:
        while time.monotonic() < end:
            try:
                if http.get(f"{front.url}/healthz").status_code == 200:
                    return
            except httpx2.TransportError:
                time.sleep(0.05)
    raise AssertionError((front.proxy.folder / "nginx.log").read_text())
