"""wrk as load generator: runs slices of load and checks every answer's body."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("call.lua")
PACED = Path(__file__).with_name("paced.lua")
MODERN, LEGACY = "2026-07-28", "2025-11-25"
META = "io.modelcontextprotocol/"
GREETING = "hello bench"


def wrk_path() -> str:
    """The path of wrk; installs it with apt if possible, else exits."""
    if shutil.which("wrk") is None and shutil.which("apt-get"):
        print("Installing wrk ...", file=sys.stderr)
        for command in (["update", "-qq"], ["install", "-y", "-qq", "wrk"]):
            subprocess.run(["apt-get", *command], check=False, capture_output=True)
    path = shutil.which("wrk")
    if path is None:
        sys.exit(
            "The benchmarks need wrk; install it (apt-get install wrk) and try again."
        )
    return path


@dataclass(frozen=True)
class Slice:
    """The result of one slice of load."""

    rate: float
    """Correct answers per second."""
    p50_ms: float
    p99_ms: float
    wrong: int
    """Number of wrong answers and lost connections."""
    requests: int
    sample: str = ""
    """The first wrong answer."""


@dataclass(frozen=True)
class Load:
    """Requests, and a text that each correct answer contains."""

    path: str = "/mcp"
    headers: dict[str, str] = field(default_factory=dict)
    bodies: tuple[str, ...] = ("",)
    expected: str = GREETING
    once: bool = False
    """Whether each request can be sent only once (refresh tokens)."""
    paced: bool = False
    """Whether each connection pauses 50 to 150 ms before a request."""

    def write(self, folder: Path, tokens: list[str]) -> Path:
        """Write the files that call.lua reads; pairs tokens and bodies in turn."""
        folder.mkdir(parents=True, exist_ok=True)
        pairs = self.headers.items()
        lines = "".join(f"{name}: {value}\n" for name, value in pairs)
        (folder / "headers").write_text(lines)
        count = max(len(tokens), len(self.bodies))
        with (folder / "requests").open("w") as out:
            for i in range(count):
                token = tokens[i % len(tokens)] if tokens else ""
                bearer = f"Bearer {token}" if token else ""
                out.write(f"{bearer}\t{self.bodies[i % len(self.bodies)]}\n")
        return folder


def message(
    method: str, era: str, params: dict[str, Any], expected: str, session: str = ""
) -> Load:
    """One JSON-RPC request as a client of `era` sends it."""
    headers = {
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": era,
    }
    if era == MODERN:
        headers["Mcp-Method"] = method
        if "name" in params:
            headers["Mcp-Name"] = params["name"]
        meta = {f"{META}protocolVersion": MODERN, f"{META}clientCapabilities": {}}
        params = {**params, "_meta": meta}
    if session:
        headers["Mcp-Session-Id"] = session
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    return Load(headers=headers, bodies=(json.dumps(body),), expected=expected)


def call(era: str = MODERN, session: str = "") -> Load:
    """`tools/call` of `greet`."""
    params = {"name": "greet", "arguments": {"name": "bench"}}
    return message("tools/call", era, params, GREETING, session)


def listing(expected: str) -> Load:
    """`tools/list`."""
    return message("tools/list", MODERN, {}, expected)


def run(
    url: str,
    folder: Path,
    expected: str,
    connections: int,
    seconds: int,
    skip: int = 0,
    script: Path = SCRIPT,
) -> Slice:
    """Load `url` for some seconds."""
    command = [
        wrk_path(),
        "-t1",
        f"-c{connections}",
        f"-d{seconds}s",
        "--timeout",
        "20s",
    ]
    command += ["-s", str(script), url, "--", str(folder), expected, str(skip)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = {line.split(" ")[0]: line for line in done.stdout.splitlines()}
    if "RESULT" not in lines:
        raise RuntimeError(f"wrk failed: {done.stderr or done.stdout}")
    total, us, wrong, lost, p50, p99 = map(int, lines["RESULT"].split()[1:])
    right = max(total - wrong, 0)
    sample = lines.get("SAMPLE", "SAMPLE ")[7:]
    return Slice(
        right * 1e6 / us, p50 / 1e3, p99 / 1e3, wrong + lost, total, sample.strip()
    )
