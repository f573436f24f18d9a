"""One thread that carries bytes between sockets of the host and sockets inside containers: published ports.

A *gate* is a bound socket on one side and a way to get sockets on the other. What a stream gate accepts is joined to a
new socket and spliced through a pipe, splice(2), so bytes never come into Python; what a datagram gate receives goes
through one socket for each peer, and comes back from it, until the peer has been silent for a while.

The thread never waits but in epoll(7). A descriptor is registered only as long as something can come of it: a
connection that is half closed would report its hang-up for ever. Pipes are taken from a pool while bytes are in them
and given back, so a connection that is quiet costs its two sockets and nothing else.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import socket
import struct
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from pycontain.errors import SandboxError
from pycontain.runtime import engine as engines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    # From a number of the try, from 0 on, to a socket and where to connect it; None when there is nothing left to try.
    Dial = Callable[[int], "tuple[socket.socket, Any] | None"]

_PIPE_SIZE = 256 << 10
_PIPES_KEPT = 32
_AT_ONCE = 64  # connections or datagrams of one socket before the others get their turn
_CHUNK = 1 << 20
_SILENT = 60.0  # seconds; RFC 4787 asks for two minutes of who translates addresses, which we do not
_MOST_PEERS = 1024
_RETRY = 0.1  # seconds until we try to accept again when the process is short of descriptors
_SPLICE = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
_SHORT = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_IN, _OUT = select.EPOLLIN, select.EPOLLOUT
_RESET = struct.pack("ii", 1, 0)  # socket(7), SO_LINGER: close(2) sends a reset
_IP_PKTINFO, _IPV6_RECVPKTINFO, _IPV6_PKTINFO = 8, 49, 50  # linux/in.h, linux/in6.h


class _Way:
    """One direction of a stream: bytes of *source* that wait in a pipe for *sink*."""

    __slots__ = ("ended", "over", "pending", "pipe", "sink", "source")

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source = source
        self.sink = sink
        self.pipe: tuple[int, int] | None = None
        self.pending = 0
        self.ended = False  # the source has nothing more
        self.over = False  # and the sink knows it

    def pump(self, pipes: _Pipes) -> None:
        """Carry what can be carried without waiting."""
        for _ in range(4):  # then others get their turn
            if not self.pending and not self.ended and not self._fill(pipes):
                return
            if self.pending and not self._drain(pipes):
                return
            if self.ended and not self.over:
                self.over = True
                with contextlib.suppress(OSError):  # ENOTCONN: it has gone
                    self.sink.shutdown(socket.SHUT_WR)
            if self.over:
                return

    def _fill(self, pipes: _Pipes) -> bool:
        if self.pipe is None:
            self.pipe = pipes.take()
        try:
            self.pending = os.splice(self.source.fileno(), self.pipe[1], _PIPE_SIZE, flags=_SPLICE)
        except BlockingIOError:
            self.give_back(pipes)
            return False
        if not self.pending:
            self.ended = True
            self.give_back(pipes)
        return True

    def _drain(self, pipes: _Pipes) -> bool:
        assert self.pipe is not None
        try:
            self.pending -= os.splice(self.pipe[0], self.sink.fileno(), self.pending, flags=_SPLICE)
        except BlockingIOError:
            return False
        if not self.pending:
            self.give_back(pipes)
        return not self.pending

    def give_back(self, pipes: _Pipes) -> None:
        if self.pipe is not None:
            pipes.give(self.pipe, clean=not self.pending)
            self.pipe = None


class _Pipes:
    """Pipes that wait for bytes."""

    def __init__(self) -> None:
        self.free: list[tuple[int, int]] = []

    def take(self) -> tuple[int, int]:
        if self.free:
            return self.free.pop()
        pipe = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        with contextlib.suppress(OSError):  # pipe(7): a user may have so much in pipes
            fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        return pipe

    def give(self, pipe: tuple[int, int], *, clean: bool) -> None:
        if clean and len(self.free) < _PIPES_KEPT:
            self.free.append(pipe)
        else:
            _close(pipe)

    def clear(self) -> None:
        while self.free:
            _close(self.free.pop())


def _close(pipe: tuple[int, int]) -> None:
    for fd in pipe:
        os.close(fd)


class _Stream:
    """A connection that was accepted, and its other half inside."""

    def __init__(self, forwarder: Forwarder, gate: Gate, near: socket.socket) -> None:
        self.forwarder = forwarder
        self.gate = gate
        self.near = near
        self.far: socket.socket | None = None
        self.ways: tuple[_Way, ...] = ()
        self.masks: dict[int, int] = {}
        self.tries = 0
        near.setblocking(False)
        _no_delay(near)
        self.dial()

    def dial(self) -> None:
        """Try the next place; the connection is reset when none is left."""
        while True:
            found = _dialled(self.gate.dial, self.tries)
            self.tries += 1
            if found is None:
                self.close(reset=True)
                return
            self.far, address = found
            self.far.setblocking(False)
            result = self.far.connect_ex(address)
            if result in {0, errno.EINPROGRESS}:
                self._want(self.far, _OUT)
                return
            self._drop_far()

    def attend(self, fd: int, events: int) -> None:
        """Go on, now that *fd* is ready."""
        far = self.far
        if far is None:
            return
        if not self.ways:
            if fd != far.fileno():
                return
            if far.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._drop_far()
                self.dial()
                return
            if _is_connecting(far):  # the event was for an earlier descriptor of this number
                return
            _no_delay(far)
            self.ways = (_Way(self.near, far), _Way(far, self.near))
        try:
            for way in self.ways:
                way.pump(self.forwarder.pipes)
        except OSError as error:
            # A reset, or a sink that has gone: what comes from the other side has nobody to go to.
            self.close(reset=error.errno in {errno.ECONNRESET, errno.EPIPE})
            return
        del events
        self.update()

    def update(self) -> None:
        """Wait for what can go on."""
        out, back = self.ways
        if (out.over and back.over) or (back.over and self.gate.ended):
            self.close()
            return
        assert self.far is not None
        self._want(self.near, _IN * _reads(out) | _OUT * bool(back.pending))
        self._want(self.far, _IN * _reads(back) | _OUT * bool(out.pending))

    def _want(self, end: socket.socket, mask: int) -> None:
        fd = end.fileno()
        had = self.masks.get(fd, 0)
        if mask == had:
            return
        poll = self.forwarder.poll
        if not had:
            poll.register(fd, mask)
            self.forwarder.attendants[fd] = self
        elif mask:
            poll.modify(fd, mask)
        else:
            self._forget(fd)
        self.masks[fd] = mask

    def _forget(self, fd: int) -> None:
        if self.masks.pop(fd, 0):
            self.forwarder.poll.unregister(fd)
            del self.forwarder.attendants[fd]

    def _drop_far(self) -> None:
        if self.far is not None:
            self._forget(self.far.fileno())
            self.far.close()
            self.far = None

    def close(self, *, reset: bool = False) -> None:
        """End both halves. Safe to repeat."""
        if self.near.fileno() < 0:
            return
        for way in self.ways:
            way.give_back(self.forwarder.pipes)
        self._forget(self.near.fileno())
        for end in (self.near, self.far):
            if reset and end is not None:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._drop_far()
        self.near.close()
        self.gate.streams.discard(self)
        self.forwarder.room_was_made()


def _dialled(dial: Dial, tries: int) -> tuple[socket.socket, Any] | None:
    try:
        return dial(tries)
    except (OSError, SandboxError):  # no descriptor is left, or everything inside has just ended
        return None


def _is_ready(fd: int) -> bool:
    """Whether *fd* can be read. What epoll(7) has told may be of an earlier descriptor of this number."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def _is_connecting(end: socket.socket) -> bool:
    """connect(2): with no error and no peer it goes on."""
    try:
        end.getpeername()
    except OSError:
        return True
    return False


