"""Limits, labels, orders and defaults are those of a file that people can compare."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from django.utils import translation

from tests.support.declared_values import declared
from tests.support.outlines import compare

OUTLINES = Path(__file__).parent / "outlines" / "declared"
NOT_DECLARED = ("migrations", "urls", "settings", "environment")
"""Compared elsewhere: with the models, by their answers, and by their variables."""


def modules() -> Iterator[ModuleType]:
    for app in ("accounts", "config", "mcp_bridge"):
        package = importlib.import_module(app)
        for one in pkgutil.walk_packages(package.__path__, f"{app}."):
            if not {*one.name.split(".")} & {*NOT_DECLARED}:
                yield importlib.import_module(one.name)


@pytest.mark.once
def test_every_declared_value_is_the_known_one() -> None:
    found: dict[str, str] = {}
    with translation.override("en"):
        for module in modules():
            lines = [f"  {line}".replace("\n", "\n  ") for line in declared(module)]
            if lines:
                file = ".".join(module.__name__.split(".")[:2]) + ".txt"
                text = "\n".join([module.__name__, *lines, ""])
                found[file] = found.get(file, "") + text
    compare(found, OUTLINES)
