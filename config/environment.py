"""Environment: every setting, typed; all errors are reported together."""

from __future__ import annotations

import os
import re
import secrets
import sys
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from config import database_urls

BASE_DIR = Path(__file__).resolve().parent.parent
Names = Annotated[list[str], NoDecode]
"""A comma-separated list."""

Limit = Annotated[
    str, Field(pattern=r"^(off|[1-9][0-9]{0,8}/(second|minute|hour|day))$")
]
"""A rate such as `120/minute`, or `off`."""
LIMIT_FORM = "Written as `60/minute` (second, hour, day) or `off`, like those below."
PROTOCOL = "Needs `uvicorn --http config.server.timeouts:TimeoutProtocol`."

STORES = ("redis", "rediss", "valkey", "valkeys", "redis+unix", "valkey+unix")
LOOPBACK = ["localhost", "127.0.0.1", "[::1]"]
SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,99}", re.ASCII)
"""RFC 3986 3.1; pages show at most 100 characters."""
BROWSER_SCHEMES = frozenset(
    "about blob chrome data devtools edge file filesystem ftp http https intent "
    "javascript mailto sms tel vbscript view-source ws wss".split()
)
"""Schemes that browsers serve themselves, or that belong to no single program."""


def importable_module(module: str) -> bool:
    """Whether it can be imported; imports its parents only."""
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


