"""The bridges of one owner, and their way out: which address, which rule, which program.

A *fabric* belongs to one zygote. Its bridges are in the porter's *home*, the network namespace where links end:

* as root, if the host forwards between its interfaces and no other firewall drops that, the host's own. Rules of a table of ours let containers out and
  nobody in; what is not ours is never touched, and no setting of the host is changed.
* else a namespace of the porter's own, whose only way out is pasta(1), one for all containers of the owner.

Everything else is the same in both. The table goes with the porter's socket, links with the namespace of the container;
bridges are removed by the porter at its end, or, when it was killed in the host's namespace, by the next owner's sweep.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import threading
from typing import TYPE_CHECKING, Any

import attrs

from pycontain.errors import HostUnsupported, NetworkError
from pycontain.kernel import nftables
from pycontain.kernel.links import Links
from pycontain.runtime import probe, sweep
from pycontain.runtime import sockets as sockets_

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pycontain.runtime.engine import Engine

_POOL = 0x0AC0_0000, 10  # 10.192.0.0/10, where neither docker nor podman nor most home networks are
_NETWORK, _CROWD = 24, 22  # lengths of prefixes; bridge(8): a bridge has at most 1024 ports
_UPLINK = 30
_PATIENCE = 15.0  # seconds for pasta to be ready
_FORWARDING = "/proc/sys/net/ipv4/conf/{}/forwarding"
TUN = "/dev/net/tun"


def text_of(address: int) -> str:
    """An address of IPv4 as people write it."""
    return socket.inet_ntoa(address.to_bytes(4, "big"))


def number_of(address: str) -> int:
    """The same the other way."""
    return int.from_bytes(socket.inet_aton(address), "big")


@attrs.frozen
class Subnet:
    """Addresses of IPv4 with a common beginning of *prefix* bits."""

    first: int
    prefix: int

    @property
    def size(self) -> int:
        """How many addresses it has."""
        return 1 << (32 - self.prefix)

    def overlaps(self, other: Subnet) -> bool:
        """Whether an address is in both."""
        return self.first < other.first + other.size and other.first < self.first + self.size

    def __contains__(self, address: int) -> bool:
        return self.first <= address < self.first + self.size

    def __str__(self) -> str:
        return f"{text_of(self.first)}/{self.prefix}"

    @staticmethod
    def parse_address(text: str) -> int:
        """``10.1.2.3``; ValueError when it is none."""
        try:
            if text.count(".") == 3:
                return number_of(text)
        except (OSError, AttributeError):
            pass
        raise ValueError(f"{text!r} is no address of IPv4")

    @classmethod
    def parse(cls, text: str) -> Subnet:
        """``10.1.2.0/24``; ValueError when it is none, or too small for anybody."""
        address, _, length = text.partition("/")
        prefix = int(length) if length.isdigit() else -1
        try:
            first = cls.parse_address(address)
        except ValueError:
            first = -1
        if first < 0 or not 8 <= prefix <= 30 or first % (1 << (32 - prefix)):
            raise ValueError(f"{text!r} is no subnet; write one of IPv4 such as 10.1.2.0/24, from /8 to /30")
        return cls(first, prefix)


class Bridge:
    """A bridge and the addresses on it. The first one is the gateway."""

    def __init__(self, name: str, subnet: Subnet, *, internal: bool, isolated: bool) -> None:
        self.name = name
        self.subnet = subnet
        self.internal = internal
        self.isolated = isolated  # who is on it sees nobody else there
        self.gateway = text_of(subnet.first + 1)
        self._taken = {subnet.first, subnet.first + 1, subnet.first + subnet.size - 1}
        self._last = subnet.first + 1

    def take(self, wanted: str | None = None) -> str | None:
        """An address that nobody has: *wanted*, or the next, so that one is not used again at once; None when all are taken."""
        if wanted is not None:
            number = number_of(wanted)
            if number in self._taken or number not in self.subnet:
                return None
            self._taken.add(number)
            return wanted
        for step in range(1, self.subnet.size):
            number = self.subnet.first + (self._last - self.subnet.first + step) % self.subnet.size
            if number not in self._taken:
                self._taken.add(number)
                self._last = number
                return text_of(number)
        return None

    def give_back(self, address: str) -> None:
        """It may be had again."""
        self._taken.discard(number_of(address))

    def rules(self) -> Iterator[tuple[str, ...]]:
        """Nobody begins to talk to who is on it, and the host itself cannot be reached from it."""
        name = self.name
        if self.isolated:
            yield "forward", f"from {name}", f"to {name}", "drop"
        else:  # bridged packets come by here when br_netfilter is on
            yield "forward", f"from {name}", f"to {name}", "accept"
        if self.internal:
            yield "forward", f"from {name}", "drop"
        else:
            yield "forward", f"to {name}", "known", "accept"
            yield "postrouting", f"source {self.subnet}", f"not-to {name}", "masquerade"
        yield "forward", f"to {name}", "drop"
        yield "input", f"from {name}", "known", "accept"
        yield "input", f"from {name}", "drop"


@attrs.frozen
class Link:
    """A container's end of a network: the interface *inside*, with *address*, on *bridge*."""

    name: str
    bridge: Bridge
    inside: str
    address: str

    def wire(self) -> tuple[Any, ...]:
        """As the porter takes it."""
        return (
            self.name,
            self.bridge.name,
            self.bridge.isolated,
            self.inside,
            self.address,
            self.bridge.subnet.prefix,
        )


