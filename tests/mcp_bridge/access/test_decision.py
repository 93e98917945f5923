"""decide(): by table, and by generation against the rule in one line."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accounts.tokens.principal import Principal
from mcp_bridge.access.catalogue import Catalogue, Condition, Rule, Upstream
from mcp_bridge.access.decision import (
    Decision,
    Reason,
    brief,
    decide,
    granting_roles,
    judge,
    scopes_to_ask,
    visible,
    visible_names,
)
from mcp_bridge.access.messages import (
    ARGUMENT_METHODS,
    OPEN_METHODS,
    TARGETS,
    Message,
)
from mcp_bridge.models import WITH_ARGUMENTS, UpstreamServer
from tests.support.properties import ON_BUSY_MACHINES

pytestmark = pytest.mark.once
NAMES = ["A.Read", "A.Write", "B.Read", "tool:t"]
SCOPES = st.frozensets(st.sampled_from(NAMES))


def principal(
    roles: frozenset[str], token: frozenset[str], issued_via: str = "password"
) -> Principal:
    """A user whose role R gives `roles`, with a token of these scopes."""
    return Principal(
        user_id=1,
        username="alice",
        client_id="c",
        jti="j",
        issued_via=issued_via,
        roles=("R",),
        grants=dict.fromkeys(roles, ("R",)),
        token_scopes=token,
        expires_at=1,
        valid_until=1.0,
    )


def rule(
    required: frozenset[str], enabled: bool = True, sensitive: bool = False
) -> Rule:
    return Rule("tool", "t", enabled, sensitive, required)


@pytest.mark.spec("MCP BP Scope Minimization")
@ON_BUSY_MACHINES
@given(SCOPES, SCOPES, SCOPES, st.booleans(), st.booleans(), st.booleans())
def test_allowed_exactly_where_both_sides_allow(
    roles: frozenset[str],
    token: frozenset[str],
    required: frozenset[str],
    mcp: bool,
    enabled: bool,
    sensitive: bool,
) -> None:
    """Compares the decision with an independent statement of the rule."""
    carried = token | {"mcp"} if mcp else token
    verdict = judge(principal(roles, carried), rule(required, enabled, sensitive))
    role_side = enabled and bool(required & roles)
    token_side = (mcp and not sensitive) or bool(required & token)
    assert verdict.allowed == (role_side and token_side)
    assert verdict.needs_wider_token == (role_side and not token_side)


@ON_BUSY_MACHINES
@given(SCOPES, SCOPES, SCOPES, st.booleans(), SCOPES)
def test_a_token_can_only_narrow(
    roles: frozenset[str],
    token: frozenset[str],
    required: frozenset[str],
    sensitive: bool,
    fewer: frozenset[str],
) -> None:
    """Fewer scopes in the token never allow more."""
    what = rule(required, sensitive=sensitive)
    wide = judge(principal(roles, token | {"mcp"}), what).allowed
    narrow = judge(principal(roles, token & fewer), what).allowed
    assert wide or not narrow


@ON_BUSY_MACHINES
@given(SCOPES, SCOPES, st.booleans())
def test_the_scopes_of_a_challenge_are_enough(
    roles: frozenset[str], required: frozenset[str], sensitive: bool
) -> None:
    """MCP AUTH: all scopes at once, so that one more round is enough."""
    narrow = principal(roles, frozenset({"unrelated"}))
    what = rule(required, sensitive=sensitive)
    verdict = judge(narrow, what)
    if verdict.needs_wider_token:
        scopes = scopes_to_ask(narrow, verdict)
        assert "unrelated" in scopes
        assert judge(principal(roles, scopes), what).allowed


TABLE: list[tuple[Message, bool, Reason]] = [
    (Message("ping"), True, Reason.OPEN_METHOD),
    (Message("tools/list"), True, Reason.OPEN_METHOD),
    (Message("response", always_open=True), True, Reason.OPEN_METHOD),
    (Message("tasks/get"), False, Reason.UNKNOWN_METHOD),
    (Message("tools/call", malformed=True), False, Reason.MALFORMED),
    (Message("tools/call", ("tool", "t")), True, Reason.GRANTED),
    (Message("tools/call", ("tool", "u")), False, Reason.UNKNOWN_PRIMITIVE),
    (Message("prompts/get", ("prompt", "t")), False, Reason.UNKNOWN_PRIMITIVE),
]


@pytest.mark.parametrize(("message", "allowed", "reason"), TABLE)
def test_every_kind_of_message_is_decided(
    message: Message, allowed: bool, reason: Reason
) -> None:
    who = principal(frozenset({"A.Read"}), frozenset({"mcp"}))
    rules = Catalogue([rule(frozenset({"A.Read"}))])
    verdict = decide(who, message, rules)
    assert (verdict.allowed, verdict.reason) == (allowed, reason)
    assert len(rules) == 1 and list(rules) == [("tool", "t")]


@pytest.mark.parametrize(
    ("via", "stored"),
    [
        ("role R grants A.Read; the token includes mcp", "role R grants A.Read"),
        ("role R grants A.Read; the token includes A.Read", "role R grants A.Read"),
        ("role a b grants X; the token includes X", "role a b grants X"),
        (
            "role R grants A; the token includes mcp; the argument rules of R allow it",
            "role R grants A; the argument rules of R allow it",
        ),
        ("role R grants A.Read; the token includes A.Write", None),
        ("role R grants A.Read; the token includes A.Reader", None),
        ("role R grants A; the token includes mcpx", None),
        ("the token includes none of A and not mcp", None),
        ("ping is open to everyone", None),
        ("", None),
    ],
)
def test_an_event_names_the_tokens_scope_if_it_is_unusual(
    via: str, stored: str | None
) -> None:
    assert brief(via) == (via if stored is None else stored)


READ, BOTH = frozenset({"A.Read"}), frozenset({"A.Read", "A.Write"})
NONE = frozenset[str]()
MCP = frozenset({"mcp"})
VIA: list[tuple[Principal, Rule | None, bool, Reason, str]] = [
    (
        principal(BOTH, MCP),
        rule(BOTH),
        True,
        Reason.GRANTED,
        "role R grants A.Read; the token includes mcp",
    ),
    (
        principal(READ, BOTH),
        rule(BOTH, sensitive=True),
        True,
        Reason.GRANTED,
        "role R grants A.Read; the token includes A.Read",
    ),
    (
        principal(READ, frozenset({"A.Write", "B.Read"})),
        rule(BOTH),
        True,
        Reason.GRANTED,
        "role R grants A.Read; the token includes A.Write",
    ),
    (
        principal(READ, MCP),
        rule(READ, enabled=False),
        False,
        Reason.DISABLED,
        "tool t is disabled",
    ),
    (
        principal(BOTH, MCP),
        rule(BOTH, sensitive=True),
        False,
        Reason.TOKEN_LACKS_SCOPE,
        "sensitive; the token includes none of A.Read, A.Write",
    ),
    (
        principal(BOTH, NONE),
        rule(BOTH),
        False,
        Reason.TOKEN_LACKS_SCOPE,
        "the token includes none of A.Read, A.Write and not mcp",
    ),
    (
        principal(READ, MCP),
        rule(NONE),
        False,
        Reason.ROLE_LACKS_SCOPE,
        "requires one of (no scope); roles: R",
    ),
    (
        principal(NONE, BOTH),
        rule(BOTH),
        False,
        Reason.ROLE_LACKS_SCOPE,
        "requires one of A.Read, A.Write; roles: R",
    ),
    (
        replace(principal(NONE, MCP), roles=()),
        rule(READ),
        False,
        Reason.ROLE_LACKS_SCOPE,
        "requires one of A.Read; roles: none",
    ),
    (
        replace(principal(NONE, MCP), roles=("R", "S")),
        rule(READ),
        False,
        Reason.ROLE_LACKS_SCOPE,
        "requires one of A.Read; roles: R, S",
    ),
    (
        principal(READ, MCP),
        None,
        False,
        Reason.UNKNOWN_PRIMITIVE,
        "unknown tool, resource or prompt",
    ),
]


@pytest.mark.parametrize(
    ("who", "what", "allowed", "reason", "via"), VIA, ids=[row[4] for row in VIA]
)
def test_the_decision_names_its_rule(
    who: Principal, what: Rule | None, allowed: bool, reason: Reason, via: str
) -> None:
    verdict = judge(who, what)
    assert (verdict.allowed, verdict.reason, verdict.via) == (allowed, reason, via)
    narrow = reason is Reason.TOKEN_LACKS_SCOPE
    assert verdict.missing == (BOTH if narrow else frozenset())
    assert verdict.needs_wider_token is narrow


def test_a_token_is_asked_only_for_scopes_that_the_roles_grant() -> None:
    """A token with another required scope would still not be enough."""
    verdict = judge(principal(READ, NONE), rule(BOTH))
    assert verdict.missing == READ


@pytest.mark.parametrize("method", sorted(OPEN_METHODS))
def test_an_open_method_needs_no_role(method: str) -> None:
    nobody = replace(principal(NONE, NONE), roles=())
    verdict = decide(nobody, Message(method), Catalogue())
    assert verdict == Decision(
        True, Reason.OPEN_METHOD, f"{method} is open to everyone"
    )


@pytest.mark.parametrize("method", sorted([*TARGETS, "completion/complete"]))
def test_a_malformed_message_is_denied_whatever_else_it_is(method: str) -> None:
    who, rules = principal(READ, MCP), Catalogue([rule(READ)])
    target = ("tool", "t")
    for message in (
        Message(method, malformed=True),
        Message("ping", malformed=True),
        Message(method, target, malformed=True),
        Message(method, always_open=True, malformed=True),
    ):
        verdict = decide(who, message, rules)
        assert verdict == Decision(False, Reason.MALFORMED, "the message has no target")


def test_a_message_with_a_target_is_never_open() -> None:
    """The target decides, whatever the method."""
    target, nobody = ("tool", "t"), principal(NONE, MCP)
    for message in (Message("ping", target), Message("x", target, always_open=True)):
        verdict = decide(nobody, message, Catalogue([rule(READ)]))
        assert verdict.reason is Reason.ROLE_LACKS_SCOPE


def test_a_method_without_a_rule_is_denied() -> None:
    verdict = decide(principal(READ, MCP), Message("tasks/get"), Catalogue())
    assert verdict == Decision(False, Reason.UNKNOWN_METHOD, "no rule for tasks/get")


@pytest.mark.parametrize(
    ("issued_via", "shown"), [("password", False), ("authorization_code", True)]
)
def test_lists_show_primitives_that_a_step_up_allows(
    issued_via: str, shown: bool
) -> None:
    read = frozenset({"A.Read"})
    who = principal(read, frozenset(), issued_via)
    assert visible(who, rule(read)) is shown
    assert not visible(who, rule(read, enabled=False))
    assert not visible(who, None)
    assert not visible(principal(frozenset(), read, issued_via), rule(read))
    assert visible(principal(read, read, issued_via), rule(read))
    names = list(visible_names(who, Catalogue([rule(read)]), "tool"))
    assert names == (["t"] if shown else [])


def test_the_narrowest_scope_is_asked_for() -> None:
    """BP Scope Minimization: the primitive's own scope before a shared one."""
    who = principal(frozenset({"A.Write", "tool:t"}), frozenset())
    verdict = Decision(
        False,
        Reason.TOKEN_LACKS_SCOPE,
        missing=frozenset({"A.Write", "tool:t"}),
    )
    assert scopes_to_ask(who, verdict) == {"tool:t"}
    two = Decision(False, Reason.TOKEN_LACKS_SCOPE, missing=frozenset({"z:a", "b:c"}))
    assert scopes_to_ask(who, two) == {"b:c"}


