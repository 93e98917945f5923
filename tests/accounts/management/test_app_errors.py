"""Errors of an app's code: three lines with the file, the line and the fix."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from accounts.management.errors import app_remedy, is_app

pytestmark = pytest.mark.once


def error_of(path: Path, text: str) -> BaseException:
    path.write_text(text)
    try:
        runpy.run_path(str(path))
    except Exception as error:
        return error
    raise AssertionError("no error")


@pytest.mark.parametrize(
    ("text", "line", "source", "what", "fix"),
    [
        ("x = 1\ndef f(:\n", 2, "def f(:", "SyntaxError", "Correct the syntax"),
        ("  x = 1\n", 1, "x = 1", "IndentationError", "Correct the syntax"),
        (
            "import nothing_here\n",
            1,
            "import nothing_here",
            "ModuleNotFoundError",
            "Install the missing package",
        ),
        (
            "from json import nope\n",
            1,
            "from json import nope",
            "ImportError",
            "Correct the name",
        ),
        (
            "\nimport json\njson.loads('x')\n",
            3,
            "json.loads('x')",
            "JSONDecodeError",
            "Correct this line",
        ),
    ],
)
def test_the_last_line_of_the_app_is_named(
    tmp_path: Path, text: str, line: int, source: str, what: str, fix: str
) -> None:
    path = tmp_path / "mcp_tools.py"
    place, error, advice = app_remedy(error_of(path, text)).splitlines()
    assert place == f"{path}, line {line}: {source}"
    assert error.startswith(f"{what}: ") and advice.startswith(f"Fix: {fix}")


def test_an_error_of_portico_is_not_an_apps() -> None:
    try:
        raise ValueError("one\ntwo")
    except ValueError as error:
        error.__traceback__ = None
        assert app_remedy(error) == ""


def test_a_long_message_is_one_line(tmp_path: Path) -> None:
    text = "raise ValueError('one\\ntwo')\n"
    lines = app_remedy(error_of(tmp_path / "a.py", text)).splitlines()
    assert len(lines) == 3 and lines[1] == "ValueError: one"
    bare = app_remedy(error_of(tmp_path / "b.py", "raise ValueError\n")).splitlines()
    assert bare[1] == "ValueError: "


def test_apps_are_neither_portico_nor_libraries(settings: Any, tmp_path: Path) -> None:
    (tmp_path / "a.py").touch()
    base = settings.BASE_DIR
    assert is_app(str(tmp_path / "a.py"))
    assert is_app(str(base / "examples" / "products" / "mcp_tools.py"))
    for file in (
        base / "mcp_bridge" / "mcp_tools.py",
        base / "manage.py",
        pytest.__file__,
        Path(__import__("json").__file__ or ""),
        tmp_path / "missing.py",
        "<frozen importlib._bootstrap>",
    ):
        assert not is_app(str(file)), file


def test_a_library_is_no_app_wherever_it_is(tmp_path: Path) -> None:
    for folder, app in (("site-packages", False), ("apps", True)):
        path = tmp_path / folder / "a.py"
        path.parent.mkdir()
        path.touch()
        assert is_app(str(path)) is app
    assert not is_app(str(tmp_path / "missing.py"))
