"""Hosts that accept a connection and send nothing, or almost nothing."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class SilentHost:
    """A host at every loopback address; `asked` lists the requested addresses."""

    port: int
    drip: bytes = b""
    """Sent one byte at a time while the connection is open."""
    asked: list[str] = field(default_factory=list)
    lines: list[socket.socket] = field(default_factory=list)

    def serve(self, listening: socket.socket) -> None:
        """Accept connections until the listening socket is closed."""
        with suppress(OSError):
            while True:
                line, _peer = listening.accept()
                self.asked.append(line.getsockname()[0])
                self.lines.append(line)
                if self.drip:
                    threading.Thread(target=self.dribble, args=(line,)).start()

    def dribble(self, line: socket.socket) -> None:
        """A byte now and then, for 20 seconds."""
        with suppress(OSError):
            for index in range(100):
                line.sendall(self.drip[index % len(self.drip) :][:1])
                time.sleep(0.2)


@contextmanager
def silent_host(drip: bytes = b"") -> Iterator[SilentHost]:
    with socket.socket() as listening:
        listening.bind(("0.0.0.0", 0))  # noqa: S104
        listening.listen(64)
        host = SilentHost(listening.getsockname()[1], drip)
        thread = threading.Thread(target=host.serve, args=(listening,))
        thread.start()
        try:
            yield host
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()
            for line in host.lines:
                line.close()
