"""netdevice(7): the one ioctl that a new network namespace needs before netlink is worth its import."""

from __future__ import annotations

import fcntl
import socket
import struct

SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1

SOCKET = (int(socket.AF_INET), int(socket.SOCK_DGRAM | socket.SOCK_CLOEXEC), 0)
"""The arguments of socket(2) for the one that the ioctl wants."""


def up(name: str) -> bytes:
    """The argument of SIOCSIFFLAGS that sets IFF_UP on the interface *name*."""
    return struct.pack("16sh22x", name.encode(), _IFF_UP)


def bring_up(name: str) -> None:
    """Set IFF_UP on the interface *name* of the caller's network namespace."""
    with socket.socket(*SOCKET) as control:
        fcntl.ioctl(control, SIOCSIFFLAGS, up(name))
