"""What the app connects when it is ready."""

from __future__ import annotations

from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.db.models.signals import post_migrate
from rest_framework_simplejwt.tokens import Token

from accounts import apps as accounts_apps
from accounts.admin_site.site import PorticoSite
from accounts.authentication import lockout, mail, mfa, signals
from accounts.authentication.oidc import adapter
from accounts.authorization import deletions
from accounts.http import session_store
from accounts.oauth.clients import document_fetcher
from accounts.tokens.jwts import SigningKeyBackend

pytestmark = pytest.mark.once
CONNECTED: list[tuple[Any, str]] = [
    (signals, "connect_sign_in_audit"),
    (lockout, "connect_lockout_audit"),
    (mfa, "connect_mfa_audit"),
    (adapter, "connect_claims"),
    (mail, "connect_mail"),
    (deletions, "connect_deletions"),
    (document_fetcher, "install_document_rules"),
    (session_store, "install_session_hashing"),
]


def test_everything_is_connected_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    for module, name in CONNECTED:
        monkeypatch.setattr(module, name, lambda name=name: called.append(name))
    monkeypatch.setattr(Token, "_token_backend", None)
    apps.get_app_config("accounts").ready()
    assert called == [name for _module, name in CONNECTED]
    assert isinstance(Token._token_backend, SigningKeyBackend)


def test_groups_are_filled_once_after_each_migration() -> None:
    keys = [key[0] for key, *_rest in post_migrate.receivers]
    assert keys.count("portico-groups") == 1


def test_the_admin_is_our_site() -> None:
    assert isinstance(admin.site, PorticoSite)
    assert accounts_apps.PorticoAdminConfig.default is False
