"""The server's decorators, and the last checks inside the SDK."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Annotated, Any, cast

import pytest
from django.core.exceptions import ImproperlyConfigured
from mcp.server.mcpserver import Context, MCPServer
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CallToolResult,
    CompleteRequestParams,
    Completion,
    EmptyResult,
    SubscribeRequestParams,
)
from pydantic import Field

from accounts.models import Scope
from accounts.tokens.principal import Unauthenticated
from mcp_bridge.access.catalogue import Catalogue, Rule, Upstream
from mcp_bridge.access.context import Call, call_var
from mcp_bridge.access.decision import Decision, Reason
from mcp_bridge.access.messages import TARGETS, Message
from mcp_bridge.cache.recheck import Recheck, recheck_var
from mcp_bridge.models import own_scope
from mcp_bridge.server import portico_server
from mcp_bridge.server.concurrency_limits import ThreadSlots
from mcp_bridge.server.portico_server import (
    EXTRA_METHODS,
    PorticoServer,
    mcp,
    require_decision,
    set_outcome,
    with_outcome,
)
from tests.support.asgi import run
from tests.support.mcp_in_process import caller, until

pytestmark = pytest.mark.once
YES, NO = Decision(True, Reason.GRANTED), Decision(False, Reason.ROLE_LACKS_SCOPE)


@pytest.fixture
def server() -> PorticoServer:
    return PorticoServer("unit")


@contextmanager
def within(
    server: PorticoServer, sent: Message, decision: Decision = YES
) -> Iterator[Call]:
    """Within a message of somebody whose role grants `Use`."""
    rules = Catalogue(
        Rule(kind, name, True, False, frozenset(scopes))
        for (kind, name), (scopes, _sensitive) in server.access.items()
    )
    call = Call(caller("alice", "Use"), sent, rules, decision)
    token = call_var.set(call)
    try:
        yield call
    finally:
        call_var.reset(token)


def tool_call(name: str) -> Message:
    return Message("tools/call", ("tool", name))


Region = Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})]


# -------------------------------------------------------------------- decorators


def work() -> str:
    """What a primitive does."""
    return "done"


def numbered(number: str) -> str:
    """What a template does."""
    return number


@pytest.mark.parametrize(
    ("decorate", "key"),
    [
        (lambda s: s.tool(scopes=["A"], sensitive=True), ("tool", "work")),
        (lambda s: s.tool("named", scopes=["A"], sensitive=True), ("tool", "named")),
        (lambda s: s.prompt(scopes=["A"], sensitive=True), ("prompt", "work")),
        (
            lambda s: s.prompt("named", scopes=["A"], sensitive=True),
            ("prompt", "named"),
        ),
        (
            lambda s: s.resource("a://b", scopes=["A"], sensitive=True),
            ("resource", "a://b"),
        ),
    ],
)
def test_a_decorator_claims_a_name_with_its_access(
    server: PorticoServer, decorate: Any, key: tuple[str, str]
) -> None:
    assert decorate(server)(work) is work, "the function itself is unchanged"
    assert server.access == {key: (("A",), True)}
    line = work.__code__.co_firstlineno
    place = f"{__name__}:{line}"
    told = f"{place} and {place} both offer a {key[0]} named {key[1]}"
    with pytest.raises(ImproperlyConfigured, match=re.escape(told)):
        decorate(server)(work)


@pytest.mark.parametrize(
    ("decorate", "told"),
    [
        (lambda s: s.tool(scope=["A"]), "@mcp.tool() has no option scope=; did you"),
        (lambda s: s.tool(sensitve=True), "did you mean sensitive=?"),
        (lambda s: s.prompt(descripton=""), "did you mean description=?"),
        (lambda s: s.resource("a://b", mimetype=""), "did you mean mime_type=?"),
        (lambda s: s.tool(zzz=1), "has no option zzz=; it has annotations, "),
        (lambda s: s.tool(fn=work), "has no option fn=; "),
    ],
    ids=["scope", "sensitve", "descripton", "mimetype", "zzz", "fn"],
)
def test_an_unknown_option_is_named(
    server: PorticoServer, decorate: Any, told: str
) -> None:
    with pytest.raises(TypeError, match=re.escape(told)):
        decorate(server)
    assert server.access == {}


def test_a_uri_with_parameters_is_a_template(server: PorticoServer) -> None:
    server.resource("a://{number}")(numbered)
    assert server.access == {("resource_template", "a://{number}"): ((), False)}


@pytest.mark.parametrize("kind", ["tool", "prompt", "resource"])
def test_a_decorator_without_parentheses_is_a_mistake(
    server: PorticoServer, kind: str
) -> None:
    with pytest.raises(TypeError, match=f"Write @mcp.{kind}"):
        getattr(server, kind)(work)
    assert server.access == {}


def test_scopes_are_a_list(server: PorticoServer) -> None:
    """A text would be taken for its letters."""
    with pytest.raises(ImproperlyConfigured, match="scopes is a list of names"):
        server.tool(scopes="User.Write")(work)


def register(server: PorticoServer, kind: str, length: int) -> None:
    """Register a primitive with a name of this length."""
    start = {"resource": "a://", "resource_template": "a://{number}"}.get(kind, "")
    decorator = server.resource if start else getattr(server, kind)
    fn = numbered if kind == "resource_template" else work
    decorator(start.ljust(length, "n"))(fn)


@pytest.mark.parametrize(
    ("kind", "longest", "word"),
    [
        ("tool", 250, "name"),
        ("prompt", 248, "name"),
        ("resource", 246, "URI"),
        ("resource_template", 246, "URI"),
    ],
)
def test_a_name_fits_the_column_of_its_scope(
    server: PorticoServer, kind: str, longest: int, word: str
) -> None:
    """PostgreSQL would refuse the whole catalogue."""
    told = f"^{kind} .*n{{200,}}: .* 255 characters; shorten the {word} to {longest}.$"
    with pytest.raises(ImproperlyConfigured, match=told):
        register(server, kind, longest + 1)
    assert server.access == {}
    register(server, kind, longest)
    column = Scope._meta.get_field("name").max_length
    assert [len(own_scope(*key)) for key in server.access] == [column]


def test_the_scopes_of_the_code_fit_their_column(server: PorticoServer) -> None:
    longest = "S" * 255
    with pytest.raises(ImproperlyConfigured, match=f"^tool work: the scope {longest}T"):
        server.tool(scopes=["A", f"{longest}T"])(work)
    server.tool(scopes=["A", longest])(work)
    assert server.access == {("tool", "work"): (("A", longest), False)}


def test_one_name_may_be_of_several_kinds(server: PorticoServer) -> None:
    server.tool()(work)
    server.prompt()(work)
    assert set(server.access) == {("tool", "work"), ("prompt", "work")}


# -------------------------------------------------------------- extra handlers


@pytest.mark.parametrize("method", ["tools/call", "tools/list", "x", "initialize"])
def test_an_app_adds_only_methods_that_portico_leaves_open(
    server: PorticoServer, method: str
) -> None:
    with pytest.raises(ImproperlyConfigured, match="cannot be added; only logging"):
        server.add_request_handler(method, SubscribeRequestParams, None)  # type: ignore[arg-type]


def test_extra_methods_are_those_without_a_handler() -> None:
    assert EXTRA_METHODS == {
        "logging/setLevel",
        "resources/subscribe",
        "resources/unsubscribe",
    }
    assert EXTRA_METHODS - {"logging/setLevel"} <= set(TARGETS)


@pytest.mark.parametrize(
    ("decision", "served"), [(YES, True), (NO, False), (None, False)]
)
def test_a_handler_of_an_app_runs_only_if_it_is_allowed(
    server: PorticoServer, decision: Decision | None, served: bool
) -> None:
    """A refusal is that of an unknown resource."""
    params = SubscribeRequestParams(uri="a://b")
    seen: list[Any] = []

    async def handler(ctx: Any, given: Any) -> EmptyResult:
        seen.append(given)
        return EmptyResult()

    method = "resources/subscribe"
    server.add_request_handler(method, SubscribeRequestParams, handler)
    entry: Any = server._lowlevel_server.get_request_handler(method)
    guarded = getattr(entry, "handler", entry)

    async def story() -> None:
        if served:
            assert isinstance(await guarded(None, params), EmptyResult)
            return
        with pytest.raises(MCPError) as error:
            await guarded(None, params)
        assert error.value.error.code == -32602
        assert error.value.error.message == "Unknown resource: a://b"
        assert error.value.error.data == {"uri": "a://b"}

    if decision is None:
        run(story())
    else:
        with within(server, Message(method), decision):
            run(story())
    assert seen == ([params] if served else [])


# ------------------------------------------------------------------- completion


def test_the_first_completer_with_values_answers(server: PorticoServer) -> None:
    asked: list[Any] = []

    @server.completion()
    async def nothing(ref: Any, argument: Any, context: Any) -> Completion | None:
        asked.append((ref, argument, context))
        return None

    @server.completion()
    async def words(ref: Any, argument: Any, context: Any) -> Completion | None:
        return Completion(values=["a"])

    @server.completion()
    async def other(ref: Any, argument: Any, context: Any) -> Completion | None:
        return Completion(values=["b"])

    params: Any = SimpleNamespace(ref="r", argument="a", context="c")
    with within(server, Message("completion/complete")):
        found = run(server.complete(None, params))
    assert found.completion.values == ["a"] and asked == [("r", "a", "c")]
    for decision in (NO, None):
        if decision is None:
            found = run(server.complete(None, params))
        else:
            with within(server, Message("completion/complete"), decision):
                found = run(server.complete(None, params))
        assert found.completion.values == [] and len(asked) == 1


def test_a_completer_makes_completions_a_method(server: PorticoServer) -> None:
    """Clients learn it from the capabilities."""
    method, sdk = "completion/complete", server._lowlevel_server
    assert sdk.get_request_handler(method) is None

    @server.completion()
    async def words(ref: Any, argument: Any, context: Any) -> None:
        return None

    entry: Any = sdk.get_request_handler(method)
    assert entry.handler == server.complete
    assert entry.params_type is CompleteRequestParams
    shown = sdk.create_initialization_options().capabilities
    assert shown.completions is not None and server.completers == [words]


def test_without_values_a_completion_is_empty(server: PorticoServer) -> None:
    with within(server, Message("completion/complete")):
        found = run(server.complete(None, None))  # type: ignore[arg-type]
    assert found.completion.values == []


# ------------------------------------------------------------------- targets


@pytest.mark.parametrize(
    ("method", "name", "target"),
    [
        ("resources/read", "a://one", ("resource", "a://one")),
        ("resources/read", "a://x/1", ("resource_template", "a://x/{number}")),
        ("resources/subscribe", "a://x/1", ("resource_template", "a://x/{number}")),
        ("resources/unsubscribe", "a://x/1", ("resource_template", "a://x/{number}")),
        ("resources/read", "a://nothing", ("resource", "a://nothing")),
        ("tools/call", "a://x/1", ("resource", "a://x/1")),
    ],
)
def test_a_resource_message_is_decided_by_what_serves_it(
    server: PorticoServer, method: str, name: str, target: tuple[str, str]
) -> None:
    server.resource("a://one")(work)
    server.resource("a://x/{number}")(numbered)
    sent = Message(method, ("resource", name))
    assert server.locate(sent).target == target
    assert server.locate(Message(method)).target is None


# ------------------------------------------------------------ mirrored headers


def test_only_a_schema_with_mirrored_arguments_is_compared(
    server: PorticoServer,
) -> None:
    @server.tool(scopes=["Use"])
    def mirrored(region: Region = "") -> str:
        return region

    @server.tool(scopes=["Use"])
    def plain(text: str = "") -> str:
        return text

    @server.tool(scopes=["Rule"])
    def hidden(region: Region = "") -> str:
        return region

    look_up = server._tool_input_schema
    with within(server, Message("ping")):
        for _ in range(2):
            assert "Region" in str(look_up("mirrored"))
            assert look_up("plain") is None
        assert look_up("hidden") is None and look_up("nothing") is None
    assert server.mirrored == {"mirrored": True, "plain": False}


def test_the_schema_of_a_hidden_upstream_tool_is_not_looked_up(
    server: PorticoServer,
) -> None:
    region = {"type": "string", "x-mcp-header": "Region"}
    schema = {"type": "object", "properties": {"region": region}}
    acme = Upstream(1, "acme", True, cast(Any, None), None)
    rules = Catalogue(
        Rule(
            *("tool", name, True, False, frozenset({scope})),
            upstream=acme,
            definition={"inputSchema": schema},
        )
        for name, scope in (("shown", "Use"), ("hidden", "Rule"))
    )
    with within(server, Message("ping")) as call:
        call.catalogue = rules
        assert server._tool_input_schema("shown") == schema
        assert server._tool_input_schema("hidden") is None


@pytest.mark.parametrize(
    "definition",
    [None, {"inputSchema": {"type": "object"}}, {"inputSchema": "odd"}, {}],
    ids=["of-code", "plain", "odd", "none"],
)
def test_an_upstream_tool_without_mirrored_arguments_is_not_compared(
    server: PorticoServer, definition: Any
) -> None:
    scopes = frozenset({"Use"})
    rule = Rule("tool", "shown", True, False, scopes, definition=definition)
    with within(server, Message("ping")) as call:
        call.catalogue = Catalogue([rule])
        assert portico_server.upstream_schema("shown") is None
        assert portico_server.upstream_schema("nothing") is None
    assert portico_server.upstream_schema("shown") is None, "outside a message"


# -------------------------------------------------------------------- outcomes


def test_a_call_that_is_cancelled_is_no_error(server: PorticoServer) -> None:
    async def story() -> None:
        with within(server, tool_call("slow")) as call:
            working = asyncio.create_task(with_outcome(asyncio.sleep(60)))
            await asyncio.sleep(0)
            working.cancel()
            await asyncio.wait({working})
            assert working.cancelled() and call.outcome == "cancelled"

    run(story())


@pytest.fixture
def full(server: PorticoServer) -> PorticoServer:
    """One primitive of each kind that works and one that fails."""

    def fail() -> str:
        raise RuntimeError("broken")

    for name, fn in (("good", work), ("bad", fail)):
        server.tool(name, scopes=["Use"])(fn)
        server.prompt(name, scopes=["Use"])(fn)
        server.resource(f"a://{name}", scopes=["Use"])(fn)
    server.prompt("hidden", scopes=["Rule"])(work)
    return server


@pytest.mark.django_db
@pytest.mark.parametrize(("name", "outcome"), [("good", "ok"), ("bad", "error")])
@pytest.mark.parametrize("kind", ["tool", "prompt", "resource"])
def test_the_outcome_of_each_kind_is_noted(
    full: PorticoServer, kind: str, name: str, outcome: str
) -> None:
    async def use() -> None:
        if kind == "tool":
            await full.call_tool(name, {}, Context())
        elif kind == "prompt":
            await full.get_prompt(name, {}, Context())
        else:
            await full.read_resource(f"a://{name}", Context())

    with within(full, Message("ping")) as call:
        try:
            run(use())
        except Exception:
            assert outcome == "error"
        assert call.outcome == outcome


def test_a_hidden_prompt_is_unknown(full: PorticoServer) -> None:
    found = []
    with within(full, Message("ping")) as call:
        for name in ("hidden", "nothing"):
            with pytest.raises(MCPError) as error:
                run(full.get_prompt(name, {}))
            assert error.value.error.code == -32602
            found.append(error.value.error.message.replace(name, "#"))
        assert call.outcome == ""
    assert found == ["Unknown prompt: #"] * 2


def test_outside_a_message_there_is_no_outcome() -> None:
    set_outcome("ok")


# ---------------------------------------------------------------- last checks


@pytest.mark.parametrize(
    ("decided", "reason", "code"),
    [
        ("tools/call", Reason.GRANTED, None),
        ("tools/call", Reason.ROLE_LACKS_SCOPE, None),
        ("tools/call", Reason.UNKNOWN_METHOD, -32601),
        ("tools/list", Reason.GRANTED, -32600),
        (None, None, -32600),
    ],
)
def test_the_sdk_serves_only_the_message_that_was_decided(
    server: PorticoServer, decided: str | None, reason: Reason | None, code: int | None
) -> None:
    async def call_next(ctx: Any) -> str:
        return "served"

    ctx: Any = SimpleNamespace(method="tools/call", request_id=1)

    async def story() -> None:
        if code is None:
            assert await require_decision(ctx, call_next) == "served"  # type: ignore[arg-type, comparison-overlap]
            return
        with pytest.raises(MCPError) as error:
            await require_decision(ctx, call_next)  # type: ignore[arg-type]
        assert error.value.error.code == code
        if code == -32601:
            assert error.value.error.data == "tools/call"

    if decided is None or reason is None:
        run(story())
        return
    with within(server, Message(decided), Decision(False, reason)):
        run(story())


def test_an_unknown_notification_is_ignored(server: PorticoServer) -> None:
    """JSON-RPC 2.0 4.1: no error, and no traceback in the log."""
    ctx: Any = SimpleNamespace(method="notifications/odd", request_id=None)

    async def call_next(ctx: Any) -> None:
        raise AssertionError("no handler may run")

    with within(server, Message(ctx.method), Decision(False, Reason.UNKNOWN_METHOD)):
        run(require_decision(ctx, call_next))


def test_porticos_own_server_has_the_last_check() -> None:
    assert require_decision in mcp.middleware
    assert (mcp.name, mcp.title) == ("portico", "Portico")
    assert "whoami" in str(mcp.instructions)


@pytest.mark.parametrize("sessions", [True, False])
def test_changes_of_every_list_are_promised_to_sessions(
    server: PorticoServer, settings: Any, sessions: bool
) -> None:
    """Without sessions there is no stream on which they could be told."""
    settings.MCP_SESSIONS = sessions
    found = server._lowlevel_server.create_initialization_options().capabilities
    for kind in (found.tools, found.prompts, found.resources):
        assert kind is not None and bool(kind.list_changed) is sessions


# -------------------------------------------------------------------- threads


def called(server: PorticoServer, name: str, **given: Any) -> Any:
    """The result of a tool within a message."""
    return run(server.call_tool(name, given, Context()))


@pytest.mark.django_db
def test_a_synchronous_tool_runs_in_a_thread_of_its_users_share(
    server: PorticoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    slots = ThreadSlots(1)
    monkeypatch.setattr(portico_server, "THREAD_SLOTS", slots)
    seen: list[Any] = []

    @server.tool(scopes=["Use"])
    def sync() -> str:
        seen.append((threading.current_thread(), dict(slots.running)))
        return ""

    with within(server, tool_call("sync")):
        called(server, "sync")
    thread, running = seen[0]
    assert thread is not threading.main_thread() and running == {1: 1}
    assert slots.running == {}


def test_a_call_that_is_cancelled_keeps_its_share_until_its_thread_ends(
    server: PorticoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one user could hold every thread by leaving each call at once."""
    slots = ThreadSlots(1)
    monkeypatch.setattr(portico_server, "THREAD_SLOTS", slots)
    began, may_end = threading.Event(), threading.Event()

    def slow() -> None:
        began.set()
        may_end.wait(5)

    async def story() -> None:
        task = asyncio.create_task(portico_server.in_thread(slow)())
        await until(began.is_set)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert slots.running == {1: 1}
        may_end.set()
        await until(lambda: not slots.running)

    with within(server, tool_call("slow")):
        run(story())


