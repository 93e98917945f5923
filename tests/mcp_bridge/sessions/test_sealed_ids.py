"""Session ids: nobody else can make, change or read one."""

from __future__ import annotations

import base64
import json
import re
import zlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp_types import ClientCapabilities, Implementation, InitializeRequestParams

from accounts.crypto.encryption import seal
from mcp_bridge.sessions.sealed_ids import (
    MAX_INFLATED,
    MAX_LENGTH,
    PURPOSE,
    SessionFacts,
    new_facts,
    open_facts,
    packed,
    seal_facts,
)
from tests.support.mcp_in_process import caller
from tests.support.properties import ON_BUSY_MACHINES

pytestmark = pytest.mark.once
ASKS = {"elicitation": {"form": {}}, "sampling": {}, "roots": {"listChanged": True}}


def facts(**changes: Any) -> SessionFacts:
    made = SessionFacts("0" * 32, 7, "a client", "2025-11-25", ASKS, ("cli", "1.2"))
    return replace(made, **changes)


def test_an_id_carries_what_initialize_agreed() -> None:
    sealed = seal_facts(facts())
    assert open_facts(sealed) == facts() and seal_facts(facts()) != sealed
    assert facts().initialized() == InitializeRequestParams(
        protocol_version="2025-11-25",
        capabilities=ClientCapabilities.model_validate(ASKS),
        client_info=Implementation(name="cli", version="1.2"),
    )


def test_new_facts_are_those_of_the_caller_and_its_client() -> None:
    params = InitializeRequestParams(
        protocol_version="2025-06-18",
        capabilities=ClientCapabilities.model_validate(ASKS),
        client_info=Implementation(name="n" * 100, version="v" * 100),
    )
    made = new_facts(caller(user_id=9), "2025-11-25", params)
    assert re.fullmatch("[0-9a-f]{32}", made.key)
    assert made.key != new_facts(caller(), "2025-11-25", params).key
    expected = facts(
        key=made.key, user_id=9, client_id="the-client", client=("n" * 64, "v" * 64)
    )
    assert made == expected


def test_an_id_belongs_to_its_person_and_client() -> None:
    mine = facts(user_id=1, client_id="the-client")
    assert mine.belongs_to(caller())
    assert not mine.belongs_to(caller(user_id=2))
    assert not mine.belongs_to(caller(client_id="another"))


@ON_BUSY_MACHINES
@given(st.dictionaries(st.text(max_size=900), st.text(max_size=900), max_size=30))
def test_an_id_is_short_visible_ascii(unknown: dict[str, str]) -> None:
    """MCP 2025-11-25 basic/transports. What does not fit is left out."""
    told = {**ASKS, "experimental": {"x": unknown}}
    sealed = seal_facts(facts(capabilities=told, client_id="c" * 255))
    assert re.fullmatch(r"[\x21-\x7e]+", sealed) and len(sealed) <= MAX_LENGTH
    found = open_facts(sealed)
    assert found is not None and ASKS.keys() <= found.capabilities.keys()


def test_capabilities_that_answer_requests_stay_as_long_as_they_fit() -> None:
    random = base64.b64encode(bytes(range(256)) * 4).decode()
    told = {**ASKS, "experimental": {random[n:]: {} for n in range(600)}}
    found = open_facts(seal_facts(facts(capabilities=told)))
    assert found is not None and found.capabilities == ASKS
    long: dict[str, Any] = {name: {random[n:]: {} for n in range(600)} for name in ASKS}
    found = open_facts(seal_facts(facts(capabilities=long)))
    assert found is not None and found.capabilities == dict.fromkeys(ASKS, {})
    found = open_facts(seal_facts(facts(capabilities={"roots": long["roots"]})))
    assert found is not None and found.capabilities == {"roots": {}}, "and no others"


def test_a_changed_id_is_unknown() -> None:
    sealed = seal_facts(facts())
    for place in range(len(sealed)):
        for other in "A_":
            changed = sealed[:place] + other + sealed[place + 1 :]
            assert changed == sealed or open_facts(changed) is None, place
    for wrong in (sealed + "=", sealed + "A", sealed[:-1], f" {sealed}", ""):
        assert open_facts(wrong) is None
    assert open_facts(sealed.replace("-", "+").replace("_", "/") + "+") is None


def test_every_id_has_one_spelling() -> None:
    """Base64 has spare bits at its end."""
    sealed = seal_facts(facts())
    alike = [
        sealed[:-1] + last
        for last in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    ]
    assert [each for each in alike if open_facts(each) is not None] == [sealed]


@pytest.mark.parametrize("wrong", ["x" * 32, "0" * 2000, "é" * 20, "\x00", "a b"])
def test_anything_else_is_unknown(wrong: str) -> None:
    assert open_facts(wrong) is None


def test_ids_of_other_keys_and_purposes_are_unknown(settings: Any) -> None:
    sealed = seal_facts(facts())
    content = zlib.compress(b"[]")
    for purpose in (b"portico session messages v1", PURPOSE):
        made = base64.urlsafe_b64encode(seal(purpose, content)).decode().rstrip("=")
        assert open_facts(made) is None
    first = settings.KEY_ENCRYPTION_KEY
    settings.KEY_ENCRYPTION_KEY, settings.KEY_ENCRYPTION_KEY_FALLBACKS = "k" * 50, []
    assert open_facts(sealed) is None
    settings.KEY_ENCRYPTION_KEY_FALLBACKS = [first]
    assert open_facts(sealed) == facts(), "an id outlives a rotation of the key"


@pytest.mark.parametrize(
    "content",
    [
        b"no zlib",
        zlib.compress(b"no json"),
        zlib.compress(b"{}"),
        zlib.compress(json.dumps(["k", 1, "c", "v", {}]).encode()),
        zlib.compress(json.dumps(["k", 1, "c", "v", {}, 5]).encode()),
        zlib.compress(json.dumps(["k", 1, "c", "v", [], ["n", "v"]]).encode()),
        zlib.compress(b" " * MAX_INFLATED + zlib.decompress(packed(facts(), {}))),
    ],
)
def test_a_sealed_content_of_another_release_is_unknown(content: bytes) -> None:
    """No more than MAX_INFLATED bytes of it are read."""
    made = base64.urlsafe_b64encode(seal(PURPOSE, content)).decode().rstrip("=")
    assert open_facts(made) is None
