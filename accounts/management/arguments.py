"""Parse command arguments; errors name the valid values."""

from __future__ import annotations

from argparse import ArgumentTypeError
from datetime import datetime
from pathlib import Path

from django.core.management import CommandError

from accounts.models import Role, User
from accounts.models.audit.origins import COMMAND_LINE
from accounts.parsing.moments import parse_future_moment

ACTOR = COMMAND_LINE
"""Actor of audit events that commands record."""


def user_named(name: str) -> User:
    """The account. Raises CommandError."""
    user: User | None = User.objects.all().named(name)
    if user is None:
        raise CommandError(
            f"There is no user {name}; to add one: manage.py add_user {name}"
        )
    return user


def role_named(name: str) -> Role:
    """The role. Raises CommandError."""
    role = Role.objects.filter(name=name).first()
    if role is None:
        names = ", ".join(Role.objects.values_list("name", flat=True))
        raise CommandError(f"There is no role {name}; there are: {names or 'none'}")
    return role


def file_named(path: str) -> bytes:
    """Content of a file. Raises CommandError."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}.") from error


MAX_LENGTH = 255


def short(text: str) -> str:
    """Argument type: text that fits its column."""
    if len(text) > MAX_LENGTH or "\x00" in text:
        raise ArgumentTypeError(f"write at most {MAX_LENGTH} characters of plain text")
    return text


def moment(text: str) -> datetime:
    """`2026-12-31`, a date and time, or `8h`, `30d` from now. Raises CommandError."""
    try:
        return parse_future_moment(text)
    except ValueError as error:
        raise CommandError(str(error)) from error
