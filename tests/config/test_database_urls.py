"""DATABASE_URL: one host, several hosts, and what is no URL of a database."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from django.db import connection

from config.database_urls import parse
from tests.support.ports import free_port

HOSTS = [
    ("h", "h", ""),
    ("h:7", "h", 7),
    ("h:1", "h", 1),
    ("h:65535", "h", 65535),
    ("%2Frun%2Fpg", "/run/pg", ""),
    ("a:1,b:2", "a,b", "1,2"),
    ("a,b:2", "a,b", ",2"),
    ("a,b", "a,b", ","),
    ("[::1]:1,[fe80::2]:2,c", "::1,fe80::2,c", "1,2,"),
]


@pytest.mark.once
@pytest.mark.parametrize(("hosts", "host", "port"), HOSTS)
def test_one_or_several_hosts(hosts: str, host: str, port: Any) -> None:
    found = parse(f"postgres://u:p%40,x@{hosts}/n?sslmode=require")
    assert (found["HOST"], found["PORT"]) == (host, port)
    assert (found["USER"], found["PASSWORD"], found["NAME"]) == ("u", "p@,x", "n")
    assert found["ENGINE"] == "django.db.backends.postgresql"
    several = {"target_session_attrs": "read-write", "connect_timeout": 3}
    more = several if "," in hosts else {}
    assert found["OPTIONS"] == {**more, "sslmode": "require"}


@pytest.mark.once
def test_options_of_the_url_win() -> None:
    found = parse("postgres://a,b/n?target_session_attrs=any&connect_timeout=9")
    assert found["OPTIONS"] == {"target_session_attrs": "any", "connect_timeout": 9}


@pytest.mark.once
@pytest.mark.parametrize(
    "url",
    ["postgres://u:secret@h:x/n", "postgres://u:secret@h:99999/n", "postgres:n"]
    + ["postgres://u:secret@a:1,b:y/n", "postgres://u:secret@[::1/n", "//h/n", "x"]
    + ["postgres://u:secret@h", "postgres://u:secret@a,b/", "mysql://u:secret@h/n"]
    + ["postgres://u:secret@h:0/n", "postgres://u:secret@h:1:2/n", ""]
    + ["postgres://u:secret@h:65536/n", "postgres://u:secret@b,h#/n", "sqlite"],
)
def test_what_is_no_database_gets_a_sentence(url: str) -> None:
    with pytest.raises(ValueError, match="postgres") as refused:
        parse(url)
    assert "secret" not in str(refused.value)


@pytest.mark.once
@pytest.mark.parametrize(
    ("url", "name"), [("sqlite:///a/b", "a/b"), ("sqlite:////a/b", "/a/b")]
)
def test_sqlite_has_a_path(url: str, name: str) -> None:
    assert parse(url)["NAME"] == name


@pytest.mark.django_db
@pytest.mark.skipif(connection.vendor != "postgresql", reason="PostgreSQL only")
def test_the_host_that_answers_is_used() -> None:
    """The first host is down."""
    known: dict[str, Any] = connection.get_connection_params()
    host, port = known.get("host", ""), known.get("port") or 5432
    found = parse(f"postgres://x,y/{known['dbname']}")
    found["OPTIONS"].pop("connect_timeout")
    with psycopg.connect(
        host=f"127.0.0.1,{host}",
        port=f"{free_port()},{port}",
        dbname=known["dbname"],
        user=known.get("user"),
        password=known.get("password"),
        **found["OPTIONS"],
    ) as opened:
        assert opened.execute("SELECT 1").fetchone() == (1,)