def test_a_challenge_repeats_the_scopes_of_the_token() -> None:
    """A client that asks for less would lose what it has."""
    who = principal(BOTH, frozenset({"B.Read", "mcp"}))
    verdict = judge(who, rule(BOTH, sensitive=True))
    assert scopes_to_ask(who, verdict) == {"B.Read", "mcp", "A.Read"}


def test_a_list_reads_only_primitives_of_the_users_roles() -> None:
    """Ten thousand tools of other roles add no cost."""
    mine = [Rule("tool", f"mine{n}", n != 1, False, frozenset({"s"})) for n in range(3)]
    both = Rule("tool", "both", True, False, frozenset({"s", "t"}))
    others = [Rule("tool", f"o{n}", True, False, frozenset({"x"})) for n in range(50)]
    prompt = Rule("prompt", "mine", True, False, frozenset({"s"}))
    catalogue = Catalogue([*others, *mine, both, prompt])
    opened = catalogue.requiring("tool", ["t", "s"])
    assert opened == [*mine, both]
    who = principal(frozenset({"s", "t"}), frozenset({"mcp"}))
    assert list(visible_names(who, catalogue, "tool")) == ["mine0", "mine2", "both"]


LIMIT = Condition("R", "/n", "at_most", 5)
ACME = Upstream(1, "acme", False, UpstreamServer(name="acme"), None)


