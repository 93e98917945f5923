"""A lock for threads that passes from one to the next in the order of their arrival."""

from __future__ import annotations

from collections import deque
from threading import Lock


class WriteQueue:
    """At most one thread is in; `leave` lets in who has waited longest.

    threading.Lock has no order: who leaves can be back before another thread runs.
    """

    def __init__(self) -> None:
        self.guard, self.waiting, self.taken = Lock(), deque[Lock](), False

    def enter(self, seconds: float) -> bool:
        """Whether it is in; False after `seconds` of waiting."""
        with self.guard:
            if not self.taken:
                self.taken = True
                return True
            turn = Lock()
            turn.acquire()
            self.waiting.append(turn)
        if turn.acquire(timeout=seconds):
            return True
        with self.guard:
            if turn not in self.waiting:
                return True  # Its turn came while it gave up.
            self.waiting.remove(turn)
            return False

    def leave(self) -> None:
        with self.guard:
            if self.waiting:
                self.waiting.popleft().release()
            else:
                self.taken = False
