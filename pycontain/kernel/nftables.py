"""nftables(8): one table of ours, which the kernel removes when the socket that made it is closed (Linux 5.12).

A rule is a tuple of *expressions*, made by the functions below; :meth:`Table.replace` puts all rules in place of those
before, in one transaction.
"""

from __future__ import annotations

import socket
import struct

from pycontain.kernel.netlink import (
    ACK,
    APPEND,
    CREATE,
    NETFILTER,
    Netlink,
    attribute,
    attributes,
    nested,
    text_of,
)

TYPE_CHECKING = False  # as in pycontain/__init__.py
if TYPE_CHECKING:
    from collections.abc import Iterable

_SUBSYSTEM = 10
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NEWTABLE, _GETTABLE, _NEWCHAIN, _GETCHAIN, _NEWRULE, _DELRULE = (
    _SUBSYSTEM << 8 | kind for kind in (0, 1, 3, 4, 6, 8)
)
_INET, _UNSPECIFIED = 1, 0  # NFPROTO_INET
_OWNER = 0x2  # NFT_TABLE_F_OWNER
_ACCEPT, _DROP = 1, 0  # linux/netfilter.h
_HOOKS = {"input": 1, "forward": 2, "postrouting": 4}
_FORWARD = 2
_REGISTER = 1
_IIFNAME, _OIFNAME, _PROTOCOL = 6, 7, 15  # nft_meta_keys
_EQUAL, _UNEQUAL = 0, 1
_NAME_SIZE = 16
_KNOWN = 0x2 | 0x4  # established, related: NF_CT_STATE_BIT


def _be(number: int) -> bytes:
    return struct.pack(">I", number)


def _expression(name: str, *content: bytes) -> bytes:
    return nested(1, attribute(1, name), nested(2, *content))


def _compare(operation: int, value: bytes) -> bytes:
    return _expression(
        "cmp", attribute(1, _be(_REGISTER)), attribute(2, _be(operation)), nested(3, attribute(1, value))
    )


def _load(name: str, key: int) -> bytes:
    return _expression(name, attribute(1, _be(_REGISTER)), attribute(2, _be(key)))


def _mask(mask: bytes) -> bytes:
    return _expression(
        "bitwise",
        attribute(1, _be(_REGISTER)),
        attribute(2, _be(_REGISTER)),
        attribute(3, _be(len(mask))),
        nested(4, attribute(1, mask)),
        nested(5, attribute(1, bytes(len(mask)))),
    )


def comes_from(interface: str) -> bytes:
    """``iifname``."""
    return _load("meta", _IIFNAME) + _compare(_EQUAL, interface.encode().ljust(_NAME_SIZE, b"\0"))


def goes_to(interface: str) -> bytes:
    """``oifname``."""
    return _load("meta", _OIFNAME) + _compare(_EQUAL, interface.encode().ljust(_NAME_SIZE, b"\0"))


def goes_elsewhere(interface: str) -> bytes:
    """``oifname !=``."""
    return _load("meta", _OIFNAME) + _compare(_UNEQUAL, interface.encode().ljust(_NAME_SIZE, b"\0"))


def is_known() -> bytes:
    """``ct state established,related``."""
    return _load("ct", 0) + _mask(struct.pack("=I", _KNOWN)) + _compare(_UNEQUAL, bytes(4))


def has_source(network: str, prefix: int) -> bytes:
    """``ip saddr NETWORK/PREFIX``."""
    return _has_address(12, network, prefix)


def has_destination(network: str, prefix: int) -> bytes:
    """``ip daddr NETWORK/PREFIX``."""
    return _has_address(16, network, prefix)


def _has_address(place: int, network: str, prefix: int) -> bytes:
    """RFC 791: the source is at byte 12 of the header, the destination at 16."""
    mask = ((1 << prefix) - 1 << (32 - prefix)).to_bytes(4, "big")
    address = _expression(
        "payload",
        attribute(1, _be(_REGISTER)),
        attribute(2, _be(1)),
        attribute(3, _be(place)),
        attribute(4, _be(4)),
    )
    version = _load("meta", _PROTOCOL) + _compare(_EQUAL, bytes([socket.AF_INET]))
    return version + address + _mask(mask) + _compare(_EQUAL, socket.inet_aton(network))


def _verdict(code: int) -> bytes:
    return _expression("immediate", attribute(1, _be(0)), nested(2, nested(2, attribute(1, _be(code)))))


ACCEPT = _verdict(_ACCEPT)
DROP = _verdict(_DROP)
MASQUERADE = _expression("masq")


class Table:
    """A table of family inet with base chains ``input``, ``forward`` and ``postrouting``, as long as this object is open."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._netlink = Netlink(NETFILTER)
        try:
            self._commit([
                (_NEWTABLE, CREATE, attribute(1, name) + attribute(2, _be(_OWNER))),
                self._chain("input", "filter", 0),
                self._chain("forward", "filter", 0),
                self._chain("postrouting", "nat", 100),
            ])  # fmt: skip
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """The descriptor of the socket that owns it: the table is there as long as anybody has it open."""
        return self._netlink.fileno()

    def replace(self, rules: Iterable[tuple[str, tuple[bytes, ...]]]) -> None:
        """Have these rules, each with the name of its chain, and no others."""
        messages = [(_DELRULE, 0, attribute(1, self.name))]
        for chain, expressions in rules:
            content = attribute(1, self.name) + attribute(2, chain) + nested(4, *expressions)
            messages.append((_NEWRULE, CREATE | APPEND, content))
        self._commit(messages)

    def close(self) -> None:
        """Have the kernel remove it. Safe to repeat."""
        self._netlink.close()

    def _chain(self, name: str, kind: str, priority: int) -> tuple[int, int, bytes]:
        hook = nested(4, attribute(1, _be(_HOOKS[name])), attribute(2, _be(priority)))
        content = attribute(1, self.name) + attribute(3, name) + hook + attribute(5, _be(_ACCEPT))
        return _NEWCHAIN, CREATE, content + attribute(7, kind)

    def _commit(self, messages: list[tuple[int, int, bytes]]) -> None:
        batch = struct.pack(">BBH", 0, 0, _SUBSYSTEM)
        family = struct.pack(">BBH", _INET, 0, 0)
        packed = self._netlink.packed(_BATCH_BEGIN, 0, batch)
        for kind, flags, content in messages:
            packed += self._netlink.packed(kind, flags | ACK, family + content)
        packed += self._netlink.packed(_BATCH_END, 0, batch)
        self._netlink.send(packed, len(messages))


def tables() -> list[str]:
    """The names of all tables of this network namespace."""
    with Netlink(NETFILTER) as netlink:
        bodies = netlink.dump(_GETTABLE, struct.pack(">BBH", _UNSPECIFIED, 0, 0))
        return [text_of(dict(attributes(body[4:]))[1]) for body in bodies]


def forward_droppers() -> list[str]:
    """Tables of others whose ``forward`` chain drops what none of its rules accepts, such as docker's ``ip filter``."""
    found = []
    with Netlink(NETFILTER) as netlink:
        for body in netlink.dump(_GETCHAIN, struct.pack(">BBH", _UNSPECIFIED, 0, 0)):
            each = dict(attributes(body[4:]))
            hook = dict(attributes(each.get(4, b"")))
            drops = each.get(5) == _be(_DROP)
            if drops and hook.get(1) == _be(_FORWARD):
                family = {2: "ip", 10: "ip6", 1: "inet"}.get(body[0], "?")
                found.append(f"{family} {text_of(each[1])} {text_of(each[3])}")
    return found
