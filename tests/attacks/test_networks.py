"""Ways to the host and to other containers over networks.

What a private network and a :class:`Network` keep apart is in ``tests/kernel/test_network_private.py`` and ``test_network_shared.py``.
"""

import os
import socket
import uuid

import pytest

from pycontain import Container

HOST = Container("host:")

LOOK_FOR = """
import socket, sys
abstract = socket.socket(socket.AF_UNIX)
try: abstract.connect("\\0" + sys.argv[1]); print("abstract")
except OSError: pass
for address in sys.argv[3:]:
    try:
        with socket.create_connection((address, int(sys.argv[2])), timeout=0.3): print(address)
    except OSError: pass
"""


@pytest.fixture
def services():
    """An abstract socket and a port at every address of the host, and how to look for them."""
    name = f"pycontain-attack-{uuid.uuid4()}"
    with socket.socket(socket.AF_UNIX) as abstract, socket.create_server(("0.0.0.0", 0)) as server:
        abstract.bind(f"\0{name}")
        abstract.listen()
        yield name, str(server.getsockname()[1]), "127.0.0.1", "127.0.0.2", *own_addresses()


def own_addresses():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent
        except OSError:  # there is no route, so no address either
            return
        yield probe.getsockname()[0]


def test_services_of_the_host_from_a_container_without_a_network(services):
    assert HOST.run("python3", "-I", "-c", LOOK_FOR, *services, check=True).stdout == ""


def test_they_are_found_where_the_wall_is_taken_away(services):
    found = HOST.network("host").run("python3", "-I", "-c", LOOK_FOR, *services, check=True).stdout
    assert found.split()[:2] == ["abstract", "127.0.0.1"]


SETNS = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
for pid in ["self", *filter(str.isdigit, os.listdir("/proc"))]:
    try: fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    except OSError: continue
    if os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net"): print("another", pid)
    libc.setns(fd, 0x40000000)
    print(len(os.listdir("/sys/class/net")))
"""


def test_no_other_network_namespace_can_be_found_through_the_porter():
    """It enters the container's namespace and leaves it; in the container's /proc it never is."""
    with HOST.start("sleep", "100") as running:
        running.listen(0).close()
        done = running.exec("python3", "-I", "-c", SETNS, check=True)
        assert "another" not in done.stdout
        assert set(done.stdout.split()) == {"1"}


BIND_HOSTS = """
import os
for path in ("/etc/hosts", "/proc/self/root/etc/hosts"):
    for flags in (os.O_WRONLY, os.O_WRONLY | os.O_TRUNC, os.O_RDWR | os.O_APPEND):
        try: os.write(os.open(path, flags), b"192.0.2.66 bank.example\\n"); print("written")
        except OSError: pass
    for act in (os.unlink, lambda path: os.rename(path, "/gone"), lambda path: os.symlink("/tmp/mine", path)):
        try: act(path); print("replaced")
        except OSError: pass
"""


def test_the_hosts_file_of_a_network_cannot_be_changed_from_inside():
    from worlds import World

    if os.geteuid() != 0:
        pytest.skip("a host of our own is made by root")
    code = f"""
from pycontain import Container, Network
with Network(internal=True) as network:
    walls = Container("host:").network(network)
    for container in (walls, walls.userns("host"), walls.user("65534")):
        print(repr(container.run("python3", "-I", "-c", {BIND_HOSTS!r}, check=True).stdout))
"""
    with World(forwards=True) as world:
        assert world.run(code) == "''\n" * 3
