"""Environment: every setting Portico reads, typed, with all errors told at once."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator
from datetime import timedelta
from importlib.util import find_spec
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

BASE_DIR = Path(__file__).resolve().parent.parent
Names = Annotated[list[str], NoDecode]
"""A list written with commas."""

Limit = Annotated[
    str, Field(pattern=r"^(off|[1-9][0-9]{0,8}/(second|minute|hour|day))$")
]
"""How often: `120/minute`, or `off`."""
LIMIT_FORM = "Written as `60/minute` (second, hour, day) or `off`, like those below."
PROTOCOL = "Needs `uvicorn --http config.server.timeouts:TimeoutProtocol`."

STORES = ("redis", "rediss", "valkey", "valkeys", "redis+unix", "valkey+unix")
DATABASES = ("postgres", "postgresql", "sqlite")
LOOPBACK = ["localhost", "127.0.0.1", "[::1]"]


def found(module: str) -> bool:
    """Whether it can be imported, without importing the last part."""
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
        description="`production` demands secrets and refuses unsafe settings.",
    )
    DATA_DIR: Path = Field(
        BASE_DIR / "var",
        description="Where the SQLite database, secrets and static files live "
        "(default `var/`).",
    )
    DATABASE_URL: str = Field(
        "",
        description="`postgres://user:password@host/name`; empty: SQLite in DATA_DIR.",
    )
    SECRET_KEY: SecretStr = Field(
        SecretStr(""),
        description="Signs sessions. Made in DATA_DIR in development; required in "
        "production, 50 characters or more.",
    )
    KEY_ENCRYPTION_KEY: SecretStr = Field(
        SecretStr(""),
        description="Encrypts the signing keys at rest. Made in DATA_DIR in "
        "development; required in production, 32 characters or more.",
    )
    HOST: str = Field("127.0.0.1", description="Address `make serve` listens on.")
    PORT: int = Field(8000, ge=1, le=65535, description="Port `make serve` listens on.")
    WORKERS: int = Field(1, ge=1, le=64, description="Server processes.")
    ISSUER_URL: str = Field(
        "",
        description="The public origin, such as `https://portico.example.com`; no "
        "path, no trailing slash. Default `http://127.0.0.1:PORT`.",
    )
    ALLOWED_HOSTS: Names = Field(
        [],
        description="Further host names to answer to. The issuer's own and, in "
        "development, the loopback names always count.",
    )
    ALLOWED_ORIGINS: Names = Field(
        [],
        description="Web origins whose pages may call /mcp, such as "
        "`https://app.example.com` or `http://localhost:*`. Default: the loopback "
        "ones in development, none in production.",
    )
    TRUSTED_PROXIES: Names = Field(
        [],
        description="Addresses or networks (CIDR) of the proxies in front, `unix` for "
        "a Unix socket: their X-Forwarded-For and X-Forwarded-Proto are believed, "
        "nobody else's. No client may have an address in these networks. Run uvicorn "
        "with `--no-proxy-headers`.",
    )
    ACCESS_TOKEN_LIFETIME: int = Field(
        1800, ge=1, le=86400, description="Seconds an access token lasts."
    )
    REFRESH_TOKEN_LIFETIME: int = Field(
        14 * 86400, ge=60, le=365 * 86400, description="Seconds a refresh token lasts."
    )
    TOKEN_MAX_IDLE: int = Field(
        0,
        ge=0,
        description="Seconds unused after which any token ends, 300 or more; 0: never. "
        "Clients may have a shorter one.",
    )
    REFRESH_TOKEN_GRACE: int = Field(
        30,
        ge=0,
        le=300,
        description="Seconds in which a refresh token used again gives the same "
        "successor; later its whole family ends.",
    )
    LOCKOUT_AFTER: int = Field(
        5,
        ge=1,
        description="Wrong passwords after which an account is locked out for an "
        "address; ten times as many lock an account for everybody, or an address.",
    )
    LOCKOUT_SECONDS: int = Field(
        900, ge=1, le=86400, description="Seconds a lock-out lasts."
    )
    STAFF_SECOND_FACTOR: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Whether staff need a second factor (app or passkey): `auto` is on "
        "in production.",
    )
    EMAIL_HOST: str = Field(
        "",
        description="Mail server for password resets and notices. Empty: printed in "
        "development, not sent in production.",
    )
    EMAIL_PORT: int = Field(587, ge=1, le=65535, description="Its port.")
    EMAIL_USER: str = Field("", description="User name at the mail server, if any.")
    EMAIL_PASSWORD: SecretStr = Field(SecretStr(""), description="Password there.")
    EMAIL_TLS: Literal["starttls", "tls", "none"] = Field(
        "starttls", description="How the connection to the mail server is encrypted."
    )
    EMAIL_FROM: str = Field(
        "portico@localhost", description="Sender of mails to people."
    )
    HASHING_AT_ONCE: int = Field(
        1, ge=1, le=64, description="Passwords a process hashes at the same time."
    )
    HASHING_WAIT: float = Field(
        2.0,
        ge=0,
        le=60,
        description="Seconds a sign-in waits for its turn to be hashed; then 429.",
    )
    VALKEY_URL: str = Field(
        "",
        description="`redis://` or `valkey://` URL of the store in which all workers "
        "count rate limits; empty: each process counts for itself.",
    )
    LIMIT_PASSWORD: Limit = Field(
        "60/minute", description="Sign-ins tried from one address. " + LIMIT_FORM
    )
    LIMIT_MAIL: Limit = Field(
        "10/hour", description="Password mails asked for from one address."
    )
    LIMIT_REGISTER: Limit = Field(
        "120/hour", description="Clients that register themselves from one address."
    )
    LIMIT_TOKEN: Limit = Field(
        "240/minute",
        description="Token requests of a client at one address; all its clients "
        "together have ten times as much, here and below.",
    )
    LIMIT_AUTHORIZE: Limit = Field(
        "120/minute", description="Authorization requests of a person at one address."
    )
    LIMIT_INTROSPECT: Limit = Field(
        "3000/minute", description="Introspections by a client at one address."
    )
    LIMIT_DEVICE: Limit = Field(
        "60/minute", description="Device codes asked for, typed and decided."
    )
    LIMIT_MCP: Limit = Field(
        "12000/minute", description="Messages at /mcp with one token."
    )
    LIMIT_MCP_USER: Limit = Field(
        "24000/minute", description="Messages at /mcp of one person, with all tokens."
    )
    LIMIT_MCP_REFUSED: Limit = Field(
        "300/minute",
        description="Messages at /mcp with the same token that does not count; an "
        "address has ten times as much. Tokens that count are never held up by it.",
    )
    SIGNING_ALGORITHM: Literal["ES256", "RS256", "EdDSA"] = Field(
        "ES256", description="Algorithm of new signing keys."
    )
    EXTRA_APPS: Names = Field(
        [],
        description="Django apps with an `mcp_tools.py`, importable from PYTHONPATH "
        "or this folder.",
    )
    CLIENT_REGISTRATION: Literal["open", "token", "off"] = Field(
        "open",
        description="Whether MCP clients may register themselves (RFC 7591): anybody, "
        "who has REGISTRATION_TOKEN, or nobody.",
    )
    REGISTRATION_TOKEN: SecretStr = Field(
        SecretStr(""),
        description="The initial access token that `CLIENT_REGISTRATION=token` asks "
        "for, 20 characters or more.",
    )
    UNUSED_CLIENTS_AFTER: int = Field(
        30,
        ge=1,
        description="Days after which `manage.py purge` drops clients that registered "
        "themselves and have no live token.",
    )
    CLIENT_METADATA_DOCUMENTS: bool = Field(
        True,
        description="Whether a client's https URL may be its id (CIMD): its document "
        "is fetched from public addresses only.",
    )
    MAX_BODY_SIZE: int = Field(
        4 * 1024 * 1024, ge=1024, description="Largest body at /mcp, in bytes."
    )
    MAX_FORM_SIZE: int = Field(
        1024 * 1024,
        ge=16 * 1024,
        description="Largest body everywhere else, in bytes.",
    )
    BODY_TIMEOUT: float = Field(
        30.0, gt=0, le=3600, description="Seconds a body has to arrive; then 408."
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
    MCP_SESSIONS: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Sessions of the 2025 protocols, which live in one process: "
        "`auto` is on with one worker.",
    )
    SESSION_IDLE: float = Field(
        900.0,
        gt=0,
        le=86400,
        description="Seconds after which a session that nobody uses ends; its client "
        "opens another one.",
    )
    MAX_SESSIONS_PER_USER: int = Field(
        100,
        ge=1,
        description="Sessions a person may have in a process; one more ends the one "
        "that was not used for longest.",
    )
    MAX_SESSIONS: int = Field(
        2000,
        ge=1,
        description="Sessions a process has; one more ends one of whoever has most.",
    )
    MAX_STREAMS_PER_USER: int = Field(
        100,
        ge=1,
        description="Streams a person may keep open in a process to hear of changes; "
        "then 429.",
    )
    MAX_STREAMS: int = Field(
        2000, ge=1, description="Such streams of all people in a process; then 503."
    )
    MAX_CALLS_PER_USER: int = Field(
        200,
        ge=1,
        description="Messages of a person that a process works on, or waits for the "
        "body of, at the same time; then 429.",
    )
    MAX_CALLS: int = Field(
        2000, ge=1, description="Such messages of all people in a process; then 503."
    )
    MAX_BODIES_PER_USER: int = Field(
        32 * 1024 * 1024,
        ge=1024,
        description="Bytes of a person's larger bodies that a process keeps at the "
        "same time, at least MAX_BODY_SIZE; then 429.",
    )
    MAX_BODIES: int = Field(
        512 * 1024 * 1024,
        ge=1024,
        description="Such bytes of all people in a process; then 503.",
    )
    SESSION_PREFIX: str = Field(
        "",
        pattern=r"^[A-Za-z0-9]{0,16}$",
        description="Stands before the ids of this process' sessions (`8001-...`), so "
        "that a proxy can send each to where it lives (`deploy/`).",
    )
    AUDIT_RETENTION: int = Field(
        365, ge=1, description="Days that `manage.py purge` keeps audit events."
    )
    AUDIT_DURABILITY: Literal["durable", "batch", "off"] = Field(
        "durable",
        description="When a message at /mcp is answered: once its audit event is "
        "committed (`durable`: what was answered is on record, whatever happens), once "
        "it is queued (`batch`: a crash can lose 50 ms), or without one (`off`).",
    )
    LOG_LEVEL: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="What is logged, from this level up."
    )
    LOG_FORMAT: Literal["line", "json"] = Field(
        "line", description="How log lines look: text for people, JSON for machines."
    )
    METRICS_TOKEN: SecretStr = Field(
        SecretStr(""),
        description="Turns on `/metrics` (Prometheus) for who sends it as a Bearer "
        "token, 20 characters or more.",
    )
    TIME_ZONE: str = Field("UTC", description="Time zone of the admin's pages.")
    PAGE_LANGUAGE: Literal["en", "ko"] = Field(
        "en",
        description="Language of the pages where neither the person nor the browser "
        "asks for one.",
    )

    @field_validator(
        "ALLOWED_HOSTS",
        "ALLOWED_ORIGINS",
        "EXTRA_APPS",
        "TRUSTED_PROXIES",
        mode="before",
    )
    @classmethod
    def split(cls, value: Any) -> Any:
        """Take `a, b` for a list."""
        if isinstance(value, str):
            return [part.strip() for part in value.split(",") if part.strip()]
        return value

    @field_validator("ISSUER_URL")
    @classmethod
    def bare_origin(cls, value: str) -> str:
        """An origin and nothing else: one string, used everywhere."""
        parts = urlsplit(value)
        if value and (parts.scheme not in ("http", "https") or not parts.netloc):
            raise ValueError("write scheme://host[:port], such as https://h.example")
        if value and (parts.path or parts.query or parts.fragment):
            raise ValueError("leave away the path and the trailing slash")
        return value.lower()

    @field_validator("ALLOWED_ORIGINS")
    @classmethod
    def origins(cls, value: list[str]) -> list[str]:
        """Each is scheme://host[:port|:*]."""
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
        """A URL of Redis' kind."""
        if value and urlsplit(value).scheme not in STORES:
            raise ValueError(f"write it as one of {', '.join(STORES)} and ://host:port")
        return value

    @field_validator("DATABASE_URL")
    @classmethod
    def known_database(cls, value: str) -> str:
        """PostgreSQL, or a SQLite file of another place."""
        if value and urlsplit(value).scheme not in DATABASES:
            raise ValueError(f"write it as one of {', '.join(DATABASES)} and ://...")
        return value

    @field_validator("EXTRA_APPS")
    @classmethod
    def importable(cls, value: list[str]) -> list[str]:
        """Each is a module somewhere on the path, or the AppConfig in one."""
        for name in value:
            parent = name.rpartition(".")[0]
            if not found(name) and not (parent and found(parent)):
                raise ValueError(f"no module {name}; put its folder on PYTHONPATH")
        return value

    @field_validator("TRUSTED_PROXIES")
    @classmethod
    def networks(cls, value: list[str]) -> list[str]:
        """Each is an address, a network or the word `unix`."""
        for network in value:
            try:
                _ = network == "unix" or ip_network(network, strict=False)
            except ValueError as error:
                raise ValueError(
                    f"write {network!r} as the address or the network of your proxies, "
                    "such as 10.0.0.5 or 10.0.0.4/30"
                ) from error
        return value

    @field_validator("TOKEN_MAX_IDLE")
    @classmethod
    def noticeable(cls, value: int) -> int:
        """Use is noted once a minute."""
        if 0 < value < 300:
            raise ValueError("write 0, or 300 and more: use is noted once a minute")
        return value

    @property
    def production(self) -> bool:
        """Whether this is the real thing."""
        return self.ENVIRONMENT == "production"

    @property
    def issuer(self) -> str:
        """The one issuer string, without trailing slash."""
        return self.ISSUER_URL or f"http://127.0.0.1:{self.PORT}"

    @property
    def hosts(self) -> list[str]:
        """Host names answered to."""
        own = urlsplit(self.issuer).hostname or "127.0.0.1"
        own = f"[{own}]" if ":" in own else own
        near = [] if self.production else LOOPBACK
        return list(dict.fromkeys([own, *self.ALLOWED_HOSTS, *near]))

    @property
    def origins_allowed(self) -> list[str]:
        """Web origins allowed at /mcp beside the issuer's own."""
        if self.ALLOWED_ORIGINS or self.production:
            return self.ALLOWED_ORIGINS
        return [f"http://{host}:*" for host in LOOPBACK]

    @property
    def sessions(self) -> bool:
        """Whether older clients get sessions."""
        return self.MCP_SESSIONS == "on" or (
            self.MCP_SESSIONS == "auto" and self.WORKERS == 1
        )

    @property
    def staff_second_factor(self) -> bool:
        """Whether staff are obliged."""
        auto = self.STAFF_SECOND_FACTOR == "auto" and self.production
        return auto or self.STAFF_SECOND_FACTOR == "on"

    @property
    def email_backend(self) -> str:
        """Where mails go."""
        if self.EMAIL_HOST:
            return "django.core.mail.backends.smtp.EmailBackend"
        kind = "dummy" if self.production else "console"
        return f"django.core.mail.backends.{kind}.EmailBackend"

    def secret(self, name: Literal["SECRET_KEY", "KEY_ENCRYPTION_KEY"]) -> str:
        """A secret from the environment, or from its file in DATA_DIR."""
        given: str = getattr(self, name).get_secret_value()
        try:
            return given or kept_secret(self.DATA_DIR / name.lower())
        except OSError as error:
            return str(refuse([f"DATA_DIR: {error}; set it to a folder of yours."]))

    def problems(self) -> list[str]:
        """What is unsafe or missing, each with its mend."""
        found = list(self.short_tokens())
        return found + self.production_problems() if self.production else found

    def short_tokens(self) -> Iterator[str]:
        """Tokens others send that could be guessed."""
        used = {
            "REGISTRATION_TOKEN": self.CLIENT_REGISTRATION == "token",
            "METRICS_TOKEN": bool(self.METRICS_TOKEN.get_secret_value()),
        }
        for name, needed in used.items():
            if needed and len(getattr(self, name).get_secret_value()) < 20:
                yield f"{name}: set it to 20 characters or more."

    def production_problems(self) -> list[str]:
        """What production needs and does not have."""
        found = [
            f"{name}: set it to {length} random characters or more."
            for name, length in (("SECRET_KEY", 50), ("KEY_ENCRYPTION_KEY", 32))
            if guessable(getattr(self, name).get_secret_value(), length)
        ]
        secret = self.SECRET_KEY.get_secret_value()
        if secret and secret == self.KEY_ENCRYPTION_KEY.get_secret_value():
            found.append("KEY_ENCRYPTION_KEY: make it another one than SECRET_KEY.")
        if not self.issuer.startswith("https://"):
            found.append("ISSUER_URL: set it to the public https:// origin.")
        if self.WORKERS > 1 and self.DATABASE_URL.partition(":")[0] in ("", "sqlite"):
            found.append("DATABASE_URL: several WORKERS need PostgreSQL, not SQLite.")
        if self.WORKERS > 1 and not self.VALKEY_URL:
            found.append("VALKEY_URL: several WORKERS count their limits in one store.")
        return found


