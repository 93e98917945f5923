"""What a status of an upstream server means to callers, and to the breaker."""

from __future__ import annotations

import pytest

from mcp_bridge.upstreams.problems import Outcome, UpstreamProblem, status_problem

pytestmark = pytest.mark.once
REFUSED, ERROR = Outcome.REFUSED, Outcome.ERROR


@pytest.mark.parametrize(
    ("status", "code", "outcome", "breaks"),
    [
        (204, "status", ERROR, False),
        (299, "status", ERROR, False),
        (300, "redirect", REFUSED, False),
        (302, "redirect", REFUSED, False),
        (399, "redirect", REFUSED, False),
        (400, "status", ERROR, False),
        (401, "credential", REFUSED, False),
        (402, "status", ERROR, False),
        (403, "forbidden", REFUSED, False),
        (404, "status", ERROR, False),
        (429, "busy", REFUSED, False),
        (499, "status", ERROR, False),
        (500, "failed", ERROR, True),
        (503, "failed", ERROR, True),
        (599, "failed", ERROR, True),
    ],
)
def test_a_status_is_one_problem(
    status: int, code: str, outcome: Outcome, breaks: bool
) -> None:
    """Only a server that does not work counts for the breaker."""
    problem = status_problem("shop", status)
    assert (problem.code, problem.outcome, problem.breaks) == (code, outcome, breaks)
    assert "upstream server shop " in problem.text and str(status) in problem.text


@pytest.mark.parametrize(
    ("header", "end"),
    [
        ("30", " in 30 s."),
        ("", " later."),
        ("Fri, 1 Jan", " later."),
        ("-1", " later."),
    ],
)
def test_a_busy_server_says_when_to_try_again(header: str, end: str) -> None:
    assert status_problem("shop", 429, header).text.endswith(f"Try again{end}")


def test_a_problem_is_a_refusal_that_breaks_nothing_unless_said() -> None:
    problem = UpstreamProblem("code", "Text.")
    assert (str(problem), problem.outcome, problem.breaks) == ("Text.", REFUSED, False)