def new_link_name() -> str:
    """A name for the host's end of a link, netdevice(7): at most 15 letters."""
    return f"pyv{os.urandom(5).hex()}"


class Fabric:
    """Made by the first network of a zygote. Thread-safe."""

    def __init__(self, engine: Engine, made: int = 0) -> None:
        self.engine = engine
        self.made = made  # bridges, of this and of fabrics before
        self.porter = sockets_.porter_of(engine)
        self.lock = threading.RLock()
        self.bridges: list[Bridge] = []
        self._name = os.path.basename(engine.folder)
        self._crowds: list[Bridge] = []
        self._pasta: Pasta | None = None
        self._table = -1  # held so that its rules outlive a porter that is killed: they are walls of who runs
        self.apart = engine.facts.rootless or not host_forwards() or _pasta_is_better()
        if self.apart and not engine.facts.rootless:
            self.porter.ask("leave")
        elif (
            not self.apart
        ):  # if nobody is left to remove the bridges, the next sweep knows by this that there are some
            with open(os.path.join(engine.folder, sweep.NETWORKS), "wb"):
                pass

    @property
    def lost(self) -> bool:
        """Whether the porter that it was built by has ended, and with it all."""
        return self.porter.fd < 0

    def add(self, subnet: Subnet | None, *, internal: bool, isolated: bool = False) -> Bridge:
        """A new bridge; :class:`NetworkError` when *subnet* is in use."""
        with self.lock:
            if not internal:
                self._open_way_out()
            name = f"{sweep.bridge_prefix(self._name)}{self.made}"
            self.made += 1
            chosen = self._free(_CROWD if isolated else _NETWORK) if subnet is None else subnet
            taken = next((each for each in self._in_use() if each.overlaps(chosen)), None)
            if taken is not None:
                raise NetworkError(
                    f"the subnet {chosen} is in use: it overlaps {taken}",
                    hint="choose another one, or none: then a free one is taken",
                )
            bridge = Bridge(name, chosen, internal=internal, isolated=isolated)
            try:
                self.porter.ask("bridge", name, bridge.gateway, chosen.prefix)
                self.bridges.append(bridge)
                self._write_rules()
            except OSError as error:
                with contextlib.suppress(OSError):
                    self.porter.ask("unbridge", name)
                if bridge in self.bridges:
                    self.bridges.remove(bridge)
                raise _unsupported(error) from error
            return bridge

    def remove(self, bridge: Bridge) -> None:
        """Remove a bridge with whatever links it still has."""
        with self.lock:
            if bridge in self.bridges and not self.lost:
                self.bridges.remove(bridge)
                self._write_rules()
                self.porter.ask("unbridge", bridge.name)

    def crowd_address(self) -> tuple[Bridge, str]:
        """An address on a bridge where everybody is alone with the way out."""
        with self.lock:
            self._open_way_out()
            for bridge in self._crowds:
                address = bridge.take()
                if address is not None:
                    return bridge, address
            bridge = self.add(None, internal=False, isolated=True)
            self._crowds.append(bridge)
            return bridge, bridge.take() or ""

    def attach(self, pidfd: int, links: Iterable[Link], gateway: str) -> None:
        """Give the container whose PID 1 is *pidfd* these links, and a default route unless *gateway* is empty."""
        try:
            self.porter.ask("attach", tuple(link.wire() for link in links), gateway, fds=(pidfd,))
        except ProcessLookupError:
            return  # it has ended already
        except OSError as error:
            raise NetworkError(
                f"the container cannot be connected: {os.strerror(error.errno or 0)}",
                hint="see pycontain.doctor()",
            ) from error

    def detach(self, link: Link) -> None:
        """Take a link away, on both ends."""
        self.porter.ask("detach", link.name)

    def write_hosts(self, texts: Mapping[str, str | None]) -> None:
        """Have these hosts files of containers, by their ids; None removes one."""
        self.porter.ask("hosts", tuple(texts.items()))

    def tell_connected(self, pidfd: int) -> None:
        """Let the payload begin."""
        with contextlib.suppress(ProcessLookupError):
            self.porter.ask("connected", fds=(pidfd,))

    def _open_way_out(self) -> None:
        if self.apart and (self._pasta is None or self._pasta.ended):
            self._pasta = Pasta(self.engine, self.porter, self._free(_UPLINK))

    def _write_rules(self) -> None:
        lines = tuple(line for bridge in self.bridges for line in bridge.rules())
        if self.apart:  # where the host's own addresses are as far away as any other
            lines = (*(("forward", f"destination {own}/32", "drop") for own in own_addresses()), *lines)
        if self._table < 0:
            _, (self._table,) = self.porter.ask("table", f"pycontain-{self._name}-{os.urandom(2).hex()}")
            self.engine.keep(self)
        self.porter.ask("rules", lines)

    def release(self) -> None:
        """Let go of the table: with the porter's end the kernel removes it. Safe to repeat."""
        fd, self._table = self._table, -1
        if fd >= 0:
            os.close(fd)

    abandon = release

    def _in_use(self) -> list[Subnet]:
        """What the host has routes and addresses for, and ours."""
        found = [bridge.subnet for bridge in self.bridges]
        with Links() as links:
            known = [(target, length) for target, length, _ in links.routes()] + links.addresses()
        for address, prefix in known:
            if prefix:
                first = number_of(address) & ~((1 << (32 - prefix)) - 1)
                found.append(Subnet(first, prefix))
        return found

    def _free(self, prefix: int) -> Subnet:
        """A subnet of our pool that nobody has. Where the search begins is chance: other owners search too."""
        first, bits = _POOL
        count = 1 << (prefix - bits)
        start = int.from_bytes(os.urandom(4), "big") % count
        used = self._in_use()
        for step in range(count):
            subnet = Subnet(first + (start + step) % count * (1 << (32 - prefix)), prefix)
            if not any(each.overlaps(subnet) for each in used):
                return subnet
        raise NetworkError(
            "this host has routes for all of 10.192.0.0/10", hint="choose a subnet: Network(subnet=…)"
        )


