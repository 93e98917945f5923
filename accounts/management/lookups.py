"""Rows by the names people type, with an error that says which names there are."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from datetime import datetime, timedelta
from pathlib import Path

from django.core.management import CommandError
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime

from accounts.models import Role, User

ACTOR = "command line"
"""Who acts in the audit trail when a command does."""


def user_named(name: str) -> User:
    """The account. Raises CommandError."""
    found: User | None = User.objects.filter(username=name).first()
    if found is None:
        raise CommandError(
            f"There is no user {name}; add one: manage.py add_user {name}"
        )
    return found


def role_named(name: str) -> Role:
    """The role. Raises CommandError."""
    found = Role.objects.filter(name=name).first()
    if found is None:
        known = ", ".join(Role.objects.values_list("name", flat=True))
        raise CommandError(f"There is no role {name}; there are: {known or 'none'}")
    return found


def file_named(path: str) -> bytes:
    """What is in a file. Raises CommandError."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}.") from error


LONGEST = 255
UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def short(text: str) -> str:
    """An argument that fits its column."""
    if len(text) > LONGEST or "\x00" in text:
        raise ArgumentTypeError(f"write at most {LONGEST} characters of plain text")
    return text


def moment(text: str) -> datetime:
    """`2026-12-31`, a date and time, or `8h`, `30d` from now. Raises CommandError."""
    found = re.fullmatch(r"([1-9][0-9]{0,5})([mhd])", text, re.ASCII)
    if found:
        return timezone.now() + timedelta(**{UNITS[found[2]]: int(found[1])})
    try:
        parsed, day = parse_datetime(text), parse_date(text)
    except ValueError as error:
        raise CommandError(f"{text} is no date: {error}") from error
    if parsed is None and day is not None:
        parsed = datetime.combine(day, datetime.max.time())
    if parsed is None:
        raise CommandError(f"{text!r} is no moment; write 2026-12-31, 8h or 30d.")
    aware = parsed if timezone.is_aware(parsed) else timezone.make_aware(parsed)
    if aware <= timezone.now():
        raise CommandError(f"{text} has passed already.")
    return aware
