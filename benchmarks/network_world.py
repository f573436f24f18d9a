"""An owner on a host of its own: a network namespace that forwards, with another one as its outside. The machine's network stays.

Asked for ``none`` or ``private`` it starts a container with that network, and for ``published`` or ``direct`` it carries bytes
out of one, through a published port or over the veth pair; the answer is milliseconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks.bench import usual_container
from benchmarks.measure import Unavailable, timed
from benchmarks.remote import Remote, serve
from pycontain.kernel import syscalls
from pycontain.kernel.links import Links

if TYPE_CHECKING:
    from collections.abc import Callable

    from pycontain.process import Running

MEGABYTES = 256
_PORT = 9000
_SERVE = """
import socket, sys
server = socket.socket(fileno=int(sys.argv[1]))
chunk = bytes(1 << 20)
while True:
    client, _ = server.accept()
    with client:
        for _ in range(int(sys.argv[2])): client.sendall(chunk)
"""
_RECEIVE = """
import socket, sys, time
began = time.perf_counter()
buffer = bytearray(1 << 20)
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as client:
    left = int(sys.argv[3]) << 20
    while left: left -= client.recv_into(buffer)
print((time.perf_counter() - began) * 1000)
"""


def open_world(rootfs: str) -> Remote:
    """Start it."""
    if os.geteuid() != 0:
        raise Unavailable("needs root, for a network namespace as a host")
    return Remote("benchmarks.network_world", rootfs)


def main() -> None:
    _leave_the_machine()
    container = usual_container(json.loads(sys.argv[1]))
    private = container.network("private")
    none = timed(lambda: container.run("true", check=True))
    connected = timed(lambda: private.run("true", check=True))
    with (
        private.publish(_PORT).start("sleep", "infinity") as running,
        running.listen(_PORT, "0.0.0.0") as server,
        subprocess.Popen(
            [sys.executable, "-c", _SERVE, str(server.fileno()), str(MEGABYTES)], pass_fds=[server.fileno()]
        ) as sender,
    ):
        answers: dict[str, Callable[[], float]] = {
            "none": none,
            "private": connected,
            "published": lambda: _receive(*running.address(_PORT)),
            "direct": lambda: _receive(_address_of(running), _PORT),
        }
        serve(lambda request: answers[request]())
        sender.kill()


def _leave_the_machine() -> None:
    """A network namespace as the host, with a default route to another one."""
    syscalls.unshare(syscalls.CLONE_NEWNET)
    outside = os.open("/proc/self/ns/net", os.O_RDONLY)
    syscalls.unshare(syscalls.CLONE_NEWNET)
    with Links() as links:
        links.bring_up("lo")
        links.add_veth("up0", "eth0", outside)
        links.add_address("up0", "192.0.2.2", 24)
        links.add_default_route("192.0.2.1")
    with open("/proc/sys/net/ipv4/ip_forward", "w", encoding="ascii") as file:
        file.write("1")


def _address_of(running: Running) -> str:
    with running.wired() as (wiring, _):
        return wiring.links[0].address


def _receive(address: str, port: int) -> float:
    argv = [sys.executable, "-c", _RECEIVE, address, str(port), str(MEGABYTES)]
    return float(subprocess.run(argv, capture_output=True, check=True, text=True).stdout)


if __name__ == "__main__":
    main()
