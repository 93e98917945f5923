"""`mcp`: the SDK's MCPServer with scopes on primitives and lists by caller.

Authors write `mcp_tools.py` in an installed app:

    from mcp_bridge.server import mcp

    @mcp.tool(scopes=["User.Write"])
    def rename(product: int, name: str) -> str: ...
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from difflib import get_close_matches
from functools import partial, wraps
from typing import Any, TypeVar

import anyio.from_thread
import anyio.to_thread
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.lowlevel.helper_types import ReadResourceContents
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.prompts import Prompt
from mcp.server.models import InitializationOptions
from mcp.server.request_state import RequestStateSecurity
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    CallToolResult,
    CompleteRequestParams,
    CompleteResult,
    Completion,
    GetPromptResult,
    InputRequiredResult,
    Resource,
    ResourceTemplate,
    SubscriptionsListenRequestParams,
    Tool,
)
from mcp_types import Prompt as WirePrompt
from pydantic import AnyUrl, BaseModel

from mcp_bridge.access.catalogue import Key
from mcp_bridge.access.context import current_call
from mcp_bridge.access.decision import Reason
from mcp_bridge.access.messages import Message
from mcp_bridge.cache.recheck import recheck_var
from mcp_bridge.db import closing_connections, with_orm_thread
from mcp_bridge.models import WITH_ARGUMENTS, PrimitiveKind, own_scope
from mcp_bridge.server.concurrency_limits import THREAD_SLOTS
from mcp_bridge.server.subscriptions import CallerBus, CallerListenHandler
from mcp_bridge.server.upstream_calls import PORTICO, relay_upstream
from mcp_bridge.server.upstream_lists import upstream_items
from mcp_bridge.server.visibility import (
    VisiblePrompts,
    VisibleResources,
    VisibleTools,
    is_usable,
)
from mcp_bridge.upstreams.definitions import mirrored_arguments

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

MIRROR = "x-mcp-header"
"""Key in a tool's schema: an HTTP header repeats this argument (SEP-2243)."""
LONGEST_SCOPE = 255
"""Characters, as its column has."""
LIST_FLAGS = ("prompts_changed", "resources_changed", "tools_changed")
"""What clients of the older protocols are told on the stream of their session."""
EXTRA_METHODS = frozenset(
    {"logging/setLevel", "resources/subscribe", "resources/unsubscribe"}
)
"""Methods that an app may handle; Portico handles all others."""


