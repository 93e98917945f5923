"""UpstreamProblem: why an upstream server could not be used, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """How a call at an upstream server ended, as the audit records it."""

    OK = "ok"
    ERROR = "error"
    REFUSED = "refused"
    """The upstream server refused it, or Portico did not send it."""
    TIMED_OUT = "timed_out"
    MAY_HAVE_RUN = "may_have_run"
    """It was sent, and no answer came."""


@dataclass
class UpstreamProblem(Exception):
    """`text` is for people and models; `code` is one of a few fixed words."""

    code: str
    text: str
    outcome: Outcome = Outcome.REFUSED
    breaks: bool = False
    """Whether it counts for the circuit breaker: the server does not work."""

    def __str__(self) -> str:
        return self.text


def after_sending(text: str) -> str:
    """The same problem, for a call whose bytes were sent."""
    return f"{text} The call may have run; check before you repeat it."


def status_problem(name: str, status: int, retry_after: str = "") -> UpstreamProblem:
    """What an HTTP status of an upstream server means."""
    if status == 401:
        text = (
            f"The upstream server {name} rejected Portico's credential (401). "
            "An administrator must renew it."
        )
        return UpstreamProblem("credential", text)
    if status == 403:
        text = f"The upstream server {name} does not allow this to Portico (403)."
        return UpstreamProblem("forbidden", text)
    if status == 429:
        wait = f" in {retry_after} s" if retry_after.isdecimal() else " later"
        text = f"The upstream server {name} is busy (429). Try again{wait}."
        return UpstreamProblem("busy", text)
    if status >= 500:
        text = f"The upstream server {name} failed (HTTP {status}). Try again later."
        return UpstreamProblem("failed", text, Outcome.ERROR, breaks=True)
    if 300 <= status < 400:
        text = (
            f"The upstream server {name} redirects elsewhere (HTTP {status}). "
            "An administrator must enter the final URL."
        )
        return UpstreamProblem("redirect", text)
    text = f"The upstream server {name} answered HTTP {status}."
    return UpstreamProblem("status", text, Outcome.ERROR)
