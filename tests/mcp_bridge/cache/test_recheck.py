"""What is read again after a wait, and what a refusal then ends."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest
from django.db import DatabaseError, Error, InterfaceError

from accounts.tokens.principal import Principal, Unauthenticated
from mcp_bridge.access.catalogue import Catalogue, Rule
from mcp_bridge.access.context import Call
from mcp_bridge.access.decision import Decision, Reason
from mcp_bridge.access.messages import Message
from mcp_bridge.cache import recheck as recheck_module
from mcp_bridge.cache.decision_cache import Mark
from mcp_bridge.cache.recheck import (
    FRESH_FOR,
    STOP_ERRORS,
    AccessWithdrawn,
    Recheck,
    RecheckedMixin,
)
from tests.mcp_bridge.access.test_decision import principal

pytestmark = pytest.mark.once


class FlickeringReader(Recheck):
    """Reads rows whose access disappears and returns."""

    reads = 0
    wrong: Exception = Unauthenticated("revoked")

    async def read(self, *, looked: bool = False) -> None:
        self.reads += 1
        if self.reads == 1:
            raise self.wrong
        self.read_at = time.perf_counter()


@pytest.fixture
def recheck() -> FlickeringReader:
    """The recheck of a call that is never checked."""
    call: object = None
    return FlickeringReader(call, "", "", time.perf_counter())  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [Unauthenticated("revoked"), DatabaseError("away")])
def test_restored_access_does_not_allow_a_refused_call(
    recheck: FlickeringReader, wrong: Exception
) -> None:
    """The tool did not run, so the SDK's response must not be sent."""
    recheck.wrong = wrong
    assert not recheck.due
    with pytest.raises(type(wrong)):
        asyncio.run(recheck.before_running())
    for _again in range(2):
        with pytest.raises(type(wrong)):
            asyncio.run(recheck.now())
        assert recheck.due
    assert asyncio.run(recheck.problem()) is wrong
    assert recheck.reads == 1


def test_a_short_outage_does_not_end_a_running_call(
    recheck: FlickeringReader,
) -> None:
    """While a tool runs access is only watched; the last check decides."""
    recheck.wrong = DatabaseError("away")
    assert asyncio.run(recheck.problem()) is recheck.wrong
    assert asyncio.run(recheck.problem()) is None
    assert not recheck.due


def test_a_read_is_current_for_a_moment_only(recheck: FlickeringReader) -> None:
    """Otherwise a delayed response would be decided by old rows."""
    assert not recheck.due
    recheck.read_at -= FRESH_FOR
    assert recheck.due


RULE = Rule("tool", "t", True, False, frozenset({"A.Read"}))
HOME = ("192.0.2.0/24",)