class Environment(BaseSettings):
    """Environment variables (or lines of `.env`, or files in /run/secrets)."""

    model_config = SettingsConfigDict(
        env_file=BASE_DIR / ".env",
        extra="ignore",
        env_ignore_empty=True,
        hide_input_in_errors=True,
        secrets_dir="/run/secrets" if Path("/run/secrets").is_dir() else None,
    )

    ENVIRONMENT: Literal["development", "production"] = Field(
        "development",
        description="`production` requires secrets and refuses unsafe settings.",
    )
    DATA_DIR: Path = Field(
        BASE_DIR / "var",
        description="Folder of the SQLite database, secrets and static files "
        "(default `var/`).",
    )
    DATABASE_URL: str = Field(
        "",
        description="`postgres://user:password@host/name`, or several hosts as "
        "`host1:5432,host2:5432`. Empty: SQLite in DATA_DIR.",
    )
    DATABASE_CONNECTIONS: int = Field(
        5,
        ge=3,
        le=100,
        description="Connections to PostgreSQL that one process opens at most. One "
        "reads the change number, and one writes the audit.",
    )
    DATABASE_POOLER: bool = Field(
        False,
        description="Whether DATABASE_URL leads to a pooler that lends a connection "
        "for one transaction, such as PgBouncer (`docs/production.md`).",
    )
    SECRET_KEY: SecretStr = Field(
        SecretStr(""),
        description="Signs sessions. Created in DATA_DIR in development; required in "
        "production, 50 characters or more.",
    )
    KEY_ENCRYPTION_KEY: SecretStr = Field(
        SecretStr(""),
        description="Encrypts the signing keys at rest. Created in DATA_DIR in "
        "development; required in production, 32 characters or more.",
    )
    SECRET_KEY_FALLBACKS: SecretStr = Field(
        SecretStr(""),
        description="Earlier values of SECRET_KEY that are still accepted, separated "
        "by commas.",
    )
    KEY_ENCRYPTION_KEY_FALLBACKS: SecretStr = Field(
        SecretStr(""),
        description="Earlier values of KEY_ENCRYPTION_KEY that can still decrypt, "
        "separated by commas. `manage.py rotate_secrets` makes them unnecessary.",
    )
    HOST: str = Field("127.0.0.1", description="Address on which `make serve` listens.")
    PORT: int = Field(
        8000, ge=1, le=65535, description="Port on which `make serve` listens."
    )
    WORKERS: int = Field(1, ge=1, le=64, description="Number of server processes.")
    ISSUER_URL: str = Field(
        "",
        description="The public origin, such as `https://portico.example.com`, "
        "without path or trailing slash. Default: `http://127.0.0.1:PORT`.",
    )
    ALLOWED_HOSTS: Names = Field(
        [],
        description="Further host names that requests may use. The issuer's host "
        "is always allowed; in development, so are loopback names.",
    )
    ALLOWED_ORIGINS: Names = Field(
        [],
        description="Web origins whose pages may call /mcp, such as "
        "`https://app.example.com` or `http://localhost:*`. Default: loopback "
        "origins in development, none in production.",
    )
    TRUSTED_PROXIES: Names = Field(
        [],
        description="Addresses or networks (CIDR) of the proxies in front; `unix` "
        "for a Unix socket. Portico uses X-Forwarded-For and X-Forwarded-Proto "
        "only from these. No client may have an address in these networks. Run "
        "uvicorn with `--no-proxy-headers`.",
    )
    UPSTREAM_PRIVATE_NETWORKS: Names = Field(
        [],
        description="Private addresses or networks (CIDR) where upstream MCP servers "
        "and webhooks may be. Public addresses need no entry; loopback needs none "
        "while ISSUER_URL is there.",
    )
    UPSTREAM_DISCOVERY_INTERVAL: int = Field(
        300,
        ge=0,
        le=86400,
        description="Seconds after which Portico looks again at what an upstream MCP "
        "server offers; 0: only on demand.",
    )
    ACCESS_TOKEN_LIFETIME: int = Field(
        1800, ge=1, le=86400, description="Lifetime of an access token, in seconds."
    )
    REFRESH_TOKEN_LIFETIME: int = Field(
        14 * 86400,
        ge=60,
        le=365 * 86400,
        description="Lifetime of a refresh token, in seconds.",
    )
    TOKEN_MAX_IDLE: int = Field(
        0,
        ge=0,
        description="Seconds after which an unused token expires, 300 or more; 0: "
        "never. A client can have a shorter limit.",
    )
    REFRESH_TOKEN_GRACE: int = Field(
        30,
        ge=0,
        le=300,
        description="Seconds in which a repeated use of a refresh token returns "
        "the same successor. A later use revokes its whole family.",
    )
    CLOCK_LEEWAY: int = Field(
        30,
        ge=0,
        le=300,
        description="Seconds by which clocks of other hosts may differ: for `iat` and "
        "`nbf` of all tokens, and `exp` of client assertions and ID tokens. Portico's "
        "own tokens expire on time.",
    )
    LOCKOUT_AFTER: int = Field(
        5,
        ge=1,
        description="Wrong passwords after which an account is locked for one "
        "address. Ten times as many lock the account for all addresses, or the "
        "address for all accounts.",
    )
    LOCKOUT_SECONDS: int = Field(
        900, ge=1, le=86400, description="Duration of a lock-out, in seconds."
    )
    STAFF_SECOND_FACTOR: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Whether staff need a second factor (app or passkey). `auto`: "
        "only in production.",
    )
    EMAIL_HOST: str = Field(
        "",
        description="Mail server for password resets and notices. Empty: mails are "
        "printed in development and not sent in production.",
    )
    EMAIL_PORT: int = Field(587, ge=1, le=65535, description="Port of the mail server.")
    EMAIL_USER: str = Field(
        "", description="User name at the mail server, if it needs one."
    )
    EMAIL_PASSWORD: SecretStr = Field(
        SecretStr(""), description="Password at the mail server."
    )
    EMAIL_TLS: Literal["starttls", "tls", "none"] = Field(
        "starttls", description="How the connection to the mail server is encrypted."
    )
    EMAIL_FROM: str = Field("portico@localhost", description="Sender address of mails.")
    HASHING_AT_ONCE: int = Field(
        1,
        ge=1,
        le=64,
        description="Passwords that one process hashes at the same time.",
    )
    HASHING_WAIT: float = Field(
        2.0,
        ge=0,
        le=60,
        description="Seconds that a sign-in waits to hash its password; then 429.",
    )
    VALKEY_URL: str = Field(
        "",
        description="`redis://` or `valkey://` URL of the store in which all "
        "workers count rate limits. Empty: each process counts alone.",
    )
    LIMIT_PASSWORD: Limit = Field(
        "60/minute", description="Sign-in attempts from one address. " + LIMIT_FORM
    )
    LIMIT_MAIL: Limit = Field(
        "10/hour", description="Password mails requested from one address."
    )
    LIMIT_REGISTER: Limit = Field(
        "120/hour", description="Clients that register themselves from one address."
    )
    LIMIT_TOKEN: Limit = Field(
        "240/minute",
        description="Token requests of one client from one address. All clients at "
        "an address together may make ten times as many, here and below.",
    )
    LIMIT_AUTHORIZE: Limit = Field(
        "120/minute",
        description="Authorization requests of one person from one address.",
    )
    LIMIT_INTROSPECT: Limit = Field(
        "3000/minute",
        description="Introspection requests of one client from one address.",
    )
    LIMIT_DEVICE: Limit = Field(
        "60/minute",
        description="Device codes requested, entered, and allowed or denied.",
    )
    LIMIT_API: Limit = Field(
        "600/minute",
        description="Requests to the administration API with one token.",
    )
    LIMIT_MCP: Limit = Field(
        "12000/minute", description="Messages at /mcp with one token."
    )
    LIMIT_MCP_USER: Limit = Field(
        "24000/minute", description="Messages at /mcp of one person, with all tokens."
    )
    LIMIT_MCP_REFUSED: Limit = Field(
        "300/minute",
        description="Messages at /mcp with the same invalid token; one address may "
        "send ten times as many. This limit never delays valid tokens.",
    )
    SIGNING_ALGORITHM: Literal["ES256", "RS256", "EdDSA"] = Field(
        "ES256", description="Algorithm of new signing keys."
    )
    PYTHONPATH: str = Field(
        "",
        description="Folders of the apps in EXTRA_APPS, separated by `:`. Relative "
        "ones start at this folder.",
    )
    EXTRA_APPS: Names = Field(
        [],
        description="Django apps with an `mcp_tools.py`, importable from "
        "PYTHONPATH or this folder.",
    )
    CLIENT_REGISTRATION: Literal["open", "token", "off"] = Field(
        "open",
        description="Who may register clients (RFC 7591): `open` (anyone), `token` "
        "(holders of REGISTRATION_TOKEN) or `off`.",
    )
    REGISTRATION_TOKEN: SecretStr = Field(
        SecretStr(""),
        description="The initial access token for `CLIENT_REGISTRATION=token`, 20 "
        "characters or more.",
    )
    UNUSED_CLIENTS_AFTER: int = Field(
        30,
        ge=1,
        description="Days after which `manage.py purge` deletes clients that "
        "registered themselves and have no active token.",
    )
    REDIRECT_SCHEMES: Names = Field(
        "cursor kiro vscode vscode-insiders vscodium warp windsurf zed".split(),
        description="Private-use schemes without a dot that redirect URIs may have, "
        "such as `zed` (RFC 8252 7.1). Any program on a computer can register for "
        "such a scheme. Schemes with a dot are always allowed.",
    )
    CLIENT_METADATA_DOCUMENTS: bool = Field(
        True,
        description="Whether a client may use an https URL as its id (CIMD). "
        "Portico fetches the document at that URL from public addresses only.",
    )
    FETCH_CLIENT_DOCUMENTS: bool = Field(
        True,
        description="Whether Portico fetches the documents of such clients. If not, it "
        "uses only the copies in the admin, for servers without internet access.",
    )
    MAX_BODY_SIZE: int = Field(
        4 * 1024 * 1024, ge=1024, description="Largest request body at /mcp, in bytes."
    )
    MAX_FORM_SIZE: int = Field(
        1024 * 1024,
        ge=16 * 1024,
        description="Largest request body at all other paths, in bytes.",
    )
    MAX_UPLOAD_SIZE: int = Field(
        20 * 1024 * 1024,
        ge=16 * 1024,
        description="Largest file that a superuser may upload to import users or the "
        "access policy, in bytes. The proxies in front must allow 64 KiB more.",
    )
    BODY_TIMEOUT: float = Field(
        30.0,
        gt=0,
        le=3600,
        description="Seconds in which a request body must arrive; then 408.",
    )
    HEAD_TIMEOUT: float = Field(
        20.0,
        gt=0,
        le=3600,
        description="Seconds in which the head of a request must arrive; then the "
        "connection is closed. " + PROTOCOL,
    )
    MAX_HEAD_SIZE: int = Field(
        64 * 1024,
        ge=8 * 1024,
        description="Largest head of a request in bytes: request line and headers. "
        "A larger one gets 431. " + PROTOCOL,
    )
    MAX_HEADERS: int = Field(
        200,
        ge=50,
        description="Header lines a request may have. More get 431. " + PROTOCOL,
    )
    SEND_TIMEOUT: float = Field(
        60.0,
        gt=0,
        le=3600,
        description="Seconds in which a client must read data that is ready for it; "
        "then the connection is reset. " + PROTOCOL,
    )
    DEFINITIONS_FROM_CODE: Literal["apply", "hold"] = Field(
        "apply",
        description="New and changed tools, resources and prompts of your apps. "
        "`apply`: usable at once, and marked for review. `hold`: refused until an "
        "administrator accepts the definition.",
    )
    MCP_SESSIONS: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Sessions of the 2025 protocols, which any worker serves. `auto` "
        "is `on`. Without them a tool cannot ask its caller a question.",
    )
    SESSION_IDLE: float = Field(
        900.0,
        gt=0,
        le=86400,
        description="Seconds for which an unused session stays open at least; it ends "
        "at most a quarter later. Its client can open another one.",
    )
    MAX_SESSIONS_PER_USER: int = Field(
        100,
        ge=1,
        description="Sessions that one person may have. One more ends the session "
        "that was unused for longest.",
    )
    MAX_SESSIONS: int = Field(
        20_000,
        ge=1,
        description="Sessions of all people. One more ends a session of the person "
        "with the most sessions.",
    )
    MAX_STREAMS_PER_USER: int = Field(
        100,
        ge=1,
        description="Open subscription streams of one person in a process; then 429.",
    )
    MAX_STREAMS_PER_TOKEN: int = Field(
        50, ge=1, description="Such streams with one token; then 429."
    )
    MAX_STREAMS: int = Field(
        2000,
        ge=1,
        description="Open subscription streams of all people in a process; then 503.",
    )
    MAX_CALLS_PER_USER: int = Field(
        200,
        ge=1,
        description="Messages of one person that a process handles, or whose body "
        "it awaits, at the same time; then 429.",
    )
    MAX_CALLS: int = Field(
        2000, ge=1, description="Such messages of all people in a process; then 503."
    )
    MAX_BODIES_PER_USER: int = Field(
        32 * 1024 * 1024,
        ge=1024,
        description="Bytes of one person's larger bodies that a process holds in "
        "memory, at least MAX_BODY_SIZE; then 429.",
    )
    MAX_BODIES: int = Field(
        512 * 1024 * 1024,
        ge=1024,
        description="Such bytes of all people in a process; then 503.",
    )
    INVITATION_LIFETIME: int = Field(
        7, ge=1, le=90, description="Days for which the link of an invitation works."
    )
    ROLE_ENDING_NOTICE: int = Field(
        7,
        ge=0,
        le=60,
        description="Days before the end of a role when notification channels learn "
        "of it; 0: never. Roles given for a shorter time are left out.",
    )
    AUDIT_RETENTION: int = Field(
        365, ge=1, description="Days for which `manage.py purge` keeps audit events."
    )
    AUDIT_DURABILITY: Literal["durable", "batch", "off"] = Field(
        "durable",
        description="When /mcp sends a response. `durable`: after its audit event "
        "is committed, so every response has its event. `batch`: after the event "
        "is queued; a crash can lose 50 ms of events. `off`: without an event.",
    )
    AUDIT_LOG: bool = Field(
        False,
        description="Whether each committed audit event is also a line of the log: one "
        "JSON object of the logger `portico.audit`.",
    )
    LOG_LEVEL: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Lowest level that is logged."
    )
    LOG_FORMAT: Literal["line", "json"] = Field(
        "line", description="Format of log lines: `line` (text) or `json`."
    )
    METRICS_TOKEN: SecretStr = Field(
        SecretStr(""),
        description="Enables `/metrics` (Prometheus) for requests with this Bearer "
        "token, 20 characters or more.",
    )
    TIME_ZONE: str = Field("UTC", description="Time zone of the admin's pages.")
    PAGE_LANGUAGE: Literal["en", "ko"] = Field(
        "en",
        description="Language of the pages if neither the person nor the browser "
        "requests one.",
    )

    @field_validator(
        "ALLOWED_HOSTS",
        "ALLOWED_ORIGINS",
        "EXTRA_APPS",
        "REDIRECT_SCHEMES",
        "TRUSTED_PROXIES",
        "UPSTREAM_PRIVATE_NETWORKS",
        mode="before",
    )
    @classmethod
    def split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return [part.strip() for part in value.split(",") if part.strip()]
        return value

    @field_validator("ISSUER_URL")
    @classmethod
    def bare_origin(cls, value: str) -> str:
        """Refuse paths: issuers are compared as strings (RFC 8414 3.3)."""
        parts = urlsplit(value)
        if value and (parts.scheme not in ("http", "https") or not parts.netloc):
            raise ValueError("write scheme://host[:port], such as https://h.example")
        if value and (parts.path or parts.query or parts.fragment):
            raise ValueError("leave away the path and the trailing slash")
        return value.lower()

    @field_validator("ALLOWED_ORIGINS")
    @classmethod
    def origins(cls, value: list[str]) -> list[str]:
        """Require scheme://host[:port|:*]."""
        for origin in value:
            scheme, mark, host = origin.partition("://")
            if not mark or not scheme or not host or "/" in host:
                raise ValueError(
                    f"write {origin!r} as scheme://host or scheme://host:*"
                )
        return value

    @field_validator("VALKEY_URL")
    @classmethod
    def store(cls, value: str) -> str:
        if value and urlsplit(value).scheme not in STORES:
            raise ValueError(f"write it as one of {', '.join(STORES)} and ://host:port")
        return value

    @field_validator("DATABASE_URL")
    @classmethod
    def known_database(cls, value: str) -> str:
        if value:
            database_urls.parse(value)
        return value

    @field_validator("PYTHONPATH")
    @classmethod
    def importable_from(cls, value: str) -> str:
        """Let Python search these folders too; it reads the variable, but no `.env`."""
        for folder in filter(None, value.split(os.pathsep)):
            path = str(BASE_DIR / Path(folder).expanduser())
            if path not in sys.path:
                sys.path.append(path)
        return value

    @field_validator("EXTRA_APPS")
    @classmethod
    def importable(cls, value: list[str]) -> list[str]:
        """Require a module on the path, or the AppConfig in one."""
        for name in value:
            parent = name.rpartition(".")[0]
            if not importable_module(name) and not (
                parent and importable_module(parent)
            ):
                raise ValueError(f"no module {name}; put its folder on PYTHONPATH")
        return value

    @field_validator("REDIRECT_SCHEMES")
    @classmethod
    def private_schemes(cls, value: list[str]) -> list[str]:
        """Refuse schemes that a browser opens itself, and text that is no scheme."""
        schemes = [name.lower().removesuffix("://").removesuffix(":") for name in value]
        for scheme in schemes:
            if not SCHEME.fullmatch(scheme) or scheme in BROWSER_SCHEMES:
                raise ValueError(
                    f"{scheme!r} is not a private-use scheme; write names such as zed"
                )
        return schemes

    @field_validator("TRUSTED_PROXIES")
    @classmethod
    def networks(cls, value: list[str]) -> list[str]:
        """Require an address, a network or the word `unix`."""
        for network in value:
            try:
                _ = network == "unix" or ip_network(network, strict=False)
            except ValueError as error:
                raise ValueError(
                    f"write {network!r} as the address or the network of your proxies, "
                    "such as 10.0.0.5 or 10.0.0.4/30"
                ) from error
        return value

    @field_validator("UPSTREAM_PRIVATE_NETWORKS")
    @classmethod
    def private_networks(cls, value: list[str]) -> list[str]:
        """Require an address or a network."""
        for network in value:
            try:
                ip_network(network, strict=False)
            except ValueError as error:
                raise ValueError(
                    f"write {network!r} as an address or a network, such as 10.0.0.0/8"
                ) from error
        return value

    @field_validator("TOKEN_MAX_IDLE")
    @classmethod
    def noticeable(cls, value: int) -> int:
        """Refuse limits that the one-minute precision of "last used" cannot serve."""
        if 0 < value < 300:
            raise ValueError("write 0, or 300 and more: use is stored once a minute")
        return value

    @property
    def production(self) -> bool:
        return self.ENVIRONMENT == "production"

    @property
    def issuer(self) -> str:
        """The issuer, without trailing slash."""
        return self.ISSUER_URL or f"http://127.0.0.1:{self.PORT}"

    @property
    def hosts(self) -> list[str]:
        """Host names that requests may use, the issuer's first."""
        own = urlsplit(self.issuer).hostname or "127.0.0.1"
        own = f"[{own}]" if ":" in own else own
        near = [] if self.production else LOOPBACK
        return list(dict.fromkeys([own, *self.ALLOWED_HOSTS, *near]))

    @property
    def origins_allowed(self) -> list[str]:
        """Web origins allowed at /mcp, in addition to the issuer's."""
        if self.ALLOWED_ORIGINS or self.production:
            return self.ALLOWED_ORIGINS
        return [f"http://{host}:*" for host in LOOPBACK]

    @property
    def sessions(self) -> bool:
        """Whether clients of the 2025 protocols get sessions."""
        return self.MCP_SESSIONS != "off"

    @property
    def staff_second_factor(self) -> bool:
        """Whether staff must have a second factor."""
        auto = self.STAFF_SECOND_FACTOR == "auto" and self.production
        return auto or self.STAFF_SECOND_FACTOR == "on"

    @property
    def email_backend(self) -> str:
        if self.EMAIL_HOST:
            return "django.core.mail.backends.smtp.EmailBackend"
        kind = "dummy" if self.production else "console"
        return f"django.core.mail.backends.{kind}.EmailBackend"

    def secret(self, name: Literal["SECRET_KEY", "KEY_ENCRYPTION_KEY"]) -> str:
        """A secret from the environment, or from its file in DATA_DIR."""
        secret: str = getattr(self, name).get_secret_value()
        try:
            return secret or kept_secret(self.DATA_DIR / name.lower())
        except OSError as error:
            return str(
                refuse(
                    [f"DATA_DIR: {error}; set it to a folder that you may write to."]
                )
            )

    def problems(self) -> list[str]:
        """What is unsafe or missing, each with its fix."""
        problems = list(self.short_tokens())
        return problems + self.production_problems() if self.production else problems

    def short_tokens(self) -> Iterator[str]:
        """Yield a problem for each bearer token that is short enough to guess."""
        used = {
            "REGISTRATION_TOKEN": self.CLIENT_REGISTRATION == "token",
            "METRICS_TOKEN": bool(self.METRICS_TOKEN.get_secret_value()),
        }
        for name, needed in used.items():
            if needed and len(getattr(self, name).get_secret_value()) < 20:
                yield f"{name}: set it to 20 characters or more."

    def production_problems(self) -> list[str]:
        """What production requires and does not have."""
        problems = [
            f"{name}: set it to {length} random characters or more."
            for name, length in (("SECRET_KEY", 50), ("KEY_ENCRYPTION_KEY", 32))
            if guessable(getattr(self, name).get_secret_value(), length)
        ]
        secret = self.SECRET_KEY.get_secret_value()
        if secret and secret == self.KEY_ENCRYPTION_KEY.get_secret_value():
            problems.append("KEY_ENCRYPTION_KEY: use a value other than SECRET_KEY.")
        if not self.issuer.startswith("https://"):
            problems.append("ISSUER_URL: set it to the public https:// origin.")
        if self.WORKERS > 1 and self.DATABASE_URL.partition(":")[0] in ("", "sqlite"):
            problems.append(
                "DATABASE_URL: several WORKERS need PostgreSQL, not SQLite."
            )
        if self.WORKERS > 1 and not self.VALKEY_URL:
            problems.append(
                "VALKEY_URL: several WORKERS need one store for their rate limits."
            )
        return problems


