"""The Django app that takes the internet away (EXTRA_APPS)."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

from django.apps import AppConfig


def is_local(host: Any) -> bool:
    """Whether this is a loopback name or address, or no host at all."""
    name = host.decode() if isinstance(host, bytes) else host
    try:
        return not name or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


class NoInternetConfig(AppConfig):
    """No models; the resolver fails as it does behind a firewall."""

    name = "tests.apps.no_internet"

    def ready(self) -> None:
        system = socket.getaddrinfo

        def blocked(host: Any, *args: Any, **kwargs: Any) -> Any:
            if not is_local(host):
                raise socket.gaierror(socket.EAI_AGAIN, "no internet")
            return system(host, *args, **kwargs)

        socket.getaddrinfo = blocked
