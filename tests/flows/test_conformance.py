"""The official conformance suite against /mcp, through a proxy that adds the token."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.install import MODULES, node
from tests.conformance.proxy import proxy
from tests.flows.server import Portico, free_port, own_portico

pytestmark = [pytest.mark.node, pytest.mark.once]
SUITE = MODULES / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
OLDER, NEWER = "2025-11-25", "2026-07-28"
SCENARIOS = {OLDER: 30, NEWER: 37}
"""How many are scored; the others of a run are extensions and drafts."""
ASKING_BACK = {
    "tools-call-sampling",
    "tools-call-elicitation",
    "elicitation-sep1034-defaults",
    "elicitation-sep1330-enums",
}
"""Of 2025-11-25: the server asks the client, which takes a session."""
WITHOUT_FIXTURE = {
    OLDER: [
        "server-initialize",
        "server-session-lifecycle",
        "ping",
        "tools-list",
        "resources-list",
        "prompts-list",
        "dns-rebinding-protection",
        "server-sse-multiple-streams",
    ],
    NEWER: [
        "tools-list",
        "resources-list",
        "prompts-list",
        "dns-rebinding-protection",
        "server-sse-multiple-streams",
        "sep-2164-resource-not-found",
        "caching",
        "http-header-validation",
        "input-required-result-unsupported-methods",
        "input-required-result-ignore-extra-params",
    ],
}


def scored(revision: str) -> set[str]:
    """The server scenarios that the suite's requirements file names."""
    path = SUITE.parent.parent / "requirements" / f"{revision}.yaml"
    text = path.read_text().split("\nserver:\n")[1]
    listed = re.match(r"(?:\s+- .*\n|\s*#.*\n)+", text)
    assert listed is not None
    return set(re.findall(r"- ([\w-]+)", re.sub(r"#.*", "", listed.group())))


@pytest.fixture(scope="module")
def everything(tmp_path_factory: Any) -> Iterator[Portico]:
    """With the fixture app, one process, sessions on."""
    folder = tmp_path_factory.mktemp("everything")
    with own_portico(folder, EXTRA_APPS="tests.conformance") as running:
        yield running


@pytest.fixture(scope="module")
def stateless(tmp_path_factory: Any) -> Iterator[Portico]:
    """With the fixture app and two workers, so without sessions."""
    extra = {"EXTRA_APPS": "tests.conformance", "WORKERS": "2"}
    with own_portico(tmp_path_factory.mktemp("stateless"), **extra) as running:
        yield running


@pytest.fixture(scope="module")
def plain(tmp_path_factory: Any) -> Iterator[Portico]:
    """Without the fixture app."""
    folder = tmp_path_factory.mktemp("plain")
    with own_portico(folder, EXTRA_APPS="") as running:
        yield running


def results(
    server: Portico, out: Path, *arguments: str, token: str = ""
) -> dict[str, bool]:
    """Scenario -> whether none of its checks failed."""
    raw = token or server.signed_in("alice")
    with proxy(server.port, free_port(), raw) as url:
        command = [node(), str(SUITE), "server", "--url", f"{url}/mcp", "-o", str(out)]
        subprocess.run([*command, *arguments], capture_output=True, timeout=120)
    found = {}
    for path in out.glob("**/checks.json"):
        checks = json.loads(path.read_text())
        name = re.sub(r"^server-|-\d{4}-\d\d-\d\dT.*$", "", path.parent.name)
        bad = [c["id"] for c in checks if c["status"] == "FAILURE"]
        found[name] = not bad
        if bad:
            print(name, bad)
    return found


def judged(found: dict[str, bool], revision: str) -> set[str]:
    """The scored scenarios that failed; all of them must have run."""
    wanted = scored(revision)
    assert len(wanted) == SCENARIOS[revision] and wanted <= set(found)
    return {name for name in wanted if not found[name]}


@pytest.mark.spec("MCP conformance 2025-11-25")
@pytest.mark.spec("MCP conformance 2026-07-28")
@pytest.mark.parametrize("revision", [OLDER, NEWER])
def test_every_required_scenario_passes(
    everything: Portico, tmp_path: Path, revision: str
) -> None:
    """The suite's frozen, scored set: 30 and 37 scenarios."""
    found = results(everything, tmp_path, "--requirements", revision)
    assert judged(found, revision) == set()


@pytest.mark.parametrize("revision", [OLDER, NEWER])
def test_without_sessions_only_asking_back_fails(
    stateless: Portico, tmp_path: Path, revision: str
) -> None:
    """architecture 6: the price of several workers in the older era."""
    found = results(stateless, tmp_path, "--requirements", revision)
    wanted = ASKING_BACK if revision == OLDER else set()
    assert judged(found, revision) == wanted


@pytest.mark.parametrize("revision", [OLDER, NEWER])
def test_what_needs_no_fixture_passes_without_one(
    plain: Portico, tmp_path: Path, revision: str
) -> None:
    """ours: with Portico's own tools only."""
    for name in WITHOUT_FIXTURE[revision]:
        arguments = ["--scenario", name, "--spec-version", revision]
        found = results(plain, tmp_path / name, *arguments)
        assert found and all(found.values()), name


def test_a_wrong_token_fails_the_suite(everything: Portico, tmp_path: Path) -> None:
    """ours: a check that cannot fail would be none."""
    arguments = ["--requirements", NEWER]
    found = results(everything, tmp_path, *arguments, token="wrong")
    assert not found["tools-list"] and not found["server-stateless"]