class Rows:
    """What the next read finds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.principal = principal(frozenset({"A.Read"}), frozenset({"mcp"}))
        self.catalogue = Catalogue([RULE])
        self.asked: list[str] = []
        self.error: Exception | None = None
        self.now = 100.0
        monkeypatch.setattr(recheck_module, "resolve_token", self.resolve_token)
        monkeypatch.setattr(recheck_module, "time", self)

    async def resolve_token(self, raw: str) -> tuple[Principal, Catalogue]:
        self.asked.append(raw)
        self.now += 1.0
        if self.error is not None:
            raise self.error
        return self.principal, self.catalogue

    def perf_counter(self) -> float:
        return self.now

    def recheck(self, decision: Decision) -> Recheck:
        """Of a call of the tool `t` that was decided some time ago."""
        message = Message("tools/call", ("tool", "t"))
        call = Call(self.principal, message, Catalogue(), decision)
        return Recheck(call, "the-raw-token", "192.0.2.7", 0.0)


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Rows:
    return Rows(monkeypatch)


ALLOWED = Decision(True, Reason.GRANTED)
DENIED = Decision(False, Reason.DISABLED)


def test_a_recheck_reads_everything_again(rows: Rows) -> None:
    """The time of the read is that of its beginning."""
    recheck = rows.recheck(ALLOWED)
    rows.principal = replace(rows.principal, username="renamed")
    asyncio.run(recheck.now())
    assert rows.asked == ["the-raw-token"]
    assert recheck.call.principal is rows.principal
    assert recheck.call.catalogue is rows.catalogue
    assert recheck.read_at == 100.0
    asyncio.run(recheck.before_running())
    assert recheck.read_at == 101.0 and recheck.ended is None
    assert asyncio.run(recheck.problem()) is None


def test_a_message_that_is_no_longer_allowed_is_withdrawn(rows: Rows) -> None:
    recheck = rows.recheck(ALLOWED)
    rows.catalogue = Catalogue([replace(RULE, enabled=False)])
    with pytest.raises(AccessWithdrawn, match="disabled") as withdrawn:
        asyncio.run(recheck.now())
    assert withdrawn.value.decision.reason is Reason.DISABLED
    assert recheck.call.decision is ALLOWED and recheck.read_at == 0.0


def test_a_denied_message_stays_denied_by_its_first_decision(rows: Rows) -> None:
    """Its answer is the refusal, which needs no right."""
    recheck = rows.recheck(DENIED)
    rows.catalogue = Catalogue()
    asyncio.run(recheck.now())
    assert recheck.read_at == 100.0 and recheck.call.decision is DENIED


def test_the_networks_of_a_token_apply_to_the_callers_address(rows: Rows) -> None:
    rows.principal = replace(rows.principal, networks=(HOME,))
    asyncio.run(rows.recheck(ALLOWED).now())
    rows.principal = replace(rows.principal, networks=(("198.51.100.0/24",),))
    with pytest.raises(Unauthenticated, match="wrong_network"):
        asyncio.run(rows.recheck(ALLOWED).now())


def test_the_networks_of_a_role_apply_to_the_callers_address(rows: Rows) -> None:
    rows.principal = replace(rows.principal, role_networks={"R": HOME})
    asyncio.run(rows.recheck(ALLOWED).now())
    elsewhere = {"R": ("198.51.100.0/24",)}
    rows.principal = replace(rows.principal, role_networks=elsewhere)
    recheck = rows.recheck(ALLOWED)
    with pytest.raises(AccessWithdrawn, match="role_lacks_scope"):
        asyncio.run(recheck.now())
    assert recheck.call.principal.roles == ()


STOPS: list[Exception] = [
    Unauthenticated("revoked"),
    AccessWithdrawn(DENIED),
    DatabaseError("away"),
]
STOPS.append(InterfaceError("away"))


@pytest.mark.parametrize("error", STOPS, ids=lambda error: type(error).__name__)
def test_every_reason_to_stop_keeps_a_tool_from_running(
    rows: Rows, error: Exception
) -> None:
    assert STOP_ERRORS == (Unauthenticated, AccessWithdrawn, Error)
    recheck = rows.recheck(ALLOWED)
    rows.error = error
    assert asyncio.run(recheck.problem()) is error and recheck.ended is None
    with pytest.raises(type(error)):
        asyncio.run(recheck.before_running())
    assert recheck.ended is error and recheck.due


def test_other_errors_are_not_a_refusal(rows: Rows) -> None:
    recheck = rows.recheck(ALLOWED)
    rows.error = KeyError("bug")
    for check in (recheck.problem, recheck.before_running):
        with pytest.raises(KeyError):
            asyncio.run(check())
    assert recheck.ended is None


@pytest.mark.parametrize(
    ("age", "ended", "due"),
    [(0.05, None, False), (0.0501, None, True), (0.0, KeyError(), True)],
)
def test_a_read_counts_for_fifty_milliseconds(
    rows: Rows, age: float, ended: Exception | None, due: bool
) -> None:
    recheck = rows.recheck(ALLOWED)
    rows.now, recheck.ended = age, ended
    assert recheck.due is due


@pytest.mark.parametrize(
    ("mark", "now", "left", "ended", "unchanged"),
    [
        (("e", 1), ("e", 1), 60.0, None, True),
        (("e", 1), ("e", 2), 60.0, None, False),
        (None, ("e", 1), 60.0, None, False),
        (("e", 1), None, 60.0, None, False),
        (None, None, 60.0, None, False),
        (("e", 1), ("e", 1), -1.0, None, False),
        (("e", 1), ("e", 1), 60.0, Unauthenticated("revoked"), False),
    ],
)
def test_nothing_is_unchanged_after_a_change_or_an_end(
    mark: Mark | None,
    now: Mark | None,
    left: float,
    ended: Exception | None,
    unchanged: bool,
) -> None:
    """Without a mark nothing is known to be unchanged."""
    caller = replace(
        principal(frozenset(), frozenset()), valid_until=time.time() + left
    )
    call = Call(caller, Message("tools/call"), Catalogue(), ALLOWED)
    recheck = Recheck(call, "raw", "192.0.2.7", 0.0)
    recheck.ended = ended
    assert recheck.unchanged_since(mark, now) is unchanged


class Response(RecheckedMixin):
    """A response that nothing has ended."""

    def __init__(self, recheck: Recheck) -> None:
        self.recheck, self.end = recheck, None


def test_a_response_ends_by_its_first_problem(rows: Rows) -> None:
    response = Response(rows.recheck(ALLOWED))
    assert asyncio.run(response.still_allowed()) and response.end is None
    first, second = DatabaseError("away"), Unauthenticated("revoked")
    for rows.error in (first, second, None):
        assert asyncio.run(response.still_allowed()) is False
        assert response.end is first
