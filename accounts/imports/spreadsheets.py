"""Files of spreadsheet programs: encoding, separator and headers."""

from __future__ import annotations

import re

from django.utils.translation import gettext as _

from accounts.imports.problems import ImportProblem, decode_upload
from accounts.imports.workbooks import workbook_text

WORKBOOK, OLD_WORKBOOK = b"PK\x03\x04", b"\xd0\xcf\x11\xe0"
"""First bytes of .xlsx, and of .xls and workbooks with a password."""
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
WINDOWS = "cp1252"
"""What Excel writes as "CSV" in Western Europe and America."""
SEPARATORS = ",;\t"
OTHER_NAMES = {
    "user": "username",
    "user_name": "username",
    "login": "username",
    "e_mail": "email",
    "mail": "email",
    "email_address": "email",
    "e_mail_address": "email",
    "firstname": "first_name",
    "given_name": "first_name",
    "lastname": "last_name",
    "surname": "last_name",
    "family_name": "last_name",
    "role": "roles",
}
"""A name that people give a column -> the column."""


def spreadsheet_text(raw: bytes) -> tuple[str, list[ImportProblem]]:
    """The CSV text of an .xlsx, or of a file in UTF-8, UTF-16 or Windows-1252.

    Problems if it is none of them. A file with valid UTF-8 beside wrong bytes is
    damaged, not Windows-1252.
    """
    if raw.startswith(WORKBOOK):
        return workbook_text(raw)
    if raw.startswith(OLD_WORKBOOK):
        text = _(
            "this is an old Excel workbook, or one with a password; in Excel choose "
            "File > Save as > Excel Workbook (.xlsx), without a password"
        )
        return "", [ImportProblem(0, "", text)]
    if raw.startswith(UTF_16):
        try:
            return raw.decode("utf-16").replace("\r\n", "\n"), []
        except UnicodeDecodeError:
            return "", [ImportProblem(1, "", _("the file is not valid UTF-16 text"))]
    text, problems = decode_upload(raw)
    if problems and not has_multibyte_utf8(raw) and b"\0" not in raw:
        try:
            return raw.decode(WINDOWS).replace("\r\n", "\n"), []
        except UnicodeDecodeError:
            pass
    return text, problems


def has_multibyte_utf8(raw: bytes) -> bool:
    """Whether some characters beyond ASCII are valid UTF-8."""
    text = raw.decode("utf-8", "ignore")
    return not text.isascii()


def separator_of(text: str) -> str:
    """The separator that the first line has most of, outside of quotes."""
    first = re.sub('"[^"]*"', "", text.partition("\n")[0])
    return max(SEPARATORS, key=first.count)


def column_name(header: str) -> str:
    """The column that a header names: `E-Mail` is `email`; unknown ones stay."""
    name = re.sub(r"[\s\-]+", "_", header.strip().casefold())
    return OTHER_NAMES.get(name, name)
