"""OAuth clients, their codes and consents, and how each of them ends."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone
from oauth2_provider.models import AbstractApplication

from accounts.models import (
    AuditEvent,
    Consent,
    DocumentHost,
    IssuedToken,
    OAuthClient,
    OAuthDeviceGrant,
    OAuthGrant,
    RevokedToken,
    UsedAssertion,
    User,
    issued_tokens,
    oauth,
)
from accounts.models.oauth import AUTH_METHODS, GRANTS, end_pending, withdrawal_event
from tests.support.model_rows import (
    client_row,
    code_row,
    consent_row,
    device_row,
    events_of,
    past,
    person,
    record_locks,
    reload,
    soon,
    token_row,
)

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 5, 10, 12, 30, tzinfo=UTC)
TICK = timedelta(microseconds=1)
SOURCE = AbstractApplication.RegistrationSource
IDLE = timedelta(days=90)
"""UNUSED_CLIENTS_AFTER of these tests."""


@pytest.mark.spec("RFC 8252 7.3: any loopback port")
@pytest.mark.parametrize(
    ("registered", "asked", "allowed"),
    [
        ("http://localhost/cb", "http://127.0.0.1:5000/cb", True),
        ("http://localhost/cb", "http://[::1]:5000/cb", True),
        ("http://localhost/cb", "http://127.0.0.1/cb", True),
        ("http://localhost/cb", "http://localhost:5000/cb", True),
        ("http://localhost/cb", "http://127.0.0.1:5000/other", False),
        ("http://localhost/cb", "http://127.0.0.1:5000/cb?x=1", False),
        ("http://localhost/cb", "https://127.0.0.1:5000/cb", False),
        ("http://localhost/cb", "http://127.0.0.2:5000/cb", False),
        ("http://localhost/cb", "http://127.0.0.1.example/cb", False),
        ("http://localhost/cb", "http://127.0.0.1:5000@evil.example/cb", False),
        ("http://localhost/cb", "http://u@127.0.0.1/cb", False),
        ("http://127.0.0.1/cb", "http://localhost:5000/cb", False),
        ("http://127.0.0.1/cb", "http://[::1]:5000/cb", False),
        ("https://localhost/cb", "http://127.0.0.1/cb", False),
        ("https://a.example/cb", "http://127.0.0.1/cb", False),
    ],
)
def test_a_registered_localhost_is_any_loopback_address(
    registered: str, asked: str, allowed: bool
) -> None:
    """As goose asks: its document names localhost only."""
    client = OAuthClient(redirect_uris=f"https://b.example/x {registered}")
    assert client.redirect_uri_allowed(asked) is allowed


@pytest.fixture
def ann() -> User:
    return person("ann")


@pytest.fixture
def bea() -> User:
    return person("bea")


@pytest.fixture
def idle(settings: Any) -> None:
    settings.UNUSED_CLIENTS_AFTER = IDLE


def registered(client_id: str, age: timedelta = IDLE + TICK, **more: Any) -> Any:
    """A self-registered client, made `age` before NOW and never used."""
    made = client_row(client_id, **{"registration_source": SOURCE.DCR, **more})
    OAuthClient.objects.filter(pk=made.pk).update(created=NOW - age)
    return made


def remaining() -> set[str]:
    return set(OAuthClient.objects.values_list("client_id", flat=True))


@pytest.fixture(autouse=True)
def no_clients() -> None:
    OAuthClient.objects.all().delete()


def test_a_client_without_a_name_has_its_id() -> None:
    client_row("named", name="Notes"), client_row("nameless")
    rows = OAuthClient.objects.all()
    assert rows.names_of(["named", "nameless", "deleted"]) == {"named": "Notes"}
    found = [rows.name_of(name) for name in ("named", "nameless", "deleted")]
    assert found == ["Notes", "nameless", "deleted"]


@pytest.mark.parametrize("source", SOURCE)
def test_only_clients_that_registered_themselves_are_purged(
    idle: None, source: str
) -> None:
    registered("app", registration_source=source)
    purged = OAuthClient.objects.all().purge(NOW)
    assert purged == (0 if source == SOURCE.MANUAL else 1)
    assert remaining() == ({"app"} if source == SOURCE.MANUAL else set())


@pytest.mark.parametrize(
    ("made", "used", "purged"),
    [
        (IDLE + TICK, None, True),
        (IDLE, None, False),
        (2 * IDLE, IDLE + TICK, True),
        (2 * IDLE, IDLE, False),
        (2 * IDLE, timedelta(), False),
    ],
)
def test_a_client_is_purged_after_its_last_use(
    idle: None, made: timedelta, used: timedelta | None, purged: bool
) -> None:
    last = NOW - used if used is not None else None
    registered("app", made, last_used_at=last)
    registered("other", timedelta())
    assert OAuthClient.objects.all().purge(NOW) == int(purged)
    assert remaining() == ({"other"} if purged else {"app", "other"})


def test_blocked_clients_stay_blocked(idle: None) -> None:
    """A purged client could register again."""
    registered("app", blocked=True)
    assert OAuthClient.objects.all().purge(NOW) == 0


def test_a_client_with_a_live_token_is_kept(idle: None, ann: User) -> None:
    for name in ("live", "expired", "revoked", "without"):
        registered(name)
    token_row(ann, client_id="live")
    token_row(ann, client_id="expired", expires_at=past())
    lost = token_row(ann, client_id="revoked")
    RevokedToken.objects.create(jti=lost.jti, until=soon())
    assert OAuthClient.objects.all().purge(NOW) == 3 and remaining() == {"live"}


@pytest.fixture
def scene(ann: User, bea: User) -> Iterator[dict[str, OAuthClient]]:
    """Three clients; ann and bea have everything at each of them."""
    clients = {name: client_row(name) for name in ("a", "b", "c")}
    for client in clients.values():
        for user in (ann, bea):
            token_row(user, client_id=client.client_id)
            code_row(user, client), consent_row(user, client)
            device_row(client.client_id, user=user)
    yield clients


def left(**of: Any) -> dict[str, int]:
    """The number of live rows of a `user` or a `client`."""
    user = {"user": of["user"]} if "user" in of else {}
    name = of.get("client")
    at: dict[str, dict[str, Any]] = {
        "tokens": {"client_id": name},
        "codes": {"application__client_id": name},
        "devices": {"client_id": name},
        "consents": {"client__client_id": name},
    }
    rows: dict[str, Any] = {
        "tokens": IssuedToken.objects.all().live(),
        "codes": OAuthGrant.objects.all(),
        "devices": OAuthDeviceGrant.objects.all(),
        "consents": Consent.objects.all(),
    }
    return {
        kind: found.filter(**user, **(at[kind] if name else {})).count()
        for kind, found in rows.items()
    }


BOTH = {"tokens": 2, "codes": 2, "devices": 2, "consents": 2}


def test_ending_a_clients_access_keeps_consents_and_other_clients(
    scene: dict[str, OAuthClient],
) -> None:
    carol = person("carol")
    clients = OAuthClient.objects.filter(client_id="a")
    assert clients.end_access(actor=carol, reason="leaked") == 2
    assert left(client="a") == {"tokens": 0, "codes": 0, "devices": 0, "consents": 2}
    assert left(client="b") == left(client="c") == BOTH
    for action, number in (("token.revoked", 2), ("code.revoked", 4)):
        found = {(e.client_id, e.actor, e.reason) for e in events_of(action)}
        assert found == {("a", "carol", "leaked")}
        assert len(events_of(action)) == number


@pytest.mark.parametrize("number", [2, 3])
def test_every_batch_of_clients_loses_access(
    scene: dict[str, OAuthClient], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(issued_tokens, "BATCH_ROWS", 2)
    clients = OAuthClient.objects.filter(client_id__in="abc"[:number])
    assert clients.end_access(actor="carol", reason="x") == 2 * number
    for name in "abc"[:number]:
        assert left(client=name)["tokens"] == left(client=name)["codes"] == 0
        assert left(client=name)["devices"] == 0
    assert len(events_of("code.revoked")) == 4 * number


def test_pending_codes_of_clients_end_and_their_ids_are_returned(
    scene: dict[str, OAuthClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issued_tokens, "BATCH_ROWS", 1)
    clients = OAuthClient.objects.filter(client_id__in="ab").order_by("-pk")
    assert clients.end_pending(actor="carol", reason="x") == ["a", "b"]
    pending = {"codes": 0, "devices": 0}
    assert left(client="a") == left(client="b") == {**BOTH, **pending}
    assert left(client="c") == BOTH


def test_clients_are_locked_before_accounts(
    scene: dict[str, OAuthClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    """accounts/tokens/issue.py locks in the same order, so there is no deadlock."""
    locked = record_locks(monkeypatch)
    OAuthClient.objects.all().end_access(actor="carol", reason="x")
    assert locked[0] == "OAuthClient"


@pytest.mark.parametrize("broken", ["TokenQuerySet._revoke", "end_pending"])
def test_a_failure_ends_no_access(
    scene: dict[str, OAuthClient], monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    if broken == "end_pending":
        calls: list[Any] = []
        honest = oauth.end_pending
        monkeypatch.setattr(issued_tokens, "BATCH_ROWS", 2)

        def fails(**options: Any) -> int:
            calls.append(options)
            return honest(**options) if len(calls) == 1 else 1 // 0

        monkeypatch.setattr(oauth, "end_pending", fails)
    else:
        monkeypatch.setattr(issued_tokens.TokenQuerySet, "_revoke", None)
    with pytest.raises((TypeError, ZeroDivisionError)):
        OAuthClient.objects.all().end_access(actor="carol", reason="x")
    assert left() == dict.fromkeys(BOTH, 6)
    assert not events_of("code.revoked")


def test_pending_codes_end_by_user_or_client_or_both(
    scene: dict[str, OAuthClient], ann: User, bea: User
) -> None:
    both: dict[str, Any] = {"user_id": ann.pk, "client_id": "a"}
    assert end_pending(actor="x", reason="y", **both) == 2
    assert left(client="a", user=ann) == {
        "tokens": 1,
        "codes": 0,
        "devices": 0,
        "consents": 1,
    }
    assert left(client="a", user=bea)["codes"] == left(client="b", user=ann)["codes"]
    assert end_pending(actor="x", reason="y", user_id__in=[ann.pk]) == 4
    assert left(user=bea)["codes"] == left(user=bea)["devices"] == 3
    assert end_pending(actor="x", reason="y", client_id="b") == 2
    assert left(client="c", user=bea)["codes"] == 1


def test_used_and_expired_codes_stay_for_replays(ann: User) -> None:
    """A code that comes a second time must be recognized."""
    client = client_row("a")
    code_row(ann, client, redeemed_at=past()), code_row(ann, client, expires=past())
    device_row("a", user=ann, expires=past())
    device_row("a", user=ann, status=OAuthDeviceGrant.DENIED)
    assert end_pending(actor="x", reason="y", client_id="a") == 0
    assert left(client="a") == {"tokens": 0, "codes": 2, "devices": 2, "consents": 0}
    assert not events_of("code.revoked")


@pytest.mark.parametrize(
    "status", [OAuthDeviceGrant.AUTHORIZED, OAuthDeviceGrant.AUTHORIZATION_PENDING]
)
def test_undecided_and_allowed_device_codes_end(status: str) -> None:
    device_row("a", status=status)
    assert end_pending(actor="x", reason="y", client_id="a") == 1
    (event,) = events_of("code.revoked")
    assert event.object == "device code of nobody yet"


@pytest.mark.parametrize(("ticks", "ended"), [(0, 0), (1, 2)])
def test_a_code_is_pending_until_it_expires(
    ann: User, monkeypatch: pytest.MonkeyPatch, ticks: int, ended: int
) -> None:
    code_row(ann, client_row("a"), expires=NOW + ticks * TICK)
    device_row("a", user=ann, expires=NOW + ticks * TICK)
    monkeypatch.setattr(timezone, "now", lambda: NOW)
    assert end_pending(actor="x", reason="y", client_id="a") == ended


def test_the_events_of_ended_codes_say_whose_they_were(ann: User) -> None:
    carol = person("carol")
    code_row(ann, client_row("a")), device_row("a", user=ann)
    end_pending(actor=carol, reason="r" * 300, client_id="a")
    code, device = events_of("code.revoked")
    assert code.object == "authorization code of ann"
    assert device.object == "device code of ann"
    for event in (code, device):
        assert (event.client_id, event.reason) == ("a", "r" * 255)
        assert (event.actor, event.actor_id) == ("carol", carol.pk)


def test_long_names_are_cut_in_events() -> None:
    event = withdrawal_event("device code", (7, "n" * 300), "a", "r" * 300)
    assert event.object == f"device code of {'n' * 300}"[:255]
    assert (event.action, event.client_id) == ("code.revoked", "a")
    assert event.reason == "r" * 255
    assert event.subject == "user:7"
    consent = withdrawal_event("consent", (None, None), "a", "")
    assert (consent.action, consent.subject) == ("consent.withdrawn", "")
    assert consent.object == "consent of nobody yet"


def test_withdrawing_consents_deletes_these_only(
    scene: dict[str, OAuthClient], ann: User, bea: User
) -> None:
    carol = person("carol")
    mine = Consent.objects.filter(user=ann, client__client_id__in="ab")
    assert mine.withdraw(actor=carol, reason="asked") == 2
    assert left(user=ann) == {"tokens": 3, "codes": 3, "devices": 3, "consents": 1}
    assert left(user=bea)["consents"] == 3
    events = events_of("consent.withdrawn")
    assert {(e.object, e.client_id) for e in events} == {
        ("consent of ann", "a"),
        ("consent of ann", "b"),
    }
    assert {(e.actor, e.actor_id, e.reason) for e in events} == {
        ("carol", carol.pk, "asked")
    }


def test_ending_a_consent_ends_that_users_access_at_that_client(
    scene: dict[str, OAuthClient], ann: User, bea: User
) -> None:
    consent = Consent.objects.get(user=ann, client=scene["a"])
    assert consent.end(actor=ann, reason="withdrawn") == 1
    assert left(client="a", user=ann) == dict.fromkeys(BOTH, 0)
    one = dict.fromkeys(BOTH, 1)
    assert left(client="a", user=bea) == left(client="b", user=ann) == one
    assert [e.object for e in events_of("code.revoked")] == [
        "authorization code of ann",
        "device code of ann",
    ]
    for event in (*events_of("code.revoked"), *events_of("token.revoked")):
        assert (event.actor, event.reason) == ("ann", "withdrawn")
        assert event.client_id == "a"


def test_ending_a_consent_locks_the_account_first(
    scene: dict[str, OAuthClient], ann: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = record_locks(monkeypatch)
    Consent.objects.get(user=ann, client=scene["a"]).end(actor=ann, reason="x")
    assert locked[0] == "User"


def test_a_consent_that_cannot_be_ended_stays(
    scene: dict[str, OAuthClient], ann: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issued_tokens.TokenQuerySet, "_revoke", None)
    with pytest.raises(TypeError):
        Consent.objects.get(user=ann, client=scene["a"]).end(actor=ann, reason="x")
    assert left(client="a", user=ann) == dict.fromkeys(BOTH, 1)


@pytest.mark.parametrize(
    ("asked", "covered"),
    [
        ([], True),
        (["mcp"], True),
        (["User.Read", "mcp"], True),
        (["User.Write"], False),
        (["mcp", "User.Write"], False),
        (["User.Rea"], False),
    ],
)
def test_a_consent_covers_its_scopes(asked: list[str], covered: bool) -> None:
    assert Consent(scope="mcp User.Read").covers(asked) is covered


def test_consents_are_named_and_the_newest_is_first(ann: User, bea: User) -> None:
    client = client_row("a", name="App")
    old, new = consent_row(ann, client), consent_row(bea, client)
    Consent.objects.filter(pk=old.pk).update(given_at=NOW)
    assert list(Consent.objects.all()) == [new, old]
    assert str(old) == "ann allowed App"


def test_grant_types_are_those_that_were_registered() -> None:
    code = AbstractApplication.GRANT_AUTHORIZATION_CODE
    secret = AbstractApplication.GRANT_CLIENT_CREDENTIALS
    cases: list[tuple[list[str], set[str]]] = [
        (["authorization_code"], {code}),
        (["refresh_token"], {code}),
        (["client_credentials"], {secret}),
        (["authorization_code", "client_credentials"], {code, secret}),
        (["password", "implicit"], set()),
        ([], set()),
    ]
    for grant_types, allowed in cases:
        client = OAuthClient(grant_types=grant_types)
        for grant in (code, secret, "password", "implicit"):
            assert client.allows_grant_type(grant) is (grant in allowed)
        assert client.allows_grant_type("password", code) is (code in allowed)
    assert set(GRANTS) == {"authorization_code", "refresh_token", "client_credentials"}


TRUST = [(None, True), (True, True), (False, False)]


@pytest.mark.parametrize("source", SOURCE)
@pytest.mark.parametrize(("trusted", "usable"), TRUST)
@pytest.mark.parametrize("blocked", [False, True])
def test_blocked_clients_and_refused_hosts_are_not_usable(
    source: str, trusted: bool | None, usable: bool, blocked: bool
) -> None:
    if trusted is not None:
        DocumentHost.objects.create(host="app.example", trusted=trusted)
    client = client_row(
        "https://App.example./doc", registration_source=source, blocked=blocked
    )
    documented = source == SOURCE.CIMD
    assert client.host_trusted is (trusted if documented else None)
    expected = not blocked and (usable or not documented)
    assert client.is_usable(None) is expected


def test_the_rule_of_another_host_does_not_count() -> None:
    DocumentHost.objects.create(host="app.example", trusted=True)
    DocumentHost.objects.create(host="bad.example", trusted=False)
    for url, trusted in (
        ("https://app.example/doc", True),
        ("https://bad.example:8443/doc", False),
        ("https://sub.app.example/doc", None),
        ("https://app.example.evil.example/doc", None),
        ("https:///doc", False),
        ("https://a..b/doc", False),
    ):
        client = OAuthClient(client_id=url, registration_source=SOURCE.CIMD)
        assert client.host_trusted is trusted, url


@pytest.mark.parametrize("source", SOURCE)
@pytest.mark.parametrize("approved", [False, True])
@pytest.mark.parametrize("trusted", [None, True, False])
def test_a_client_is_verified_by_an_administrator(
    source: str, approved: bool, trusted: bool | None
) -> None:
    if trusted is not None:
        DocumentHost.objects.create(host="app.example", trusted=trusted)
    client = client_row(
        "https://app.example/doc", registration_source=source, approved=approved
    )
    by_host = source == SOURCE.CIMD and trusted is True
    assert client.verified is (approved or source == SOURCE.MANUAL or by_host)


def test_a_host_names_its_clients() -> None:
    documents = ("https://a.example/1", "https://A.example/2", "https://b.example/1")
    for number, client_id in enumerate((*documents, "https://a..b/")):
        client_row(client_id, name=str(number), registration_source=SOURCE.CIMD)
    client_row("https://a.example/3", name="5", registration_source=SOURCE.DCR)
    host = DocumentHost.objects.create(host="A.Example.")
    assert str(host) == "a.example" and host.trusted
    assert set(host.clients().values_list("name", flat=True)) == {"0", "1"}


@pytest.mark.parametrize("method", AUTH_METHODS)
def test_one_method_needs_a_signed_assertion(method: str) -> None:
    client = OAuthClient(token_endpoint_auth_method=method)
    assert client.uses_private_key_jwt is (method == "private_key_jwt")


CODE, MACHINE = ["authorization_code", "refresh_token"], ["client_credentials"]
URI = "https://app.example/cb"
GRANTS_OF_CLIENTS: list[tuple[dict[str, Any], str]] = [
    ({"grant_types": CODE, "redirect_uris": URI}, ""),
    ({"grant_types": CODE}, "redirect_uris"),
    ({"grant_types": [oauth.DEVICE_GRANT]}, ""),
    ({"grant_types": MACHINE, "service_account_id": 1}, ""),
    ({"grant_types": MACHINE}, "service_account"),
    ({"grant_types": [oauth.DEVICE_GRANT], "service_account_id": 1}, "service_account"),
    ({"service_account_id": 1}, "service_account"),
    (
        {"grant_types": MACHINE, "service_account_id": 1, "method": "none"},
        "token_endpoint_auth_method",
    ),
    ({"grant_types": None, "redirect_uris": None}, ""),
    ({"method": "private_key_jwt"}, "client_jwks"),
    ({"method": "private_key_jwt", "registered": {"jwks_uri": "https://a/k"}}, ""),
    ({"method": "private_key_jwt", "client_jwks": {"keys": [{}]}}, ""),
    (
        {"grant_types": [*CODE, *MACHINE], "method": "none"},
        "redirect_uris service_account token_endpoint_auth_method",
    ),
]


@pytest.mark.parametrize(("columns", "fields"), GRANTS_OF_CLIENTS, ids=str)
def test_a_client_has_what_its_grants_need(
    columns: dict[str, Any], fields: str
) -> None:
    """What the token endpoint would always refuse is refused before."""
    columns = {"method": "client_secret_basic", **columns}
    method = columns.pop("method")
    client = OAuthClient(token_endpoint_auth_method=method, **columns)
    assert " ".join(sorted(client.problems())) == fields


def test_a_client_of_a_service_account_needs_no_redirect_uri() -> None:
    """The toolkit's own check would ask for one."""
    client = OAuthClient(authorization_grant_type="authorization-code")
    client.clean()