class PorticoServer(MCPServer[Any]):
    """MCPServer whose decorators take `scopes` and `sensitive`."""

    def __init__(self, name: str, **options: Any) -> None:
        self.resources = VisibleResources()
        bus = self.bus = CallerBus(self.resources)
        super().__init__(name, subscriptions=bus, **options)
        self._lowlevel_server.add_request_handler(
            "subscriptions/listen",
            SubscriptionsListenRequestParams,
            CallerListenHandler(bus),
        )
        tell_of_changed_lists(self._lowlevel_server)
        self._resource_manager = self.resources
        self._tool_manager = self.tools = VisibleTools()
        self._prompt_manager = self.prompts = VisiblePrompts()
        self.access: dict[Key, tuple[tuple[str, ...], bool]] = {}
        self.places: dict[Key, str] = {}
        self.mirrored: dict[str, bool] = {}
        self.completers: list[Callable[..., Awaitable[Completion | None]]] = []
        self.running = False

    def tool(  # type: ignore[override]
        self,
        name: str | None = None,
        *,
        scopes: Sequence[str] = (),
        sensitive: bool = False,
        **options: Any,
    ) -> Callable[[F], F]:
        """Register a tool; any one of `scopes` (or `tool:NAME`) gives access to it.

        A `sensitive` tool needs a token that names such a scope; `mcp` is not enough.
        `options` are those of the SDK's own decorator.
        """
        if callable(name):
            raise TypeError("Write @mcp.tool(), with the parentheses.")
        refuse_unknown("tool", options, MCPServer.add_tool)

        def register(fn: F) -> F:
            known = name or fn.__name__
            self._claim(PrimitiveKind.TOOL, known, scopes, sensitive, fn)
            self.add_tool(with_db_cleanup(fn), name=known, **options)
            return fn

        return register

    def resource(
        self,
        uri: str,
        *,
        scopes: Sequence[str] = (),
        sensitive: bool = False,
        **options: Any,
    ) -> Callable[[F], F]:
        """Register a resource, or a template if `uri` has {parameters}; see `tool`."""
        if callable(uri):
            raise TypeError('Write @mcp.resource("scheme://path"), with its URI.')
        kind = PrimitiveKind.RESOURCE
        if "{" in uri:
            kind = PrimitiveKind.RESOURCE_TEMPLATE
        sdk_resource = super().resource
        refuse_unknown("resource", options, MCPServer.resource)

        def register(fn: F) -> F:
            self._claim(kind, uri, scopes, sensitive, fn)
            sdk_resource(uri, **options)(with_db_cleanup(fn))
            return fn

        return register

    def prompt(  # type: ignore[override]
        self,
        name: str | None = None,
        *,
        scopes: Sequence[str] = (),
        sensitive: bool = False,
        **options: Any,
    ) -> Callable[[F], F]:
        """Register a prompt; see `tool`."""
        if callable(name):
            raise TypeError("Write @mcp.prompt(), with the parentheses.")
        refuse_unknown("prompt", options, Prompt.from_function)

        def register(fn: F) -> F:
            known = name or fn.__name__
            self._claim(PrimitiveKind.PROMPT, known, scopes, sensitive, fn)
            prompt = Prompt.from_function(with_db_cleanup(fn), name=known, **options)
            self.add_prompt(prompt)
            return fn

        return register

    def completion(self) -> Callable[[F], F]:
        """Register a completer; the first result that is not None is sent."""

        def register(fn: F) -> F:
            self.completers.append(fn)
            self._lowlevel_server.add_request_handler(
                "completion/complete", CompleteRequestParams, self.complete
            )
            return fn

        return register

    def add_request_handler(
        self,
        method: str,
        params_type: type[BaseModel],
        handler: Callable[..., Awaitable[Any]],
    ) -> None:
        """Handle one of EXTRA_METHODS with a handler of the SDK's low-level form."""
        if method not in EXTRA_METHODS:
            allowed = ", ".join(sorted(EXTRA_METHODS))
            raise ImproperlyConfigured(f"{method} cannot be added; only {allowed}.")

        async def guarded(ctx: ServerRequestContext[Any, Any], params: Any) -> Any:
            call = current_call()
            if call is None or not call.decision.allowed:
                uri = str(getattr(params, "uri", ""))
                text = f"Unknown resource: {uri}"
                raise MCPError(INVALID_PARAMS, text, data={"uri": uri})
            return await handler(ctx, params)

        self._lowlevel_server.add_request_handler(method, params_type, guarded)

    def _claim(
        self,
        kind: str,
        name: str,
        scopes: Sequence[str],
        sensitive: bool,
        fn: Callable[..., Any],
    ) -> None:
        key, place = (str(kind), name), place_of_function(fn)
        if key in self.access:
            raise ImproperlyConfigured(
                f"{place} and {self.places[key]} both offer a {kind} named {name}; "
                "rename one of them."
            )
        if isinstance(scopes, str):
            raise ImproperlyConfigured(f"{kind} {name}: scopes is a list of names.")
        refuse_long_scopes(kind, name, scopes)
        self.access[key], self.places[key] = (tuple(scopes), sensitive), place

    def locate(self, message: Message) -> Message:
        """Set the target of a resource message to the primitive that serves its URI."""
        target = message.target
        if target is None or not message.method.startswith("resources/"):
            return message
        key = self.resources.locate(target[1])
        return message if key is None else message.with_target(*key)

    async def complete(self, ctx: Any, params: CompleteRequestParams) -> CompleteResult:
        """Ask the completers; hidden and unknown primitives get no values."""
        call = current_call()
        if call is not None and call.decision.allowed:
            for completer in self.completers:
                values = await completer(params.ref, params.argument, params.context)
                if values is not None:
                    return CompleteResult(completion=values)
        return CompleteResult(completion=Completion(values=[]))

    def _tool_input_schema(self, name: str) -> dict[str, Any] | None:
        """The schema that headers are compared with; None if it names no header."""
        tool = self.tools.get_tool(name)
        if tool is None:
            return upstream_schema(name)
        if name not in self.mirrored:
            self.mirrored[name] = MIRROR in json.dumps(tool.parameters)
        return tool.parameters if self.mirrored[name] else None

    async def list_tools(self) -> list[Tool]:
        """The caller's tools: the code's, then those of upstream servers."""
        return [*await super().list_tools(), *upstream_items(Tool)]

    async def list_resources(self) -> list[Resource]:
        """The caller's resources; see `list_tools`."""
        return [*await super().list_resources(), *upstream_items(Resource)]

    async def list_resource_templates(self) -> list[ResourceTemplate]:
        """The caller's resource templates; see `list_tools`."""
        own = await super().list_resource_templates()
        return [*own, *upstream_items(ResourceTemplate)]

    async def list_prompts(self) -> list[WirePrompt]:
        """The caller's prompts; see `list_tools`."""
        return [*await super().list_prompts(), *upstream_items(WirePrompt)]

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Any = None
    ) -> CallToolResult | InputRequiredResult:
        """Call the tool and set the outcome for the audit."""
        result = await with_outcome(super().call_tool(name, arguments, context))
        if getattr(result, "is_error", False):
            set_outcome("error")
        return result

    async def read_resource(
        self, uri: AnyUrl | str, context: Context[Any, Any] | None = None
    ) -> Iterable[ReadResourceContents] | InputRequiredResult:
        """Read the resource and set the outcome for the audit."""
        return await with_outcome(super().read_resource(uri, context))

    async def get_prompt(
        self,
        name: str,
        arguments: dict[str, Any] | None = None,
        context: Context[Any, Any] | None = None,
    ) -> GetPromptResult | InputRequiredResult:
        """Raises MCPError (invalid params) for an unknown or hidden prompt."""
        if self.prompts.get_prompt(name) is None:
            raise MCPError(INVALID_PARAMS, f"Unknown prompt: {name}")
        return await with_outcome(super().get_prompt(name, arguments, context))


