"""Django's settings as they follow from the environment."""

from __future__ import annotations

import runpy
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from config import environment
from config.environment import BASE_DIR, Environment
from config.sqlite.private_connection import PrivateConnection

pytestmark = pytest.mark.once
HTTPS = {"ISSUER_URL": "https://h.example:8443"}


@pytest.fixture
def settings_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The settings of a process with these variables."""

    def run(**variables: Any) -> dict[str, Any]:
        found = Environment(_env_file=None, **{"DATA_DIR": tmp_path, **variables})
        monkeypatch.setattr(environment, "read", lambda: found)
        return runpy.run_path(str(BASE_DIR / "config" / "settings.py"))

    return run


DAYS, SECONDS = timedelta(days=1), timedelta(seconds=1)
PASSED: dict[str, tuple[Any, dict[str, Any]]] = {
    "ENVIRONMENT": ("production", {}),
    "DATA_DIR": ("/tmp/portico-test", {"DATA_DIR": Path("/tmp/portico-test")}),  # noqa: S108
    "DATABASE_URL": ("postgres://u:p@h:7/n", {}),
    "DATABASE_CONNECTIONS": (7, {}),
    "DATABASE_POOLER": (True, {}),
    "SECRET_KEY": ("one secret", {}),
    "KEY_ENCRYPTION_KEY": ("other secret", {}),
    "SECRET_KEY_FALLBACKS": ("a,b", {"SECRET_KEY_FALLBACKS": ["a", "b"]}),
    "KEY_ENCRYPTION_KEY_FALLBACKS": (
        "a b",
        {"KEY_ENCRYPTION_KEY_FALLBACKS": ["a", "b"]},
    ),
    "HOST": ("::1", {}),
    "PORT": (81, {"PORT": 81, "ISSUER_URL": "http://127.0.0.1:81"}),
    "WORKERS": (3, {"WORKERS": 3}),
    "ISSUER_URL": (
        "https://h.example",
        {
            "ISSUER_URL": "https://h.example",
            "RESOURCE_URL": "https://h.example/mcp",
            "CSRF_TRUSTED_ORIGINS": ["https://h.example"],
        },
    ),
    "ALLOWED_HOSTS": (
        "a.example, b.example",
        {
            "ALLOWED_HOSTS": [
                *("127.0.0.1", "a.example", "b.example", "localhost", "[::1]")
            ]
        },
    ),
    "ALLOWED_ORIGINS": (
        "https://a.example",
        {"ALLOWED_ORIGINS": ["https://a.example"]},
    ),
    "TRUSTED_PROXIES": ("10.0.0.1,unix", {"TRUSTED_PROXIES": ["10.0.0.1", "unix"]}),
    "UPSTREAM_DISCOVERY_INTERVAL": (60, {}),
    "ACCESS_TOKEN_LIFETIME": (7, {"ACCESS_TOKEN_LIFETIME": 7 * SECONDS}),
    "REFRESH_TOKEN_LIFETIME": (70, {"REFRESH_TOKEN_LIFETIME": 70 * SECONDS}),
    "TOKEN_MAX_IDLE": (301, {}),
    "REFRESH_TOKEN_GRACE": (7, {"REFRESH_TOKEN_GRACE": 7 * SECONDS}),
    "CLOCK_LEEWAY": (7, {"CLOCK_LEEWAY": 7 * SECONDS}),
    "REDIRECT_SCHEMES": ("zed:, Mine", {"REDIRECT_SCHEMES": ["zed", "mine"]}),
    "LOCKOUT_AFTER": (7, {"LOCKOUT_AFTER": 7, "AXES_FAILURE_LIMIT": 7}),
    "LOCKOUT_SECONDS": (7, {"AXES_COOLOFF_TIME": 7 * SECONDS}),
    "STAFF_SECOND_FACTOR": ("on", {"STAFF_SECOND_FACTOR": True}),
    "EMAIL_HOST": (
        "m.example",
        {
            "EMAIL_HOST": "m.example",
            "EMAIL_BACKEND": "django.core.mail.backends.smtp.EmailBackend",
            "ACCOUNT_EMAIL_NOTIFICATIONS": True,
        },
    ),
    "EMAIL_PORT": (7, {}),
    "EMAIL_USER": ("me", {"EMAIL_HOST_USER": "me"}),
    "EMAIL_PASSWORD": ("pw", {"EMAIL_HOST_PASSWORD": "pw"}),
    "EMAIL_TLS": ("tls", {"EMAIL_USE_TLS": False, "EMAIL_USE_SSL": True}),
    "EMAIL_FROM": ("a@h.example", {"DEFAULT_FROM_EMAIL": "a@h.example"}),
    "HASHING_AT_ONCE": (7, {}),
    "HASHING_WAIT": (7.5, {}),
    "VALKEY_URL": ("redis://h", {}),
    **{
        f"LIMIT_{name}": ("7/day", {})
        for name in (
            "PASSWORD MAIL REGISTER TOKEN AUTHORIZE INTROSPECT DEVICE API MCP MCP_USER "
            "MCP_REFUSED"
        ).split()
    },
    "SIGNING_ALGORITHM": ("EdDSA", {}),
    "EXTRA_APPS": ("examples.products", {"EXTRA_APPS": ["examples.products"]}),
    "CLIENT_REGISTRATION": ("off", {}),
    "REGISTRATION_TOKEN": ("a token", {}),
    "UNUSED_CLIENTS_AFTER": (7, {"UNUSED_CLIENTS_AFTER": 7 * DAYS}),
    "CLIENT_METADATA_DOCUMENTS": (False, {}),
    "FETCH_CLIENT_DOCUMENTS": (False, {"FETCH_CLIENT_DOCUMENTS": False}),
    "MAX_BODY_SIZE": (2000, {}),
    "MAX_FORM_SIZE": (
        20_000,
        {"MAX_FORM_SIZE": 20_000, "DATA_UPLOAD_MAX_MEMORY_SIZE": 20_000},
    ),
    "MAX_UPLOAD_SIZE": (20_000, {}),
    "BODY_TIMEOUT": (7.5, {}),
    "HEAD_TIMEOUT": (7.5, {}),
    "MAX_HEAD_SIZE": (8193, {}),
    "MAX_HEADERS": (51, {}),
    "SEND_TIMEOUT": (7.5, {}),
    "MCP_SESSIONS": ("off", {"MCP_SESSIONS": False}),
    "SESSION_IDLE": (7.5, {}),
    "MAX_SESSIONS_PER_USER": (7, {}),
    "MAX_SESSIONS": (7, {}),
    "MAX_STREAMS_PER_USER": (7, {}),
    "MAX_STREAMS_PER_TOKEN": (7, {}),
    "MAX_STREAMS": (7, {}),
    "MAX_CALLS_PER_USER": (7, {}),
    "MAX_CALLS": (7, {}),
    "MAX_BODIES_PER_USER": (5_000_000, {}),
    "MAX_BODIES": (50_000_000, {}),
    "INVITATION_LIFETIME": (3, {"INVITATION_LIFETIME": 3 * DAYS}),
    "ROLE_ENDING_NOTICE": (3, {"ROLE_ENDING_NOTICE": 3 * DAYS}),
    "AUDIT_RETENTION": (7, {"AUDIT_RETENTION": 7 * DAYS}),
    "DEFINITIONS_FROM_CODE": ("hold", {}),
    "UPSTREAM_PRIVATE_NETWORKS": (
        "10.0.0.0/8",
        {"UPSTREAM_PRIVATE_NETWORKS": ["10.0.0.0/8"]},
    ),
    "AUDIT_DURABILITY": ("batch", {}),
    "AUDIT_LOG": (True, {}),
    "LOG_LEVEL": ("ERROR", {}),
    "LOG_FORMAT": ("json", {}),
    "METRICS_TOKEN": ("a metrics token", {}),
    "TIME_ZONE": ("Asia/Seoul", {}),
    "PAGE_LANGUAGE": ("ko", {}),
}
"""Variable -> its value, and the settings that follow; default: the same name."""
ELSEWHERE = {
    "DATABASE_URL",
    "DATABASE_CONNECTIONS",
    "CLIENT_METADATA_DOCUMENTS",
    "LOG_LEVEL",
    "LOG_FORMAT",
}
"""Variables that are a part of another setting, below."""


def test_every_variable_is_listed() -> None:
    """PYTHONPATH is for Python itself."""
    assert PASSED.keys() == Environment.model_fields.keys() - {"PYTHONPATH"}


@pytest.mark.parametrize("name", sorted(PASSED.keys() - ELSEWHERE))
def test_a_variable_reaches_its_setting(settings_for: Any, name: str) -> None:
    given, expected = PASSED[name]
    found = settings_for(**{name: given})
    expected = expected or {name: given}
    assert {key: found[key] for key in expected} == expected


def test_variables_that_are_parts_of_other_settings(settings_for: Any) -> None:
    found = settings_for(**{name: PASSED[name][0] for name in ELSEWHERE})
    database = found["DATABASES"]["default"]
    assert (database["NAME"], database["PORT"]) == ("n", 7)
    assert found["OAUTH2_PROVIDER"]["CIMD_ENABLED"] is False
    assert settings_for()["OAUTH2_PROVIDER"]["CIMD_ENABLED"] is True
    assert found["LOGGING"]["root"] == {"handlers": ["stderr"], "level": "ERROR"}
    assert found["LOGGING"]["formatters"]["portico"]["layout"] == "json"


def test_bounds_of_bodies_hold_at_least_one_body(settings_for: Any) -> None:
    """Otherwise no body of MAX_BODY_SIZE would ever be accepted."""
    found = settings_for(MAX_BODY_SIZE=5000, MAX_BODIES_PER_USER=2000, MAX_BODIES=1024)
    assert found["MAX_BODIES_PER_USER"] == found["MAX_BODIES"] == 5000
    found = settings_for(MAX_BODY_SIZE=2000, MAX_BODIES_PER_USER=5000, MAX_BODIES=6000)
    assert (found["MAX_BODIES_PER_USER"], found["MAX_BODIES"]) == (5000, 6000)


def test_lifetimes_reach_the_libraries(settings_for: Any) -> None:
    found = settings_for(ACCESS_TOKEN_LIFETIME=7, REFRESH_TOKEN_LIFETIME=70)
    assert found["SIMPLE_JWT"] == {
        "ACCESS_TOKEN_LIFETIME": 7 * SECONDS,
        "REFRESH_TOKEN_LIFETIME": 70 * SECONDS,
        "USER_ID_CLAIM": "sub",
    }
    assert found["OAUTH2_PROVIDER"]["ACCESS_TOKEN_EXPIRE_SECONDS"] == 7
    assert found["OAUTH2_PROVIDER"]["AUTHORIZATION_CODE_EXPIRE_SECONDS"] == 60


COOKIES = "SESSION_COOKIE_SECURE CSRF_COOKIE_SECURE LANGUAGE_COOKIE_SECURE".split()


def test_with_https_everything_requires_it(settings_for: Any) -> None:
    """RFC 6797; RFC 6265bis 4.1.3.2: __Host- cookies."""
    found = settings_for(**HTTPS)
    switched = [*COOKIES, "SECURE_SSL_REDIRECT", "SECURE_HSTS_INCLUDE_SUBDOMAINS"]
    assert all(found[name] is True for name in [*switched, "SECURE_HSTS_PRELOAD"])
    assert found["SECURE_HSTS_SECONDS"] == 365 * 86400
    assert found["SECURE_SSL_HOST"] == "h.example:8443"
    assert found["CSRF_TRUSTED_ORIGINS"] == ["https://h.example:8443"]
    assert found["SECURE_PROXY_SSL_HEADER"] is None
    assert found["SESSION_COOKIE_NAME"] == "__Host-session"
    assert found["CSRF_COOKIE_NAME"] == "__Host-csrf"
    assert found["MFA_WEBAUTHN_ALLOW_INSECURE_ORIGIN"] is False


def test_with_http_browsers_still_accept_the_cookies(settings_for: Any) -> None:
    found = settings_for()
    switched = [*COOKIES, "SECURE_SSL_REDIRECT", "SECURE_HSTS_INCLUDE_SUBDOMAINS"]
    assert not any(found[name] for name in [*switched, "SECURE_HSTS_PRELOAD"])
    assert found["SECURE_HSTS_SECONDS"] == 0
    assert "SESSION_COOKIE_NAME" not in found and "CSRF_COOKIE_NAME" not in found
    assert found["MFA_WEBAUTHN_ALLOW_INSECURE_ORIGIN"] is True


FIXED: dict[str, Any] = {
    "DEBUG": False,
    "SESSION_COOKIE_HTTPONLY": True,
    "CSRF_COOKIE_HTTPONLY": True,
    "LANGUAGE_COOKIE_HTTPONLY": True,
    "LANGUAGE_COOKIE_SAMESITE": "Lax",
    "SESSION_ENGINE": "accounts.http.session_store",
    "X_FRAME_OPTIONS": "DENY",
    "SECURE_REFERRER_POLICY": "same-origin",
    "SECURE_REDIRECT_EXEMPT": [r"^(?:healthz|readyz)$"],
    "DATA_UPLOAD_MAX_NUMBER_FIELDS": 5000,
    "SECURE_CSP": {
        "default-src": ["'none'"],
        "script-src": ["'self'"],
        "style-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "font-src": ["'self'"],
        "connect-src": ["'self'"],
        "object-src": ["'none'"],
        "base-uri": ["'none'"],
        "form-action": ["'self'"],
        "frame-ancestors": ["'none'"],
    },
    "AUTHENTICATION_BACKENDS": ["accounts.authentication.lockout.PasswordBackend"],
    "AXES_LOCKOUT_PARAMETERS": [["username", "ip_address"], "username", "ip_address"],
    "AXES_RESET_ON_SUCCESS": True,
    "AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT": False,
    "AXES_DISABLE_ACCESS_LOG": True,
    "ACCOUNT_LOGIN_METHODS": {"username"},
    "ACCOUNT_SESSION_REMEMBER": False,
    "ACCOUNT_EMAIL_UNKNOWN_ACCOUNTS": False,
    "ACCOUNT_REAUTHENTICATION_REQUIRED": True,
    "ACCOUNT_EMAIL_VERIFICATION": "none",
    "MFA_PASSKEY_LOGIN_ENABLED": True,
    "MFA_ALLOW_UNVERIFIED_EMAIL": True,
    "MFA_SUPPORTED_TYPES": ["totp", "webauthn", "recovery_codes"],
    "EMAIL_TIMEOUT": 10,
}
"""Settings that protect, and do not depend on the environment."""
PROTECTING_MIDDLEWARE = (
    "accounts.api.trailing_slash.TrailingSlashMiddleware "
    "accounts.http.issuer_urls.IssuerMiddleware "
    "accounts.audit.request_origin.RequestOriginMiddleware "
    "django.middleware.security.SecurityMiddleware "
    "accounts.http.headers.permissions_policy.PermissionsPolicyMiddleware "
    "accounts.http.headers.caching.NoStoreMiddleware "
    "accounts.http.content_security_policy.ContentSecurityPolicyMiddleware "
    "django.contrib.sessions.middleware.SessionMiddleware "
    "accounts.http.language.PageLanguageMiddleware "
    "accounts.http.time_zone.ReaderTimeZoneMiddleware "
    "accounts.http.responses.RefusedBodyMiddleware "
    "django.middleware.common.CommonMiddleware "
    "django.middleware.csrf.CsrfViewMiddleware "
    "django.contrib.auth.middleware.AuthenticationMiddleware "
    "allauth.account.middleware.AccountMiddleware "
    "django.contrib.messages.middleware.MessageMiddleware "
    "django.middleware.clickjacking.XFrameOptionsMiddleware "
    "accounts.authentication.mfa.StaffFactorMiddleware "
    "accounts.http.responses.NotAllowedPageMiddleware "
    "accounts.rate_limits.errors.RateLimitedResponseMiddleware "
    "accounts.rate_limits.middleware.RateLimitMiddleware "
    "axes.middleware.AxesMiddleware"
).split()


@pytest.mark.parametrize("name", FIXED)
def test_a_protection_does_not_depend_on_the_environment(
    settings_for: Any, name: str
) -> None:
    production = {"ENVIRONMENT": "production", "WORKERS": 2, **HTTPS}
    assert settings_for()[name] == settings_for(**production)[name] == FIXED[name]


def test_every_middleware_is_there_in_its_order(settings_for: Any) -> None:
    assert settings_for()["MIDDLEWARE"] == PROTECTING_MIDDLEWARE


def test_passwords_are_validated_and_hashed(settings_for: Any) -> None:
    found = settings_for()
    names = [
        one["NAME"].rpartition(".")[2] for one in found["AUTH_PASSWORD_VALIDATORS"]
    ]
    assert names == [
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
        "RevokeOnPasswordChange",
    ]
    hashers = [name.rpartition(".")[2] for name in found["PASSWORD_HASHERS"]]
    assert hashers == [
        "TunedArgon2PasswordHasher",
        "PBKDF2PasswordHasher",
        "ClientSecretHasher",
    ]


def test_the_oauth_server_follows_the_best_practice(settings_for: Any) -> None:
    """RFC 9700; OAuth 2.1."""
    found = settings_for()["OAUTH2_PROVIDER"]
    assert found["PKCE_REQUIRED"] is found["REFRESH_TOKEN_REUSE_PROTECTION"] is True
    assert found["ALLOWED_REDIRECT_URI_SCHEMES"] == ["https"]
    practices = {name: on for name, on in found.items() if "BCP_RFC9700" in name}
    assert len(practices) == 6 and all(on is True for on in practices.values())
    assert found["CIMD_REGISTRATION_PERMISSION_CLASSES"] == (
        "accounts.oauth.clients.document_fetcher.HostPolicy",
    )


def test_the_api_renders_json_and_authenticates_itself(settings_for: Any) -> None:
    """Browsable pages and sessions would need CSRF protection."""
    found = settings_for()["REST_FRAMEWORK"]
    assert found["DEFAULT_AUTHENTICATION_CLASSES"] == []
    assert found["DEFAULT_RENDERER_CLASSES"] == [
        "rest_framework.renderers.JSONRenderer"
    ]


def test_sqlite_waits_for_locks_and_survives_a_crash(
    settings_for: Any, tmp_path: Path
) -> None:
    for url in ("", f"sqlite:///{tmp_path}/x.sqlite3"):
        database = settings_for(DATABASE_URL=url)["DATABASES"]["default"]
        options = database["OPTIONS"]
        assert options["timeout"] == 20 and options["transaction_mode"] == "IMMEDIATE"
        assert options["init_command"] == (
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
        )
        assert options["factory"] is PrivateConnection
        assert database["ENGINE"] == "config.sqlite"
        assert database["CONN_MAX_AGE"] is None
    assert str(database["NAME"]).endswith("x.sqlite3")
    name = settings_for()["DATABASES"]["default"]["NAME"]
    assert name == tmp_path / "portico.sqlite3"


def test_postgres_has_a_pool_and_notices_a_lost_network(
    settings_for: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATABASE_CONNECTIONS", raising=False)
    database = settings_for(DATABASE_URL="postgres://h/d")["DATABASES"]["default"]
    assert database["CONN_HEALTH_CHECKS"] is True and database["CONN_MAX_AGE"] == 0
    pool = {"min_size": 1, "max_size": 4, "timeout": 5, "reconnect_timeout": 2}
    assert database["DISABLE_SERVER_SIDE_CURSORS"] is False
    assert database["OPTIONS"] == {
        "pool": pool,
        "prepare_threshold": 5,
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 10_000,
    }


@pytest.mark.parametrize("most", [3, 20])
def test_a_process_has_a_bounded_number_of_connections(
    settings_for: Any, most: int
) -> None:
    """The reader of change numbers has one beside the pool."""
    found = settings_for(DATABASE_URL="postgres://h/d", DATABASE_CONNECTIONS=most)
    assert found["DATABASES"]["default"]["OPTIONS"]["pool"]["max_size"] == most - 1


def test_behind_a_pooler_nothing_outlives_its_transaction(settings_for: Any) -> None:
    found = settings_for(DATABASE_URL="postgres://h/d", DATABASE_POOLER=True)
    assert found["DATABASES"]["default"]["DISABLE_SERVER_SIDE_CURSORS"] is True
    assert found["DATABASES"]["default"]["OPTIONS"]["prepare_threshold"] is None


def test_options_of_the_url_win(settings_for: Any) -> None:
    url = "postgres://h/d?keepalives_idle=60"
    found = settings_for(DATABASE_URL=url)["DATABASES"]["default"]["OPTIONS"]
    assert found["keepalives_idle"] == 60 and found["keepalives_count"] == 3
    found = settings_for(DATABASE_URL="sqlite:////tmp/x?timeout=1")
    assert found["DATABASES"]["default"]["OPTIONS"]["timeout"] == 1


def test_a_statement_of_a_server_has_three_time_limits(settings_for: Any) -> None:
    assert settings_for()["SERVING_OPTIONS"].split(" -c ") == [
        "-c statement_timeout=8s",
        "lock_timeout=4s",
        "idle_in_transaction_session_timeout=30s",
    ]


def test_lines_per_request_are_not_logged(settings_for: Any) -> None:
    loggers = settings_for()["LOGGING"]["loggers"]
    assert loggers["uvicorn.access"] == {"handlers": [], "propagate": False}
    assert loggers["uvicorn"] == {"handlers": [], "propagate": True}
    assert loggers["django.request"] == loggers["axes"] == {"level": "ERROR"}
    assert loggers["django.security.LookupRefused"] == {"level": "CRITICAL"}
