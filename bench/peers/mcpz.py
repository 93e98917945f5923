"""django-mcpz with its bearer tokens, as ASGI and as WSGI application."""

from __future__ import annotations

import django
from django.conf import settings

from bench.peers import plain_django

settings.configure(
    **plain_django.settings("mcpz", "django_mcpz.bearer_tokens"),
    ROOT_URLCONF="bench.peers.mcpz",
)
django.setup()

import msgspec  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.core.asgi import get_asgi_application  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import HttpRequest  # noqa: E402
from django.urls import path  # noqa: E402
from django_mcpz.bearer_tokens.auth import token_auth  # noqa: E402
from django_mcpz.bearer_tokens.models import Token  # noqa: E402
from django_mcpz.server import MCPServer  # noqa: E402

server = MCPServer(name="bench", version="1.0.0", auth=token_auth)


class GreetParams(msgspec.Struct):
    name: str


class Greeting(msgspec.Struct):
    result: str


@server.tool(description="Greet somebody.")
def greet(request: HttpRequest, params: GreetParams) -> Greeting:
    return Greeting(result=f"hello {params.name}")


urlpatterns = [path("mcp", server)]


def prepare() -> str:
    """Tables, a user and a token."""
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    user = User.objects.create_user("caller")
    return Token.create(name="bench", user=user)[1]


if __name__ == "__main__":
    print(prepare())
else:
    app = get_asgi_application()
    wsgi = get_wsgi_application()
