"""What uv gets of pip's configuration, and what a lock says of uv."""

from __future__ import annotations

import pytest

from tests.tools import install

LISTED = """\
:env:.find-links='/opt/wheels'
global.cert='/etc/ssl/own.crt'
global.constraint='/etc/constraints.txt'
global.extra-index-url='file:///opt/a/simple https://b.example/simple'
global.find-links='/somewhere/else'
global.index-url='https://pypi.example/simple'
install.timeout='180'
list.format='columns'
"""


def test_uv_gets_the_indexes_of_pip() -> None:
    """The environment precedes the file."""
    uv = install.for_uv(install.in_force(LISTED))
    pairs = set(zip(uv.options[::2], uv.options[1::2], strict=True))
    assert pairs == {
        ("--default-index", "https://pypi.example/simple"),
        ("--index", "file:///opt/a/simple"),
        ("--index", "https://b.example/simple"),
        ("--find-links", "/opt/wheels"),
    }
    assert uv.variables == {
        "SSL_CERT_FILE": "/etc/ssl/own.crt",
        "UV_HTTP_TIMEOUT": "180",
    }
    assert not uv.unknown


@pytest.mark.parametrize("setting", ["no-index", "client-cert", "only-binary"])
def test_pip_installs_where_uv_would_not_do_the_same(setting: str) -> None:
    listed = f"{LISTED}global.{setting}='x'\n"
    assert install.for_uv(install.in_force(listed)).unknown == [setting]


@pytest.mark.parametrize("unusable", ["uv", "settings"])
def test_without_uv_pip_installs(
    monkeypatch: pytest.MonkeyPatch, unusable: str
) -> None:
    settings = {"client-cert": "x"} if unusable == "settings" else {}
    monkeypatch.setattr(install, "in_force", lambda listed: settings)
    monkeypatch.setattr(install, "has_uv", lambda: unusable != "uv")
    monkeypatch.setattr(install, "by_pip", lambda lock, python: 7)
    assert install.install(install.LOCK) == 7


def test_the_lock_has_uv_with_hashes() -> None:
    found = install.entry(install.LOCK.read_text(), "uv")
    first, *others = found.splitlines()
    assert first.startswith("uv==") and "uvicorn" not in found
    assert sum("--hash=sha256:" in line for line in others) > 1
