"""What routes, commands and documents answer, compared with `outlines/`.

After an intended change, write the files again and read the difference:
`NEW_OUTLINES=1 .venv/bin/python -m pytest tests/config/test_outlines.py`
"""

from __future__ import annotations

import json
import re
from argparse import Action
from collections.abc import Iterator
from io import StringIO
from itertools import product, starmap
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.apps import apps
from django.core.management import call_command, find_commands, load_command_class
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.test import Client
from django.urls import URLResolver, get_resolver

from accounts.models import User
from mcp_bridge.models import Offer, Primitive, UpstreamServer
from mcp_bridge.upstreams import discovery
from mcp_bridge.upstreams.problems import UpstreamProblem
from tests.support.admin_api import Caller, member_of
from tests.support.admin_scene import set_scene
from tests.support.answer_outline import events_since, newest_event
from tests.support.outlines import compare
from tests.support.page_outline import steady
from tests.support.server import LIMITS
from tests.support.static_files import UNCOLLECTED
from tests.support.users import account, browser_of

pytestmark = pytest.mark.django_db
OUTLINES = Path(__file__).parent / "outlines"
DOCUMENTS = (
    ".well-known/oauth-authorization-server",
    ".well-known/oauth-protected-resource/mcp",
    "oauth/jwks.json",
)
NONCE = re.compile(r"nonce-[^' ]+")
FIRST = ("Content-Type", "Location", "Allow", "WWW-Authenticate", "Cache-Control")
CHANGING = ("Content-Length", "ETag", "Expires", "X-Request-ID", "Last-Modified")


def routes(patterns: Any, before: str = "") -> Iterator[str]:
    """Every route outside the admin, whose pages have outlines."""
    for pattern in patterns:
        route = f"{before}{pattern.pattern}"
        if isinstance(pattern, URLResolver):
            yield from routes(pattern.url_patterns, route)
        elif not route.startswith("admin/"):
            yield route


def path_of(route: str) -> str:
    """The route with 1 for numbers and x for texts."""
    numbers = re.sub(r"<int:\w+>", "1", route)
    return "/" + re.sub(r"\(\?P<\w+>[^)]*\)|<\w+:\w+>", "x", numbers).strip("^$")


def answered(client: Client, method: str, path: str) -> Any:
    """The response; nothing is kept."""
    before = transaction.savepoint()  # A block here could not hold durable ones.
    answer = client.generic(method, path)
    transaction.savepoint_rollback(before)
    return answer


def headers_of(answer: Any) -> tuple[str, str]:
    """(those that differ by route, the others), one a line."""
    own = [f"{n}: {steady(answer[n])}" for n in FIRST if n in answer.headers]
    cookies = [f"Set-Cookie: {name}" for name in sorted(answer.cookies)]
    rest = [
        f"{name}: {', '.join(sorted(NONCE.sub('nonce', value).split(', ')))}"
        for name, value in sorted(answer.headers.items())
        if name not in (*FIRST, *CHANGING)
    ]
    return "; ".join([*own, *cookies]), "\n".join(rest)


def test_routes_answer_what_they_answered(settings: Any) -> None:
    """Each to a stranger, a user and a superuser; the headers behind H1, H2, ..."""
    settings.STORAGES = UNCOLLECTED
    for limit in LIMITS:
        setattr(settings, limit, "off")
    alice, root = account("alice", "User"), member_of("superuser")
    kinds: dict[str, str] = {}
    lines = []
    for route, method in product(
        dict.fromkeys(routes(get_resolver().url_patterns)), ("GET", "POST")
    ):
        for person in (None, alice, root):
            client = browser_of(person) if person else Client()
            answer = answered(client, method, path_of(route))
            own, rest = headers_of(answer)
            kind = kinds.setdefault(rest, f"H{len(kinds) + 1}")
            name = person.username if person else "stranger"
            lines.append(
                f"{method} /{route} {name}: {answer.status_code} {kind}; {own}\n"
            )
    for rest, kind in kinds.items():
        lines.append(f"\n{kind}\n{rest}\n")
    compare({"routes.txt": "".join(lines)}, OUTLINES / "routes")


def pretty(data: Any) -> str:
    """JSON, one member a line, without what differs in each run."""
    text = json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False)
    return "".join(
        " " * (len(line) - len(line.lstrip())) + steady(line) + "\n"
        for line in text.splitlines()
    )


