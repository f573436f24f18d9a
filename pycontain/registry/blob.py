"""A blob as a stream that survives broken connections: it goes on by Range where it stopped, and ends at its size.

An opener asks one registry or mirror for the blob from an offset. Several are tried in order: the next takes over
where the one before gave up, in the middle of the blob too, because the digest says that all have the same bytes.
"""

from __future__ import annotations

import io
import re
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, TypeAlias

from pycontain.errors import DigestMismatch, ImageError, RegistryError, TransferInterrupted
from pycontain.interruption import pause
from pycontain.registry.transport import host_of

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from pycontain.oci.descriptor import Descriptor
    from pycontain.registry.transport import Answer

#: Asks for the blob from an offset; the answer has status 200, 206 or 416.
Opener: TypeAlias = Callable[[int], "Answer"]

_BLOCK: Final = 2**18
_PROGRESS: Final = 2**20  # after so many bytes a connection counts as sound, and its failures are forgotten
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-[0-9]{1,19}/(\*|[0-9]{1,19})")


class BlobStream(io.RawIOBase):
    """The bytes of a blob from an offset to its size, neither more nor fewer.

    ``read`` may give fewer bytes than asked for before the end. It raises :class:`TransferInterrupted` when retries
    did not help (what was read until then is good, and a new stream may start there), and
    :class:`DigestMismatch` when the registry has more or fewer bytes than the descriptor says. With ``verify``,
    the last ``read`` raises it also unless all of them have the digest.
    """

    _answer: Answer | None = None  # also when __init__ fails, because close() is called all the same

    def __init__(
        self,
        descriptor: Descriptor,
        openers: Iterable[Opener],
        wait_after: Callable[[int], float | None],
        offset: int = 0,
        *,
        verify: bool = False,
    ) -> None:
        if not 0 <= offset <= descriptor.size or (verify and offset):
            raise ValueError(
                f"offset {offset} is not in a blob of {descriptor.size} bytes, or not verifiable"
            )
        self.descriptor = descriptor
        self._openers = deque(openers)
        self._wait_after = wait_after
        self._position = offset
        self._hasher = descriptor.digest.hasher() if verify else None
        self._to_skip = 0
        self._failures = 0
        self._progress = 0
        if offset < descriptor.size:
            self._answer = self._open()

    def __repr__(self) -> str:
        return f"BlobStream({self.descriptor.digest}, {self._position} of {self.descriptor.size} bytes)"

    def readable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """The offset in the blob of the next byte."""
        return self._position

    def read(self, size: int | None = -1, /) -> bytes:
        """Some bytes, at most *size*; all that are left when it is negative; none at the end."""
        if size is None or size < 0:
            return self.readall()
        size = min(size, self.descriptor.size - self._position)
        return self._receive(size) if size else b""

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """As :meth:`read`, into *buffer*."""
        view = memoryview(buffer).cast("B")
        block = self.read(len(view))
        view[: len(block)] = block
        return len(block)

    def close(self) -> None:
        """Give the connection back, or end it. May be called twice."""
        self._drop()
        super().close()

    # --- the way of the bytes ---------------------------------------------------------------------------

    def _receive(self, size: int) -> bytes:
        while True:
            answer = self._answer = self._answer or self._open()
            try:
                answer.skip(self._to_skip)
                self._to_skip = 0
                block = answer.read(size)
            except TransferInterrupted as error:
                self._recover(error)
            else:
                if block:
                    self._count(block)
                    return block
                self._recover(self._ended_early(answer))

    def _count(self, block: bytes) -> None:
        self._position += len(block)
        self._progress += len(block)
        if self._progress >= _PROGRESS:
            self._failures = self._progress = 0
        if self._hasher:
            self._hasher.update(block)
        if self._position == self.descriptor.size:
            self._finish()

    def _finish(self) -> None:
        answer, self._answer = self._answer, None
        if answer:
            with answer:
                _check_end(answer, self.descriptor)
        if self._hasher:
            self.descriptor.digest.check_hex(self._hasher.hexdigest())

    def _open(self) -> Answer:
        while True:
            try:
                answer = self._openers[0](self._position)
                self._to_skip = _bytes_before(answer, self.descriptor, self._position)
            except (RegistryError, ImageError):
                if len(self._openers) == 1:
                    raise
                self._openers.popleft()
            else:
                return answer

    def _recover(self, error: TransferInterrupted) -> None:
        """Wait for another try, here or elsewhere; raise *error* when there is none."""
        self._drop()
        self._failures += 1
        self._progress = 0
        wait = self._wait_after(self._failures)
        if wait is not None:
            pause(wait)
        elif len(self._openers) > 1:
            self._openers.popleft()
            self._failures = 0
        else:
            raise error

    def _drop(self) -> None:
        if self._answer:
            self._answer.close()
            self._answer = None

    def _ended_early(self, answer: Answer) -> TransferInterrupted:
        return TransferInterrupted(
            f"{host_of(answer.url)} stops after {self._position} of {self.descriptor.size} bytes"
            f" of {self.descriptor.digest}",
            registry=host_of(answer.url),
        )


def _bytes_before(answer: Answer, descriptor: Descriptor, offset: int) -> int:
    """How many bytes of *answer* come before *offset*. Closes it when it cannot be this blob."""
    try:
        return _checked_start(answer, descriptor, offset)
    except (RegistryError, ImageError):
        answer.close()
        raise


def _checked_start(answer: Answer, descriptor: Descriptor, offset: int) -> int:
    if answer.status == 416:
        raise _wrong_size(answer, descriptor, f"fewer than {offset}")
    if answer.status == 206:
        found = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if not found or int(found[1]) != offset:
            raise RegistryError(
                f"{host_of(answer.url)} sends another part of {descriptor.digest} than it was asked for",
                registry=host_of(answer.url),
                status=206,
            )
        _check_size(answer, descriptor, found[2])
        return 0
    _check_size(answer, descriptor, answer.headers.get("Content-Length", "*"))
    return offset  # a server may ignore Range (RFC 9110, 14.2)


def _check_size(answer: Answer, descriptor: Descriptor, said: str) -> None:
    if said not in ("*", str(descriptor.size)):
        raise _wrong_size(answer, descriptor, said)


def _check_end(answer: Answer, descriptor: Descriptor) -> None:
    try:
        more = answer.read(1)
    except TransferInterrupted:
        return  # all bytes are here
    if more:
        raise _wrong_size(answer, descriptor, f"more than {descriptor.size}")


def _wrong_size(answer: Answer, descriptor: Descriptor, found: str) -> DigestMismatch:
    return DigestMismatch(
        f"{host_of(answer.url)} has {found[:40]} bytes of {descriptor.digest}"
        f" where its descriptor says {descriptor.size}",
        expected=str(descriptor.digest),
    )
