"""The porter: a child of the zygote that makes sockets and links inside the network namespaces of containers.

A socket belongs to the network namespace in which it was made, whoever holds it, network_namespaces(7). So the porter
enters a container's namespace, calls socket(2) there, and passes the descriptor to the owner, who connects it: the
porter itself never waits for anybody. It is forked when the first socket is asked for, and serves one owner through one
SEQPACKET socket:

======================================  ==============================================================
request, with a pidfd of the container  answer
======================================  ==============================================================
``sockets family kind count``           ``ok`` + so many sockets
``listen family kind address``          ``ok port`` + a socket that is bound, and listens if it is a stream
``unix kind path``                      ``ok`` + a socket that is connected to *path* below the container's root
``leave``                               ``ok``: its home is a network namespace of its own from now on
``home path``                           ``ok``: that namespace is bound to the file *path*, by which pasta(1) finds it
``bridge name address prefix``          ``ok``: a bridge in its home
``unbridge name``                       ``ok``: it is gone
``table name``                          ``ok`` + the socket that owns our table of nftables: who holds it keeps the table
``rules lines``                         ``ok``: these are its rules, see :func:`_rule`
``attach links gateway``                ``ok``: the container has these links, and a default route
``detach name``                         ``ok``: the link is gone
``hosts texts``                         ``ok``: the hosts files of these containers hold this; None removes one
``connected``                           ``ok``: the container is told that it has all that it shall have
======================================  ==============================================================

or ``failed errno``. Its *home* is the network namespace with the bridges: the host's as root, if that one forwards, else one
of its own, whose only way out is pasta(1). It lives in the zygote's PID namespace, so it ends with the zygote in whatever way.

It is a process of its own, and not the zygote: rootless, nobody may return into the host's network namespace, where the
zygote must stay for containers that share it.
"""

from __future__ import annotations

import errno
import fcntl
import marshal
import os
import select
import signal
import socket

from pycontain.kernel import descriptors, privileges, syscalls

TYPE_CHECKING = False  # as in pycontain/__init__.py
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pycontain.kernel.nftables import Table

_CHANNEL, _HOME = 3, 4  # the descriptors that it keeps
_REQUEST_LIMIT = 1 << 16
_BACKLOG = 4096  # the kernel takes net.core.somaxconn when that is less
MOST_SOCKETS = 64  # in one answer; unix(7): SCM_MAX_FD is 253


def live(channel: int, *, rootless: bool) -> None:
    """Serve until the owner lets go. Never returns."""
    try:
        privileges.set_name("pycontain-porter")
        far = fcntl.fcntl(channel, fcntl.F_DUPFD_CLOEXEC, 64)
        os.dup2(far, _CHANNEL, inheritable=False)
        if rootless:
            # The place to be between two containers: staying in one would keep its namespace alive.
            syscalls.unshare(syscalls.CLONE_NEWNET)
        home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        if home != _HOME:
            os.dup2(home, _HOME, inheritable=False)
        syscalls.close_range(_HOME + 1)
        signal.signal(signal.SIGTERM, _end)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))
        _serve(socket.socket(fileno=_CHANNEL))
    finally:
        os._exit(1)


def _serve(channel: socket.socket) -> None:
    while True:
        packet, fds, _ = descriptors.receive(channel, _REQUEST_LIMIT, 2)
        if not packet:
            _end()
        made: list[socket.socket] = []
        try:
            verb, *arguments = marshal.loads(packet)
            answer: tuple[Any, ...] = ("ok", *_DOERS[verb](made, fds, *arguments))
        except OSError as error:
            answer = ("failed", error.errno)
            for each in made:
                each.close()
            made = []
        socket.send_fds(channel, [marshal.dumps(answer)], [each.fileno() for each in made])
        for fd in fds:
            os.close(fd)
        for each in made:
            each.close()


