"""Static files during a rolling upgrade: names of the other release."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from config.server.static_files import RollingStaticFiles
from tests.support.asgi import Client, ask, http_scope

pytestmark = pytest.mark.once
OWN, OTHER = "0123456789ab", "ba9876543210"


async def missing(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Collected files of this release, and a file beside the folder."""
    root = tmp_path / "static"
    (root / "css").mkdir(parents=True)
    for name in ("css/base.css", f"css/base.{OWN}.css"):
        (root / name).write_text("of this release")
    (tmp_path / f"outside.{OTHER}.css").write_text("private")
    return root


@pytest.fixture
def app(root: Path) -> RollingStaticFiles:
    return RollingStaticFiles(missing, root=root, prefix="/static/")


def asked(app: RollingStaticFiles, path: str) -> Client:
    return ask(app, http_scope("GET", path))


def test_a_name_of_this_release_is_kept_for_ever(app: RollingStaticFiles) -> None:
    reply = asked(app, f"/static/css/base.{OWN}.css")
    assert (reply.status, reply.body) == (200, b"of this release")
    assert "immutable" in reply.headers["cache-control"]


def test_a_name_of_another_release_gets_this_version(app: RollingStaticFiles) -> None:
    """It is not kept for long: the name belongs to another content."""
    reply = asked(app, f"/static/css/base.{OTHER}.css")
    assert (reply.status, reply.body) == (200, b"of this release")
    assert reply.headers["cache-control"] == "max-age=60, public"
    assert reply.headers["content-type"].startswith("text/css")
    assert f"/static/css/base.{OTHER}.css" not in app.files


def test_a_file_collected_since_the_start_is_served(
    app: RollingStaticFiles, root: Path
) -> None:
    """`collectstatic` of the new release comes before the first restart."""
    (root / "css" / f"base.{OTHER}.css").write_text("of the new release")
    (root / f"new.{OTHER}.css").write_text("of the new release")
    for name in (f"css/base.{OTHER}.css", f"new.{OTHER}.css"):
        reply = asked(app, f"/static/{name}")
        assert (reply.status, reply.body) == (200, b"of the new release")
        assert "immutable" in reply.headers["cache-control"]


@pytest.mark.parametrize(
    "path",
    [
        f"/static/css/none.{OTHER}.css",
        f"/static/../outside.{OTHER}.css",
        f"/static/%2e%2e/outside.{OTHER}.css",
        f"/css/base.{OTHER}.css",
        "/static/css/base.other.css",
        f"/static/\0.{OTHER}.css",
        "/static/",
    ],
)
def test_other_names_are_not_found(app: RollingStaticFiles, path: str) -> None:
    assert asked(app, path).status == 404
