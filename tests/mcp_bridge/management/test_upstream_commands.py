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
    for header in ("Host", "Mcp-Session-Id", "Cookie", "Content-Type", "A b", ""):
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


def printed(*arguments: str) -> list[str]:
    """The lines of a command without `--json`."""
    out = io.StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue().splitlines()


def test_a_server_is_shown_with_all_that_is_known_of_it() -> None:
    shown = run("add_upstream", "shop", URL, "--title", "The shop")
    contact = shown.pop("last_contact")
    assert UpstreamServer.objects.get().title == "The shop"
    assert contact and shown == {
        "name": "shop",
        "url": URL,
        "prefix": "shop",
        "enabled": True,
        "credential": "none",
        "protocol": "2025-11-25",
        "server": "Shop 1.0",
        "error": "",
        **{"accepted": 0, "held": 2, "changed": 0, "gone": 0},
        **{name: 0 for name in shown if name not in SHOWN},
    }


SHOWN = (
    *("name", "url", "prefix", "enabled", "credential", "protocol", "server", "error"),
    *("accepted", "held", "changed", "gone"),
)


def test_a_server_is_one_line_with_what_is_unusual() -> None:
    assert printed("list_upstreams") == [
        "No upstream servers. Add one: manage.py add_upstream NAME URL"
    ]
    assert printed("add_upstream", "shop", URL) == [
        f"shop: {URL}; 2 held",
        "Next: manage.py accept_definitions shop --all",
    ]
    down = "https://down.example/mcp"
    UpstreamServer.objects.create(name="empty", prefix="empty", url=down)
    UpstreamServer.objects.filter(name="shop").update(enabled=False)
    assert printed("accept_definitions", "shop", "--all") == [
        "accepted shop__buy",
        "accepted shop__sell",
        "2 accepted, 0 given to roles.",
    ]
    with pytest.raises(CommandError):
        run("discover", "empty")
    assert printed("list_upstreams") == [
        f"empty: {down}; nothing; No answer.",
        f"shop (disabled): {URL}; 2 accepted",
    ]
    assert printed("discover", "shop")[0].startswith("shop: 0 added")
    assert printed("remove_upstream", "shop") == ["shop removed with 2 definitions."]


def test_the_server_of_a_command_is_named_in_full() -> None:
    run("add_upstream", "shop", URL)
    with pytest.raises(CommandError, match="no upstream server sho; there are: shop"):
        run("discover", "sho")
    UpstreamServer.objects.all().delete()
    with pytest.raises(CommandError, match="there are: none"):
        run("discover", "shop")


def test_several_roles_get_several_definitions_or_none() -> None:
    """Names are those here, or those at the server; also of what is broken."""
    run("add_upstream", "shop", URL)
    Role.objects.create(name="Buyers")
    roles = ("--role", "Buyers", "--role", "Guest")
    with pytest.raises(CommandError, match="There is no role Nobody"):
        run("accept_definitions", "shop", "--all", "--role", "Nobody")
    assert states() == ["held", "held"]
    given = run("accept_definitions", "shop", "shop__buy", "sell", *roles)
    assert given == {"accepted": ["shop__buy", "shop__sell"], "given": 4}
    for name in ("Buyers", "Guest"):
        scopes = set(Role.objects.get(name=name).scopes.values_list("name", flat=True))
        assert scopes >= {"tool:shop__buy", "tool:shop__sell"}
    events = AuditEvent.objects.filter(action="primitive.accepted")
    assert {(event.actor, event.via) for event in events} == {
        ("command line", "command")
    }


def test_all_that_wait_are_those_that_can_be_accepted() -> None:
    run("add_upstream", "shop", URL)
    Primitive.objects.filter(name="shop__buy").update(problem="It is odd.")
    assert run("accept_definitions", "shop", "--all")["accepted"] == ["shop__sell"]
    assert run("add_upstream", "store", "https://b.example/", "--accept")["held"] == 0


def test_what_commands_do_to_servers_is_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the actor, and the fields that decide what is contacted."""
    run("add_upstream", "shop", URL)
    added = AuditEvent.objects.get(action="upstream.added")
    assert (added.actor, added.via) == ("command line", "command")
    assert added.changes["url"] == [None, URL] and "secret" not in added.changes
    monkeypatch.setenv("KEY", "s3cr3t")
    run("add_upstream", "store", "https://b.example/", "--header-from-env", "A=KEY")
    added = AuditEvent.objects.filter(action="upstream.added").latest("pk")
    assert added.changes["secret"] == ["(hidden)", "(hidden)"]
    assert added.changes["credential_mode"] == [None, "static_header"]
    run("remove_upstream", "shop")
    deleted = AuditEvent.objects.get(action="upstream.deleted")
    assert (deleted.actor, deleted.object) == ("command line", "shop")


def test_a_discovery_records_what_it_changed_only() -> None:
    server = UpstreamServer.objects.create(name="shop", prefix="shop", url=URL)
    run("discover", server.name)
    event = AuditEvent.objects.get(action="upstream.discovered")
    assert event.changes == {"added": [None, 2]}


@pytest.mark.parametrize("content", ["no json", "[]", '{"mcpServers": []}'])
def test_a_file_that_is_no_list_of_servers_is_named(
    tmp_path: Path, content: str
) -> None:
    file = tmp_path / "mcp.json"
    file.write_text(content)
    with pytest.raises(CommandError, match="mcp.json: It "):
        run("import_mcp_servers", str(file))
    with pytest.raises(CommandError, match="No such file"):
        run("import_mcp_servers", str(tmp_path / "none"))


def test_the_names_of_imported_servers_are_their_short_ones(tmp_path: Path) -> None:
    file = tmp_path / "mcp.json"
    servers = {"My Shop!": {"url": URL}, "!!!": {"url": 5}, "Old": {"type": "sse"}}
    file.write_text(json.dumps({"mcpServers": servers}))
    out = io.StringIO()
    with pytest.raises(CommandError):
        call_command("import_mcp_servers", str(file), stdout=out)
    assert out.getvalue().splitlines() == [
        "my-shop: added",
        "!!!: It has no url.",
        "old: Its type is sse; only http servers can be added.",
    ]
    file.write_text('{"servers": {}}')
    assert printed("import_mcp_servers", str(file)) == ["The file has no servers."]
