"""Django's settings, made from the typed environment (config/environment.py)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from config import database_urls, environment
from config.environment import split_secrets
from config.sqlite.private_connection import PrivateConnection

env = environment.read()

BASE_DIR = environment.BASE_DIR
VERSION = environment.version()
ENVIRONMENT = env.ENVIRONMENT
DATA_DIR = env.DATA_DIR.resolve()
ENVIRONMENT_FILES = environment.files_with_secrets()
DEBUG = False
SECRET_KEY = env.secret("SECRET_KEY")
KEY_ENCRYPTION_KEY = env.secret("KEY_ENCRYPTION_KEY")
SECRET_KEY_FALLBACKS = split_secrets(env.SECRET_KEY_FALLBACKS)
KEY_ENCRYPTION_KEY_FALLBACKS = split_secrets(env.KEY_ENCRYPTION_KEY_FALLBACKS)
HOST, PORT, WORKERS = env.HOST, env.PORT, env.WORKERS
ISSUER_URL = env.issuer
RESOURCE_URL = f"{ISSUER_URL}/mcp"
ALLOWED_HOSTS = env.hosts
ALLOWED_ORIGINS = env.origins_allowed
TRUSTED_PROXIES = env.TRUSTED_PROXIES
UPSTREAM_PRIVATE_NETWORKS = env.UPSTREAM_PRIVATE_NETWORKS
UPSTREAM_DISCOVERY_INTERVAL = env.UPSTREAM_DISCOVERY_INTERVAL
ACCESS_TOKEN_LIFETIME = timedelta(seconds=env.ACCESS_TOKEN_LIFETIME)
REFRESH_TOKEN_LIFETIME = timedelta(seconds=env.REFRESH_TOKEN_LIFETIME)
TOKEN_MAX_IDLE = env.TOKEN_MAX_IDLE
REFRESH_TOKEN_GRACE = timedelta(seconds=env.REFRESH_TOKEN_GRACE)
CLOCK_LEEWAY = timedelta(seconds=env.CLOCK_LEEWAY)
SIGNING_ALGORITHM = env.SIGNING_ALGORITHM
EXTRA_APPS = env.EXTRA_APPS
MAX_BODY_SIZE = env.MAX_BODY_SIZE
MAX_FORM_SIZE, MAX_UPLOAD_SIZE = env.MAX_FORM_SIZE, env.MAX_UPLOAD_SIZE
BODY_TIMEOUT, HEAD_TIMEOUT = env.BODY_TIMEOUT, env.HEAD_TIMEOUT
SEND_TIMEOUT = env.SEND_TIMEOUT
MAX_HEAD_SIZE, MAX_HEADERS = env.MAX_HEAD_SIZE, env.MAX_HEADERS
DATA_UPLOAD_MAX_MEMORY_SIZE = MAX_FORM_SIZE
MCP_SESSIONS = env.sessions
SESSION_IDLE = env.SESSION_IDLE
MAX_SESSIONS_PER_USER, MAX_SESSIONS = env.MAX_SESSIONS_PER_USER, env.MAX_SESSIONS
MAX_STREAMS_PER_USER, MAX_STREAMS = env.MAX_STREAMS_PER_USER, env.MAX_STREAMS
MAX_STREAMS_PER_TOKEN = env.MAX_STREAMS_PER_TOKEN
MAX_CALLS_PER_USER, MAX_CALLS = env.MAX_CALLS_PER_USER, env.MAX_CALLS
MAX_BODIES_PER_USER = max(env.MAX_BODIES_PER_USER, env.MAX_BODY_SIZE)
MAX_BODIES = max(env.MAX_BODIES, MAX_BODIES_PER_USER)
AUDIT_LOG = env.AUDIT_LOG
DEFINITIONS_FROM_CODE = env.DEFINITIONS_FROM_CODE
AUDIT_DURABILITY = env.AUDIT_DURABILITY
ROLE_ENDING_NOTICE = timedelta(days=env.ROLE_ENDING_NOTICE)
AUDIT_RETENTION = timedelta(days=env.AUDIT_RETENTION)
INVITATION_LIFETIME = timedelta(days=env.INVITATION_LIFETIME)
METRICS_TOKEN = env.METRICS_TOKEN.get_secret_value()

INSTALLED_APPS = [
    # Before the admin, so that our templates override the admin's.
    "oauth2_provider",
    "accounts",
    "accounts.apps.PorticoAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "allauth.socialaccount",
    "allauth.socialaccount.providers.openid_connect",
    "allauth.usersessions",
    "django.contrib.humanize",
    "axes",
    "mcp_bridge",
    *EXTRA_APPS,
]
MIDDLEWARE = [
    "accounts.api.trailing_slash.TrailingSlashMiddleware",
    "accounts.http.issuer_urls.IssuerMiddleware",
    "accounts.audit.request_origin.RequestOriginMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "accounts.http.headers.permissions_policy.PermissionsPolicyMiddleware",
    "accounts.http.headers.caching.NoStoreMiddleware",
    "accounts.http.content_security_policy.ContentSecurityPolicyMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "accounts.http.language.PageLanguageMiddleware",
    "accounts.http.time_zone.ReaderTimeZoneMiddleware",
    "accounts.http.responses.RefusedBodyMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "accounts.authentication.mfa.StaffFactorMiddleware",
    "accounts.http.responses.NotAllowedPageMiddleware",
    "accounts.rate_limits.errors.RateLimitedResponseMiddleware",
    "accounts.rate_limits.middleware.RateLimitMiddleware",
    "axes.middleware.AxesMiddleware",
]
ROOT_URLCONF = "config.urls"
ASGI_APPLICATION = "config.asgi.application"
APPEND_SLASH = True
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]


KEEPALIVES = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}


def database(url: str) -> dict[str, Any]:
    """PostgreSQL with a pool, or SQLite with a 20-second lock timeout."""
    config: dict[str, Any]
    if url:
        config = database_urls.parse(url)
    else:
        name = DATA_DIR / "portico.sqlite3"
        config = {"ENGINE": "config.sqlite", "NAME": name}
    options = config.setdefault("OPTIONS", {})
    if "sqlite" in config["ENGINE"]:
        config["ENGINE"] = "config.sqlite"
        pragmas = "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
        options.setdefault("timeout", 20)
        options |= {"transaction_mode": "IMMEDIATE", "init_command": pragmas}
        options["factory"] = PrivateConnection
        config["CONN_MAX_AGE"] = None
        config["TEST"] = {"NAME": DATA_DIR / "test.sqlite3"}
    else:
        # A PostgreSQL restart leaves dead connections in the pool: check before use.
        config["CONN_HEALTH_CHECKS"] = True
        # Long reconnect attempts would delay requests after PostgreSQL is back.
        timeouts = {"timeout": 5, "reconnect_timeout": 2}
        # The reader of change numbers (mcp_bridge/cache/readers) has another one.
        size = env.DATABASE_CONNECTIONS - 1
        options.setdefault("pool", {"min_size": 1, "max_size": size, **timeouts})
        # A cursor of the server outlives the transaction that a pooler lends.
        config["DISABLE_SERVER_SIDE_CURSORS"] = env.DATABASE_POOLER
        # So do prepared statements (accounts/models/statements/execution.py).
        options.setdefault("prepare_threshold", None if env.DATABASE_POOLER else 5)
        # Detect a lost network within 10 seconds. The default is two hours.
        for option, value in KEEPALIVES.items():
            options.setdefault(option, value)
    return config


DATABASES = {"default": database(env.DATABASE_URL)}
DATABASE_POOLER = env.DATABASE_POOLER
DATABASE_FROM_URL = database
# For PostgreSQL, of processes that serve: config/server/workers.py sets them.
SERVING_OPTIONS = (
    "-c statement_timeout=8s -c lock_timeout=4s "
    "-c idle_in_transaction_session_timeout=30s"
)
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = ["accounts.authentication.lockout.PasswordBackend"]
LOCKOUT_AFTER = env.LOCKOUT_AFTER
AXES_FAILURE_LIMIT = LOCKOUT_AFTER
AXES_COOLOFF_TIME = timedelta(seconds=env.LOCKOUT_SECONDS)
AXES_HANDLER = "accounts.authentication.lockout.LockoutHandler"
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"], "username", "ip_address"]
AXES_LOCKOUT_CALLABLE = "accounts.authentication.lockout.lockout_response"
AXES_USERNAME_CALLABLE = "accounts.authentication.lockout.attempted_username"
AXES_CLIENT_IP_CALLABLE = "accounts.authentication.lockout.attempt_address"
AXES_RESET_ON_SUCCESS = True
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
# The audit records sign-ins. axes would also store the fields of the form
# (accounts/authentication/lockout.py).
AXES_DISABLE_ACCESS_LOG = True
AXES_ENABLE_ADMIN = AXES_VERBOSE = False
HASHING_AT_ONCE, HASHING_WAIT = env.HASHING_AT_ONCE, env.HASHING_WAIT
VALKEY_URL = env.VALKEY_URL
LIMIT_PASSWORD, LIMIT_MAIL = env.LIMIT_PASSWORD, env.LIMIT_MAIL
LIMIT_REGISTER, LIMIT_TOKEN = env.LIMIT_REGISTER, env.LIMIT_TOKEN
LIMIT_AUTHORIZE, LIMIT_INTROSPECT = env.LIMIT_AUTHORIZE, env.LIMIT_INTROSPECT
LIMIT_DEVICE = env.LIMIT_DEVICE
LIMIT_API = env.LIMIT_API
LIMIT_MCP, LIMIT_MCP_USER = env.LIMIT_MCP, env.LIMIT_MCP_USER
LIMIT_MCP_REFUSED = env.LIMIT_MCP_REFUSED
PASSWORD_HASHERS = [
    "accounts.authentication.passwords.hashers.TunedArgon2PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
    "accounts.authentication.passwords.hashers.ClientSecretHasher",
]
_validation = "django.contrib.auth.password_validation"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"{_validation}.UserAttributeSimilarityValidator"},
    {"NAME": f"{_validation}.MinimumLengthValidator"},
    {"NAME": f"{_validation}.CommonPasswordValidator"},
    {"NAME": f"{_validation}.NumericPasswordValidator"},
    {"NAME": "accounts.authentication.passwords.validation.RevokeOnPasswordChange"},
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "/portal/connect/"
LOGOUT_REDIRECT_URL = "/accounts/login/"
_resets = "accounts.authentication.passwords.reset_links.ResetTokenGenerator"
ACCOUNT_PASSWORD_RESET_TOKEN_GENERATOR = _resets
ACCOUNT_ADAPTER = "accounts.authentication.adapters.AccountAdapter"
ACCOUNT_LOGIN_METHODS = {"username"}
ACCOUNT_SIGNUP_FIELDS = ["username*", "password1*", "password2*"]
ACCOUNT_FORMS = {
    "change_password": "accounts.authentication.views.OldPasswordForm",
    "reset_password": "accounts.authentication.adapters.ResetForm",
}
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_SESSION_REMEMBER = False
ACCOUNT_EMAIL_UNKNOWN_ACCOUNTS = False
ACCOUNT_REAUTHENTICATION_REQUIRED = True
SOCIALACCOUNT_ADAPTER = "accounts.authentication.oidc.adapter.SocialAccountAdapter"
MFA_ADAPTER = "accounts.authentication.mfa.MFAAdapter"
MFA_SUPPORTED_TYPES = ["totp", "webauthn", "recovery_codes"]
MFA_FORMS = {
    "authenticate": "accounts.authentication.mfa.CodeForm",
    "reauthenticate": "accounts.authentication.mfa.ReauthenticationCodeForm",
    "add_webauthn": "accounts.authentication.passkey_forms.AddForm",
    "authenticate_webauthn": "accounts.authentication.passkey_forms.SecondStepForm",
    "login_webauthn": "accounts.authentication.passkey_forms.SignInForm",
    "reauthenticate_webauthn": "accounts.authentication.passkey_forms.ReauthenticateForm",  # noqa: E501
}
MFA_PASSKEY_LOGIN_ENABLED = MFA_ALLOW_UNVERIFIED_EMAIL = True
MFA_TOTP_ISSUER = "Portico"
MFA_RATE_LIMITS = False
# WebAuthn allows http only on localhost; accounts/authentication/passkey_forms.py
# compares origins.
MFA_WEBAUTHN_ALLOW_INSECURE_ORIGIN = not ISSUER_URL.startswith("https://")
STAFF_SECOND_FACTOR = env.staff_second_factor
EMAIL_BACKEND, EMAIL_HOST, EMAIL_PORT = (
    env.email_backend,
    env.EMAIL_HOST,
    env.EMAIL_PORT,
)
EMAIL_HOST_USER = env.EMAIL_USER
EMAIL_HOST_PASSWORD = env.EMAIL_PASSWORD.get_secret_value()
EMAIL_USE_TLS, EMAIL_USE_SSL = env.EMAIL_TLS == "starttls", env.EMAIL_TLS == "tls"
EMAIL_TIMEOUT = 10
DEFAULT_FROM_EMAIL = env.EMAIL_FROM
ACCOUNT_EMAIL_SUBJECT_PREFIX = "[Portico] "
ACCOUNT_EMAIL_NOTIFICATIONS = bool(EMAIL_HOST)
# The lock-out and accounts/rate_limits/middleware.py count already. A second system
# would contradict them.
ACCOUNT_RATE_LIMITS = False

SIMPLE_JWT = {
    "ACCESS_TOKEN_LIFETIME": ACCESS_TOKEN_LIFETIME,
    "REFRESH_TOKEN_LIFETIME": REFRESH_TOKEN_LIFETIME,
    "USER_ID_CLAIM": "sub",
}
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [],
    "DEFAULT_PERMISSION_CLASSES": [],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": [
        "rest_framework.parsers.JSONParser",
        "rest_framework.parsers.FormParser",
    ],
    "UNAUTHENTICATED_USER": None,
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Portico",
    "DESCRIPTION": "Tokens, the OAuth 2.1 authorization server, and /mcp.",
    "VERSION": VERSION,
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": [],
    "SERVE_AUTHENTICATION": [],
    "POSTPROCESSING_HOOKS": ["config.views.openapi.complete"],
}

OAUTH2_PROVIDER_APPLICATION_MODEL = "accounts.OAuthClient"
OAUTH2_PROVIDER_GRANT_MODEL = "accounts.OAuthGrant"
OAUTH2_PROVIDER_ACCESS_TOKEN_MODEL = "accounts.OAuthAccessToken"  # noqa: S105
OAUTH2_PROVIDER_REFRESH_TOKEN_MODEL = "accounts.OAuthRefreshToken"  # noqa: S105
OAUTH2_PROVIDER_ID_TOKEN_MODEL = "accounts.OAuthIDToken"  # noqa: S105
OAUTH2_PROVIDER_DEVICE_GRANT_MODEL = "accounts.OAuthDeviceGrant"
# All its models are replaced, so its migrations would only take two thirds of the time.
MIGRATION_MODULES = {"oauth2_provider": None}
OAUTH2_PROVIDER = {
    "OAUTH2_VALIDATOR_CLASS": "accounts.oauth.toolkit.validator.PorticoValidator",
    "SCOPES_BACKEND_CLASS": "accounts.oauth.toolkit.scopes.DatabaseScopes",
    "SCOPES": {"mcp": "Use the tools that your roles allow."},
    "ACCESS_TOKEN_GENERATOR": "accounts.oauth.toolkit.generators.new_access_token",
    "REFRESH_TOKEN_GENERATOR": "accounts.oauth.toolkit.generators.new_refresh_token",
    "ACCESS_TOKEN_EXPIRE_SECONDS": env.ACCESS_TOKEN_LIFETIME,
    "AUTHORIZATION_CODE_EXPIRE_SECONDS": 60,
    "CLIENT_SECRET_HASHER": "accounts_client_secret",
    "ALLOW_LOCALHOST_LOOPBACK": True,
    # Each client registers loopback http and private schemes itself.
    "ALLOWED_REDIRECT_URI_SCHEMES": ["https"],
    "REFRESH_TOKEN_REUSE_PROTECTION": True,
    "PKCE_REQUIRED": True,
    "CIMD_ENABLED": env.CLIENT_METADATA_DOCUMENTS,
    "CIMD_METADATA_FETCHER": "accounts.oauth.clients.document_fetcher.DocumentFetcher",
    "CIMD_REGISTRATION_PERMISSION_CLASSES": (
        "accounts.oauth.clients.document_fetcher.HostPolicy",
    ),
    "COMPLIANT_BCP_RFC9700_IMPLICIT_GRANT": True,
    "COMPLIANT_BCP_RFC9700_PASSWORD_GRANT": True,
    "COMPLIANT_BCP_RFC9700_PKCE_METHOD": True,
    "COMPLIANT_BCP_RFC9700_ACCESS_TOKEN_TRANSPORT": True,
    "COMPLIANT_BCP_RFC9700_AUTHZ_RESPONSE_ISS": True,
    "COMPLIANT_BCP_RFC9700_TOKEN_STORAGE": True,
}
CLIENT_REGISTRATION = env.CLIENT_REGISTRATION
FETCH_CLIENT_DOCUMENTS = env.FETCH_CLIENT_DOCUMENTS
REDIRECT_SCHEMES = env.REDIRECT_SCHEMES
REGISTRATION_TOKEN = env.REGISTRATION_TOKEN.get_secret_value()
UNUSED_CLIENTS_AFTER = timedelta(days=env.UNUSED_CLIENTS_AFTER)

# Pages choose a language (accounts/http/language.py). Commands, logs and responses to
# programs are always English.
LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("ko", "한국어")]
PAGE_LANGUAGE = env.PAGE_LANGUAGE
FORMAT_MODULE_PATH = ["config.formats"]
LANGUAGE_COOKIE_NAME = "portico_language"
LANGUAGE_COOKIE_AGE = 365 * 24 * 3600
LANGUAGE_COOKIE_HTTPONLY, LANGUAGE_COOKIE_SAMESITE = True, "Lax"
TIME_ZONE = env.TIME_ZONE
USE_TZ = True
STATIC_URL = "/static/"
STATIC_ROOT = DATA_DIR / "static"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"
    },
}

HTTPS = ISSUER_URL.startswith("https://")
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = LANGUAGE_COOKIE_SECURE = HTTPS
if HTTPS:
    # Browsers accept such cookies only with https, for this host and all paths.
    SESSION_COOKIE_NAME, CSRF_COOKIE_NAME = "__Host-session", "__Host-csrf"
SESSION_ENGINE = "accounts.http.session_store"
# A proxy may drop the port of the Host header, but the browser's Origin has it.
CSRF_TRUSTED_ORIGINS = [ISSUER_URL]
CSRF_FAILURE_VIEW = "config.views.errors.csrf_failure"
SESSION_COOKIE_HTTPONLY = CSRF_COOKIE_HTTPONLY = True
SECURE_SSL_REDIRECT = HTTPS
SECURE_SSL_HOST = urlsplit(ISSUER_URL).netloc
# Do not read a header: accounts/http/client_address.py has set the scheme already.
SECURE_PROXY_SSL_HEADER = None
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = HTTPS
SECURE_REDIRECT_EXEMPT = [r"^(?:healthz|readyz)$"]
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
# Without JavaScript, the access matrix sends one field per tick.
DATA_UPLOAD_MAX_NUMBER_FIELDS = 5000
SECURE_CSP = {
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
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "portico": {"()": "config.server.logs.formatter", "layout": env.LOG_FORMAT},
        "audit": {"()": "config.server.logs.AuditFormatter"},
    },
    "handlers": {
        "stderr": {"class": "logging.StreamHandler", "formatter": "portico"},
        "audit": {"class": "logging.StreamHandler", "formatter": "audit"},
    },
    "root": {"handlers": ["stderr"], "level": env.LOG_LEVEL},
    "loggers": {
        "mcp": {"level": "WARNING"},
        # AUDIT_LOG decides, not LOG_LEVEL.
        "portico.audit": {"handlers": ["audit"], "level": "INFO", "propagate": False},
        "django.request": {"level": "ERROR"},
        "axes": {"level": "ERROR"},
        # accounts/admin_site/declared_lookups.py logs one line without traceback.
        "django.security.LookupRefused": {"level": "CRITICAL"},
        # Format the server's own lines like all others.
        "uvicorn": {"handlers": [], "propagate": True},
        # Configuring a logger resets its children, --no-access-log included. A line per
        # request costs a quarter of the request, and the audit has it already.
        "uvicorn.access": {"handlers": [], "propagate": False},
    },
}