def _has_exited(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


class Inside:
    """A block in the network namespace of the process that *pidfd* stands for."""

    def __init__(self, pidfd: int) -> None:
        self.pidfd = pidfd

    def __enter__(self) -> None:
        try:
            syscalls.setns(self.pidfd, syscalls.CLONE_NEWNET)
        except OSError as error:
            # setns(2) says EPERM of a process that is only waiting to be reaped.
            if _has_exited(self.pidfd):
                raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from error
            raise

    def __exit__(self, *_: object) -> None:
        syscalls.setns(_HOME, syscalls.CLONE_NEWNET)


def _new(family: int, kind: int) -> socket.socket:
    return socket.socket(family, kind | socket.SOCK_CLOEXEC)


def _sockets(
    made: list[socket.socket], fds: list[int], family: int, kind: int, count: int
) -> tuple[Any, ...]:
    with Inside(fds[0]):
        made += (_new(family, kind) for _ in range(count))
    return ()


def _listen(
    made: list[socket.socket], fds: list[int], family: int, kind: int, address: Any
) -> tuple[Any, ...]:
    """Bound here and not by the owner, who may not have the right to a low port of the namespace."""
    with Inside(fds[0]):
        bound = _new(family, kind)
        made.append(bound)
        if family != socket.AF_UNIX:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        if kind == socket.SOCK_STREAM:
            bound.listen(_BACKLOG)
        name = bound.getsockname()
    return (name[1] if isinstance(name, tuple) else 0,)


def _unix(made: list[socket.socket], fds: list[int], kind: int, path: bytes) -> tuple[Any, ...]:
    """unix(7): a path is looked up by who connects; the container's root is entered by no name of the host."""
    pidfd = fds[0]
    root = os.open(f"/proc/{descriptors.pid_of(pidfd)}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _has_exited(pidfd):  # the number may be somebody else's by now
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        resolve = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
        place = syscalls.openat2(root, path, os.O_PATH, resolve=resolve)
    finally:
        os.close(root)
    try:
        made.append(_new(socket.AF_UNIX, kind))
        made[0].setblocking(False)
        made[0].connect(f"/proc/self/fd/{place}")
    finally:
        os.close(place)
    return ()


# --- links ----------------------------------------------------------------------------------------------

_bridges: list[str] = []  # in our home
_tables: list[Table] = []  # none, or the one of ours


def _end(*_: object) -> None:
    """Leave nothing in the host's network namespace: what is in another goes with it, and the table with its socket."""
    if _bridges:
        from pycontain.kernel.links import Links  # noqa: PLC0415 - only networks need it

        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        syscalls.setns(_HOME, syscalls.CLONE_NEWNET)
        with Links() as links:
            for name in _bridges:
                try:
                    links.remove(name)
                except OSError:
                    pass  # the next owner's sweep tries again
    os._exit(0)


def _leave(_made: list[socket.socket], _fds: list[int]) -> tuple[Any, ...]:
    syscalls.unshare(syscalls.CLONE_NEWNET)
    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(home, _HOME, inheritable=False)
    os.close(home)
    return ()


def _home(_made: list[socket.socket], _fds: list[int], path: str) -> tuple[Any, ...]:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    syscalls.mount("/proc/self/ns/net", path, None, syscalls.MS_BIND, None)
    _set("ipv4/ip_forward", "1")  # it is nobody's but ours
    return ()


def _bridge(
    _made: list[socket.socket], _fds: list[int], name: str, address: str, prefix: int
) -> tuple[Any, ...]:
    from pycontain.kernel.links import Links  # noqa: PLC0415 - as above

    with Links() as links:
        links.add_bridge(name)
        _bridges.append(name)
        links.add_address(name, address, prefix)
        links.bring_up("lo")
    # The bridge itself shall be reached by no address that nobody has given it, and forward what comes in.
    _set(f"ipv6/conf/{name}/disable_ipv6", "1")
    _set(f"ipv4/conf/{name}/forwarding", "1")
    return ()


def _set(name: str, value: str) -> None:
    """Write a setting of this network namespace; a kernel without IPv6 lacks some."""
    try:
        with open(f"/proc/sys/net/{name}", "w", encoding="ascii") as file:
            file.write(value)
    except FileNotFoundError:
        pass


def _unbridge(_made: list[socket.socket], _fds: list[int], name: str) -> tuple[Any, ...]:
    from pycontain.kernel.links import Links  # noqa: PLC0415 - as above

    with Links() as links:
        links.remove(name)
    if name in _bridges:
        _bridges.remove(name)
    return ()


def _table(made: list[socket.socket], _fds: list[int], name: str) -> tuple[Any, ...]:
    from pycontain.kernel.nftables import Table  # noqa: PLC0415 - as above

    _tables.append(Table(name))
    made.append(socket.socket(fileno=os.dup(_tables[0].fileno())))
    return ()


def _rules(
    _made: list[socket.socket], _fds: list[int], lines: tuple[tuple[str, ...], ...]
) -> tuple[Any, ...]:
    _tables[0].replace((chain, _rule(*words)) for chain, *words in lines)
    return ()


def _rule(*words: str) -> tuple[bytes, ...]:
    """The expressions of a rule in words: ``from X``, ``to X``, ``not-to X``, ``source N/P``, ``destination N/P``, ``known``, and a verdict."""
    from pycontain.kernel import nftables  # noqa: PLC0415 - as above

    found = []
    for word in words:
        verb, _, rest = word.partition(" ")
        match verb:
            case "from":
                found.append(nftables.comes_from(rest))
            case "to":
                found.append(nftables.goes_to(rest))
            case "not-to":
                found.append(nftables.goes_elsewhere(rest))
            case "source":
                network, _, prefix = rest.partition("/")
                found.append(nftables.has_source(network, int(prefix)))
            case "destination":
                network, _, prefix = rest.partition("/")
                found.append(nftables.has_destination(network, int(prefix)))
            case "known":
                found.append(nftables.is_known())
            case _:
                verdicts = {
                    "accept": nftables.ACCEPT,
                    "drop": nftables.DROP,
                    "masquerade": nftables.MASQUERADE,
                }
                found.append(verdicts[verb])
    return tuple(found)


def _attach(
    _made: list[socket.socket], fds: list[int], links: tuple[tuple[Any, ...], ...], gateway: str
) -> tuple[Any, ...]:
    """Each link is ``(name, bridge, isolated, inside, address, prefix)``."""
    from pycontain.kernel.links import Links  # noqa: PLC0415 - as above

    with Inside(fds[0]):
        namespace = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with Links() as ours:
            for name, bridge, isolated, inside, *_ in links:
                ours.add_veth(name, inside, namespace)
                ours.set_master(name, bridge)
                if isolated:
                    ours.isolate(name)
                _set(f"ipv6/conf/{name}/disable_ipv6", "1")
        syscalls.setns(namespace, syscalls.CLONE_NEWNET)
        try:
            with Links() as theirs:
                theirs.bring_up("lo")  # the child may not have come to it, and its addresses are needed next
                for _, _, _, inside, address, prefix in links:
                    theirs.add_address(inside, address, prefix)
                    theirs.bring_up(inside)
                if gateway:
                    theirs.add_default_route(gateway)
        finally:
            syscalls.setns(_HOME, syscalls.CLONE_NEWNET)
    finally:
        os.close(namespace)
    return ()


def _detach(_made: list[socket.socket], _fds: list[int], name: str) -> tuple[Any, ...]:
    from pycontain.kernel.links import Links  # noqa: PLC0415 - as above

    with Links() as links:
        links.remove(name)
    return ()


def _hosts(
    _made: list[socket.socket], _fds: list[int], texts: tuple[tuple[str, str | None], ...]
) -> tuple[Any, ...]:
    """The files are in the folder of layers, which is our working directory as it is that of every child of the zygote."""
    os.makedirs("hosts", 0o711, exist_ok=True)
    for ident, text in texts:
        if text is None:
            try:
                os.unlink(f"hosts/{ident}")
            except FileNotFoundError:
                pass
            continue
        fd = os.open(f"hosts/{ident}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            # In its place, because it is bound there; at once, for who reads it now.
            content = text.encode()
            os.pwrite(fd, content, 0)
            os.ftruncate(fd, len(content))
        finally:
            os.close(fd)
    return ()


def _connected(_made: list[socket.socket], fds: list[int]) -> tuple[Any, ...]:
    from pycontain.kernel.links import Links  # noqa: PLC0415 - as above
    from pycontain.runtime.perform import CONNECTED  # noqa: PLC0415 - the zygote has loaded it

    with Inside(fds[0]), Links() as links:
        links.set_alias("lo", CONNECTED)
    return ()


_DOERS: dict[str, Callable[..., tuple[Any, ...]]] = {
    "sockets": _sockets,
    "listen": _listen,
    "unix": _unix,
    "leave": _leave,
    "home": _home,
    "bridge": _bridge,
    "unbridge": _unbridge,
    "table": _table,
    "rules": _rules,
    "attach": _attach,
    "detach": _detach,
    "hosts": _hosts,
    "connected": _connected,
}
