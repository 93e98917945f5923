"""A missing requirement is a visible skip, and a failure in CI."""

from __future__ import annotations

import os

import pytest


def skip_or_fail(requirement: str, fix: str) -> None:
    """Skip with the missing thing and how to install it; in CI fail."""
    message = f"{requirement} is missing; {fix}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