def _reads(way: _Way) -> bool:
    return not way.ended and not way.pending


def _no_delay(end: socket.socket) -> None:
    with contextlib.suppress(OSError):  # a unix socket
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class Gate:
    """A bound socket, and what comes in through it. Made by :meth:`Forwarder.open`."""

    def __init__(self, forwarder: Forwarder, bound: socket.socket, dial: Dial) -> None:
        self.forwarder = forwarder
        self.bound = bound
        self.dial = dial
        self.ended = False  # nobody is inside any more
        self.streams: set[_Stream] = set()
        bound.setblocking(False)

    def attend(self, fd: int, events: int) -> None:
        """Accept what waits."""
        del fd, events
        for _ in range(_AT_ONCE):
            try:
                near, _ = self.bound.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _SHORT:
                    self.forwarder.pause(self)
                    return
                continue  # accept(2): an error of a connection that has gone already
            self.streams.add(_Stream(self.forwarder, self, near))

    def expire(self, now: float) -> None:
        """Nothing of it grows old."""

    def close(self) -> None:
        """Accept no more, and end what there is. Safe to repeat."""
        self.ended = True
        self.forwarder.forget(self.bound)
        self.bound.close()
        for stream in list(self.streams):
            stream.close()

    def sockets(self) -> Iterator[socket.socket]:
        """All that are open."""
        yield self.bound
        for stream in self.streams:
            yield from (end for end in (stream.near, stream.far) if end is not None)

    def leave(self) -> None:
        """Accept no more; connections end when what is on its way has arrived."""
        self.ended = True
        self.forwarder.forget(self.bound)
        self.bound.close()
        for stream in list(self.streams):
            if stream.ways:
                stream.update()
            else:
                stream.close(reset=True)


