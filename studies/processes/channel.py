"""Channel of one cell: messages with the number of their task, read and written within a deadline.

A message is a header, a JSON text and bytes. Nothing that a cell has written is unpickled, and no length that
it claims is believed: bytes are taken as they come, up to a limit, and a reader never waits beyond its
deadline.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

LOST = 71
"""Exit status of a process in which a cell has closed the channel, or which a cell has forked."""
DIGEST = 32
"""Signs of a digest of the user's file, of which a worker says which it has run."""
_HEADER = struct.Struct(">4sQIIQ")
_MAGIC = b"cell"
_LARGEST_TEXT = 2**26
_LARGEST_BYTES = 2**31
_PIECE = 2**20


class GarbageError(Exception):
    """Bytes on a channel are not a message."""


class ClosedError(Exception):
    """The other side has closed the channel, or has ended."""


@dataclass(frozen=True)
class Message:
    """Message of a channel.

    Attributes:
        number: Number of the task that it belongs to.
        content: Content that JSON can hold.
        attached: Further bytes.
    """

    number: int
    content: dict[str, Any]
    attached: bytes = b""

    def encoded(self) -> list[bytes]:
        """The message as parts of a stream."""
        text = json.dumps(self.content).encode()
        checksum = zlib.crc32(self.attached, zlib.crc32(text))
        header = _HEADER.pack(_MAGIC, self.number, checksum, len(text), len(self.attached))
        return [header + text, self.attached]


@dataclass
class Channel:
    """One end of a channel.

    Attributes:
        socket: Its socket.
    """

    socket: socket.socket
    _received: bytearray = field(default_factory=bytearray)
    _identity: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        self.socket.setblocking(False)
        self._identity = _identity_of(self.socket.fileno())

    @property
    def intact(self) -> bool:
        """True if the descriptor still is that of the socket: a cell may close it and open files."""
        try:
            return _identity_of(self.socket.fileno()) == self._identity
        except OSError:
            return False

    def send(self, message: Message, seconds: float) -> bool:
        """Send a message; false if the other side has not taken it in time.

        Raises:
            ClosedError: There is no other side any more.
        """
        deadline = time.monotonic() + seconds
        for part in message.encoded():
            view = memoryview(part)
            while view:
                try:
                    view = view[self.socket.send(view[:_PIECE]) :]
                except BlockingIOError:
                    if not _ready(self.socket, deadline - time.monotonic(), select.POLLOUT):
                        return False
                except OSError as error:
                    raise ClosedError(str(error)) from error
        return True

    def receive(self, seconds: float | None) -> Message | None:
        """The next message, or `None` if it has not come in time; `None` for `seconds` waits for it.

        Raises:
            ClosedError: The other side has closed its end, and no whole message is left.
            GarbageError: The bytes are not a message.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        message, left = self._message(), seconds
        while message is None:
            if (left is not None and left < 0) or not _ready(self.socket, left, select.POLLIN):
                return None
            try:
                piece = self.socket.recv(_PIECE)
            except OSError as error:
                raise ClosedError(str(error)) from error
            if not piece:
                if self._received:
                    raise GarbageError(f"{len(self._received)} bytes of an unfinished message")
                raise ClosedError("closed")
            self._received += piece
            message = self._message()
            left = None if deadline is None else deadline - time.monotonic()
        return message

    def close(self) -> None:
        """Close this end."""
        with contextlib.suppress(OSError):
            self.socket.close()

    def _message(self) -> Message | None:
        """The first message that has come whole."""
        found = self._received
        if not _MAGIC.startswith(bytes(found[: len(_MAGIC)])):
            raise GarbageError(f"bytes that begin with {bytes(found[:20])!r}")
        if len(found) < _HEADER.size:
            return None
        _, number, checksum, text, attached = _HEADER.unpack_from(found)
        if text > _LARGEST_TEXT or attached > _LARGEST_BYTES:
            raise GarbageError(f"the header of a message of {text} and {attached} bytes")
        end = _HEADER.size + text + attached
        if len(found) < end:
            return None
        with memoryview(found) as view:
            body = bytes(view[_HEADER.size : end])
        del found[:end]
        if zlib.crc32(body) != checksum:
            raise GarbageError("a message with another checksum")
        try:
            content = json.loads(body[:text])
        except (ValueError, RecursionError) as error:
            raise GarbageError("a message that is not JSON") from error
        if not isinstance(content, dict):
            raise GarbageError("a message that is not an object of JSON")
        return Message(number, content, body[text:])


def pair() -> tuple[Channel, socket.socket]:
    """A channel, and the socket of its other end."""
    ours, theirs = socket.socketpair()
    return Channel(ours), theirs


# --- Control of the process that starts cells ------------------------------------------------------

_LINE = 128
"""Bytes of a line, all of which arrive at once."""


def tell(control: socket.socket, content: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
    """Send a line, with descriptors of files for the process at the other end.

    Raises:
        ClosedError: There is no other side any more, or it does not listen.
    """
    line = json.dumps(content).encode().ljust(_LINE)
    try:
        sent = socket.send_fds(control, [line], descriptors)
        if sent < len(line):
            control.sendall(line[sent:])
    except OSError as error:
        raise ClosedError(str(error)) from error


def hear(control: socket.socket, seconds: float | None) -> tuple[dict[str, Any], list[int]] | None:
    """The next line with its descriptors, or `None` if none has come in time.

    Raises:
        ClosedError: The other side has ended.
        GarbageError: It is no such line.
    """
    if not _ready(control, seconds, select.POLLIN):
        return None
    line = b""
    descriptors: list[int] = []
    try:
        while len(line) < _LINE:
            piece, found, _, _ = socket.recv_fds(control, _LINE - len(line), 2)
            if not piece:
                raise ClosedError("closed")
            line, descriptors = line + piece, descriptors + found
    except OSError as error:
        raise ClosedError(str(error)) from error
    try:
        content = json.loads(line)
    except ValueError as error:
        raise GarbageError(f"a line {line[:20]!r}") from error
    if not isinstance(content, dict):
        raise GarbageError(f"a line {line[:20]!r}")
    return content, descriptors


def _identity_of(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


def _ready(opened: socket.socket, seconds: float | None, event: int) -> bool:
    poll = select.poll()
    poll.register(opened, event)
    return bool(poll.poll(None if seconds is None else max(seconds, 0.0) * 1000))
