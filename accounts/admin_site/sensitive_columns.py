"""Decide which columns contain secrets or personal data, from the models alone.

The type and the words of the name decide. A new column, or one of another app, needs no
entry here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from functools import cache
from typing import Any

from django.core.exceptions import FieldDoesNotExist
from django.db import models
from django.db.models.constants import LOOKUP_SEP

SECRET_WORDS = frozenset(
    "assertion challenge checksum data encrypted hash nonce otp passphrase passwd "
    "password pin private recovery salt sealed secret secrets seed session token "
    "tokens verifier".split()
)
PRIVATE_WORDS = frozenset(
    "address agent arguments birth claims code codes content email emails ip key keys "
    "mail mobile phone settings uid".split()
)
"""Personal data, and ambiguous words: `code` can be a secret or a product's number."""
SECRET_TYPES = (models.BinaryField, models.JSONField)
"""Free-form values: apps may store anything in them."""
PRIVATE_TYPES = (models.EmailField, models.GenericIPAddressField)
SECRET_TYPE_NAME = re.compile("Checksum|Encrypted|Hash|Password|Secret")
"""In the class name of a field, such as the toolkit's ClientSecretField."""
PLAIN_TYPES = (
    models.AutoField,
    models.BooleanField,
    models.DateField,
    models.DurationField,
    models.TimeField,
)
"""Types that hold neither secrets nor personal data, whatever the name."""
IDS_ARE_SECRET = frozenset({"session"})
"""`token_id` is a public id; `session_id` grants the session."""


def words_of(name: str) -> frozenset[str]:
    """The words of a column's name; of `*_id` only those whose ids are secret."""
    words = frozenset(name.lower().split("_"))
    return words & IDS_ARE_SECRET if name.endswith("_id") else words


@cache
def is_secret(field: Any) -> bool:
    """Whether no user may learn values of this column."""
    if isinstance(field, PLAIN_TYPES):
        return False
    if field.is_relation:
        target = getattr(field, "target_field", None)
        return target is not None and is_secret(target)
    if isinstance(field, SECRET_TYPES) or words_of(field.name) & SECRET_WORDS:
        return True
    return any(SECRET_TYPE_NAME.search(kind.__name__) for kind in type(field).__mro__)


@cache
def is_private(field: Any) -> bool:
    """Whether only users who see this column may compare it."""
    if field.is_relation or isinstance(field, PLAIN_TYPES):
        return False
    named = bool(words_of(field.name) & PRIVATE_WORDS)
    return isinstance(field, PRIVATE_TYPES) or named


def fields_along(model: Any, path: str) -> Iterator[Any]:
    """The fields that a path such as `user__password__startswith` passes."""
    opts = model._meta
    for name in path.split(LOOKUP_SEP):
        try:
            field = opts.get_field(opts.pk.name if name == "pk" else name)
        except FieldDoesNotExist:
            return  # The rest is a lookup or a key inside JSON.
        yield field
        steps = getattr(field, "path_infos", None)
        if not steps:
            return
        opts = steps[-1].to_opts


def reveals(model: Any, path: str, shown: Collection[str] = ()) -> bool:
    """Whether comparing by `path` reveals more than the `shown` columns."""
    fields = list(fields_along(model, path))
    if any(is_secret(field) for field in fields):
        return True
    column = LOOKUP_SEP.join(field.name for field in fields)
    return column not in shown and any(is_private(field) for field in fields)