def own_addresses() -> list[str]:
    """The host's own addresses of IPv4, without loopback."""
    with Links() as links:
        return [address for address, _ in links.addresses() if not address.startswith("127.")]


def host_forwards() -> bool:
    """Whether the host forwards what comes in by the interfaces of its default routes; per-interface settings count, ip-sysctl."""
    with Links() as links:
        ways = {name for _, prefix, name in links.routes() if not prefix and name}
    names = ways or {"all"}
    return all(probe.read_setting(_FORWARDING.format(name)) == "1" for name in names)


def _pasta_is_better() -> bool:
    """Whether another firewall drops what is forwarded, as Docker's does, and pasta is there: a rule of ours overrules no drop."""
    try:
        return bool(nftables.forward_droppers()) and probe.find_program("pasta") is not None
    except OSError:  # there is no nftables, as the first bridge will say
        return False


def _unsupported(error: OSError) -> Exception:
    if error.errno in {
        errno.EOPNOTSUPP,
        errno.EPROTONOSUPPORT,
        errno.EAFNOSUPPORT,
        errno.ENOENT,
        errno.EINVAL,
    }:
        return HostUnsupported(
            "networks",
            needs="Linux 5.12 with bridge, veth and nf_tables (nft_masq, nft_ct)",
            found=f"a kernel that says {os.strerror(error.errno or 0)!r}",
            hint="load them: modprobe -a bridge veth nf_tables nft_masq nft_ct",
        )
    if error.errno in {errno.EPERM, errno.EACCES}:
        return HostUnsupported(
            "networks",
            needs="CAP_NET_ADMIN",
            found="a process without it",
            hint="give it the capability, or run it as an ordinary user",
        )
    return NetworkError(f"the network cannot be made: {os.strerror(error.errno or 0)}")


