"""Problems of upstream servers in the reader's language.

They are raised and stored in English: clients get them, and so do people with other
languages than the process that found them.
"""

from __future__ import annotations

from django.utils.translation import gettext, gettext_noop

from mcp_bridge.access.explain import translated

TAILS = (gettext_noop("The call may have run; check before you repeat it."),)
"""Sentences that follow others."""

SENTENCES = (
    gettext_noop(
        "The upstream server {name} has a private address ({host}). If it is meant, "
        "add its network to UPSTREAM_PRIVATE_NETWORKS, for example 10.0.0.0/8."
    ),
    gettext_noop(
        "The credential for the upstream server {name} is missing or cannot be read. "
        "An administrator must enter it again."
    ),
    gettext_noop(
        "The token endpoint of the upstream server {name} refused Portico "
        "(HTTP {status} {reason}). An administrator must check the credential."
    ),
    gettext_noop("The token endpoint of the upstream server {name} does not answer."),
    gettext_noop(
        "The token endpoint of the upstream server {name} failed (HTTP {status})."
    ),
    gettext_noop(
        "The token endpoint of the upstream server {name} gave no bearer token."
    ),
    gettext_noop("Another process is looking at {name} now. Try again in a minute."),
    gettext_noop("The answer to {method} has no list of {member}."),
    gettext_noop("{method} has more than {most} pages."),
    gettext_noop("{method} has more than {most} entries."),
    gettext_noop("{method} repeats a cursor."),
    gettext_noop("The upstream server {name} answered with an error: {error}"),
    gettext_noop("The upstream server {name} did not answer in {seconds} s."),
    gettext_noop("The answer of the upstream server {name} is not valid MCP."),
    gettext_noop("The upstream server {name} ended its answer early."),
    gettext_noop("The upstream server {name} asked too many questions."),
    gettext_noop("The upstream server {name} cannot be reached. Try again later."),
    gettext_noop("The upstream server {name} accepted no connection in time."),
    gettext_noop("The upstream server {name} closed the connection without an answer."),
    gettext_noop("{name} redirects in a circle."),
    gettext_noop("{name} is not reachable."),
    gettext_noop(
        "The answer of the upstream server {name} is larger than {limit} MiB."
    ),
    gettext_noop("The upstream server {name} has too many calls. Try again."),
    gettext_noop(
        "The upstream server {name} allows {most} calls per minute. Try again in "
        "{seconds} s."
    ),
    gettext_noop(
        "The upstream server {name} failed {times} times in a row. Try again in "
        "{seconds} s."
    ),
    gettext_noop(
        "The upstream server {name} rejected Portico's credential (401). An "
        "administrator must renew it."
    ),
    gettext_noop(
        "The upstream server {name} does not allow this to Portico ({status})."
    ),
    gettext_noop("The upstream server {name} is busy (429). Try again later."),
    gettext_noop("The upstream server {name} is busy (429). Try again in {seconds} s."),
    gettext_noop("The upstream server {name} failed (HTTP {status}). Try again later."),
    gettext_noop(
        "The upstream server {name} redirects elsewhere (HTTP {status}). An "
        "administrator must enter the final URL."
    ),
    gettext_noop("The upstream server {name} answered HTTP {status}."),
)
"""Every problem of a server that pages show; a test compares them with the code."""

OF_DEFINITIONS = (
    gettext_noop("It has characters that cannot be stored, or is nested too deeply."),
    gettext_noop("It has no name."),
    gettext_noop("Its definition is larger than {limit} KB."),
    gettext_noop("Its name has characters that cannot be shown, or is too long."),
    gettext_noop("Its URI is longer than {limit} characters."),
    gettext_noop("It does not follow the MCP specification: {error}"),
    gettext_noop("{key} is not a valid JSON Schema: {error}"),
    gettext_noop("{source} already provides {name}."),
    gettext_noop("It is offered twice as {name}."),
)
"""Why a definition cannot be served."""


def problem_in_words(text: str) -> str:
    """A problem in the reader's language; a text of a person stays as it is."""
    for tail in TAILS:
        if text.endswith(f" {tail}"):
            first = problem_in_words(text.removesuffix(f" {tail}"))
            return f"{first} {gettext(tail)}"
    return translated(text, (*SENTENCES, *OF_DEFINITIONS))
