"""``connect`` and ``listen``: sockets of a container's network namespace, in the hands of its owner."""

import os
import signal
import socket
import threading
from pathlib import Path

import pytest
from owners import comes_true

from pycontain import Container
from pycontain.errors import (
    ConnectTimeout,
    InvalidSpec,
    NetworkError,
    NothingListens,
    PortInUse,
    SandboxError,
)
from pycontain.runtime import engine as engines
from pycontain.runtime import sockets
from pycontain.testing.leaks import PORTER, zygote_pid

HOST = Container("host:")

SERVER = """
import socket, sys
family, address = {where}
server = socket.socket(family)
server.bind(address)
server.listen()
while True:
    client, peer = server.accept()
    client.sendall(repr(peer).encode())
    client.close()
"""
AT_4 = "socket.AF_INET, ('127.0.0.1', 5432)"


def serve(where):
    return HOST.start("python3", "-c", SERVER.format(where=where))


def connect_when_ready(running, *where):
    """The connection, as soon as the program inside listens."""
    connected = []

    def tried():
        try:
            connected.append(running.connect(*where))
        except NothingListens:
            return False
        return True

    assert comes_true(tried)
    return connected[0]


def received(client):
    with client:
        return client.makefile().read()


def answer_one(server):
    with server.accept()[0] as client:
        client.sendall(b"from outside")


def in_container(running, script):
    done = running.exec("python3", "-c", script, check=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def idle():
    with HOST.start("sleep", "1000") as running:
        yield running


@pytest.mark.parametrize(
    ("where", "target"),
    [
        (AT_4, (5432,)),
        ("socket.AF_INET, ('0.0.0.0', 5432)", (5432, "localhost")),
        ("socket.AF_INET6, ('::1', 5432)", (5432, "::1")),
        ("socket.AF_INET, ('127.3.4.5', 80)", (80, "127.3.4.5")),
        ("socket.AF_UNIX, '/tmp/server.sock'", ("/tmp/server.sock",)),
        ("socket.AF_UNIX, '\\0server'", ("@server",)),
    ],
)
def test_what_listens_inside_is_reached(where, target):
    with serve(where) as running:
        assert received(connect_when_ready(running, *target))


def test_the_payload_sees_the_connection_come_from_its_own_loopback():
    with serve(AT_4) as running:
        assert received(connect_when_ready(running, 5432)).startswith("('127.0.0.1', ")


def test_a_link_out_of_the_root_leads_nowhere(idle, tmp_path):
    """A path of a unix socket is resolved below the container's root, whatever its links say."""
    with socket.socket(socket.AF_UNIX) as outside:
        outside.bind(str(tmp_path / "host.sock"))
        outside.listen()
        idle.exec("ln", "-sf", f"../../../..{tmp_path}/host.sock", "/out.sock", check=True)
        with pytest.raises(NothingListens):
            idle.connect("/out.sock")


def test_a_service_of_the_host_is_not_mistaken_for_one_inside(idle):
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(NothingListens):
        idle.connect(server.getsockname()[1])


def test_nothing_listens(idle):
    with pytest.raises(NothingListens, match=r"nothing listens on 127.0.0.1:9 in ") as caught:
        idle.connect(9)
    assert isinstance(caught.value, ConnectionRefusedError)
    assert caught.value.port == 9
    assert "ss -ltn" in caught.value.__notes__[0].replace("', '", " ")


def test_a_full_queue_is_a_timeout(idle):
    with idle.listen(7) as server:
        server.listen(0)
        with idle.connect(7), pytest.raises(ConnectTimeout, match=r"within 0\.05 s"):
            idle.connect(7, timeout=0.05)


def test_all_that_is_wrong_is_said_at_once(idle):
    with pytest.raises(InvalidSpec) as caught:
        idle.connect(70000, "example.org")
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize("port", [True, 0, -1, 65_536, "8080", "", "@"])
def test_what_is_no_port_is_refused(idle, port):
    with pytest.raises(InvalidSpec, match=r"no port|no abstract"):
        idle.connect(port)


@pytest.mark.parametrize("port", [80, 0, "@owner"])
def test_the_owner_serves_inside(idle, port):
    with idle.listen(port) as server:
        answer = threading.Thread(target=answer_one, args=(server,))
        answer.start()
        script = f"import socket; c = socket.socket({server.family}); c.connect({server.getsockname()!r})"
        assert in_container(idle, f"{script}; print(c.recv(100).decode())") == "from outside"
        answer.join()


def test_a_port_that_is_taken_inside(idle):
    with idle.listen(443), pytest.raises(PortInUse, match="port 443") as caught:
        idle.listen(443)
    assert caught.value.port == 443


def test_an_address_that_the_container_does_not_have(idle):
    with pytest.raises(NetworkError, match="no address 192"):
        idle.listen(80, "192.0.2.1")


def test_two_containers_have_one_port_each(idle):
    with HOST.start("sleep", "100") as other, idle.listen(80) as one, other.listen(80) as two:
        assert one.getsockname() == two.getsockname()


def test_a_container_that_has_ended_has_no_sockets():
    with HOST.start("true") as running:
        running.wait()
        with pytest.raises(SandboxError, match="has exited"):
            running.connect(80)
        with pytest.raises(SandboxError, match="has exited"):
            running.listen(80)


def test_a_container_that_ends_takes_its_connections_along():
    with serve("socket.AF_UNIX, '/tmp/x'") as running, running.listen(80) as server:
        client = running.connect(80)
        running.kill()
        running.wait()
        server.accept()[0].close()  # the namespace lives as long as its sockets
        assert client.recv(1) == b""
        client.close()


def test_many_threads_connect_at_once(idle):
    with idle.listen(81) as server:
        clients = []
        threads = [threading.Thread(target=lambda: clients.append(idle.connect(81))) for _ in range(40)]
        for thread in threads:
            thread.start()
        accepted = [server.accept()[0] for _ in threads]
        for thread in threads:
            thread.join()
        assert len({client.getsockname() for client in clients}) == 40
        for each in (*accepted, *clients):
            each.close()


def test_a_porter_that_was_killed_is_replaced(idle):
    with idle.listen(82) as server:
        first = sockets.porter_of(engines.engine())
        pids = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if is_porter(pid)]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        assert comes_true(lambda: not any(map(is_porter, pids)))
        with pytest.raises(SandboxError, match="makes sockets"):
            idle.connect(82)
        idle.connect(82).close()
        server.accept()[0].close()
        assert sockets.porter_of(engines.engine()) is not first


def is_porter(pid):
    """Whether it is the porter of this process's zygote, proc_pid_stat(5)."""
    try:
        name, _, rest = (
            Path(f"/proc/{pid}/stat").read_text(errors="replace").partition("(")[2].rpartition(")")
        )
    except OSError:
        return False
    return name == PORTER and rest.split()[0] != "Z" and int(rest.split()[1]) == zygote_pid()


def test_in_the_child_of_a_fork_there_are_none(idle):
    """The container is its parent's."""
    idle.listen(0).close()
    pid = os.fork()
    if pid == 0:
        try:
            idle.connect(9)
        except SandboxError as error:
            os._exit(0 if "fork" in str(error) else 1)
        finally:
            os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0
    with pytest.raises(NothingListens):
        idle.connect(9)
