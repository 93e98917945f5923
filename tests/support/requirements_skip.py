"""What a test needs and the machine lacks: a visible skip, and a failure in CI."""

from __future__ import annotations

import os

import pytest


def skip_or_fail(what: str, mend: str) -> None:
    """Skip, saying what is missing and how to have it; in CI fail."""
    told = f"{what} is missing; {mend}"
    if os.environ.get("CI"):
        pytest.fail(told)
    pytest.skip(told)
