"""The pages that are written from the settings."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from config import settings_docs
from config.environment import Environment

pytestmark = pytest.mark.once
FIELDS = Environment.model_fields


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("PORT", "8000"),
        ("SECRET_KEY", ""),
        ("DATA_DIR", "var/"),
        ("ALLOWED_HOSTS", ""),
        ("HASHING_WAIT", "2.0"),
        ("CLIENT_METADATA_DOCUMENTS", "True"),
        ("LIMIT_PASSWORD", "60/minute"),
    ],
)
def test_a_default_is_written_as_people_write_it(name: str, default: str) -> None:
    assert settings_docs.default_of(FIELDS[name]) == default


def test_a_list_is_written_with_commas() -> None:
    field: Any = FIELDS["ALLOWED_HOSTS"]._copy()
    field.default = ["a", "b"]
    assert settings_docs.default_of(field) == "a,b"


def test_choices_are_listed() -> None:
    assert settings_docs.choices_of(FIELDS["LOG_FORMAT"]) == " One of `line`, `json`."
    assert settings_docs.choices_of(FIELDS["PORT"]) == ""


def test_the_table_has_a_row_for_every_setting() -> None:
    rows = settings_docs.table().removeprefix(settings_docs.INTRODUCTION).splitlines()
    assert [row.split("`")[1] for row in rows] == [*FIELDS]
    assert "| `PORT` | `8000` | Port on which `make serve` listens. |" in rows
    assert (
        "| `LOG_FORMAT` | `line` | Format of log lines: `line` (text) or `json`. "
        "One of `line`, `json`. |"
    ) in rows
    assert "| `ALLOWED_HOSTS` |  | " in settings_docs.table()


def test_the_example_has_every_setting_commented_out() -> None:
    lines = settings_docs.example().splitlines()
    assert all(line.startswith("#") or not line for line in lines)
    names = [line[1:].partition("=")[0] for line in lines if not line.startswith("# ")]
    assert [name for name in names if name] == [*FIELDS]
    assert "#PORT=8000" in lines and "#SECRET_KEY=" in lines


def test_stale_pages_are_named_and_only_written_without_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    current, stale, missing = (tmp_path / name for name in ("a.md", "b.md", "c.md"))
    current.write_text("text"), stale.write_text("old")
    pages = dict.fromkeys((current, stale, missing), lambda: "text")
    monkeypatch.setattr(settings_docs, "PAGES", pages)
    assert settings_docs.main(["--check"]) == 2
    told = capsys.readouterr().out
    assert "b.md is stale" in told and "c.md is stale" in told and "a.md" not in told
    assert stale.read_text() == "old" and not missing.exists()
    assert settings_docs.main([]) == 0
    assert {page.read_text() for page in pages} == {"text"}
    assert settings_docs.main(["--check"]) == 0 and capsys.readouterr().out == ""


def test_the_exit_code_is_the_number_of_stale_pages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["settings_docs", "--check"])
    monkeypatch.delitem(sys.modules, "config.settings_docs")
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("config.settings_docs", run_name="__main__")
    assert stopped.value.code == 0
