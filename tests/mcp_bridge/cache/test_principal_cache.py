"""The bounded cache of principals, and what each change evicts from it."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from mcp_bridge.cache.principal_cache import (
    PrincipalCache,
    concerns,
    concerns_catalogue,
)
from mcp_bridge.cache.readers.base import ChangeRow
from mcp_bridge.cache.watched_tables import ChangeScope
from tests.mcp_bridge.cache.test_decision_cache import principal

pytestmark = pytest.mark.once


def test_the_cache_is_bounded() -> None:
    """The least recently used entry goes first, with its index."""
    people = PrincipalCache(2)
    for name in ("ann", "ben"):
        people.put(name.encode(), principal(name))
    people.get(b"ann")
    people.put(b"cid", principal("cid"))
    assert set(people.known) == {b"ann", b"cid"}
    assert set(people.tokens) == {"jti-ann", "jti-cid"}
    assert people.users == {1: {b"ann", b"cid"}}
    people.drop(b"ann")
    people.drop(b"ann")
    people.drop(b"cid")
    assert not people.users and not people.tokens


def test_unused_entries_expire() -> None:
    """Refreshed or abandoned tokens do not stay in a worker's memory."""
    people = PrincipalCache(9)
    for name in ("ann", "ben", "cid"):
        people.put(name.encode(), principal(name))
    people.evict_idle()
    people.get(b"ann")
    people.drop(b"cid")
    people.put(b"dan", principal("dan"))
    people.evict_idle()
    assert set(people.known) == {b"ann", b"dan"}
    people.clear()
    people.evict_idle()
    assert not people.known and not people.idle


def crowd() -> PrincipalCache:
    """ann has two tokens, one of another client; user 11 has a similar number."""
    people = PrincipalCache(9)
    people.put(b"ann", principal("ann", 1))
    people.put(b"ann-2", replace(principal("ann-2", 1), client_id="other"))
    people.put(b"ben", principal("ben", 11))
    return people


EVERYONE = {b"ann", b"ann-2", b"ben"}
EVICTIONS = [
    ("user", "1", {b"ann", b"ann-2"}),
    ("user", "11", {b"ben"}),
    ("user", "2", set()),
    ("token", "jti-ann", {b"ann"}),
    ("token", "jti-ann-2", {b"ann-2"}),
    ("token", "other", set()),
    ("token", "1", set()),
    ("client", "portico", {b"ann", b"ben"}),
    ("client", "other", {b"ann-2"}),
    ("client", "jti-ann", set()),
    ("people", "", EVERYONE),
    ("all", "", EVERYONE),
    ("catalogue", "", set()),
    ("session", "1", set()),
]


def test_every_kind_of_change_is_listed() -> None:
    assert {kind for kind, _key, _gone in EVICTIONS} == set(ChangeScope)


@pytest.mark.parametrize(("kind", "key", "gone"), EVICTIONS)
def test_a_change_evicts_the_principals_it_concerns(
    kind: str, key: str, gone: set[bytes]
) -> None:
    people, change = crowd(), ChangeRow(1, kind, key)
    concerned = {k for k, who in people.known.items() if concerns(change, who)}
    assert concerned == gone, "the same rule for a read that is in flight"
    people.evict(change)
    assert set(people.known) == EVERYONE - gone
    assert len(people) == len(EVERYONE - gone)
    assert set(people.tokens.values()) == EVERYONE - gone
    assert concerns_catalogue(change) is (kind in ("catalogue", "all"))


def test_an_unknown_change_concerns_every_read() -> None:
    """A newer server may write kinds that this one does not know."""
    assert concerns(ChangeRow(1, "new", ""), principal("ann"))


def test_the_last_token_of_a_user_removes_the_index() -> None:
    people = crowd()
    people.drop(b"ann")
    people.evict(ChangeRow(1, "user", "1"))
    assert people.users == {11: b"ben"} and set(people.known) == {b"ben"}
    people.evict(ChangeRow(2, "user", "11"))
    assert people.users == {} and people.tokens == {}


def test_a_principal_that_is_read_again_replaces_the_old_one() -> None:
    """Its indexes follow it, also if the token now has another owner."""
    people = crowd()
    newer = replace(principal("ann", 2), jti="new")
    people.put(b"ann", newer)
    assert people.get(b"ann") is newer and len(people) == 3
    assert people.tokens == {"new": b"ann", "jti-ann-2": b"ann-2", "jti-ben": b"ben"}
    assert people.users == {1: {b"ann-2"}, 2: b"ann", 11: b"ben"}
    people.put(b"ann", newer)
    assert people.users[2] == b"ann"


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_size_of_the_cache_is_exact(size: int) -> None:
    people = PrincipalCache(size)
    for number in range(5):
        people.put(bytes([number]), principal(str(number)))
        assert len(people) == min(number + 1, size)
    assert list(people.known) == [bytes([n]) for n in range(5 - size, 5)]
    assert people.get(b"none") is None


def test_clearing_removes_every_index() -> None:
    people = crowd()
    people.evict_idle()
    people.clear()
    assert not people.known and not people.tokens and not people.users
    assert not people.idle


def test_a_dropped_principal_is_not_idle() -> None:
    people = crowd()
    people.evict_idle()
    people.drop(b"ann")
    assert people.idle == {b"ann-2", b"ben"}
    people.get(b"ben")
    assert people.idle == {b"ann-2"}
    people.put(b"ann-2", principal("ann-2"))
    people.evict_idle()
    assert set(people.known) == {b"ann-2", b"ben"}
    assert time.time() < people.known[b"ben"].valid_until
