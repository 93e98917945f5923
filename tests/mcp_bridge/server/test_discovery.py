"""Discovery: what code offers becomes rows."""

from __future__ import annotations

import asyncio
import logging
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import IntegrityError
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.prompts import Prompt
from mcp_types import Annotations, Icon, ToolAnnotations
from pydantic import Field

from accounts.management.errors import BrokenApp
from mcp_bridge.models import Offer, Primitive
from mcp_bridge.server import discovery
from mcp_bridge.server.discovery import autodiscover, offers, sync
from mcp_bridge.server.portico_server import PorticoServer, mcp

KINDS = ("tool", "resource", "resource_template", "prompt")


def server_with(**changed: Any) -> PorticoServer:
    """A server that offers one primitive of each kind."""
    made = PorticoServer("unit")
    words = {
        "title": "Title",
        "description": "  What it does.\n",
        "argument": "number",
        "mime_type": "text/plain",
    } | changed
    shared = {key: words[key] for key in ("title", "description")}

    def work(number: int = 0) -> str:
        return ""

    def other(count: int = 0) -> str:
        return ""

    fn = work if words["argument"] == "number" else other
    made.tool("do", scopes=["Use", "Rule"], sensitive=True, **shared)(fn)
    made.prompt("ask", scopes=["Use"], **shared)(fn)
    mime = {"mime_type": words["mime_type"], **shared}
    made.resource("a://one", scopes=["Use"], name="one", **mime)(lambda: "")
    made.resource("a://{number}", name="many", **mime)(lambda number: "")
    return made


def offered(server: PorticoServer) -> dict[str, Offer]:
    return {offer.kind: offer for offer in offers(server)}


@pytest.mark.once
def test_each_kind_is_offered_outside_a_message() -> None:
    """Whether a caller sees it or not."""
    found = offered(server_with())
    assert tuple(found) == KINDS
    assert [(o.name, o.scopes, o.sensitive) for o in found.values()] == [
        ("do", ("Use", "Rule"), True),
        ("a://one", ("Use",), False),
        ("a://{number}", (), False),
        ("ask", ("Use",), False),
    ]
    assert {(o.title, o.description) for o in found.values()} == {
        ("Title", "What it does.")
    }
    assert all(len(o.definition) == 64 for o in found.values())


@pytest.mark.once
def test_a_long_name_is_refused_however_it_was_registered() -> None:
    made = PorticoServer("unit")
    made.add_tool(lambda: "", name="n" * 251)
    with pytest.raises(ImproperlyConfigured, match=r"shorten the name to 250\."):
        list(offers(made))


@pytest.mark.once
def test_texts_may_be_missing() -> None:
    found = offered(server_with(title=None, description=None))
    assert {o.title for o in found.values()} == {""}
    assert found["tool"].description == ""


@pytest.mark.once
@pytest.mark.parametrize(
    ("changed", "kinds"),
    [
        ({}, ()),
        ({"title": "Other"}, KINDS),
        ({"description": "Other"}, KINDS),
        ({"argument": "count"}, ("tool", "prompt")),
        ({"mime_type": "text/html"}, ("resource", "resource_template")),
    ],
)
def test_a_definition_covers_everything_that_clients_see(
    changed: dict[str, Any], kinds: tuple[str, ...]
) -> None:
    """Staff review a primitive again if it changes."""
    before, after = offered(server_with()), offered(server_with(**changed))
    differing = [k for k in KINDS if before[k].definition != after[k].definition]
    assert tuple(differing) == kinds


@pytest.mark.once
def test_a_definition_covers_the_output_of_a_tool() -> None:
    texts, numbers = PorticoServer("unit"), PorticoServer("unit")

    def text() -> str:
        return ""

    def number() -> int:
        return 0

    texts.tool("do")(text)
    numbers.tool("do")(number)
    assert offered(texts)["tool"].definition != offered(numbers)["tool"].definition


@pytest.mark.once
def test_access_is_no_part_of_a_definition() -> None:
    """An admin sets it; a change in code is no reason for a review."""
    open_to_all, closed = PorticoServer("unit"), PorticoServer("unit")

    def do() -> str:
        return ""

    open_to_all.tool()(do)
    closed.tool(scopes=["Rule"], sensitive=True)(do)
    found = [offered(s)["tool"].definition for s in (open_to_all, closed)]
    assert found[0] == found[1]


@pytest.mark.once
def test_modules_of_all_apps_are_found() -> None:
    assert autodiscover() is mcp
    assert ("tool", "whoami") in mcp.access and (
        "resource",
        "portico://me",
    ) in mcp.access