def test_documents_say_what_they_said() -> None:
    """Of the API, and the metadata of RFC 8414, RFC 9728 and RFC 7517."""
    found = {}
    for path in DOCUMENTS:
        answer = Client().get(f"/{path}")
        data = yaml.safe_load(answer.content)
        found[path.strip("./").replace("/", "_") + ".txt"] = pretty(data)
    compare(found, OUTLINES / "documents")


def member(name: str, data: Any) -> str:
    return f"  {name} {steady(json.dumps(data, sort_keys=True))}\n"


def operation(path: str, verb: str, data: dict[str, Any]) -> str:
    """An operation of the API with its parameters, and where its bodies are shown."""
    lines = [member(one["name"], one) for one in data.pop("parameters", [])]
    for code, answer in data.pop("responses").items():
        kinds = answer.pop("content", {})
        shown = {kind: one.get("schema") for kind, one in kinds.items()}
        lines.append(member(code, [answer, shown] if code < "3" else sorted(shown)))
    return f"{verb} {path}\n" + "".join([*lines, member("rest", data)])


def schema(name: str, data: dict[str, Any]) -> str:
    """A body of the API, one member a line."""
    members = data.pop("properties", {}).items()
    return f"{name}\n" + "".join([*starmap(member, members), member("rest", data)])


def test_the_document_of_the_api_says_what_it_said() -> None:
    data = yaml.safe_load(Client().get("/api/schema/").content)
    parts = data.pop("components")
    operations = [
        operation(path, verb, one)
        for path, verbs in data.pop("paths").items()
        for verb, one in verbs.items()
    ]
    schemas = [*starmap(schema, parts.pop("schemas").items())]
    rest = {"rest.txt": pretty({**data, **parts})}
    found = {"operations.txt": "\n".join(operations), "schemas.txt": "\n".join(schemas)}
    compare({**found, **rest}, OUTLINES / "openapi")


def listed(caller: Caller) -> Iterator[tuple[str, Any]]:
    """(path, JSON) of each list of the API, and of the first row of each."""
    for route in dict.fromkeys(routes(get_resolver().url_patterns)):
        path = route.removeprefix("api/v1/")
        if path == route or "<" in path or path in ("events/stream/",):
            continue
        answer = caller.get(path)
        if answer.status_code != 200:
            continue
        yield path, answer.json()
        rows = answer.json().get("results") or [{}]
        key = rows[0].get("id", rows[0].get("jti"))
        row = caller.get(f"{path}{key}/")
        if row.status_code == 200:
            assert "ETag" in row.headers, path
            yield f"{path}first", row.json()


def test_the_api_shows_what_it_showed(settings: Any) -> None:
    """To a superuser."""
    settings.LIMIT_API = "off"
    set_scene()
    User.objects.update(password="set")
    found = {
        path.strip("/").replace("/", "_") + ".txt": pretty(data)
        for path, data in listed(Caller(member_of("superuser")))
    }
    compare(found, OUTLINES / "api")


def described(action: Action) -> str:
    """An argument of a command on one line."""
    shown = {
        "default": action.default,
        "choices": action.choices,
        "nargs": action.nargs,
        "const": action.const,
        "type": getattr(action.type, "__name__", None),
        "metavar": action.metavar,
    }
    words = [f"{name}={value}" for name, value in shown.items() if value is not None]
    names = " ".join(action.option_strings) or action.dest
    need = ["required"] if action.required else []
    return f"  {names} {' '.join([*need, *words])}: {steady(str(action.help))}\n"


def usage(command: Any) -> str:
    """The description and the arguments of a command, without Django's own."""
    django = {one.dest for one in BaseCommand().create_parser("", "")._actions}
    parser = command.create_parser("manage.py", "x")
    own = [one for one in parser._actions if one.dest not in django]
    return steady(str(parser.description)) + "\n" + "".join(map(described, own))


def test_commands_take_what_they_took() -> None:
    found = ""
    for app in ("accounts", "mcp_bridge"):
        folder = Path(apps.get_app_config(app).path) / "management"
        for name in sorted(find_commands(str(folder))):
            found += f"{name}\n{usage(load_command_class(app, name))}\n"
    compare({"commands.txt": found}, OUTLINES / "commands")


