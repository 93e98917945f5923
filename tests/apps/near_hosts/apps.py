"""The Django app that allows it (EXTRA_APPS)."""

from __future__ import annotations

import socket
import time
from typing import Any

from django.apps import AppConfig

SILENT_NAME = "silent-name.example"
"""A name whose look-up never ends."""


class NearConfig(AppConfig):
    """No models; loopback addresses count as public, one name never resolves."""

    name = "tests.apps.near_hosts"

    def ready(self) -> None:
        from oauth2_provider import cimd

        cimd._ip_is_public = lambda address: True
        system = socket.getaddrinfo

        def slowly(host: Any, *args: Any, **kwargs: Any) -> Any:
            if host == SILENT_NAME:
                time.sleep(30)
            return system(host, *args, **kwargs)

        socket.getaddrinfo = slowly
