"""The commands about upstream servers, with a server that is only pretended."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from accounts.models import AuditEvent, Role
from mcp_bridge.models import Offer, Primitive, UpstreamCredential, UpstreamServer
from mcp_bridge.upstreams import discovery
from mcp_bridge.upstreams.credentials import secret_of
from mcp_bridge.upstreams.problems import UpstreamProblem

pytestmark = pytest.mark.django_db
URL = "https://a.example/mcp"


def look(server: UpstreamServer, credential: Any) -> discovery.Found:
    """A server with two tools; one at another host is down."""
    if "down" in server.url:
        raise UpstreamProblem("timeout", "No answer.")
    offers = tuple(
        Offer("tool", f"{server.name}__{n}", "", "", (), False, n, {"name": n}, n)
        for n in ("buy", "sell")
    )
    return discovery.Found("Shop", "1.0", "2025-11-25", "", offers, 1.0, "")


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "look", look)


def run(*arguments: str) -> Any:
    """What the command prints with `--json`."""
    out = io.StringIO()
    call_command(*arguments, "--json", stdout=out)
    return json.loads(out.getvalue())


def states() -> list[str]:
    rows = Primitive.objects.exclude(upstream=None).order_by("pk")
    return list(rows.values_list("state", flat=True))


def test_a_server_is_added_accepted_listed_and_removed() -> None:
    assert run("add_upstream", "shop", URL)["held"] == 2
    Role.objects.create(name="Buyers")
    given = run("accept_definitions", "shop", "buy", "--role", "Buyers")
    assert given == {"accepted": ["shop__buy"], "given": 1}
    assert states() == ["accepted", "held"]
    scopes = Role.objects.get(name="Buyers").scopes.values_list("name", flat=True)
    assert list(scopes) == ["tool:shop__buy"]
    run("accept_definitions", "shop", "--all")
    assert states() == ["accepted", "accepted"]
    (listed,) = run("list_upstreams")
    assert (listed["name"], listed["accepted"]) == ("shop", 2)
    assert run("discover")[0]["added"] == 0
    assert run("remove_upstream", "shop") == {"removed": "shop", "definitions": 2}
    assert states() == []
    actions = set(AuditEvent.objects.values_list("action", flat=True))
    assert actions >= {"upstream.added", "upstream.deleted", "primitive.accepted"}


@pytest.mark.parametrize(
    ("option", "prefix"), [((), "shop"), (("--prefix", "x"), "x"), (("--prefix=",), "")]
)
def test_a_prefix_is_the_name_unless_another_or_none_is_given(
    option: tuple[str, ...], prefix: str
) -> None:
    assert run("add_upstream", "shop", URL, *option)["prefix"] == prefix


def test_a_secret_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "s3cr3t")
    shown = run("add_upstream", "shop", URL, "--header-from-env", "Authorization=KEY")
    assert "s3cr3t" not in str(shown)
    assert secret_of(UpstreamCredential.objects.get()) == "Bearer s3cr3t"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("shop", "https://down.example/mcp"), "No answer."),
        (("shop", "ftp://a.example"), "is not a URL"),
        (("a__b", URL), "Two underscores"),
        (("shop", URL, "--header-from-env", "A=NONE"), "NONE is empty"),
        (("shop", URL, "--client-credentials", "me"), "--token-url"),
    ],
)
def test_nothing_is_saved_after_a_problem(
    arguments: tuple[str, ...], problem: str
) -> None:
    with pytest.raises(CommandError, match=problem):
        run("add_upstream", *arguments)
    assert not UpstreamServer.objects.exists()


@pytest.mark.parametrize(
    "arguments",
    [("shop",), ("shop", "buy", "--all"), ("shop", "steal"), ("x", "--all")],
)
def test_unclear_names_accept_nothing(arguments: tuple[str, ...]) -> None:
    run("add_upstream", "shop", URL)
    with pytest.raises(CommandError):
        run("accept_definitions", *arguments)
    assert states() == ["held", "held"]


def test_a_command_about_one_server_leaves_the_others() -> None:
    for name in ("shop", "store"):
        run("add_upstream", name, f"https://{name}.example/mcp")
    with pytest.raises(CommandError, match="shop has no store__buy"):
        run("accept_definitions", "shop", "store__buy")
    assert run("accept_definitions", "shop", "buy")["accepted"] == ["shop__buy"]
    assert run("accept_definitions", "shop", "--all")["accepted"] == ["shop__sell"]
    assert run("accept_definitions", "shop", "buy")["accepted"] == []
    assert states() == ["accepted", "accepted", "held", "held"]
    run("add_upstream", "third", "https://third.example/mcp", "--accept")
    assert states() == ["accepted", "accepted", "held", "held", "accepted", "accepted"]
    run("remove_upstream", "shop")
    assert states() == ["held", "held", "accepted", "accepted"]


def test_only_enabled_servers_are_asked_without_a_name() -> None:
    for name in ("shop", "store"):
        run("add_upstream", name, f"https://{name}.example/mcp")
    UpstreamServer.objects.filter(name="store").update(enabled=False)
    assert [found["name"] for found in run("discover")] == ["shop"]
    assert [found["name"] for found in run("discover", "store")] == ["store"]


def test_a_file_is_imported_entry_by_entry(tmp_path: Path) -> None:
    file = tmp_path / "mcp.json"
    servers = {
        "Shop": {"url": URL},
        "Local": {"command": "npx"},
        "Down": {"url": "https://down.example/"},
    }
    file.write_text(json.dumps({"mcpServers": servers}))
    out = io.StringIO()
    with pytest.raises(CommandError, match="Not every server was added"):
        call_command("import_mcp_servers", str(file), "--json", stdout=out)
    results = [one["result"] for one in json.loads(out.getvalue())]
    assert results == ["added", "skipped", "failed"] and states() == ["held", "held"]


@pytest.mark.parametrize(
    ("options", "mode", "expected"),
    [
        (["--signed-assertion"], "signed_assertion", None),
        ([], "none", None),
        (
            ["--client-credentials", "me", "--secret-from-env", "KEY"],
            "client_credentials",
            ("client_secret_basic", "s3cr3t"),
        ),
        (
            ["--client-credentials", "me"],
            "client_credentials",
            ("private_key_jwt", ""),
        ),
    ],
)
def test_each_way_to_authenticate_is_saved(
    monkeypatch: pytest.MonkeyPatch, options: list[str], mode: str, expected: Any
) -> None:
    monkeypatch.setenv("KEY", "s3cr3t")
    if expected:
        options = [*options, "--token-url", "https://a.example/token"]
        options += ["--scope", "a b"]
    assert run("add_upstream", "shop", URL, *options)["credential"] == mode
    rows = [
        (row.client_authentication, secret_of(row))
        for row in UpstreamCredential.objects.filter(
            client_id="me", token_url="https://a.example/token", scope="a b"
        )
    ]
    assert rows == ([expected] if expected else [])
    assert UpstreamCredential.objects.count() == len(rows)


def test_a_header_that_cannot_carry_a_credential_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KEY", "s3cr3t")
    for header in ("Host", "Mcp-Session-Id"):
        with pytest.raises(CommandError, match="cannot carry a credential"):
            run("add_upstream", "shop", URL, "--header-from-env", f"{header}=KEY")
    assert not UpstreamServer.objects.exists()


def test_a_name_is_used_once() -> None:
    run("add_upstream", "shop", URL)
    with pytest.raises(CommandError, match="An upstream server shop exists already"):
        run("add_upstream", "shop", "https://b.example/mcp")
    assert run("list_upstreams")[0]["last_contact"] is not None


def test_what_was_accepted_before_can_be_given() -> None:
    run("add_upstream", "shop", URL, "--accept")
    given = run("accept_definitions", "shop", "buy", "--role", "Guest")
    assert given == {"accepted": [], "given": 1}


def test_a_definition_that_cannot_be_accepted_is_named() -> None:
    run("add_upstream", "shop", URL)
    Primitive.objects.filter(name="shop__buy").update(problem="It is odd.")
    with pytest.raises(CommandError, match="Nothing was accepted. shop__buy"):
        run("accept_definitions", "shop", "sell", "buy")
    assert states() == ["held", "held"]


def test_every_server_is_asked_also_after_one_that_fails() -> None:
    for name in ("shop", "store"):
        run("add_upstream", name, f"https://{name}.example/mcp")
    UpstreamServer.objects.filter(name="shop").update(url="https://down.example/mcp")
    out = io.StringIO()
    with pytest.raises(CommandError, match="Not every server answered: shop."):
        call_command("discover", "--json", stdout=out)
    found = {one["name"]: one["error"] for one in json.loads(out.getvalue())}
    assert found == {"shop": "No answer.", "store": ""}
    events = AuditEvent.objects.filter(action="upstream.discovered")
    assert [(e.actor, "store" in e.object) for e in events] == [("command line", True)]


def test_an_imported_entry_can_be_accepted_and_is_added_once(tmp_path: Path) -> None:
    file = tmp_path / "mcp.json"
    headers = {"Authorization": "Bearer s3cr3t"}
    shop = {"url": URL, "headers": headers}
    file.write_text(json.dumps({"mcpServers": {"Shop": shop}}))
    (first,) = run("import_mcp_servers", str(file), "--accept")
    assert first["result"] == "added" and states() == ["accepted", "accepted"]
    server = UpstreamServer.objects.get()
    assert (server.credential_mode, server.prefix) == ("static_header", server.name)
    assert secret_of(UpstreamCredential.objects.get()) == "Bearer s3cr3t"
    (second,) = run("import_mcp_servers", str(file))
    assert (second["result"], second["problem"]) == ("skipped", "It exists already.")
