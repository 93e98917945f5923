"""pytest's plugin for `make mutants`: which tests run, and in which order.

With MUTANTS=..., only the tests beside those packages are collected and run. Without
it, all tests that reach a mutant run, those beside its package first.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def package_of(name: str) -> Path:
    """The folder of the package that a mutant's name or a pattern begins with."""
    folder = Path()
    for part in name.split("."):
        if not (ROOT / folder / part).is_dir():
            break
        folder /= part
    return folder


@cache
def chosen() -> tuple[Path, ...]:
    """The folders of tests of MUTANTS; empty means all."""
    names = os.environ.get("MUTANTS", "").split()
    return tuple(ROOT / "tests" / package_of(name) for name in names)


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    if not chosen() or collection_path.suffix not in ("", ".py"):
        return None
    family = (collection_path, *collection_path.parents)
    beside = any(one in family or collection_path in one.parents for one in chosen())
    return None if beside else True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests first that notice most, because the first failure ends the run."""
    module = os.environ.get("MUTANT_UNDER_TEST", "").rpartition(".")[0]
    package, name = ROOT / "tests" / package_of(module), module.rpartition(".")[2]

    def order(item: pytest.Item) -> tuple[bool, bool, str, int]:
        own = item.path.name.startswith(f"test_{name}")
        beside = package in item.path.parents
        return not (own and beside), not beside, str(item.path), item.location[1] or 0

    items.sort(key=order)
