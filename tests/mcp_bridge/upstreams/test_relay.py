"""relay(): what reaches an upstream server, what comes back, and the outcome."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR

from mcp_bridge.access.catalogue import Catalogue, Rule, Upstream
from mcp_bridge.access.context import Call
from mcp_bridge.access.decision import Decision, Reason
from mcp_bridge.access.messages import Message
from mcp_bridge.models import UpstreamCredential, UpstreamServer
from mcp_bridge.upstreams import relay as module
from mcp_bridge.upstreams.definitions import mirrored_arguments
from mcp_bridge.upstreams.exchange import Nobody
from mcp_bridge.upstreams.limits import usage_of
from mcp_bridge.upstreams.problems import Outcome, UpstreamProblem
from mcp_bridge.upstreams.relay import (
    MAX_ROUNDS,
    bound_state,
    own_state,
    refusal,
    relay,
    relayed_rule,
    upstream_params,
)
from tests.support.mcp_in_process import caller
from tests.support.users import account

pytestmark = pytest.mark.once
ACME = Upstream(5, "acme", True, UpstreamServer(name="acme", url="https://a.io"), None)
ADD = Rule(
    *("tool", "acme__add", True, False, frozenset({"A"})),
    upstream=ACME,
    upstream_name="add",
    accepted_hash="h1",
)
ASKS = {
    "resultType": "input_required",
    "inputRequests": {"q": {"method": "elicitation/create", "params": {"a": 1}}},
    "requestState": "theirs",
}


def call_of(
    method: str = "tools/call", reason: Reason = Reason.GRANTED, via: str = ""
) -> Call:
    decision = Decision(reason is Reason.GRANTED, reason, via)
    message = Message(method, ADD.key)
    return Call(caller(), message, Catalogue([ADD]), decision)


def error_of(work: Any) -> str:
    with pytest.raises(MCPError) as raised:
        work()
    return raised.value.error.message


class Client(Nobody):
    """A client that answers questions, if it has a session."""

    def __init__(self, session: str = "") -> None:
        self.session = session
        self.asked: list[tuple[str, Any]] = []

    async def ask(self, method: str, params: Any) -> Any:
        self.asked.append((method, params))
        return {"action": "accept"}


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The parameters that were sent; `answers` are given in turn, the last again."""
    found: list[dict[str, Any]] = []

    async def request(server: Any, method: str, params: Any, **more: Any) -> Any:
        found.append(params)
        answer = answers.pop(0) if answers[1:] else answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer

    answers.clear()
    monkeypatch.setattr(module, "request", request)
    return found


answers: list[Any] = []


def relayed(call: Call, client: Client | None = None, **params: Any) -> Any:
    return asyncio.run(relay(call, ADD, params, client or Client()))


# ------------------------------------------------------------------ what is sent


def test_only_declared_parameters_reach_the_server() -> None:
    """A client may keep secrets in others, and in its `_meta`."""
    meta = {"traceparent": "00-1", "secret": "s", "baggage": 5, "progressToken": "mine"}
    params = {"name": "acme__add", "arguments": {"a": 1}, "x": "y", "_meta": meta}
    assert upstream_params(ADD, "tools/call", params) == {
        "name": "add",
        "arguments": {"a": 1},
        "_meta": {"traceparent": "00-1", "progressToken": "portico"},
    }


@pytest.mark.parametrize(
    "key",
    ["traceparent", "tracestate", "baggage", "io.modelcontextprotocol/logLevel"],
)
def test_traces_and_the_level_of_logs_reach_the_server(key: str) -> None:
    sent = upstream_params(ADD, "tools/call", {"_meta": {key: "x"}})
    assert sent == {"name": "add", "_meta": {key: "x"}}


@pytest.mark.parametrize("meta", [None, [], "x", {"secret": "s"}])
def test_without_such_a_key_there_is_no_meta(meta: Any) -> None:
    assert upstream_params(ADD, "prompts/get", {"_meta": meta}) == {"name": "add"}


def test_a_resource_is_named_by_its_uri() -> None:
    params = {"uri": "up://note/7", "arguments": {"a": 1}}
    assert upstream_params(ADD, "resources/read", params) == {"uri": "up://note/7"}


