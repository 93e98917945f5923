"""What is wrong with an imported file: the line, the field, the mend."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from django.utils.translation import gettext as _


@dataclass(frozen=True, slots=True)
class ImportProblem:
    """One thing that is wrong."""

    line: int
    field: str
    text: str

    def __str__(self) -> str:
        where = _("line %d") % self.line if self.line else _("the file")
        return (
            f"{where}, {self.field}: {self.text}"
            if self.field
            else (f"{where}: {self.text}")
        )


class StalePreview(Exception):
    """Things changed between the dry run and now: look again. Nothing was changed."""

    def __init__(self) -> None:
        super().__init__(
            _("Things have changed since you looked. Nothing was changed.")
        )


def decode_upload(raw: bytes) -> tuple[str, list[ImportProblem]]:
    """A file's text, without the mark that some editors put in front."""
    try:
        return raw.decode("utf-8-sig").replace("\r\n", "\n"), []
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        return "", [ImportProblem(line, "", _("this is not UTF-8 text"))]


def fingerprint(rows: Iterable[object]) -> str:
    """What was shown, to compare with what would be done."""
    return hashlib.sha256(repr(list(rows)).encode()).hexdigest()