def call(method: str = "tools/call", **arguments: int) -> Message:
    content = {"params": {"arguments": arguments}}
    return Message(method, ("tool", "t"), content=content)


@pytest.mark.parametrize(
    ("condition", "n", "reason", "via"),
    [
        (LIMIT, 5, Reason.GRANTED, "the argument rules of R allow it"),
        (
            LIMIT,
            6,
            Reason.ARGUMENT_REFUSED,
            "arguments refused: /n must be a number of at most 5 (role R)",
        ),
        (
            replace(LIMIT, role=""),
            6,
            Reason.ARGUMENT_REFUSED,
            "arguments refused: /n must be a number of at most 5",
        ),
        (replace(LIMIT, role=""), 5, Reason.GRANTED, "rules of every role allow it"),
        (replace(LIMIT, role="S"), 6, Reason.GRANTED, "the argument rules of R"),
    ],
)
def test_the_arguments_are_decided_after_the_roles(
    condition: Condition, n: int, reason: Reason, via: str
) -> None:
    limited = Catalogue([replace(rule(READ), conditions=(condition,))])
    verdict = decide(principal(READ, MCP), call(n=n), limited)
    assert (verdict.allowed, verdict.reason) == (reason is Reason.GRANTED, reason)
    assert via in verdict.via