class _Peer:
    """Who sends datagrams: the socket inside that stands for him, and how to answer."""

    def __init__(self, gate: DatagramGate, inside: socket.socket, address: Any, control: Any) -> None:
        self.gate = gate
        self.inside = inside
        self.address = address
        self.control = control
        self.heard = time.monotonic()

    def attend(self, fd: int, events: int) -> None:
        """Carry answers back."""
        del fd, events
        for _ in range(_AT_ONCE):
            try:
                answer = self.inside.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError:  # udp(7): nobody listens there
                self.gate.was_refused(self)
                return
            self.heard = time.monotonic()
            with contextlib.suppress(OSError):  # a datagram may be lost
                self.gate.bound.sendmsg([answer], self.control, 0, self.address)


class DatagramGate(Gate):
    """The same for datagrams."""

    def __init__(self, forwarder: Forwarder, bound: socket.socket, dial: Dial) -> None:
        super().__init__(forwarder, bound, dial)
        self.peers: OrderedDict[Any, _Peer] = OrderedDict()
        self.tries = 0
        # An answer comes from the address that was asked, of which a wildcard has several.
        if bound.family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
        else:
            bound.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)

    def attend(self, fd: int, events: int) -> None:
        """Carry what has come to the peer's own socket inside."""
        del fd, events
        for _ in range(_AT_ONCE):
            try:
                datagram, control, _, address = self.bound.recvmsg(1 << 16, 256)
            except BlockingIOError:
                return
            except OSError:  # of an earlier answer, which did not arrive
                continue
            peer = self._peer(address, control)
            if peer is not None:
                peer.heard = time.monotonic()
                with contextlib.suppress(OSError):  # a datagram may be lost
                    peer.inside.send(datagram)

    def _peer(self, address: Any, control: Any) -> _Peer | None:
        wanted = {(socket.IPPROTO_IP, _IP_PKTINFO), (socket.IPPROTO_IPV6, _IPV6_PKTINFO)}
        control = [each for each in control if each[:2] in wanted]
        key = address, *(_local(*each) for each in control)
        peer = self.peers.get(key)
        if peer is not None:
            self.peers.move_to_end(key)
            return peer
        found = _dialled(self.dial, self.tries)
        if found is None:
            self.tries = 0
            return None
        inside, where = found
        inside.setblocking(False)
        if inside.connect_ex(where):
            inside.close()
            self.tries += 1
            return None
        while len(self.peers) >= _MOST_PEERS:
            self._drop(next(iter(self.peers)))
        peer = self.peers[key] = _Peer(self, inside, address, control)
        self.forwarder.poll.register(inside.fileno(), _IN)
        self.forwarder.attendants[inside.fileno()] = peer
        return peer

    def was_refused(self, peer: _Peer) -> None:
        """Nobody listens there: the peer's next datagram goes to the next place."""
        self.tries += 1
        for key, each in list(self.peers.items()):
            if each is peer:
                self._drop(key)

    def expire(self, now: float) -> None:
        """Let go of who has been silent."""
        for key, peer in list(self.peers.items()):
            if now - peer.heard > _SILENT:
                self._drop(key)

    def _drop(self, key: Any) -> None:
        peer = self.peers.pop(key)
        self.forwarder.forget(peer.inside)
        peer.inside.close()

    def close(self) -> None:
        """Receive no more. Safe to repeat."""
        super().close()
        for key in list(self.peers):
            self._drop(key)

    def leave(self) -> None:
        """The same: what is on its way may be lost."""
        self.close()

    def sockets(self) -> Iterator[socket.socket]:
        """All that are open."""
        yield self.bound
        yield from (peer.inside for peer in self.peers.values())


def _local(level: int, kind: int, content: bytes) -> bytes:
    """The address that was asked, of ip(7) ``in_pktinfo``, whose index and destination may differ from packet to packet."""
    del level
    return content[4:8] if kind == _IP_PKTINFO else content


class _Guest:
    """A container with gates: when it ends, they do."""

    def __init__(self, forwarder: Forwarder, pidfd: int) -> None:
        self.forwarder = forwarder
        self.pidfd = pidfd
        self.gates: list[Gate] = []
        self.ends: list[Callable[[], object]] = []

    def attend(self, fd: int, events: int) -> None:
        """The container has ended."""
        del events
        if _is_ready(fd):
            self.leave()

    def leave(self) -> None:
        """Nobody is inside any more. Safe to repeat."""
        if self.pidfd < 0:
            return
        self.forwarder.poll.unregister(self.pidfd)
        del self.forwarder.attendants[self.pidfd]
        os.close(self.pidfd)
        self.pidfd = -1
        for gate in self.gates:
            gate.leave()
        for end in self.ends:
            end()


