"""netdevice(7): the one ioctl that a new network namespace needs before netlink is worth its import."""

from __future__ import annotations

import fcntl
import socket
import struct

_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1


def bring_up(name: str) -> None:
    """Set IFF_UP on the interface *name* of the caller's network namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh22x", name.encode(), _IFF_UP))