def split_secrets(value: SecretStr) -> list[str]:
    """The parts of a secret that are separated by commas or white space."""
    return value.get_secret_value().replace(",", " ").split()


def guessable(secret: str, length: int) -> bool:
    """Whether a secret is short, repetitive, or from Django's project template."""
    weak = len(set(secret)) < 8 or secret.startswith("django-insecure-")
    return len(secret) < length or weak


def files_with_secrets() -> list[Path]:
    """`.env`, if it contains a secret or a URL with a password."""
    path = Path(str(Environment.model_config.get("env_file")))
    lines = dotenv_values(path) if path.is_file() else {}
    return [path] if any(is_secret(*line) for line in lines.items()) else []


def is_secret(name: str, value: str | None) -> bool:
    """Whether this setting is confidential: a secret, or a URL with a password."""
    field = Environment.model_fields.get(name.upper())
    if field is None or not value:
        return False
    try:
        return field.annotation is SecretStr or bool(urlsplit(value).password)
    except ValueError:
        return True


def kept_secret(path: Path) -> str:
    """The secret in `path`; one process creates it first, with mode 0600."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with open(path, "x", opener=private) as file:
            file.write(secrets.token_urlsafe(64))
    except FileExistsError:
        pass
    return _read_when_written(path)


def private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _read_when_written(path: Path) -> str:
    import time

    for _ in range(100):
        text = path.read_text().strip()
        if text:
            return text
        time.sleep(0.01)
    raise OSError(f"{path} is empty: delete it and start again.")


def version() -> str:
    """The version in pyproject.toml: the project is not installed as a package."""
    text = (BASE_DIR / "pyproject.toml").read_text(encoding="utf-8")
    return str(tomllib.loads(text)["project"]["version"])


def read() -> Environment:
    """The environment; else print every error and exit with code 1."""
    try:
        environment = Environment()
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        refuse(lines)
    if environment.problems():
        refuse(environment.problems())
    return environment


def refuse(lines: list[str]) -> Any:
    """Print what is wrong with the settings and exit."""
    problems = "\n".join(f"  {line}" for line in lines)
    sys.exit(
        f"Portico cannot start with these settings:\n{problems}\n"
        "See docs/settings.md and docs/troubleshooting.md."
    )