class Forwarder:
    """The thread and its epoll(7). Made by the first port that is published, in each process anew."""

    def __init__(self) -> None:
        self.poll = select.epoll()
        self.pipes = _Pipes()
        self.attendants: dict[int, Any] = {}
        self.gates: list[Gate] = []
        self._paused: set[Gate] = set()
        self.lock = threading.RLock()
        self._thread: threading.Thread | None = None
        engines.abandon_in_fork(self)

    def expect_end(self, pidfd: int, *ends: Callable[[], object]) -> Callable[[], None]:
        """Call *ends* when the process of *pidfd* has ended, in the forwarder's thread; the result does so at once.

        The pidfd is the forwarder's from now on.
        """
        guest = _Guest(self, pidfd)
        guest.ends += ends
        with self.lock:
            self.attendants[pidfd] = guest
            self.poll.register(pidfd, _IN)
            self._begin()

        def end() -> None:
            with self.lock:
                guest.leave()

        return end

    def open(self, bound: socket.socket, dial: Dial) -> Gate:
        """Join what comes to *bound* with sockets of *dial*. The socket is the forwarder's from now on."""
        kind = DatagramGate if bound.type == socket.SOCK_DGRAM else Gate
        with self.lock:
            gate = kind(self, bound, dial)
            self.gates.append(gate)
            self.attendants[bound.fileno()] = gate
            self.poll.register(bound.fileno(), _IN)
            self._begin()
        return gate

    def close(self, gate: Gate) -> None:
        """Close *gate* and all that came in through it. Safe to repeat."""
        with self.lock:
            gate.close()
            self._tidy()

    def leave(self, gates: Sequence[Gate]) -> None:
        """Let nobody in any more; what is on its way arrives."""
        with self.lock:
            for gate in gates:
                gate.leave()
            self._tidy()

    def forget(self, end: socket.socket) -> None:
        """For gates: wait for *end* no more."""
        fd = end.fileno()
        if self.attendants.pop(fd, None) is not None:
            self.poll.unregister(fd)

    def pause(self, gate: Gate) -> None:
        """For gates: accept nothing until a descriptor is free."""
        if gate not in self._paused:
            self._paused.add(gate)
            self.poll.modify(gate.bound.fileno(), 0)

    def room_was_made(self) -> None:
        """For streams: who waits for a descriptor may try again."""
        for gate in self._paused:
            if gate.bound.fileno() in self.attendants:
                self.poll.modify(gate.bound.fileno(), _IN)
        self._paused.clear()

    def abandon(self) -> None:
        """In the child of a fork: the connections are the parent's."""
        global _forwarder  # noqa: PLW0603 - one forwarder for one process
        self.poll.close()
        for gate in self.gates:
            for end in gate.sockets():
                fd = end.detach()
                if fd >= 0:
                    os.close(fd)
            for pipe in (way.pipe for stream in gate.streams for way in stream.ways if way.pipe is not None):
                _close(pipe)
        for attendant in self.attendants.values():
            if isinstance(attendant, _Guest):
                os.close(attendant.pidfd)
        self.pipes.clear()
        self.attendants.clear()
        self.gates.clear()
        _forwarder = None

    def _begin(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="pycontain-forwarder", daemon=True)
            self._thread.start()

    def _tidy(self) -> None:
        self.gates = [gate for gate in self.gates if not gate.ended or gate.streams]
        if not any(gate.streams for gate in self.gates):
            self.pipes.clear()

    def _run(self) -> None:
        expired = time.monotonic()
        while True:
            timeout = _RETRY if self._paused else 5.0 if self._has_peers() else None
            ready = self.poll.poll(timeout)
            with self.lock:
                for fd, events in ready:
                    attendant = self.attendants.get(fd)
                    if attendant is not None:
                        attendant.attend(fd, events)
                if not ready:
                    self.room_was_made()
                now = time.monotonic()
                if now - expired > 5.0:
                    expired = now
                    for gate in self.gates:
                        gate.expire(now)
                self._tidy()

    def _has_peers(self) -> bool:
        return any(isinstance(gate, DatagramGate) and gate.peers for gate in self.gates)


_forwarder: Forwarder | None = None
_making = threading.Lock()


def _forked() -> None:
    global _making  # noqa: PLW0603 - another thread of the parent may have held it
    _making = threading.Lock()


os.register_at_fork(after_in_child=_forked)


def forwarder() -> Forwarder:
    """The forwarder of this process."""
    global _forwarder  # noqa: PLW0603 - as above
    with _making:
        if _forwarder is None:
            _forwarder = Forwarder()
        return _forwarder