@pytest.mark.parametrize(
    ("ref", "sent_ref"),
    [
        ({"type": "ref/prompt", "name": "acme__add"}, "add"),
        ({"type": "ref/resource", "uri": "up://{a}"}, None),
    ],
)
def test_a_completion_names_the_servers_prompt(ref: Any, sent_ref: str | None) -> None:
    params = {"ref": ref, "argument": {"name": "a", "value": "b"}, "context": None}
    found = upstream_params(ADD, "completion/complete", params)
    assert found["argument"] == params["argument"] and "context" not in found
    more = {**params, "context": {"arguments": {"a": "1"}}}
    found = upstream_params(ADD, "completion/complete", more)
    assert found["context"] == more["context"]
    wanted = {**ref, "name": sent_ref} if sent_ref else ref
    assert found["ref"] == wanted and ref.get("name") in (None, "acme__add")


def test_odd_parameters_are_refused() -> None:
    odd = {"arguments": [1]}
    text = error_of(lambda: upstream_params(ADD, "tools/call", odd))
    assert text == "arguments must be an object."
    text = error_of(lambda: upstream_params(ADD, "resources/subscribe", {}))
    assert text == "resources/subscribe is not supported for acme__add."


def test_the_state_of_a_question_is_bound_to_the_definition() -> None:
    bound = bound_state(ADD, {"requestState": "a b", "more": 1})
    assert bound == {"requestState": "h1 a b", "more": 1}
    assert own_state(ADD, "h1 a b") == "a b"
    assert "Call again" in error_of(lambda: own_state(ADD, "h2 a b"))
    assert bound_state(ADD, {"more": 1}) == {"more": 1}
    params = {"requestState": "h1 theirs"}
    assert upstream_params(ADD, "tools/call", params)["requestState"] == "theirs"


# ---------------------------------------------------------------------- refusals


def test_a_refused_content_is_explained() -> None:
    """A tool's refusal is a result, so that the model reads it."""
    changed = refusal(call_of(reason=Reason.DEFINITION_CHANGED))
    assert changed is not None and changed["isError"] is True
    assert "definition of this item changed" in changed["content"][0]["text"]
    limited = call_of(reason=Reason.ARGUMENT_REFUSED, via="arguments refused: /a")
    found = refusal(limited)
    assert found is not None and found["content"][0]["text"] == limited.decision.via
    prompt = call_of("prompts/get", Reason.ARGUMENT_REFUSED, "arguments refused: /a")
    assert error_of(lambda: refusal(prompt)) == "arguments refused: /a"


@pytest.mark.parametrize("reason", [Reason.DISABLED, Reason.ROLE_LACKS_SCOPE])
def test_other_refusals_look_like_an_unknown_tool(reason: Reason) -> None:
    assert refusal(call_of(reason=reason)) is None


def test_what_the_code_serves_is_not_relayed() -> None:
    assert relayed_rule(call_of()) is ADD
    own = Rule("tool", "acme__add", True, False, frozenset())
    call = call_of()
    call.catalogue = Catalogue([own])
    assert relayed_rule(call) is None
    call.message = Message("tools/list")
    assert relayed_rule(call) is None


# ---------------------------------------------------------------------- outcomes


@pytest.mark.parametrize(
    ("result", "outcome"),
    [
        ({"content": []}, Outcome.OK),
        ({"content": [], "isError": False}, Outcome.OK),
        ({"content": [], "isError": True}, Outcome.ERROR),
    ],
)
def test_an_answer_has_its_outcome(sent: Any, result: Any, outcome: str) -> None:
    answers.append(result)
    call = call_of()
    assert relayed(call, arguments={"a": 1}) == result
    assert sent == [{"name": "add", "arguments": {"a": 1}}]
    assert (call.outcome, call.upstream) == (outcome, "acme") and call.upstream_ms >= 0


def test_a_problem_of_a_tool_is_its_result(sent: Any) -> None:
    answers.append(UpstreamProblem("timeout", "Too late.", Outcome.TIMED_OUT))
    call = call_of()
    assert relayed(call)["content"] == [{"type": "text", "text": "Too late."}]
    assert (call.outcome, call.upstream) == (Outcome.TIMED_OUT, "acme")


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("code", "state"), [("credential", "rejected"), ("forbidden", "valid")]
)
def test_a_rejected_credential_is_marked(
    sent: Any, monkeypatch: pytest.MonkeyPatch, code: str, state: str
) -> None:
    server = UpstreamServer.objects.create(name="acme", url="https://a.io")
    mine, other = (
        UpstreamCredential.objects.create(upstream=server, user=user)
        for user in (None, account("alice"))
    )
    later: list[Any] = []

    async def in_database(work: Any, **columns: Any) -> None:
        later.append(lambda: work(**columns))

    monkeypatch.setattr(module, "in_database", in_database)
    answers.append(UpstreamProblem(code, "No."))
    rule = replace(ADD, upstream=replace(ACME, row=server, credential=mine))
    asyncio.run(relay(call_of(), rule, {}, Client()))
    assert [work() for work in later] == ([1] if code == "credential" else [])
    # Workers read their rules again after each write of this table.
    assert not any(work() for work in later)
    mine.refresh_from_db()
    other.refresh_from_db()
    assert (mine.state, other.state) == (state, "valid")


