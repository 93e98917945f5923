"""Discovery: find the primitives in every app's `mcp_tools.py`, sync them into rows."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from django.apps import apps
from django.conf import settings
from django.db import IntegrityError
from django.utils.module_loading import autodiscover_modules
from pydantic import BaseModel

from accounts.management.errors import BrokenApp, app_remedy
from mcp_bridge.models import Offer, Primitive, PrimitiveKind, summary
from mcp_bridge.server.portico_server import PorticoServer, mcp

logger = logging.getLogger(__name__)

ATTEMPTS = 3
"""Workers that start together may insert the same row; the loser syncs once more."""


def autodiscover() -> PorticoServer:
    """Import `mcp_tools` of every installed app, as the admin imports `admin`.

    Raises BrokenApp, with the file, the line and the fix.
    """
    try:
        autodiscover_modules("mcp_tools")
    except Exception as error:
        text = app_remedy(error)
        if not text:
            raise
        raise BrokenApp(text) from error
    return mcp


def silent_apps() -> list[tuple[str, str]]:
    """(app, similar file) of the apps in EXTRA_APPS that offer nothing.

    The similar file is a misspelled `mcp_tools.py`; empty if there is none.
    """
    server = autodiscover()
    offering = {module.partition(":")[0] for module in server.places.values()}
    found = []
    for config in apps.get_app_configs():
        extra = {config.name, f"{type(config).__module__}.{type(config).__name__}"}
        if not extra & set(settings.EXTRA_APPS):
            continue
        if not any(name.startswith(f"{config.name}.") for name in offering):
            names = [path.name for path in Path(config.path).glob("*.py")]
            similar = get_close_matches("mcp_tools.py", names, cutoff=0.7)
            found.append((config.name, similar[0] if similar else ""))
    return found


def offers(server: PorticoServer) -> Iterator[Offer]:
    """Everything registered with `server`, visible to the caller or not."""
    for tool in server.tools.all_tools():
        shown = tool.model_dump(mode="json", exclude={"fn_metadata", "is_async"})
        shown["output_schema"] = tool.output_schema
        yield _offer(server, PrimitiveKind.TOOL, tool.name, tool, shown)
    for resource in server.resources.all_resources():
        shown = _shown(resource, "uri", "name", "mime_type")
        kind = PrimitiveKind.RESOURCE
        yield _offer(server, kind, str(resource.uri), resource, shown)
    for template in server.resources.all_templates():
        shown = _shown(template, "uri_template", "name", "mime_type", "parameters")
        kind = PrimitiveKind.RESOURCE_TEMPLATE
        yield _offer(server, kind, template.uri_template, template, shown)
    for prompt in server.prompts.all_prompts():
        shown = _shown(prompt, "name", "arguments")
        yield _offer(server, PrimitiveKind.PROMPT, prompt.name, prompt, shown)


def _shown(primitive: BaseModel, *fields: str) -> dict[str, Any]:
    included = {*fields, "title", "description", "annotations", "meta"}
    return primitive.model_dump(mode="json", include=included)


def _offer(
    server: PorticoServer, kind: str, name: str, primitive: Any, shown: dict[str, Any]
) -> Offer:
    scopes, sensitive = server.access.get((str(kind), name), ((), False))
    text = json.dumps(shown, sort_keys=True, default=str)
    return Offer(
        kind=str(kind),
        name=name,
        title=primitive.title or "",
        description=(primitive.description or "").strip(),
        scopes=scopes,
        sensitive=sensitive,
        definition=hashlib.sha256(text.encode()).hexdigest(),
        shown=json.loads(text),
    )


def sync() -> dict[str, int]:
    """Update the Primitive rows from the code. Returns the non-zero counts."""
    offered = list(offers(autodiscover()))
    attempts = 0
    while True:
        try:
            counts = summary(Primitive.objects.sync(offered))
            break
        except IntegrityError:
            attempts += 1
            if attempts == ATTEMPTS:
                raise
    if counts:
        logger.info("Catalogue synced: %s", counts)
    return counts