def tell_of_changed_lists(server: Server[Any]) -> None:
    """Declare `listChanged` to clients of the older protocols that have sessions."""
    create = server.create_initialization_options

    def options(*_: Any, **more: Any) -> InitializationOptions:
        flags = dict.fromkeys(LIST_FLAGS, settings.MCP_SESSIONS)
        return create(NotificationOptions(**flags), **more)

    server.create_initialization_options = options  # type: ignore[method-assign]


def upstream_schema(name: str) -> dict[str, Any] | None:
    """The accepted input schema of an upstream tool, if it names a header."""
    call = current_call()
    rule = None if call is None else call.catalogue.get((PrimitiveKind.TOOL, name))
    if rule is None or rule.definition is None or not mirrored_arguments(rule):
        return None
    usable = is_usable(PrimitiveKind.TOOL, name)
    return rule.definition["inputSchema"] if usable else None


async def require_decision(
    ctx: ServerRequestContext[Any, Any], call_next: CallNext
) -> HandlerResult:
    """Refuse a message without a decision: the last check, inside the SDK.

    An unknown notification has no effect and no error (JSON-RPC 2.0 4.1).
    """
    call = current_call()
    if call is None or call.message.method != ctx.method:
        raise MCPError(INVALID_REQUEST, "Portico made no decision on this message.")
    if call.decision.reason is Reason.UNKNOWN_METHOD:
        if ctx.request_id is None:
            return None
        raise MCPError(METHOD_NOT_FOUND, "Method not found", data=ctx.method)
    return await call_next(ctx)


