"""Recheck: is a message still allowed, some time after its decision?

A decision rests on one read of the rows. Work that takes longer than FRESH_FOR
continues only after another read: a slow body, a queue, a long call, a stream.
"""

from __future__ import annotations

import time
from contextvars import ContextVar

from django.db import Error as DatabaseError

from accounts.tokens.principal import Unauthenticated
from mcp_bridge.access.context import Call
from mcp_bridge.access.decision import Decision, decide
from mcp_bridge.cache.decision_cache import Mark, resolve_known, resolve_token

FRESH_FOR = 0.05
"""Seconds for which a read of the rows counts as current.

A read before every answer was tried: on PostgreSQL it costs one more round trip a call.
"""


class AccessWithdrawn(Exception):
    """The token is valid, but the message is no longer allowed."""

    def __init__(self, decision: Decision) -> None:
        super().__init__(decision.reason)
        self.decision = decision


STOP_ERRORS = (Unauthenticated, AccessWithdrawn, DatabaseError)
"""Errors after which an answer must not be sent."""


class Recheck:
    """Reads the rows behind one message again."""

    __slots__ = ("address", "call", "ended", "raw", "read_at")

    def __init__(self, call: Call, raw: str, address: str, read_at: float) -> None:
        self.call, self.raw, self.address = call, raw, address
        self.read_at = read_at
        """When the last read began, by time.perf_counter()."""
        self.ended: Exception | None = None
        """The error that kept the tool from running."""

    @property
    def due(self) -> bool:
        """Whether the last read is older than FRESH_FOR, or the tool was refused."""
        late = time.perf_counter() - self.read_at > FRESH_FOR
        return late or self.ended is not None

    async def now(self, *, looked: bool = False) -> None:
        """Decide by the current rows. Raises one of STOP_ERRORS."""
        if self.ended is not None:
            raise self.ended
        await self.read(looked=looked)

    async def before_running(self) -> None:
        """Decide before a tool runs; a refusal here is final.

        To the SDK, a tool that did not run is an error. If the next read allowed the
        message, that error would be sent as its answer.
        """
        try:
            await self.now()
        except STOP_ERRORS as error:
            self.ended = error
            raise

    def unchanged_since(self, mark: Mark | None, now: Mark | None) -> bool:
        """Whether nothing has changed and the token has not expired meanwhile."""
        if self.ended is not None or now is None or now != mark:
            return False
        return time.time() < self.call.principal.valid_until

    async def problem(self, *, looked: bool = False) -> Exception | None:
        """Why the message may not continue; None if it may.

        `looked` means that this worker has just checked for changes.
        """
        try:
            await self.now(looked=looked)
        except STOP_ERRORS as error:
            return error
        return None

    async def read(self, *, looked: bool = False) -> None:
        """Read and decide. Raises one of STOP_ERRORS."""
        call, began = self.call, time.perf_counter()
        resolve = resolve_known if looked else resolve_token
        principal, catalogue = await resolve(self.raw)
        call.principal = principal.restricted_to(self.address)
        call.catalogue = catalogue
        if call.decision.allowed:
            decision = decide(call.principal, call.message, catalogue)
            if not decision.allowed:
                raise AccessWithdrawn(decision)
        self.read_at = began


recheck_var: ContextVar[Recheck | None] = ContextVar("portico_recheck", default=None)
"""The recheck of the current message. It is not in Call: tools get that, and it must
not hold a raw token.
"""


class RecheckedMixin:
    """A response that continues only while its message is allowed."""

    recheck: Recheck
    end: Exception | None
    """Why the response ends early, once it has to."""

    async def still_allowed(self, *, looked: bool = False) -> bool:
        """Whether the message is still allowed; sets `end` if not."""
        problem = await self.recheck.problem(looked=looked)
        self.end = self.end or problem
        return self.end is None
