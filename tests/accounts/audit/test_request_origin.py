"""Events of one request have its address, id and user, whoever writes them."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser
from django.http import HttpResponse
from django.test import RequestFactory

from accounts.audit.record import record
from accounts.audit.request_origin import RequestOriginMiddleware
from accounts.models import AuditEvent, IssuedToken, User
from accounts.models.audit.origins import COMMAND_LINE, current_actor, origin_var
from tests.support.admin_browser import AdminBrowser, add_token, staff_member
from tests.support.static_files import UNCOLLECTED
from tests.support.users import account

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def uncollected(settings: Any) -> None:
    settings.STORAGES = UNCOLLECTED


def served(work: Any, user: Any = None, **headers: str) -> Any:
    """The result of `work` inside a request from 192.0.2.9."""
    results: list[Any] = []
    request = RequestFactory().get("/", REMOTE_ADDR="192.0.2.9", headers=headers)
    if user is not None:
        request.user = user

    def view(_request: Any) -> HttpResponse:
        results.append(work())
        return HttpResponse()

    RequestOriginMiddleware(view)(request)
    return results[0]


def test_the_actor_is_the_user_of_the_request() -> None:
    alice = account("alice")
    assert served(current_actor, alice) == alice
    assert served(current_actor, AnonymousUser()) is None
    assert served(current_actor) is None
    assert current_actor() == COMMAND_LINE


def test_the_origin_ends_with_the_request() -> None:
    with pytest.raises(ZeroDivisionError):
        served(lambda: 1 / 0)
    assert origin_var.get() is None


def revoke() -> None:
    """A method of a model, which knows no request."""
    IssuedToken.objects.all().revoke(actor="x", reason="y")


def test_events_of_models_have_the_origin() -> None:
    add_token(account("alice"))
    served(revoke, x_request_id="r" * 70)
    event = AuditEvent.objects.get(action="token.revoked")
    assert (event.address, event.request_id) == ("192.0.2.9", "r" * 64)


def test_the_columns_of_an_event_win() -> None:
    event = served(lambda: record("x", address="192.0.2.1", request_id="mine"))
    assert (event.address, event.request_id) == ("192.0.2.1", "mine")
    assert (record("x").address, record("x").request_id) == ("", "")


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ("revoke_tokens", "token.revoked"),
        ("deactivate", "user.deactivated"),
        ("reset_factors", "second_factor.reset"),
        ("unlock", "user.unlocked"),
    ],
)
def test_every_event_of_an_action_says_who_from_where_and_in_which_request(
    action: str, expected: str
) -> None:
    root = AdminBrowser(staff_member("root", superuser=True))
    alice = account("alice", "User")
    add_token(alice)
    client: Any = root.http.client  # type: ignore[attr-defined]
    client.defaults["HTTP_X_REQUEST_ID"] = "request-77"
    before = set(AuditEvent.objects.values_list("pk", flat=True))
    root.run(User, action, alice)
    events = AuditEvent.objects.exclude(pk__in=before)
    assert expected in {event.action for event in events}
    assert {(e.actor, e.address, e.request_id) for e in events} == {
        ("root", "127.0.0.1", "request-77")
    }
    assert {e.subject for e in events} == {f"user:{alice.pk}"}


def test_a_password_set_by_an_administrator_names_both() -> None:
    root = AdminBrowser(staff_member("root", superuser=True))
    alice = account("alice")
    password = {"password1": "a long enough one", "password2": "a long enough one"}
    path = f"/admin/accounts/user/{alice.pk}/password/"
    root.post(path, usable_password="true", **password)
    event = AuditEvent.objects.get(action="user.password_changed")
    assert (event.actor, event.object) == ("root", "alice")
    assert (event.address, event.subject) == ("127.0.0.1", f"user:{alice.pk}")
