"""Descriptors that travel with a packet, unix(7), and what a pidfd stands for."""

from __future__ import annotations

import array
import os
import socket

_FLAGS = int(socket.MSG_CMSG_CLOEXEC)  # as plain numbers: to combine members of an enum takes a hundred steps
_LOST = int(socket.MSG_CTRUNC)
_RIGHTS = (int(socket.SOL_SOCKET), int(socket.SCM_RIGHTS))
_SIZE = array.array("i").itemsize


def receive(channel: socket.socket, size: int, most: int, flags: int = 0) -> tuple[bytes, list[int], bool]:
    """recvmsg(2) one packet of at most *size* bytes with at most *most* descriptors, all close-on-exec.

    The third value says whether descriptors were lost, because the process has none left or there were too many.
    Python's own ``socket.recv_fds`` forgets its flags up to 3.11, and so gives descriptors that programs inherit.
    """
    packet, ancillary, received, _ = channel.recvmsg(size, socket.CMSG_LEN(most * _SIZE), _FLAGS | flags)
    fds = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == _RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % _SIZE])
    return packet, fds.tolist(), bool(received & _LOST)


def pid_of(pidfd: int) -> int:
    """proc_pid_fdinfo(5): the process of a pidfd, in our own PID namespace; -1 when it is gone."""
    fd = os.open(f"/proc/self/fdinfo/{pidfd}", os.O_RDONLY | os.O_CLOEXEC)
    try:  # plain reads: a text file would be a sixth of what the forker writes to between two forks
        text = os.read(fd, 1 << 10)
    finally:
        os.close(fd)
    return int(text.partition(b"\nPid:")[2].split(None, 1)[0])