def with_db_cleanup(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn` in its own thread or ORM context; its connections close after it."""
    if not inspect.isroutine(fn):
        return fn
    if not inspect.iscoroutinefunction(fn):
        return in_thread(closing_connections(if_still_allowed(fn)))

    @wraps(fn)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return await with_orm_thread(fn(*args, **kwargs))

    return wrapper


def refuse_long_scopes(kind: str, name: str, scopes: Sequence[str]) -> None:
    """Raise ImproperlyConfigured for a scope that its column cannot store."""
    surplus = len(own_scope(kind, name)) - LONGEST_SCOPE
    if surplus > 0:
        word = "name" if kind in WITH_ARGUMENTS else "URI"
        raise ImproperlyConfigured(
            f"{kind} {name}: its own scope is longer than {LONGEST_SCOPE} characters; "
            f"shorten the {word} to {len(name) - surplus}."
        )
    for scope in scopes:
        if len(scope) > LONGEST_SCOPE:
            raise ImproperlyConfigured(
                f"{kind} {name}: the scope {scope} is longer than {LONGEST_SCOPE} "
                "characters; shorten it."
            )


def in_thread(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn` in a thread; each user has at most THREADS_PER_USER threads."""

    @wraps(fn)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        work, call = partial(fn, *args, **kwargs), current_call()
        if call is None:
            return await anyio.to_thread.run_sync(work)
        async with THREAD_SLOTS.slot(call.principal.user_id) as slot:
            return await anyio.to_thread.run_sync(slot.release_after(work))

    return wrapper


def if_still_allowed(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn`, which runs only if the message is still allowed when a thread is free."""

    @wraps(fn)
    def run(*args: Any, **kwargs: Any) -> Any:
        recheck = recheck_var.get()
        if recheck is not None and recheck.due:
            anyio.from_thread.run(recheck.before_running)
        return fn(*args, **kwargs)

    return run


def place_of_function(fn: Callable[..., Any]) -> str:
    """`acme.mcp_tools:12`: module and line of a function."""
    inner = inspect.unwrap(fn)
    line = getattr(getattr(inner, "__code__", None), "co_firstlineno", 0)
    return f"{getattr(inner, '__module__', '')}:{line}"


def refuse_unknown(
    decorator: str, options: Iterable[str], accepts: Callable[..., Any]
) -> None:
    """Raise TypeError for an option that neither Portico nor the SDK has."""
    known = {"scopes", "sensitive", *inspect.signature(accepts).parameters}
    known -= {"self", "fn"}
    for name in options:
        if name not in known:
            similar = get_close_matches(name, known, n=1)
            hint = f"did you mean {similar[0]}=?" if similar else ""
            names = ", ".join(sorted(known))
            raise TypeError(
                f"@mcp.{decorator}() has no option {name}=; "
                f"{hint or f'it has {names}.'}"
            )


def set_outcome(outcome: str) -> None:
    """Set how the current call ended, for the audit."""
    call = current_call()
    if call is not None:
        call.outcome = outcome


async def with_outcome(work: Awaitable[T]) -> T:
    """The result of `work`; sets the outcome: `ok`, `error` or `cancelled`."""
    set_outcome("error")
    try:
        result = await work
    except asyncio.CancelledError:
        set_outcome("cancelled")
        raise
    set_outcome("ok")
    return result


INSTRUCTIONS = (
    "Portico shows each person the tools, resources and prompts their roles allow. "
    "Call whoami to see who you are signed in as."
)

mcp = PorticoServer(
    "portico",
    title="Portico",
    version=settings.VERSION,
    instructions=INSTRUCTIONS,
    middleware=[require_decision, relay_upstream],
    request_state_security=RequestStateSecurity(
        keys=[
            f"portico request state {secret}"
            for secret in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
        ]
    ),
)

PORTICO.update(mcp._lowlevel_server.server_info_stamp)

__all__ = ["PorticoServer", "mcp", "is_usable"]
