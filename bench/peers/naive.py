"""The usual tutorial: SimpleJWT and the ORM on every request, before `MCPServer`.

Reads user, blacklist and groups for each message, so that a revocation applies at
once. Otherwise it uses SimpleJWT's defaults (HS256, or ES256 with BENCH_ALGORITHM).
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import django
from asgiref.sync import sync_to_async
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from django.conf import settings

from bench.peers import plain_django

LIBRARY = "rest_framework_simplejwt"


def signing() -> dict[str, str]:
    """SimpleJWT's settings for ES256, the algorithm of Portico; nothing for HS256."""
    if os.getenv("BENCH_ALGORITHM") != "ES256":
        return {}
    file = plain_django.FOLDER / "signing.pem"
    if not file.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        pem, pkcs8 = Encoding.PEM, PrivateFormat.PKCS8
        file.write_bytes(key.private_bytes(pem, pkcs8, NoEncryption()))
    private = load_pem_private_key(file.read_bytes(), None)
    public = private.public_key().public_bytes(
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    )
    return {
        "ALGORITHM": "ES256",
        "SIGNING_KEY": file.read_text(),
        "VERIFYING_KEY": public.decode(),
    }


settings.configure(
    **plain_django.settings("naive", "rest_framework", f"{LIBRARY}.token_blacklist"),
    ROOT_URLCONF="bench.peers.naive",
    PASSWORD_HASHERS=["bench.peers.hashers.SmallArgon2"],
    SIMPLE_JWT={
        "ACCESS_TOKEN_LIFETIME": timedelta(days=1),
        "ROTATE_REFRESH_TOKENS": True,
        "BLACKLIST_AFTER_ROTATION": True,
        **signing(),
    },
)
django.setup()

from django.contrib.auth.models import Group, User  # noqa: E402
from django.core.asgi import get_asgi_application  # noqa: E402
from django.urls import path  # noqa: E402
from rest_framework_simplejwt.authentication import JWTAuthentication  # noqa: E402
from rest_framework_simplejwt.exceptions import (  # noqa: E402
    AuthenticationFailed,
    InvalidToken,
)
from rest_framework_simplejwt.token_blacklist.models import (  # noqa: E402
    BlacklistedToken,
)
from rest_framework_simplejwt.tokens import RefreshToken  # noqa: E402
from rest_framework_simplejwt.views import (  # noqa: E402
    TokenObtainPairView,
    TokenRefreshView,
)

from bench.peers.bare import served  # noqa: E402

urlpatterns = [
    path("api/token/", TokenObtainPairView.as_view()),
    path("api/token/refresh/", TokenRefreshView.as_view()),
]
authentication = JWTAuthentication()


def allowed(raw: bytes) -> bool:
    """Whether the token may call; needs four queries."""
    try:
        token = authentication.get_validated_token(raw)
        user = authentication.get_user(token)
    except (InvalidToken, AuthenticationFailed):
        return False
    if BlacklistedToken.objects.filter(token__jti=token["jti"]).exists():
        return False
    return bool(user.groups.filter(name="User").exists())


class Check:
    """Pure ASGI before the SDK's app; Django serves all other paths."""

    def __init__(self) -> None:
        self.mcp, self.django = served(), get_asgi_application()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.mcp(scope, receive, send)
            return
        if scope["path"] != "/mcp":
            await self.django(scope, receive, send)
            return
        raw = dict(scope["headers"]).get(b"authorization", b"").removeprefix(b"Bearer ")
        if await sync_to_async(allowed)(raw):
            await self.mcp(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 401, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def prepare() -> str:
    """Create tables, a user and its token; write BENCH_REFRESH refresh tokens."""
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    user = User.objects.create_user("caller", password="caller")
    user.groups.add(Group.objects.create(name="User"))
    many = range(int(os.getenv("BENCH_REFRESH", "0")))
    refresh = "\n".join(str(RefreshToken.for_user(user)) for _ in many)
    (plain_django.FOLDER / "tokens.refresh").write_text(refresh)
    return str(RefreshToken.for_user(user).access_token)


if __name__ == "__main__":
    print(prepare())
else:
    app = Check()
