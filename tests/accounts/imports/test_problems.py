"""Errors of a file: where they are, and the text of the file."""

from __future__ import annotations

import hashlib

import pytest

from accounts.imports.problems import (
    ImportProblem,
    StalePreview,
    decode_upload,
    fingerprint,
)

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("line", "field", "text"),
    [
        (3, "email", "line 3, email: wrong"),
        (3, "", "line 3: wrong"),
        (0, "", "the file: wrong"),
        (0, "roles", "the file, roles: wrong"),
    ],
)
def test_a_problem_names_its_place(line: int, field: str, text: str) -> None:
    assert str(ImportProblem(line, field, "wrong")) == text


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"", ""),
        (b"a\r\nb\n", "a\nb\n"),
        (b"\xef\xbb\xbfa", "a"),
        ("é\r".encode(), "é\r"),
    ],
)
def test_a_file_is_utf8_without_its_mark(raw: bytes, text: str) -> None:
    assert decode_upload(raw) == (text, [])


@pytest.mark.parametrize(
    ("raw", "line"), [(b"\xff", 1), (b"a\nb\n\xffc\n\xff", 3), (b"a\n\xc3", 2)]
)
def test_the_line_of_the_first_wrong_byte_is_named(raw: bytes, line: int) -> None:
    text, problems = decode_upload(raw)
    assert text == "" and [(p.line, p.field) for p in problems] == [(line, "")]
    assert problems[0].text == "the file is not UTF-8 text; save it as UTF-8"


def test_equal_plans_have_equal_fingerprints() -> None:
    expected = hashlib.sha256(b"[1, 'a']").hexdigest()
    assert fingerprint(iter([1, "a"])) == fingerprint([1, "a"]) == expected
    assert fingerprint(["a", 1]) != expected != fingerprint([1])


def test_a_stale_preview_says_that_nothing_was_applied() -> None:
    assert "Nothing was applied" in str(StalePreview())
