"""Why a person or a token may use a primitive, in words."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from django.utils import timezone, translation

from accounts.models import IssuedToken, Role, RoleAssignment, Scope, User
from accounts.models.roles import ADMIN_API
from accounts.tokens.issue import issue_tokens
from accounts.tokens.principal import Unauthenticated
from mcp_bridge.access.catalogue import Catalogue, Condition, Rule, Upstream
from mcp_bridge.access.decision import Decision, Reason, brief, decide
from mcp_bridge.access.explain import (
    SENTENCES,
    covering_roles,
    decision_in_words,
    holders,
    limits_of,
    pattern,
    refusal_text,
    remedy,
    rules,
    token_principal,
    usage_message,
    user_principal,
    verdict,
)
from mcp_bridge.access.messages import Message
from mcp_bridge.models import Offer, Primitive, PrimitiveKind, UpstreamServer
from tests.mcp_bridge.access.test_decision import principal

GIVEN = {"x": [1]}
CONDITIONS = (
    Condition("R", "/x", "one_of", ["a", "b"]),
    Condition("R", "/x", "matches", "a+"),
    Condition("", "/x", "at_most", 5),
    Condition("R", "/x", "at_least", 5),
    Condition("R", "/x", "starts_with", "/a"),
    Condition("R", "/x", "absent"),
)


def all_reasons() -> list[str]:
    """The reasons of `decide()` in every kind of case."""
    open_rule = Rule("tool", "a", True, False, frozenset({"S"}))
    far = Upstream(1, "acme", False, UpstreamServer(), None)
    catalogue = Catalogue(
        [
            open_rule,
            Rule("tool", "off", False, False, frozenset({"S"})),
            Rule("tool", "secret", True, True, frozenset({"S"})),
            Rule("tool", "other", True, False, frozenset()),
            replace(open_rule, name="held", blocked="held"),
            replace(open_rule, name="far", blocked="upstream", upstream=far),
            replace(open_rule, name="changed", calls_refused=True),
            replace(
                open_rule, name="free", conditions=(Condition("T", "/x", "absent"),)
            ),
            *(
                replace(open_rule, name=f"limit{i}", conditions=(one,))
                for i, one in enumerate(CONDITIONS)
            ),
        ]
    )
    names = [name for _kind, name in catalogue] + ["nothing"]
    messages = [
        Message("tools/call", ("tool", name), content={"params": {"arguments": GIVEN}})
        for name in names
    ]
    messages += [Message("ping"), Message("odd/method")]
    messages += [Message("tools/call", malformed=True)]
    scopes = frozenset({"S"})
    within = principal(scopes, frozenset({"mcp"}))
    narrow = principal(scopes, frozenset({"T"}))
    said = [decide(who, m, catalogue).via for who in (within, narrow) for m in messages]
    return [*said, *map(brief, said)]


@pytest.mark.once
def test_every_reason_of_the_decision_is_translated() -> None:
    """No sentence is listed that the decision does not use."""
    said = all_reasons()
    unknown = [s for s in said if not any(pattern(p).fullmatch(s) for p in SENTENCES)]
    unsaid = [p for p in SENTENCES if not any(pattern(p).fullmatch(s) for s in said)]
    assert (unknown, unsaid) == ([], [])


@pytest.mark.once
def test_values_are_kept_in_translated_reasons() -> None:
    """English is unchanged; Korean keeps the values in translated text."""
    for sentence in all_reasons():
        assert decision_in_words(sentence) == sentence
        with translation.override("ko"):
            assert decision_in_words(sentence) != sentence
    with translation.override("ko"):
        none = decision_in_words("requires one of (no scope); roles: none")
        assert none.isascii() is False and "none" not in none
        found = decision_in_words("role Role; one grants S; the token includes mcp")
        assert "Role; one" in found and "mcp" in found
        assert (
            decision_in_words("written by an older version")
            == "written by an older version"
        )


KINDS = {
    "tool": "tools/call",
    "prompt": "prompts/get",
    "resource": "resources/read",
    "resource_template": "resources/read",
}


@pytest.mark.parametrize("kind", PrimitiveKind.values)
def test_a_primitive_is_tried_by_the_method_that_uses_it(kind: str) -> None:
    rule = Rule(kind, "a", True, False, frozenset({"S"}))
    message = usage_message(rule)
    assert (message.method, message.target) == (KINDS[kind], (kind, "a"))
    who = principal(frozenset({"S"}), frozenset({"mcp"}))
    found = verdict(who, rule, Catalogue([rule]))
    assert found.rule is rule and found.decision.reason is Reason.GRANTED
    assert verdict(who, rule, Catalogue()).decision.allowed is False


REMEDIES = {
    Reason.DISABLED: "Enable it.",
    Reason.ROLE_LACKS_SCOPE: "has one of its scopes (A, B)",
    Reason.TOKEN_LACKS_SCOPE: "must include one of: C, D.",
    Reason.NOT_SERVED: "Review its definition and accept it.",
    Reason.DEFINITION_CHANGED: "Review its changed definition",
    Reason.ARGUMENT_REFUSED: "Send arguments within these limits",
}


@pytest.mark.parametrize(
    ("blocked", "words"),
    [
        ("held", "Review its definition and accept it."),
        ("rejected", "Review its definition and accept it."),
        ("gone", "no longer offers it"),
        ("unusable", "Correct its definition"),
        ("upstream", "Enable its upstream server."),
    ],
)
def test_a_primitive_that_is_not_served_has_a_remedy(blocked: str, words: str) -> None:
    rule = Rule("tool", "a", True, False, frozenset({"A"}), blocked=blocked)
    assert words in remedy(Decision(False, Reason.NOT_SERVED), rule)


def test_arguments_are_decided_only_if_they_are_given() -> None:
    rule = Rule("tool", "a", True, False, frozenset({"S"}), conditions=CONDITIONS)
    who, rows = principal(frozenset({"S"}), frozenset({"mcp"})), Catalogue([rule])
    assert verdict(who, rule, rows).decision.allowed
    met = replace(rule, conditions=CONDITIONS[2:3])
    assert verdict(who, met, Catalogue([met]), {"x": 5}).decision.allowed
    refused = verdict(who, rule, rows, {"x": 6}).decision
    assert refused.reason is Reason.ARGUMENT_REFUSED
    assert "/x must be a number of at most 5" in refused.via


def test_the_limits_of_a_person_are_those_of_their_roles() -> None:
    other = Condition("Other", "/y", "absent")
    conditions = (CONDITIONS[2], CONDITIONS[3], other)
    rule = Rule("tool", "a", True, False, frozenset({"S"}), conditions=conditions)
    assert limits_of(principal(frozenset({"S"}), frozenset({"mcp"})), rule) == [
        "/x must be a number of at most 5",
        "/x must be a number of at least 5 (role R)",
    ]


def test_a_role_without_rules_lifts_those_of_other_roles() -> None:
    """Only if it grants the primitive; the rules without a role stay."""
    names = ("R", "S", "Other")
    each = tuple(Condition(name, "/x", "at_most", n) for n, name in enumerate(names))
    conditions = (Condition("", "/y", "absent"), *each)
    general, first, second = (
        "/y must be left out",
        "/x must be a number of at most 0 (role R)",
        "/x must be a number of at most 1 (role S)",
    )
    for roles, limits in (
        (("R",), [general, first]),
        (("S", "R"), [general, first, second]),
        (("R", "Free"), [general]),
    ):
        who = principal(frozenset({"S"}), frozenset({"mcp"}))
        who = replace(who, roles=(*roles, "Other"), grants={"S": roles})
        rule = Rule("tool", "a", True, False, frozenset({"S"}), conditions=conditions)
        assert limits_of(who, rule) == limits, roles


@pytest.mark.once
@pytest.mark.parametrize("language", ["en", "ko"])
def test_what_a_server_took_is_kept_after_a_translated_reason(language: str) -> None:
    served = "; upstream acme: 12.5 ms; Portico: 1.0 ms"
    for sentence in ("none", *all_reasons()):
        with translation.override(language):
            found = decision_in_words(sentence + served)
            assert found == decision_in_words(sentence) + served


def test_several_limits_are_translated() -> None:
    limits = "/a must be left out (role R); or /b must start with x (role S); other"
    via = f"arguments refused: {limits}"
    assert decision_in_words(via) == via
    with translation.override("ko"):
        found = decision_in_words(via)
    assert "must" not in found and "role" not in found and "other" in found


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_with_a_remedy_names_it(reason: Reason) -> None:
    rule = Rule("tool", "a", True, False, frozenset({"B", "A"}))
    decision = Decision(False, reason, missing=frozenset({"D", "C"}))
    found = remedy(decision, rule)
    assert REMEDIES[reason] in found if reason in REMEDIES else found == ""


def test_a_primitive_without_scopes_needs_one() -> None:
    closed = Rule("tool", "a", True, False, frozenset())
    decision = Decision(False, Reason.ROLE_LACKS_SCOPE)
    assert "Add a scope." in remedy(decision, closed)


REFUSALS = {
    "inactive_user": "The account is deactivated.",
    "revoked": "The token is revoked.",
    "idle": "The token was not used for too long.",
    "expired": "The token has expired.",
    "unknown_client": "The token's client was deleted.",
    "blocked_client": "The token's client is blocked.",
    "wrong_audience": "The token is for the administration API.",
    "wrong_token_type": "This is a refresh token.",
    "unknown_token_or_user": "The token's account no longer exists.",
}


@pytest.mark.parametrize("reason", REFUSALS)
def test_every_refusal_of_a_token_is_explained(reason: str) -> None:
    assert refusal_text(Unauthenticated(reason)).startswith(REFUSALS[reason])


def test_one_rule_or_all_are_explained() -> None:
    open_rule = Rule("tool", "a", True, False, frozenset({"S"}))
    other = Rule("prompt", "b", True, False, frozenset({"S"}))
    catalogue = Catalogue([open_rule, other])
    assert list(rules(catalogue, None)) == [open_rule, other]
    assert list(rules(catalogue, ("prompt", "b"))) == [other]
    (nothing,) = rules(catalogue, ("tool", "none"))
    assert nothing == Rule("tool", "none", False, False, frozenset())


def test_an_active_user_acts_within_the_roles(alice: User) -> None:
    who = user_principal(alice)
    assert (who.user_id, who.username) == (alice.pk, "alice")
    assert who.roles == ("User",) and who.token_scopes == {"mcp"}
    assert who.can_step_up and who.acts_within_roles
    alice.is_active = False
    with pytest.raises(Unauthenticated) as refused:
        user_principal(alice)
    assert refused.value.reason == "inactive_user"


def test_a_token_is_explained_by_its_row(alice: User) -> None:
    row = issue_tokens(alice, issued_via="password", scope="User.Read").row
    who = token_principal(row)
    assert (who.jti, who.user_id) == (row.jti, alice.pk)
    assert who.token_scopes == {"User.Read"} and who.issued_via == "password"
    assert who.expires_at == int(row.expires_at.timestamp())


def refusal_of(row: IssuedToken) -> str:
    with pytest.raises(Unauthenticated) as refused:
        token_principal(row)
    return refused.value.reason


def test_a_token_that_no_request_could_use_is_refused(
    alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = issue_tokens(alice, issued_via="password", scope="mcp").row
    refresh = IssuedToken.objects.get(user=alice, kind="refresh")
    assert refusal_of(refresh) == "wrong_token_type"
    api = IssuedToken(kind="access", user=alice, scope=ADMIN_API)
    assert refusal_of(api) == "wrong_audience"
    monkeypatch.setattr(timezone, "now", lambda: row.expires_at)
    assert refusal_of(row) == "expired"
    monkeypatch.undo()
    IssuedToken.objects.filter(pk=row.pk).revoke(actor=None, reason="test")
    assert refusal_of(row) == "revoked"


@pytest.fixture
def saw(db: None) -> Primitive:
    """A tool that the roles User (twice) and Admin cover, and Guest does not."""
    Primitive.objects.all().delete()
    offer = Offer("tool", "saw", "", "", ("User.Read", "User.Write"), False, "1")
    Primitive.objects.sync([offer])
    Role.objects.exclude(name__in=("Admin", "Guest", "User")).delete()
    wanted = {
        "Admin": ["tool:saw"],
        "User": ["User.Read", "User.Write"],
        "Guest": ["Guest.Read"],
    }
    for role, scopes in wanted.items():
        Role.objects.get(name=role).scopes.set(Scope.objects.filter(name__in=scopes))
    return Primitive.objects.get(name="saw")


def test_the_roles_that_cover_a_primitive_are_listed_once(saw: Primitive) -> None:
    assert [role.name for role in covering_roles(saw)] == ["Admin", "User"]


def test_the_holders_are_active_users_with_unexpired_roles(saw: Primitive) -> None:
    names = ("zoe", "ann", "gone", "late", "guest")
    users = {name: User.objects.create(username=name) for name in names}
    user, admin = Role.objects.get(name="User"), Role.objects.get(name="Admin")
    for name in ("zoe", "ann", "gone"):
        RoleAssignment.objects.grant(users[name], user)
    RoleAssignment.objects.grant(users["ann"], admin)
    past = timezone.now() - timedelta(seconds=1)
    RoleAssignment.objects.grant(users["late"], user, expires_at=past)
    RoleAssignment.objects.grant(users["guest"], Role.objects.get(name="Guest"))
    User.objects.filter(username="gone").update(is_active=False)
    mine = holders(saw).filter(user__in=users.values())
    found = [(row.user.username, row.role.name) for row in mine]
    assert found == [("ann", "Admin"), ("ann", "User"), ("zoe", "User")]