def guessable(secret: str, length: int) -> bool:
    """Whether a secret is short, dull, or one that Django's templates print."""
    dull = len(set(secret)) < 8 or secret.startswith("django-insecure-")
    return len(secret) < length or dull


def files_with_secrets() -> list[Path]:
    """`.env`, if it gives a secret or a URL with a password."""
    path = Path(str(Environment.model_config.get("env_file")))
    lines = dotenv_values(path) if path.is_file() else {}
    return [path] if any(is_secret(*line) for line in lines.items()) else []


def is_secret(name: str, value: str | None) -> bool:
    """Whether others should not read this setting."""
    field = Environment.model_fields.get(name.upper())
    if field is None or not value:
        return False
    try:
        return field.annotation is SecretStr or bool(urlsplit(value).password)
    except ValueError:
        return True


def kept_secret(path: Path) -> str:
    """The secret in `path`, made there at first (0600, and only by one process)."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with open(path, "x", opener=private) as file:
            file.write(secrets.token_urlsafe(64))
    except FileExistsError:
        pass
    return _read_when_written(path)


def private(path: str, flags: int) -> int:
    import os

    return os.open(path, flags, 0o600)


def _read_when_written(path: Path) -> str:
    import time

    for _ in range(100):
        text = path.read_text().strip()
        if text:
            return text
        time.sleep(0.01)
    raise OSError(f"{path} is empty: delete it and start again.")


def lifetime(seconds: int) -> timedelta:
    """Seconds as Django's settings want them."""
    return timedelta(seconds=seconds)


def read() -> Environment:
    """The environment, or every error at once and exit code 1."""
    try:
        found = Environment()
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        refuse(lines)
    if found.problems():
        refuse(found.problems())
    return found


def refuse(lines: list[str]) -> Any:
    """Say what is wrong with the settings and stop."""
    told = "\n".join(f"  {line}" for line in lines)
    sys.exit(
        f"Portico cannot start with these settings:\n{told}\nSee docs/settings.md."
    )
