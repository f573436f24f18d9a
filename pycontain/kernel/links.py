"""rtnetlink(7): interfaces, their addresses and routes, in the caller's network namespace."""

from __future__ import annotations

import errno
import os
import socket
import struct

from pycontain.kernel.netlink import (
    CREATE,
    EXCLUSIVE,
    ROUTE,
    Netlink,
    attribute,
    attributes,
    nested,
    text_of,
)

TYPE_CHECKING = False  # as in pycontain/__init__.py
if TYPE_CHECKING:
    from typing import Self

_NEWLINK, _DELLINK, _SETLINK, _GETLINK = 16, 17, 19, 18
_NEWADDR, _GETADDR, _NEWROUTE, _GETROUTE = 20, 22, 24, 26
_LINK = struct.Struct("=BxHiII")  # ifinfomsg: family, type, index, flags, change
_ADDRESS = struct.Struct("=BBBBI")  # ifaddrmsg: family, prefix length, flags, scope, index
_ROUTE = struct.Struct(
    "=BBBBBBBBI"
)  # rtmsg: family, destination and source length, tos, table, protocol, scope, type, flags
_UP = 0x1
# linux/if_link.h
_ADDRESS_OF_HARDWARE = 1
_IFNAME, _MTU, _MASTER, _LINKINFO, _NET_NS_FD, _IFALIAS, _PROTINFO = 3, 4, 10, 18, 28, 20, 12
_INFO_KIND, _INFO_DATA, _VETH_PEER, _PORT_ISOLATED = 1, 2, 1, 33
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST = 1, 2, 4
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_TABLE = 1, 4, 5, 15
_TABLE_MAIN, _TABLE_LOCAL, _BOOT, _UNICAST = 254, 255, 3, 1


class Links:
    """The interfaces of one network namespace: of that in which it was made."""

    def __init__(self) -> None:
        self._netlink = Netlink(ROUTE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the socket. Safe to repeat."""
        self._netlink.close()

    def add_bridge(self, name: str) -> None:
        """A bridge that is up. Its address of hardware is its own, and does not follow the ports that come and go."""
        own = bytes([2]) + os.urandom(5)
        content = (
            attribute(_IFNAME, name)
            + attribute(_ADDRESS_OF_HARDWARE, own)
            + nested(_LINKINFO, attribute(_INFO_KIND, b"bridge"))
        )
        self._netlink.ask(_NEWLINK, CREATE | EXCLUSIVE, _LINK.pack(0, 0, 0, _UP, _UP) + content)

    def add_veth(self, name: str, peer: str, namespace: int) -> None:
        """veth(4): *name* here, and up, and *peer* in the network namespace that is open at *namespace*."""
        far = _LINK.pack(0, 0, 0, 0, 0) + attribute(_IFNAME, peer) + attribute(_NET_NS_FD, namespace)
        about = nested(_INFO_DATA, attribute(_VETH_PEER | 0x8000, far))
        content = attribute(_IFNAME, name) + nested(_LINKINFO, attribute(_INFO_KIND, b"veth"), about)
        self._netlink.ask(_NEWLINK, CREATE | EXCLUSIVE, _LINK.pack(0, 0, 0, _UP, _UP) + content)

    def set_master(self, name: str, bridge: str) -> None:
        """Make *name* a port of *bridge*. In the message that makes the link it would cost a millisecond more."""
        content = attribute(_MASTER, index_of(bridge))
        self._netlink.ask(_SETLINK, 0, _LINK.pack(0, 0, index_of(name), 0, 0) + content)

    def isolate(self, name: str) -> None:
        """bridge(8), ``isolated on``: this port talks to no other that is isolated too."""
        content = nested(_PROTINFO, attribute(_PORT_ISOLATED, b"\1"))
        self._netlink.ask(_SETLINK, 0, _LINK.pack(socket.AF_BRIDGE, 0, index_of(name), 0, 0) + content)

    def bring_up(self, name: str) -> None:
        """Set IFF_UP."""
        self._netlink.ask(_NEWLINK, 0, _LINK.pack(0, 0, index_of(name), _UP, _UP))

    def set_alias(self, name: str, alias: str) -> None:
        """A text for people, which is in /sys/class/net/NAME/ifalias."""
        content = attribute(_IFALIAS, alias.encode())
        self._netlink.ask(_SETLINK, 0, _LINK.pack(0, 0, index_of(name), 0, 0) + content)

    def remove(self, name: str) -> None:
        """Remove an interface; what is not there is gone already."""
        try:
            self._netlink.ask(_DELLINK, 0, _LINK.pack(0, 0, index_of(name), 0, 0))
        except OSError as error:
            if error.errno not in {errno.ENODEV, errno.ENXIO}:
                raise

    def add_address(self, name: str, address: str, prefix: int) -> None:
        """An address of IPv4, with its broadcast address."""
        local = socket.inet_aton(address)
        number = int.from_bytes(local, "big") | (1 << (32 - prefix)) - 1
        content = (
            attribute(_IFA_LOCAL, local)
            + attribute(_IFA_ADDRESS, local)
            + attribute(_IFA_BROADCAST, number.to_bytes(4, "big"))
        )
        fields = _ADDRESS.pack(socket.AF_INET, prefix, 0, 0, index_of(name))
        self._netlink.ask(_NEWADDR, CREATE | EXCLUSIVE, fields + content)

    def add_default_route(self, gateway: str) -> None:
        """Everything else goes to *gateway*, of IPv4."""
        fields = _ROUTE.pack(socket.AF_INET, 0, 0, 0, _TABLE_MAIN, _BOOT, 0, _UNICAST, 0)
        content = attribute(_RTA_GATEWAY, socket.inet_aton(gateway))
        self._netlink.ask(_NEWROUTE, CREATE | EXCLUSIVE, fields + content)

    def names(self) -> list[str]:
        """Of all interfaces."""
        found = (
            dict(attributes(body[16:])) for body in self._netlink.dump(_GETLINK, _LINK.pack(0, 0, 0, 0, 0))
        )
        return [text_of(each[_IFNAME]) for each in found if _IFNAME in each]

    def routes(self) -> list[tuple[str, int, str]]:
        """The routes of IPv4 of every table but the local one: destination, length of its prefix, and the interface."""
        found = []
        request = _ROUTE.pack(socket.AF_INET, *(0,) * 8)
        for body in self._netlink.dump(_GETROUTE, request):
            _, length, _, _, table, _, _, kind, _ = _ROUTE.unpack_from(body)
            each = dict(attributes(body[12:]))
            if kind != _UNICAST or table == _TABLE_LOCAL:
                continue
            target = socket.inet_ntoa(each.get(_RTA_DST, bytes(4)))
            out = struct.unpack("=I", each[_RTA_OIF])[0] if _RTA_OIF in each else 0
            found.append((target, length, _name_of(out)))
        return found

    def addresses(self) -> list[tuple[str, int]]:
        """The addresses of IPv4, each with the length of its prefix."""
        found = []
        for body in self._netlink.dump(_GETADDR, _ADDRESS.pack(socket.AF_INET, 0, 0, 0, 0)):
            each = dict(attributes(body[8:]))
            if _IFA_LOCAL in each:
                found.append((socket.inet_ntoa(each[_IFA_LOCAL]), body[1]))
        return found


def index_of(name: str) -> int:
    """The number of an interface; ENODEV when there is none."""
    try:
        return socket.if_nametoindex(name)
    except OSError as error:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), name) from error


def _name_of(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return ""
