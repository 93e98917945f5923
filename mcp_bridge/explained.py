"""What decided, in the reader's language: the audit's English sentence, read back.

`decide()` writes English without looking anything up, for it runs on every message.
"""

from __future__ import annotations

import re
from functools import cache

from django.utils.translation import gettext, gettext_noop

SENTENCES = (
    gettext_noop("the message names no target"),
    gettext_noop("no such primitive"),
    gettext_noop("{method} is open to all"),
    gettext_noop("no rule for {method}"),
    gettext_noop("{kind} {name} is disabled"),
    gettext_noop("role {role} gives {scope}; the token carries {carried}"),
    gettext_noop("needs one of {scopes}; roles held: {roles}"),
    gettext_noop("the token names none of {scopes} and it is sensitive"),
    gettext_noop("the token names none of {scopes} and it lacks {scope}"),
)
"""Every sentence of mcp_bridge/decision.py; a test holds the two together."""

VALUES = (gettext_noop("none"), gettext_noop("nothing anybody can hold"))
"""What stands in them that is no name."""


@cache
def pattern(sentence: str) -> re.Pattern[str]:
    """A sentence as what finds its values again."""
    parts = re.split(r"\{(\w+)\}", sentence)
    named = [
        f"(?P<{part}>.+)" if odd else re.escape(part)
        for part, odd in zip(parts, [False, True] * len(parts), strict=False)
    ]
    return re.compile("".join(named), re.DOTALL)


def in_words(via: str) -> str:
    """`via` in the reader's language, or as it is where no sentence fits."""
    for sentence in SENTENCES:
        found = pattern(sentence).fullmatch(via)
        if found is not None:
            filled = found.groupdict().items()
            words = {name: gettext(v) if v in VALUES else v for name, v in filled}
            return gettext(sentence).format(**words)
    return via
