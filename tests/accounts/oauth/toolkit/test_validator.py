"""Library methods that Portico overrides: a release that moves one fails here."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from allauth.usersessions.models import UserSession, UserSessionManager
from django.contrib.sessions.backends import db as sessions
from mcp.server.mcpserver import MCPServer
from oauth2_provider import cimd, models, oauth2_validators
from oauth2_provider.oauth2_backends import OAuthLibCore
from oauth2_provider.views.mixins import OAuthLibMixin

from accounts.oauth.toolkit.validator import PorticoValidator

pytestmark = pytest.mark.once
BASE = oauth2_validators.OAuth2Validator
OVERRIDDEN = [
    "_create_authorization_code",
    "_extract_basic_auth",
    "_load_application",
    "authenticate_client",
    "client_authentication_required",
    "confirm_redirect_uri",
    "get_authorization_code_scopes",
    "get_code_challenge",
    "get_code_challenge_method",
    "get_default_redirect_uri",
    "invalidate_authorization_code",
    "save_bearer_token",
    "validate_code",
]


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_each_override_replaces_a_method(name: str) -> None:
    """It has the parameters that the library passes."""
    theirs = list(inspect.signature(getattr(BASE, name)).parameters)
    ours = list(inspect.signature(getattr(PorticoValidator, name)).parameters)
    named = [p for p in theirs if p not in ("args", "kwargs")]
    assert ours[: len(named)] == named


@pytest.mark.parametrize(
    ("where", "name"),
    [
        (OAuthLibCore, "_extract_params"),
        (OAuthLibMixin, "get_oauthlib_core"),
        (OAuthLibMixin, "validate_authorization_request"),
        (OAuthLibMixin, "create_authorization_response"),
        (OAuthLibMixin, "create_token_response"),
        (cimd, "_build_application_kwargs"),
        (cimd, "resolve_cimd_application"),
        (models.AbstractApplication, "allows_grant_type"),
        (models.AbstractApplication, "is_usable"),
        (models.AbstractApplication, "get_allowed_schemes"),
        (sessions.SessionStore, "_get_session_from_db"),
        (sessions.SessionStore, "create_model_instance"),
        (UserSessionManager, "create_from_request"),
        (UserSession, "_session_store"),
        (UserSession, "is_current"),
        (UserSession, "end"),
    ],
)
def test_called_and_replaced_methods_exist(where: Any, name: str) -> None:
    assert callable(getattr(where, name))


@pytest.mark.parametrize(
    "name",
    ["_tool_manager", "_prompt_manager", "_resource_manager", "_lowlevel_server"],
)
def test_the_sdks_managers_can_be_replaced(name: str) -> None:
    assert hasattr(MCPServer("probe"), name)