# --- pasta ----------------------------------------------------------------------------------------------


class Pasta:
    """pasta(1), which connects the porter's home to the world through sockets of the host. It ends with the zygote."""

    def __init__(self, engine: Engine, porter: sockets_.Porter, uplink: Subnet) -> None:
        program = probe.find_program("pasta")
        if program is None:
            raise _no_way_out(rootless=engine.facts.rootless)
        place = os.path.join(engine.folder, "images", f"home-{os.urandom(4).hex()}")
        porter.ask("home", place)
        arguments = (
            *("--foreground", "--quiet", "--config-net", "--netns-only", "--netns", place),
            *("-t", "none", "-u", "none", "-T", "none", "-U", "none", "--no-map-gw", "--ipv4-only"),
            *(
                "--ns-ifname",
                "uplink",
                "--address",
                text_of(uplink.first + 2),
                "--netmask",
                str(uplink.prefix),
            ),
            *("--gateway", text_of(uplink.first + 1), "--pid", "/proc/self/fd/1"),
            *(() if engine.facts.rootless else ("--runas", "0")),
        )
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        log = os.memfd_create("pycontain-pasta-stderr", os.MFD_CLOEXEC)
        ready, told = os.pipe2(os.O_CLOEXEC)
        try:
            with theirs:
                try:
                    engine.request(("execute", program, *arguments), (theirs.fileno(), told, log))
                finally:
                    os.close(told)
            if not _readable(ready, _PATIENCE) or not os.read(ready, 64):
                raise _pasta_failed(os.pread(log, 1 << 16, 0).decode(errors="replace"))
        except BaseException:
            self._channel.close()
            raise
        finally:
            os.close(ready)
            os.close(log)
        engine.keep(self)

    @property
    def ended(self) -> bool:
        """Whether it was killed, or has failed."""
        return self._channel.fileno() < 0 or _readable(self._channel.fileno(), 0)

    @property
    def fd(self) -> int:
        """Its descriptor."""
        return self._channel.fileno()

    def release(self) -> None:
        """Let go of it, which ends it. Safe to repeat."""
        self._channel.close()

    abandon = release


def _readable(fd: int, patience: float) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(patience * 1000))


def _no_way_out(*, rootless: bool) -> HostUnsupported:
    if rootless:
        return HostUnsupported(
            "a way out of a container without root",
            needs="pasta",
            found="none in PATH",
            hint="install it: sudo apt-get install passt. Network(internal=True) does without",
        )
    return HostUnsupported(
        "a way out of a container",
        needs="a host that forwards between its interfaces, or pasta",
        found="net.ipv4.ip_forward off for the interface of the default route, and no pasta in PATH",
        hint="install it: apt-get install passt; or let the host forward: sysctl -w net.ipv4.ip_forward=1",
    )


def _pasta_failed(said: str) -> HostUnsupported:
    lines = [line for line in said.splitlines() if line and "syslog" not in line]
    tun = not os.access(TUN, os.R_OK | os.W_OK)
    return HostUnsupported(
        "a way out of a container",
        needs=f"pasta, which needs {TUN} and a default route of the host",
        found=f"{TUN} that this user may not open"
        if tun
        else f"pasta said {lines[-1] if lines else 'nothing'!r}",
        hint=f"chmod 0666 {TUN}, as distributions have it"
        if tun
        else "run it by hand: pasta --config-net true",
    )


# --- the fabric of this process -------------------------------------------------------------------------

_fabrics: dict[Engine, Fabric] = {}
_making = threading.Lock()


def _forked() -> None:
    global _making  # noqa: PLW0603 - another thread of the parent may have held it
    _making = threading.Lock()
    _fabrics.clear()


os.register_at_fork(after_in_child=_forked)


def fabric_of(engine: Engine) -> Fabric:
    """The fabric of *engine*, which is made when there is none or the last one was lost."""
    with _making:
        found = _fabrics.get(engine)
        if found is None or found.lost:
            for ended in [each for each in _fabrics if not each.alive]:
                del _fabrics[ended]
            found = _fabrics[engine] = Fabric(engine, 0 if found is None else found.made)
        return found
