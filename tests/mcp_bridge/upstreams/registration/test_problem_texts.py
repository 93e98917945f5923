"""Problems of upstream servers are English for clients and translated on pages."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from django.utils import translation

from mcp_bridge import upstreams
from mcp_bridge.access.explain import pattern
from mcp_bridge.upstreams.problems import after_sending, status_problem
from mcp_bridge.upstreams.registration.problem_texts import (
    OF_DEFINITIONS,
    SENTENCES,
    problem_in_words,
)

FOLDER = Path(upstreams.__file__).parent
ONLY_FOR_CLIENTS = {
    "The caller has gone.",
    "X is not supported here.",
    "X is not supported for X.",
    "arguments must be an object.",
    "The definition changed since the question was asked. Call again.",
    "The definition of this item changed, and an administrator has to accept it "
    "first. Tell the person who asked you.",
}


def texts(path: Path) -> set[str]:
    """Sentences in a module, docstrings left out; every value is X."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree))
    skipped = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    skipped |= {id(v) for n in nodes if isinstance(n, ast.JoinedStr) for v in n.values}
    found = set()
    for node in nodes:
        if id(node) in skipped:
            continue
        if isinstance(node, ast.JoinedStr):
            values = [
                v.value if isinstance(v, ast.Constant) else "X" for v in node.values
            ]
            found.add("".join(map(str, values)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
    return {text for text in found if " " in text and text.endswith((".", ": X"))}


def translatable(text: str) -> bool:
    known = (*SENTENCES, *OF_DEFINITIONS)
    return any(pattern(one).fullmatch(text) for one in known)


def test_every_problem_of_the_code_can_be_translated() -> None:
    found = {text for path in FOLDER.glob("*.py") for text in texts(path)}
    assert len(found) > 25
    others = {text for text in found if not translatable(text)}
    # Parts of texts: a wait, what follows a problem, and errors of libraries.
    others -= {
        "X: X",
        "inputSchema: X",
        "The upstream server X is busy (429). Try againX.",
        "X The call may have run; check before you repeat it.",
    }
    assert others - ONLY_FOR_CLIENTS == set()


@pytest.mark.parametrize("status", [401, 403, 429, 500, 302, 418])
def test_a_problem_is_shown_in_korean_and_named_in_english(status: int) -> None:
    text = status_problem("shop", status, "7").text
    assert problem_in_words(text) == text
    with translation.override("ko"):
        shown = problem_in_words(text)
        assert problem_in_words(after_sending(text)).startswith(f"{shown} ")
    assert "shop" in shown and "server" not in shown


def test_the_reason_of_a_person_stays_as_it_is() -> None:
    with translation.override("ko"):
        assert problem_in_words("It asks for secrets.") == "It asks for secrets."
