"""What `doctor` says about upstream servers, each with its fix."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core import checks as django_checks
from django.utils import timezone

from accounts.admin_site.notices import covered_checks
from mcp_bridge.models import (
    DefinitionState,
    Primitive,
    UpstreamCredential,
    UpstreamServer,
    UpstreamStatus,
)
from mcp_bridge.upstreams.credentials import set_secret
from mcp_bridge.upstreams.registration import checks
from tests.support.model_rows import person

pytestmark = pytest.mark.django_db
ALL = (
    checks.upstream_servers_work,
    checks.upstream_servers_were_contacted,
    checks.new_definitions_are_decided,
    checks.upstream_servers_offer_something,
    checks.upstream_servers_are_encrypted,
)


@pytest.fixture
def shop(settings: Any) -> UpstreamServer:
    """A server without a problem."""
    settings.UPSTREAM_DISCOVERY_INTERVAL = 300
    server = UpstreamServer.objects.create(name="shop", url="https://a.example/mcp")
    UpstreamStatus.objects.create(upstream=server, contacted_at=timezone.now())
    Primitive.objects.create(kind="tool", name="shop__sell", upstream=server)
    return server


def found() -> list[tuple[str, str, str]]:
    messages = [one for check in ALL for one in check(databases=["default"])]
    return [(str(m.id), str(m.msg), str(m.hint)) for m in messages]


def status(server: UpstreamServer, **columns: Any) -> None:
    UpstreamStatus.objects.filter(upstream=server).update(**columns)


def credential(server: UpstreamServer, **columns: Any) -> UpstreamCredential:
    mode = columns.pop("mode", "static_header")
    UpstreamServer.objects.filter(pk=server.pk).update(credential_mode=mode)
    return UpstreamCredential.objects.create(upstream=server, **columns)


def test_a_working_server_is_no_problem(shop: UpstreamServer) -> None:
    assert found() == []
    registered = django_checks.registry.registry.get_checks()
    assert set(ALL) <= set(registered) and all(check() == [] for check in ALL)
    assert {"portico.W110", "portico.W112"} <= covered_checks


def test_a_disabled_server_is_not_checked(shop: UpstreamServer) -> None:
    shop.primitives.all().delete()
    status(shop, error="No answer.", contacted_at=None)
    shop.url = "http://mcp.example.com/mcp"
    shop.save()
    assert len(found()) == 3
    shop.enabled = False
    shop.save()
    assert found() == []


def test_a_failed_contact_is_named_with_its_fix(shop: UpstreamServer) -> None:
    status(shop, error="No answer.", contacted_at=None)
    fix = "Correct this, then run: manage.py discover shop"
    assert found() == [("portico.W110", "shop: No answer.", fix)]


@pytest.mark.parametrize(
    ("minutes", "every", "old"),
    [(14, 60, False), (16, 60, True), (60, 3600, False), (241, 3600, True)],
)
def test_an_old_contact_is_named(
    shop: UpstreamServer, settings: Any, minutes: int, every: int, old: bool
) -> None:
    settings.UPSTREAM_DISCOVERY_INTERVAL = every
    status(shop, contacted_at=timezone.now() - timedelta(minutes=minutes))
    assert [one[0] for one in found()] == (["portico.W111"] if old else [])


def test_without_a_timer_a_contact_is_never_old(
    shop: UpstreamServer, settings: Any
) -> None:
    settings.UPSTREAM_DISCOVERY_INTERVAL = 0
    status(shop, contacted_at=timezone.now() - timedelta(days=90))
    assert found() == []
    status(shop, contacted_at=None)
    assert "shop has not been contacted yet." in found()[0]


def test_a_secret_of_another_key_is_an_error(
    shop: UpstreamServer, settings: Any
) -> None:
    row = credential(shop)
    assert found()[0][1] == "The credential for shop is missing."
    set_secret(row, "Bearer x")
    assert found() == []
    settings.KEY_ENCRYPTION_KEY = "another key of at least thirty-two letters"
    settings.KEY_ENCRYPTION_KEY_FALLBACKS = []
    ((name, text, hint),) = found()
    assert (name, text) == (
        "portico.W110",
        "The credential for shop cannot be decrypted.",
    )
    assert "KEY_ENCRYPTION_KEY_FALLBACKS" in hint
    assert checks.upstream_servers_work(databases=["default"])[0].level >= 40


def test_a_rejected_credential_is_named(shop: UpstreamServer) -> None:
    set_secret(credential(shop), "Bearer x")
    UpstreamCredential.objects.update(state="rejected")
    fix = "Enter it on the page of the server, then use Discover now."
    text = "shop rejected its credential. Enter a new one."
    assert found() == [("portico.W110", text, fix)]
    UpstreamCredential.objects.update(secret_encrypted="", state="valid")
    missing = "The credential for shop is missing."
    assert found() == [("portico.W110", missing, fix)]


@pytest.mark.parametrize("mode", ["none", "signed_assertion"])
def test_a_secret_that_is_not_sent_is_no_problem(
    shop: UpstreamServer, mode: str
) -> None:
    """It stays stored after the mode was changed."""
    credential(shop, mode=mode, secret_encrypted=b"of another key")
    assert found() == []


@pytest.mark.parametrize(
    ("mode", "named"), [("none", False), ("signed_assertion", True)]
)
def test_only_a_server_without_credentials_rejected_none(
    shop: UpstreamServer, mode: str, named: bool
) -> None:
    credential(shop, mode=mode, state="rejected")
    texts = [one[1] for one in found()]
    rejected = "shop rejected its credential. Enter a new one."
    assert texts == ([rejected] if named else [])


def test_a_credential_of_one_person_is_not_the_shared_one(
    shop: UpstreamServer,
) -> None:
    credential(shop, user=person("alice"), state="rejected", secret_encrypted="x")
    assert found()[0][1] == "The credential for shop is missing."


def test_an_assertion_needs_no_secret(shop: UpstreamServer) -> None:
    kind = {"client_authentication": "private_key_jwt"}
    row = credential(shop, mode="client_credentials", **kind)
    assert found() == []
    row.delete()
    credential(shop, mode="static_header", **kind)
    assert found()[0][1] == "The credential for shop is missing."


def test_held_definitions_and_none_accepted_are_named(shop: UpstreamServer) -> None:
    shop.primitives.update(state="held")
    held, none = found()
    assert held[:2] == ("portico.W112", "1 new definition of shop is held.")
    assert none[0] == "portico.W114" and "nobody can use it" in none[1]
    assert "manage.py accept_definitions shop" in held[2]


@pytest.mark.parametrize("state", DefinitionState.values)
def test_each_state_of_a_definition_is_counted_once(
    shop: UpstreamServer, state: str
) -> None:
    Primitive.objects.create(kind="tool", name="shop__buy", upstream=shop)
    shop.primitives.update(state=state)
    held = {"2 new definitions of shop are held."} if state == "held" else set()
    unused = {"No definition of shop is accepted, so nobody can use it."}
    served = state in ("accepted", "changed")
    assert {text for _id, text, _hint in found()} == held | (
        set() if served else unused
    )


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("http://mcp.example.com/mcp", True),
        ("http://8.8.8.8/mcp", True),
        ("http://[2606:4700::1111]/mcp", True),
        ("http://127.0.0.1:3001/mcp", False),
        ("http://localhost:3001/mcp", False),
        ("http://10.1.2.3/mcp", False),
        ("http://tools:8000/mcp", False),
        ("http://tools.internal/mcp", False),
    ],
)
def test_http_is_named_outside_private_networks(
    shop: UpstreamServer, url: str, warned: bool
) -> None:
    UpstreamServer.objects.update(url=url)
    assert [one[0] for one in found()] == (["portico.W113"] if warned else [])


def test_a_token_url_is_checked_too(shop: UpstreamServer) -> None:
    row = credential(
        shop, mode="client_credentials", token_url="http://id.example.com/token"
    )
    set_secret(row, "s3cr3t")
    assert [one[0] for one in found()] == ["portico.W113"]
    UpstreamServer.objects.update(credential_mode="static_header")
    assert found() == [], "nothing is sent there"