@pytest.mark.django_db
def test_a_sync_adds_rows_once(caplog: pytest.LogCaptureFixture) -> None:
    Primitive.objects.all().delete()
    with caplog.at_level(logging.INFO, logger=discovery.__name__):
        counts = sync()
        assert (
            counts == {"added": len(mcp.access)} and "Catalogue synced" in caplog.text
        )
        caplog.clear()
        assert sync() == {} and caplog.text == ""
    row = Primitive.objects.get(name="grant_role")
    assert row.sensitive and row.enabled
    assert {s.name for s in row.required_scopes.all()} == {
        "Admin.Write",
        "tool:grant_role",
    }


@pytest.mark.once
@pytest.mark.parametrize("failures", [0, 1, 2, 3])
def test_a_worker_that_loses_a_race_syncs_again(
    monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    """Workers that start together insert the same rows."""
    calls: list[int] = []

    def once(found: list[Offer], **options: Any) -> dict[str, int]:
        calls.append(len(found))
        if len(calls) <= failures:
            raise IntegrityError("taken")
        return {"added": 1, "changed": 0}

    monkeypatch.setattr(Primitive.objects, "sync", once)
    if failures < 3:
        assert sync() == {"added": 1} and len(calls) == failures + 1
    else:
        with pytest.raises(IntegrityError):
            sync()
        assert len(calls) == 3
    assert set(calls) == {len(mcp.access)}


@pytest.mark.once
@pytest.mark.parametrize(
    ("line", "error", "fix"),
    [
        (
            "import no_such_library",
            "ModuleNotFoundError: No module named 'no_such_library'",
            "Install the missing package",
        ),
        ("from os import nothing", "ImportError: cannot import", "Correct the name"),
        ("def broken(", "SyntaxError: ", "Correct the syntax"),
        ("nobody", "NameError: name 'nobody'", "Correct this line"),
        ("{}['key']", "KeyError: 'key'", "Correct this line"),
    ],
)
def test_a_broken_module_is_three_lines(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str, error: str, fix: str
) -> None:
    path = tmp_path / "mcp_tools.py"
    path.write_text(f"\n{line}\n")

    def find(_name: str) -> None:
        runpy.run_path(str(path))

    monkeypatch.setattr(discovery, "autodiscover_modules", find)
    with pytest.raises(BrokenApp) as caught:
        autodiscover()
    place, what, advice = str(caught.value).splitlines()
    assert place == f"{path}, line 2: {line}"
    assert what.startswith(error)
    assert advice.startswith(f"Fix: {fix}")


@pytest.mark.once
def test_other_errors_are_not_shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(_name: str) -> None:
        raise RuntimeError("of Portico")

    monkeypatch.setattr(discovery, "app_remedy", lambda error: "")
    monkeypatch.setattr(discovery, "autodiscover_modules", find)
    with pytest.raises(RuntimeError, match="of Portico"):
        autodiscover()


@pytest.mark.once
@pytest.mark.parametrize(
    ("files", "similar"),
    [
        (["mcp_tool.py", "models.py"], "mcp_tool.py"),
        (["mcptools.py"], "mcptools.py"),
        (["mcp_tools.py"], "mcp_tools.py"),
        (["models.py", "tests.py"], ""),
    ],
)
def test_an_app_that_offers_nothing_is_named(
    monkeypatch: pytest.MonkeyPatch,
    settings: Any,
    tmp_path: Path,
    files: list[str],
    similar: str,
) -> None:
    for name in files:
        (tmp_path / name).touch()
    listed = ["acme", "mcp_bridge", "mcp"]
    configs = [SimpleNamespace(name=name, path=str(tmp_path)) for name in listed]
    configs.append(SimpleNamespace(name="unlisted", path="/"))
    apps = SimpleNamespace(get_app_configs=lambda: configs)
    monkeypatch.setattr(discovery, "apps", apps)
    settings.EXTRA_APPS = listed
    silent = [("acme", similar), ("mcp", similar)]
    assert discovery.silent_apps() == silent, "a name that begins alike is another app"
    settings.EXTRA_APPS = ["types.SimpleNamespace"]
    named = [name for name, _file in discovery.silent_apps()]
    assert named == ["acme", "mcp", "unlisted"], "or named by its configuration"


@pytest.mark.once
def test_a_definition_has_the_form_of_the_lists() -> None:
    """MCP server/tools, resources, prompts: what clients get, key by key."""
    found = {kind: offer.shown for kind, offer in offered(server_with()).items()}
    texts = {"title": "Title", "description": "  What it does.\n"}
    assert found["tool"].items() >= ({"name": "do"} | texts).items()
    assert found["tool"]["inputSchema"]["properties"]["number"]["type"] == "integer"
    assert found["resource"] == {
        "uri": "a://one",
        "name": "one",
        "mimeType": "text/plain",
        **texts,
    }
    assert found["resource_template"] == {
        "uriTemplate": "a://{number}",
        "name": "many",
        "mimeType": "text/plain",
        **texts,
    }
    arguments = [{"name": "number", "required": False}]
    assert found["prompt"]["arguments"] == arguments


def do(number: Annotated[int, Field(description="How many.")] = 0) -> str:
    return ""


async def sdk_lists(server: MCPServer[Any]) -> dict[str, Any]:
    """Kind -> the one definition in the list of the SDK's own server."""
    lists: tuple[list[Any], ...] = (
        await server.list_tools(),
        await server.list_resources(),
        await server.list_resource_templates(),
        await server.list_prompts(),
    )
    options: Any = {"mode": "json", "by_alias": True, "exclude_none": True}
    return {
        kind: one.model_dump(**options)
        for kind, (one,) in zip(KINDS, lists, strict=True)
    }


@pytest.mark.once
def test_a_definition_has_every_key_of_the_sdks_lists() -> None:
    """A key that is left out would never be reviewed, and no client would get it."""
    made, plain = PorticoServer("unit"), MCPServer("plain")
    texts: dict[str, Any] = {"title": "Title", "description": "Text."}
    meta = {"a": "b"}
    icons = [Icon(src="https://h.example/i.png", mime_type="image/png", sizes=["any"])]
    notes = Annotations(audience=["user"], priority=0.5)
    hint = ToolAnnotations(title="Do", destructive_hint=True)
    of_resource: dict[str, Any] = {**texts, "meta": meta, "icons": icons, "name": "one"}
    of_resource |= {"annotations": notes, "mime_type": "text/plain"}
    for one in (made, plain):
        one.tool("do", annotations=hint, icons=icons, meta=meta, **texts)(do)
        one.resource("a://one", **of_resource)(lambda: "")
        one.resource("a://{x}", **of_resource)(lambda x: "")
        one.prompt("ask", icons=icons, **texts)(do)
    found = {kind: offer.shown for kind, offer in offered(made).items()}
    assert found == asyncio.run(sdk_lists(plain))
    (argument,) = found["prompt"]["arguments"]
    assert argument["description"] == "How many."


@pytest.mark.once
def test_a_prompt_may_declare_no_arguments() -> None:
    """An app can make it without the decorator."""
    made = PorticoServer("unit")
    made.add_prompt(Prompt(name="ask", arguments=None, fn=do))
    assert offered(made)["prompt"].shown["arguments"] == []


@pytest.mark.django_db
def test_definitions_of_the_code_can_be_held(settings: Any) -> None:
    settings.DEFINITIONS_FROM_CODE = "hold"
    Primitive.objects.all().delete()
    sync()
    assert {row.state for row in Primitive.objects.all()} == {"held"}


@pytest.mark.once
def test_annotations_and_arguments_are_shown() -> None:
    """Clients ask for a confirmation by the first, and for values by the second."""
    made = PorticoServer("unit")

    def do(must: str, may: str = "") -> str:
        return ""

    hint = ToolAnnotations(destructive_hint=True)
    made.tool("do", annotations=hint)(do)
    made.prompt("ask")(do)
    found = offered(made)
    assert found["tool"].shown["annotations"]["destructiveHint"] is True
    arguments = found["prompt"].shown["arguments"]
    required = {one["name"]: one["required"] for one in arguments}
    assert required == {"must": True, "may": False}


@pytest.mark.once
@pytest.mark.parametrize(("word", "hold"), [("hold", True), ("accept", False)])
def test_definitions_from_code_are_held_if_set_so(
    monkeypatch: pytest.MonkeyPatch, settings: Any, word: str, hold: bool
) -> None:
    settings.DEFINITIONS_FROM_CODE = word
    held: list[bool] = []

    def once(found: list[Offer], *, hold: bool) -> dict[str, int]:
        held.append(hold)
        return {}

    monkeypatch.setattr(Primitive.objects, "sync", once)
    sync()
    assert held == [hold]


@pytest.mark.once
def test_the_order_of_members_is_no_change_of_a_definition() -> None:
    """Accepted definitions would have to be accepted again."""
    hashes = set()
    for meta in ({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 3, "c": 2}, "a": 1}):
        made = PorticoServer("unit")
        made.tool("do", meta=meta)(lambda: "")
        hashes.add(offered(made)["tool"].definition)
    assert len(hashes) == 1
