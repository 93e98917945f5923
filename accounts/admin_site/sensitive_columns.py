"""Which columns hold a secret or personal data, read from the models themselves.

The type and the words of the name decide, so that a new column, or one of another app,
is judged without being entered anywhere.
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
    "address agent birth claims code codes content email emails ip key keys mail "
    "mobile phone settings uid".split()
)
"""Personal data; and words such as `code`, of a sign-in here and a product there."""
SECRET_TYPES = (models.BinaryField, models.JSONField)
"""Free-form values: nobody knows what an app keeps in them."""
PRIVATE_TYPES = (models.EmailField, models.GenericIPAddressField)
TELLING_TYPE = re.compile("Checksum|Encrypted|Hash|Password|Secret")
"""In the name of a field's class, such as the toolkit's ClientSecretField."""
PLAIN_TYPES = (
    models.AutoField,
    models.BooleanField,
    models.DateField,
    models.DurationField,
    models.TimeField,
)
"""What these hold is neither, whatever the column is called."""
IDS_ARE_SECRET = frozenset({"session"})
"""`token_id` is a public id; `session_id` opens the session."""


def words_of(name: str) -> frozenset[str]:
    """The words of a column's name that count."""
    words = frozenset(name.lower().split("_"))
    return words & IDS_ARE_SECRET if name.endswith("_id") else words


@cache
def is_secret(field: Any) -> bool:
    """Whether nobody may learn what this column holds."""
    if isinstance(field, PLAIN_TYPES):
        return False
    if field.is_relation:
        target = getattr(field, "target_field", None)
        return target is not None and is_secret(target)
    if isinstance(field, SECRET_TYPES) or words_of(field.name) & SECRET_WORDS:
        return True
    return any(TELLING_TYPE.search(kind.__name__) for kind in type(field).__mro__)


@cache
def is_private(field: Any) -> bool:
    """Whether it is for those only who see this very column."""
    if field.is_relation or isinstance(field, PLAIN_TYPES):
        return False
    named = bool(words_of(field.name) & PRIVATE_WORDS)
    return isinstance(field, PRIVATE_TYPES) or named


def fields_along(model: Any, path: str) -> Iterator[Any]:
    """The fields a path such as `user__password__startswith` goes through."""
    opts = model._meta
    for name in path.split(LOOKUP_SEP):
        try:
            field = opts.get_field(opts.pk.name if name == "pk" else name)
        except FieldDoesNotExist:
            return  # From here on: a lookup, or a key inside of JSON.
        yield field
        steps = getattr(field, "path_infos", None)
        if not steps:
            return
        opts = steps[-1].to_opts


def reveals(model: Any, path: str, shown: Collection[str] = ()) -> bool:
    """Whether comparing by `path` tells more than the columns that are `shown`."""
    fields = list(fields_along(model, path))
    if any(is_secret(field) for field in fields):
        return True
    column = LOOKUP_SEP.join(field.name for field in fields)
    return column not in shown and any(is_private(field) for field in fields)
