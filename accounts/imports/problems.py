"""Errors in an imported file, with line and field."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from django.utils.translation import gettext as _


@dataclass(frozen=True, slots=True)
class ImportProblem:
    line: int
    field: str
    text: str

    def __str__(self) -> str:
        place = _("line %d") % self.line if self.line else _("the file")
        return f"{place}{', ' if self.field else ''}{self.field}: {self.text}"


class StalePreview(Exception):
    """The database changed after the dry run, so nothing was imported."""

    def __init__(self) -> None:
        super().__init__(
            _(
                "The data changed after you reviewed it. Nothing was "
                "applied. Review the changes again."
            )
        )


def decode_upload(raw: bytes) -> tuple[str, list[ImportProblem]]:
    """The file's text without a byte order mark, and problems if it is not UTF-8."""
    try:
        return raw.decode("utf-8-sig").replace("\r\n", "\n"), []
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        return "", [
            ImportProblem(line, "", _("the file is not UTF-8 text; save it as UTF-8"))
        ]


def fingerprint(rows: Iterable[object]) -> str:
    """SHA-256 of a plan, to compare the dry run with the import."""
    return hashlib.sha256(repr(list(rows)).encode()).hexdigest()