def test_who_lacks_the_role_learns_no_limit() -> None:
    limited = Catalogue([replace(rule(READ), conditions=(LIMIT,))])
    verdict = decide(principal(NONE, MCP), call(n=6), limited)
    assert verdict.reason is Reason.ROLE_LACKS_SCOPE


@pytest.mark.parametrize(
    ("method", "kind"), [(m, TARGETS[m][0]) for m in sorted(ARGUMENT_METHODS)]
)
def test_the_arguments_of_every_call_are_decided(method: str, kind: str) -> None:
    what = replace(rule(READ), kind=kind, conditions=(LIMIT,))
    content = {"params": {"arguments": {"n": 6}}}
    verdict = decide(
        principal(READ, MCP),
        Message(method, (kind, "t"), content=content),
        Catalogue([what]),
    )
    assert verdict.reason is Reason.ARGUMENT_REFUSED


def test_every_kind_with_arguments_has_a_method() -> None:
    """Otherwise an administrator could set a limit that no call meets."""
    kinds = {TARGETS[method][0] for method in ARGUMENT_METHODS}
    assert kinds == {str(kind) for kind in WITH_ARGUMENTS}


def test_a_completion_has_no_arguments_to_check() -> None:
    limited = Catalogue([replace(rule(READ), conditions=(LIMIT,))])
    assert decide(principal(READ, MCP), call("completion/complete"), limited).allowed


def test_a_changed_definition_is_listed_and_not_called() -> None:
    changed = replace(rule(READ), calls_refused=True)
    who = principal(READ, MCP)
    text = "the definition of tool t changed and is not accepted"
    denied = Decision(False, Reason.DEFINITION_CHANGED, text)
    assert decide(who, call(), Catalogue([changed])) == denied
    limited = replace(changed, conditions=(LIMIT,))
    for message in (call(n=5), call("completion/complete"), call("prompts/get", n=5)):
        assert decide(who, message, Catalogue([limited])) == denied
    assert visible(who, changed)


@pytest.mark.parametrize("blocked", ["held", "gone", "rejected", "unusable"])
def test_what_is_not_served_does_not_exist(blocked: str) -> None:
    for upstream in (None, ACME):
        what = replace(rule(READ), blocked=blocked, upstream=upstream)
        verdict = decide(principal(READ, MCP), call(), Catalogue([what]))
        text = f"the definition of tool t is {blocked}"
        assert verdict == Decision(False, Reason.NOT_SERVED, text)
        assert not visible(principal(READ, MCP), what)


def test_a_tool_of_a_disabled_upstream_server_does_not_exist() -> None:
    who, off = principal(READ, MCP), replace(rule(READ), blocked="upstream")
    text = "the upstream server acme is disabled"
    verdict = judge(who, replace(off, upstream=ACME))
    assert verdict == Decision(False, Reason.NOT_SERVED, text)
    assert judge(who, off).via == "the definition of tool t is upstream"


def test_roles_that_grant_it_by_any_scope() -> None:
    who = replace(
        principal(NONE, MCP),
        grants={"A.Read": ("A", "B"), "A.Write": ("C",), "Other": ("D",)},
    )
    assert granting_roles(who, rule(BOTH)) == {"A", "B", "C"}