CALLS = """
doctor
list_users
list_users --json
list_users --role User
list_users --inactive
list_tools
list_upstreams
check_access carol pay
check_access bert pay
check_access nobody pay
check_access carol open
check_access alice whoami
export_policy
export_audit
export_audit --form csv
verify_audit
seal_audit
grant_role bert User --reason x
grant_role bert User --until 2099-01-01
grant_role bert Nothing
grant_role nobody User
revoke_role bert Guest --reason x
revoke_role bert User
revoke_tokens --user carol
revoke_tokens --client portico
revoke_tokens --everything
revoke_tokens
unlock carol
unlock --address 192.0.2.7
unlock
reset_second_factor carol
reset_second_factor nobody
add_user zoe --role Guest --email zoe@example.org
add_user alice
invite zoe --role Guest --for 8h
invite carol
add_client Editor --redirect-uri https://e.example/cb
add_client Editor --redirect-uri ftp://e.example/cb
issue_token alice --network 10.0.0.0/8
issue_token alice --scope Nothing
rotate_signing_key
rotate_secrets --check
purge
remove_upstream shop
remove_upstream nothing
accept_definitions shop
accept_definitions shop nothing
accept_definitions closed gate
accept_definitions closed --all --role Guest
discover
discover shop
discover closed
discover nothing
add_upstream stall https://stall.example/mcp --title Stall
add_upstream stall https://stall.example/mcp --accept
add_upstream shop https://stall.example/mcp
add_upstream stall https://closed.example/mcp
import_users people.csv --dry-run
import_users people.csv
import_users wrong.csv
import_users nothing.csv
import_policy policy.json --dry-run
import_policy policy.json
import_policy people.csv
demo
seal_audit --reauthenticate
revoke_tokens --client nothing
revoke_tokens --user nobody
unlock nobody
add_user zoe --superuser
add_user zoe --service-account --role Guest
add_client Editor --redirect-uri https://e.example/cb --public
add_client Robot --service-account carol
""".strip().splitlines()
FILES = {
    "people.csv": "username,email,active,roles\n"
    "zoe,zoe@example.org,,Guest@2099-01-01\nbert,,no,\nalice,,,User; Guest\n",
    "wrong.csv": "username,rank\nzoe,1\n",
    "policy.json": json.dumps(
        {
            "format": "portico-policy-1",
            "scopes": [{"name": "User.Write", "description": "N"}, {"name": "Bare"}],
            "roles": [{"name": "Guest", "scopes": ["Guest.Read", "Bare"]}],
            "primitives": [{"kind": "tool", "name": "pay", "sensitive": False}],
        }
    ),
}
"""Files that the commands read, beside the working directory's."""


def look(server: Any, _credential: Any) -> discovery.Found:
    """A server with two tools; that named closed is down."""
    if "closed" in server.url:
        raise UpstreamProblem("timeout", "No answer.")
    offers = tuple(
        Offer("tool", f"{server.name}__{n}", n, f"To {n}.", (), False, n, {"name": n})
        for n in ("buy", "sell")
    )
    return discovery.Found("Shop", "1.0", "2025-11-25", "", offers, 1.0, "")


def ran(line: str) -> str:
    """What the command prints, how it ends, and its events; nothing is kept."""
    name, *arguments = line.split()
    out, last = StringIO(), newest_event()
    before, ends = transaction.savepoint(), ""
    try:
        call_command(name, *arguments, stdout=out, stderr=out)
    except (CommandError, SystemExit) as error:
        ends = f"{type(error).__name__}: {error}"
    printed = out.getvalue().splitlines()
    # What hosts of client documents answer depends on the network.
    lines = [*(one for one in printed if not one.startswith("note: ")), ends]
    lines += events_since(last)
    transaction.savepoint_rollback(before)
    shown = "".join(f"  {steady(line)}\n" for line in lines if line.strip())
    return f"{line}\n{re.sub(r':[0-9]+', ':N', shown)}\n"


def test_commands_print_what_they_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, content in FILES.items():
        (tmp_path / name).write_text(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(discovery, "look", look)
    set_scene()
    closed = UpstreamServer.objects.get(name="closed")
    named = {"upstream": closed, "upstream_name": "gate", "state": "changed"}
    Primitive.objects.create(kind="tool", name="closed__gate", **named)
    compare({"printed.txt": "".join(map(ran, CALLS))}, OUTLINES / "printed")
