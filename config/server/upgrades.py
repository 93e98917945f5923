"""Parses requests with `Upgrade` as if that were not there (RFC 9110 7.8).

llhttp, httptools' parser, ends such a message after its head and takes the body for
data of another protocol. Java's HttpClient sends `Upgrade: h2c` by default.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import httptools

FRAMING = (b"content-length", b"transfer-encoding")
"""The fields that decide where a body ends (RFC 9112 6)."""


class EndOfMessage(Exception):
    """Stops the parser at bytes after the message."""


class BodyParser:
    """Parses the body of one message, whose head was parsed before.

    Ignores bytes after it: a proxy might take them for data of the other protocol.
    """

    def __init__(
        self, protocol: Any, version: str, headers: Iterable[tuple[bytes, bytes]]
    ) -> None:
        """Raises httptools.HttpParserError if the fields do not frame a body."""
        self.protocol = protocol
        self.begun = self.complete = False
        self.parser = httptools.HttpRequestParser(self)
        fields = [b"%b: %b\r\n" % pair for pair in headers if pair[0] in FRAMING]
        self.feed(b"POST / HTTP/%b\r\n" % version.encode() + b"".join(fields) + b"\r\n")

    def feed(self, data: bytes) -> None:
        """Parse further bytes. Raises httptools.HttpParserError."""
        if self.complete or not data:
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            if not self.complete:
                raise

    def on_message_begin(self) -> None:
        if self.begun:
            raise EndOfMessage
        self.begun = True

    def on_body(self, body: bytes) -> None:
        self.protocol.on_body(body)

    def on_message_complete(self) -> None:
        self.complete = True
        self.protocol.on_body_complete()


class UpgradeParser:
    """httptools' parser of a connection, until a head has `Upgrade`; then BodyParser.

    `protocol.upgrading` is the BodyParser, which the protocol makes with the head.
    """

    def __init__(self, protocol: Any) -> None:
        self.protocol, self.inner = protocol, protocol.parser

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def feed_data(self, data: bytes) -> None:
        """Raises httptools.HttpParserError; HttpParserUpgrade for a WebSocket."""
        if self.protocol.upgrading is not None:
            self.protocol.upgrading.feed(data)
            return
        try:
            self.inner.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self.protocol.upgrading is None:
                raise
            self.protocol.upgrading.feed(data[upgrade.args[0] :])
