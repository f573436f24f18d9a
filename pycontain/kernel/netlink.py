"""netlink(7): requests and answers, and how attributes are packed. Small and without imports of weight.

pyroute2 speaks all of netlink, and costs 110 ms to load; what we say is a dozen messages, so they are packed
here and in the two modules beside this one.
"""

from __future__ import annotations

import os
import socket
import struct

TYPE_CHECKING = False  # importing typing would cost the zygote 6 ms and 1 MB
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

ROUTE, NETFILTER = 0, 12  # linux/netlink.h
REQUEST, ACK, EXCLUSIVE, CREATE, APPEND = 0x1, 0x4, 0x200, 0x400, 0x800
DUMP = 0x300
_ERROR, _DONE = 2, 3
_NESTED, _KIND = 0x8000, 0x3FFF
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_SOL_NETLINK, _CAP_ACK = 270, 10
_BUFFER = 1 << 16


def attribute(kind: int, content: bytes | str | int) -> bytes:
    """One attribute: bytes as they are, a text with its end, a number in 32 bits of this machine's order."""
    match content:
        case int():
            content = struct.pack("=I", content)
        case str():
            content = content.encode() + b"\0"
        case _:
            pass
    padding = -len(content) % 4
    return _ATTRIBUTE.pack(4 + len(content), kind) + content + b"\0" * padding


def nested(kind: int, *content: bytes) -> bytes:
    """An attribute of attributes."""
    return attribute(kind | _NESTED, b"".join(content))


def attributes(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Take apart what :func:`attribute` packs."""
    while len(content) >= 4:
        length, kind = _ATTRIBUTE.unpack_from(content)
        if length < 4:
            return
        yield kind & _KIND, content[4:length]
        content = content[(length + 3) & ~3 :]


def text_of(content: bytes) -> str:
    """A text without its end."""
    return content.partition(b"\0")[0].decode(errors="replace")


class Netlink:
    """A socket of one *protocol* of the caller's network namespace, :data:`ROUTE` or :data:`NETFILTER`."""

    def __init__(self, protocol: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._number = 0
        self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)  # an error need not repeat the request
        self._socket.bind((0, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        """Its descriptor."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close it. Safe to repeat."""
        self._socket.close()

    def packed(self, kind: int, flags: int, content: bytes) -> bytes:
        """One message with the next number."""
        self._number += 1
        return _HEADER.pack(16 + len(content), kind, flags | REQUEST, self._number, 0) + content

    def ask(self, kind: int, flags: int, content: bytes) -> None:
        """Have one thing done; OSError says why it was not."""
        self.send(self.packed(kind, flags | ACK, content), 1)

    def send(self, messages: bytes, answers: int) -> None:
        """Send *messages*, and wait for so many acknowledgements; the first error is raised when all are there."""
        self._socket.send(messages)
        error = 0
        while answers:
            for kind, content in self._receive():
                if kind == _ERROR:
                    answers -= 1
                    error = error or -struct.unpack_from("=i", content)[0]
        if error:
            raise OSError(error, os.strerror(error))

    def dump(self, kind: int, content: bytes) -> list[bytes]:
        """All things of a kind."""
        self._socket.send(self.packed(kind, DUMP, content))
        found: list[bytes] = []
        while True:
            for answer, body in self._receive():
                if answer == _DONE:
                    return found
                if answer == _ERROR:
                    number = -struct.unpack_from("=i", body)[0]
                    raise OSError(number, os.strerror(number))
                found.append(body)

    def _receive(self) -> Iterator[tuple[int, bytes]]:
        packet = self._socket.recv(_BUFFER)
        while len(packet) >= _HEADER.size:
            length, kind, _, _, _ = _HEADER.unpack_from(packet)
            yield kind, packet[_HEADER.size : length]
            packet = packet[(length + 3) & ~3 :]