@pytest.mark.django_db
def test_connections_of_a_tool_are_closed_after_it(
    server: PorticoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it too: a stale one may be left from another call."""
    order: list[str] = []
    monkeypatch.setattr(
        "mcp_bridge.db.close_old_connections", lambda: order.append("close")
    )

    @server.tool(scopes=["Use"])
    def sync() -> str:
        order.append("run")
        return ""

    with within(server, tool_call("sync")):
        called(server, "sync")
    assert order == ["close", "run", "close"]


def test_an_asynchronous_tool_has_an_orm_thread_of_its_own(
    server: PorticoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[str] = []

    async def with_orm_thread(work: Any) -> Any:
        used.append("context")
        return await work

    monkeypatch.setattr(portico_server, "with_orm_thread", with_orm_thread)

    @server.tool(scopes=["Use"])
    async def asynchronous() -> str:
        used.append("run")
        return ""

    with within(server, tool_call("asynchronous")):
        called(server, "asynchronous")
    assert used == ["context", "run"]


def test_outside_a_message_a_function_runs_in_any_thread() -> None:
    async def story() -> str:
        found: str = await portico_server.in_thread(work)()
        return found

    assert run(story()) == "done"


def test_an_object_with_a_call_is_registered_as_it_is(server: PorticoServer) -> None:
    """The SDK decides how to run it."""

    class Callable:
        __name__ = "object"

        def __call__(self) -> str:
            """What it does."""
            return "called"

    one = Callable()
    assert portico_server.with_db_cleanup(one) is one


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("old", "refused", "ran"),
    [(False, True, True), (True, False, True), (True, True, False)],
)
def test_a_tool_that_waited_for_a_thread_is_decided_again(
    server: PorticoServer,
    monkeypatch: pytest.MonkeyPatch,
    old: bool,
    refused: bool,
    ran: bool,
) -> None:
    """The right may have ended while it waited."""
    runs: list[int] = []

    async def read(self: Recheck, *, looked: bool = False) -> None:
        if refused:
            raise Unauthenticated("revoked")

    monkeypatch.setattr(Recheck, "read", read)

    @server.tool(scopes=["Use"])
    def sync() -> str:
        runs.append(1)
        return ""

    with within(server, tool_call("sync")) as call:
        read_at = time.perf_counter() - old
        again = Recheck(call, "raw", "192.0.2.1", read_at + (0 if old else 60))
        token = recheck_var.set(again)
        try:
            result = called(server, "sync")
        except Exception:
            assert not ran
        else:
            assert result.is_error is not ran
        finally:
            recheck_var.reset(token)
    assert runs == ([1] if ran else [])
    assert (again.ended is not None) is not ran


@pytest.mark.django_db
def test_a_result_that_is_an_error_is_no_success(server: PorticoServer) -> None:
    @server.tool(scopes=["Use"])
    async def refuses() -> CallToolResult:
        return CallToolResult(content=[], is_error=True)

    with within(server, tool_call("refuses")) as call:
        result = run(server.call_tool("refuses", {}, Context()))
        assert getattr(result, "is_error", False) and call.outcome == "error"


@pytest.mark.parametrize(
    "method",
    ["list_tools", "list_resources", "list_resource_templates", "list_prompts"],
)
def test_lists_begin_with_what_the_code_offers(
    server: PorticoServer, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    async def own(self: Any) -> list[str]:
        return ["of the code"]

    monkeypatch.setattr(MCPServer, method, own)
    monkeypatch.setattr(portico_server, "upstream_items", lambda model: [model])
    first, second = asyncio.run(getattr(server, method)())
    assert first == "of the code"
    expected = method.removeprefix("list_").removesuffix("s").replace("_", "")
    assert second.__name__.lower() == expected


def test_every_primitive_closes_its_connections(
    server: PorticoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapped: list[Any] = []

    def note(fn: Any) -> Any:
        wrapped.append(fn)
        return fn

    monkeypatch.setattr(portico_server, "with_db_cleanup", note)
    server.tool()(work)
    server.prompt()(work)
    server.resource("a://b")(work)
    server.resource("a://{number}")(numbered)
    assert wrapped == [work, work, work, numbered]