def test_without_a_shared_credential_nothing_is_marked(
    sent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server without credentials can say 401, too."""
    monkeypatch.setattr(module, "in_database", None)
    answers.append(UpstreamProblem("credential", "No."))
    assert relayed(call_of())["content"][0]["text"] == "No."


def test_a_problem_of_a_prompt_is_an_error(sent: Any) -> None:
    answers.append(UpstreamProblem("status", "It failed.", Outcome.ERROR))
    call = call_of("prompts/get")
    with pytest.raises(MCPError) as raised:
        relayed(call)
    shown = raised.value.error
    assert (shown.code, shown.message) == (INTERNAL_ERROR, "It failed.")
    assert call.outcome == Outcome.ERROR


def test_the_servers_own_error_is_passed_on(sent: Any) -> None:
    answers.append(MCPError(-32050, "of the server"))
    call = call_of()
    assert error_of(lambda: relayed(call)) == "of the server"
    assert (call.outcome, call.upstream) == (Outcome.ERROR, "acme")


def test_a_cancelled_call_says_so(sent: Any) -> None:
    answers.append(asyncio.CancelledError())
    call = call_of()
    with pytest.raises(asyncio.CancelledError):
        relayed(call)
    assert (call.outcome, call.upstream) == ("cancelled", "acme")


@pytest.mark.parametrize("method", ["tools/call", "prompts/get"])
def test_a_request_names_its_server_and_its_caller(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """And the headers that repeat arguments; it holds a place of the server."""
    seen: list[Any] = []

    async def request(*about: Any, **more: Any) -> dict[str, Any]:
        seen.append((*about, more, usage_of(ACME).running))
        return {"content": []}

    monkeypatch.setattr(module, "request", request)
    region = {"type": "string", "x-mcp-header": "Region"}
    schema = {"type": "object", "properties": {"region": region}}
    rule = replace(ADD, definition={"inputSchema": schema})
    call, client, before = call_of(method), Client(), usage_of(ACME).running
    asyncio.run(relay(call, rule, {}, client))
    more = {"principal": call.principal, "downstream": client}
    mirrored = mirrored_arguments(rule)
    assert mirrored
    expected = {**more, "mirrored": mirrored}
    assert seen == [(ACME, method, {"name": "add"}, expected, before + 1)]
    assert usage_of(ACME).running == before


@pytest.mark.parametrize(
    "answer", [{"content": []}, UpstreamProblem("timeout", "Too late.")]
)
def test_the_milliseconds_of_the_server_are_noted(
    sent: Any, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    """Also of a call that failed."""
    times = iter([10.0, 10.0123456])
    clock = SimpleNamespace(perf_counter=lambda: next(times))
    monkeypatch.setattr(module, "time", clock)
    answers.append(answer)
    call = call_of()
    relayed(call)
    assert call.upstream_ms == 12.346


# --------------------------------------------------------------------- questions


def test_a_client_without_a_session_answers_in_its_next_request(sent: Any) -> None:
    answers.append(ASKS)
    client = Client()
    result = relayed(call_of(), client)
    assert result["requestState"] == "h1 theirs" and len(sent) == 1
    assert client.asked == []


def test_a_client_with_a_session_is_asked(sent: Any) -> None:
    answers.extend([ASKS, {"content": []}])
    client = Client("s1")
    assert relayed(call_of(), client, arguments={"a": 1}) == {"content": []}
    assert client.asked == [("elicitation/create", {"a": 1})]
    assert sent[1] == {
        **sent[0],
        "inputResponses": {"q": {"action": "accept"}},
        "requestState": "theirs",
    }


def test_questions_end(sent: Any) -> None:
    """Without a state, none is sent back."""
    answers.append({name: ASKS[name] for name in ("resultType", "inputRequests")})
    call = call_of()
    text = relayed(call, Client("s1"))["content"][0]["text"]
    assert "asked too many questions" in text and call.outcome == Outcome.ERROR
    assert len(sent) == MAX_ROUNDS and "requestState" not in sent[-1]


@pytest.mark.parametrize("state", [7, ["x"], {"a": 1}])
def test_a_state_that_is_no_text_is_left_alone(state: Any) -> None:
    assert bound_state(ADD, {"requestState": state}) == {"requestState": state}