def test_schemes_are_those_of_the_redirect_uris() -> None:
    uris = "https://a.example/cb com.app:/cb https://b.example/ http://127.0.0.1/"
    client = OAuthClient(redirect_uris=uris)
    assert client.get_allowed_schemes() == ["com.app", "http", "https"]


def test_a_use_is_noted_for_that_client_only(monkeypatch: pytest.MonkeyPatch) -> None:
    used, other = client_row("a"), client_row("b")
    monkeypatch.setattr(timezone, "now", lambda: NOW)
    used.update_last_used()
    reload(used, other)
    assert (used.last_used_at, other.last_used_at) == (NOW, None)


def test_a_client_is_found_by_its_client_id(ann: User) -> None:
    client, other = client_row("a", name="App"), client_row("b")
    assert OAuthClient.objects.get_by_natural_key("a") == client
    assert client.natural_key() == ("a",)
    assert (str(client), str(other)) == ("App", "b")
    mine, _hers = token_row(ann, client_id="a"), token_row(ann, client_id="b")
    assert list(client.tokens()) == [mine]


def test_a_client_survives_its_service_account(ann: User) -> None:
    client = client_row("a", service_account=ann)
    ann.delete()
    client.refresh_from_db()
    assert client.service_account_id is None


def test_new_clients_are_public_and_unapproved() -> None:
    client = client_row("a")
    assert (client.token_endpoint_auth_method, client.grant_types) == ("none", [])
    assert not client.approved and not client.blocked and client.max_idle is None


def test_an_assertion_is_stored_once() -> None:
    row = UsedAssertion.objects.create(key="k", until=NOW)
    assert str(row) == "k"
    _, new = UsedAssertion.objects.get_or_create(key="k", defaults={"until": soon()})
    assert not new and not AuditEvent.objects.filter(object="k").exists()


def test_hosts_are_sorted() -> None:
    for host in ("b.example", "a.example"):
        DocumentHost.objects.create(host=host)
    assert [str(h) for h in DocumentHost.objects.all()] == ["a.example", "b.example"]
