"""Published ports: what connects to the host's port talks to the program inside."""

import contextlib
import errno
import os
import resource
import select
import signal
import socket
import stat
import struct
import threading
import time

import pytest
from owners import comes_true, start_owner

from pycontain import Container, Network, PublishedPort
from pycontain.errors import InvalidSpec, NetworkError, PortInUse
from pycontain.runtime import forward

HOST = Container("host:")

# Says back what it hears, at the end who it heard it from, and ends half by half.
ECHO = """
import socket, threading
server = socket.socket({family})
server.bind(({address!r}, {port}))
server.listen(1000)
print("up", flush=True)
def answer(client, peer):
    with client:
        while chunk := client.recv(1 << 16):
            client.sendall(chunk)
        client.sendall(f" {{peer[0]}}".encode())
while True:
    threading.Thread(target=answer, args=server.accept()).start()
"""
ECHO_UDP = """
import socket
server = socket.socket({family}, socket.SOCK_DGRAM)
server.bind(({address!r}, {port}))
print("up", flush=True)
while True:
    datagram, peer = server.recvfrom(1 << 16)
    server.sendto(datagram + f" {{peer[1]}}".encode(), peer)
"""


def start_echo(container=HOST, *, address="127.0.0.1", port=8080, script=ECHO):
    family = "socket.AF_INET6" if ":" in address else "socket.AF_INET"
    running = container.start("python3", "-c", script.format(family=family, address=address, port=port))
    assert comes_true(lambda: running._exchange.stdout.bytes() == b"up\n")
    return running


@pytest.fixture(scope="module")
def echo():
    with start_echo(HOST.publish(8080)) as running:
        yield running


@pytest.fixture
def echo_udp():
    with start_echo(HOST.publish(53, protocol="udp"), port=53, script=ECHO_UDP) as running:
        yield running


@pytest.fixture
def idle():
    with HOST.start("sleep", "1000") as running:
        yield running


def said_back(address, text=b"hello"):
    """What comes back until the end."""
    with socket.create_connection(address, timeout=20) as client:
        client.sendall(text)
        client.shutdown(socket.SHUT_WR)
        return client.makefile("rb").read()


def has_nothing_left():
    """Whether the forwarder holds no connection."""
    with forward.forwarder().lock:
        return not any(gate.streams for gate in forward.forwarder().gates)


@pytest.fixture
def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_the_program_inside_is_reached_and_sees_its_own_loopback(echo):
    assert said_back(echo.address(8080)) == b"hello 127.0.0.1"


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "::1"])
def test_wherever_the_program_inside_listens(address):
    with start_echo(HOST.publish(8080), address=address) as running:
        assert said_back(running.address(8080)).startswith(b"hello ")


@pytest.mark.parametrize(
    ("host_ip", "target"), [("::1", "::1"), ("::", "127.0.0.1"), ("::", "::1"), ("0.0.0.0", "127.0.0.2")]
)
def test_wherever_the_host_listens(host_ip, target):
    with start_echo(HOST.publish(8080, host_ip=host_ip)) as running:
        assert said_back((target, running.address(8080)[1])) == b"hello 127.0.0.1"


def test_only_this_machine_reaches_it_unless_asked(echo):
    address, port = echo.address(8080)
    assert address == "127.0.0.1"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port))


def test_a_host_port_is_chosen(free_port):
    with start_echo(HOST.publish(8080, free_port)) as running:
        assert running.ports == (PublishedPort(8080, free_port),)
        assert said_back(("127.0.0.1", free_port)) == b"hello 127.0.0.1"


def test_run_publishes_too(free_port):
    script = ECHO.format(family=2, address="127.0.0.1", port=80).replace("while True:\n    thr", "thr")
    answers = []

    def ask():
        def tried():
            try:
                answers.append(said_back(("127.0.0.1", free_port)))
            except OSError:
                return False
            return bool(answers[-1])

        assert comes_true(tried)

    thread = threading.Thread(target=ask)
    thread.start()
    assert HOST.publish(80, free_port).run("python3", "-c", script, timeout=60).ok
    thread.join()
    assert answers[-1] == b"hello 127.0.0.1"


def test_a_port_that_is_taken_is_named_with_who_has_it():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(
            PortInUse, match=rf"port {port}/tcp of 127.0.0.1 is in use by this process"
        ) as caught:
            HOST.publish(80).publish(80, port).start("true")
    assert (caught.value.port, caught.value.errno) == (port, errno.EADDRINUSE)
    assert ".publish(80)" in caught.value.__notes__[0]


def test_an_address_that_the_host_does_not_have():
    with pytest.raises(NetworkError, match="no address 192"):
        HOST.publish(80, host_ip="192.0.2.1").run("true")


@pytest.mark.rootless
def test_a_low_port_is_for_root():
    with pytest.raises(NetworkError, match="only for root"):
        HOST.publish(80, 81).run("true")


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(InvalidSpec) as caught:
        HOST.publish(0, 70_000, host_ip="here", protocol="sctp")
    assert len(caught.value.problems) == 4


def test_what_is_not_published_has_no_address(idle):
    with pytest.raises(InvalidSpec, match="not published"):
        idle.address(80)
    with pytest.raises(InvalidSpec, match="not published"):
        idle.unpublish(80)


def test_with_the_hosts_network_nothing_is_published_connected_or_set():
    """It would be done to the host."""
    shared = HOST.network("host")
    with pytest.raises(InvalidSpec, match="every port is the host's"):
        shared.publish(80).run("true")
    with pytest.raises(InvalidSpec, match="would change the host's network"):
        shared.sysctl({"net.ipv4.ip_forward": 1}).run("true")
    with shared.start("sleep", "100") as running:
        with pytest.raises(InvalidSpec, match="host's network"):
            running.publish(80)
        with pytest.raises(InvalidSpec, match="host's network"):
            Network(internal=True).connect(running)


def test_with_the_hosts_network_sockets_are_the_hosts():
    with HOST.network("host").start("sleep", "100") as running, running.listen(0) as server:
        with socket.create_connection(server.getsockname()), server.accept()[0]:
            pass
        with running.connect(server.getsockname()[1]), server.accept()[0]:
            pass


def test_ports_come_and_go_while_it_runs(idle):
    address = idle.publish(8080)
    with idle.listen(8080) as server, socket.create_connection(address) as client:
        inside = server.accept()[0]
        inside.sendall(b"x")
        assert client.recv(1) == b"x"
        idle.unpublish(8080)
        assert client.recv(1) == b""
        assert inside.recv(1) == b""
        inside.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
    assert idle.ports == ()


def test_with_nobody_listening_inside_a_connection_is_reset(idle):
    """On a slow machine before connect(2) has returned."""
    address = idle.publish(8080)
    with pytest.raises(ConnectionResetError), socket.create_connection(address) as client:
        client.recv(1)


def test_each_half_ends_alone(idle):
    """The program inside goes on sending after the client has said its last word, and the other way round."""
    with idle.listen(8080) as server, socket.create_connection(idle.publish(8080)) as client:
        inside = server.accept()[0]
        client.shutdown(socket.SHUT_WR)
        assert inside.recv(1) == b""
        inside.sendall(b"still here")
        assert client.recv(100) == b"still here"
        inside.close()
        assert client.recv(1) == b""
    assert comes_true(has_nothing_left)


def test_a_reset_goes_through(idle):
    with idle.listen(8080) as server, socket.create_connection(idle.publish(8080)) as client:
        inside = server.accept()[0]
        client.sendall(b"x")
        assert inside.recv(1) == b"x"
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        with inside, pytest.raises(ConnectionResetError):
            inside.recv(1)
    assert comes_true(has_nothing_left)


def test_who_does_not_read_slows_the_sender_and_loses_nothing(idle):
    """Backpressure: a sender is not read from as long as nobody takes what he has sent; others are not held up."""
    content = os.urandom(1 << 20) * 24
    with idle.listen(8080) as server, socket.create_connection(idle.publish(8080)) as client:
        inside = server.accept()[0]
        client.setblocking(False)
        sent = 0
        silent = time.monotonic()
        while time.monotonic() - silent < 0.2 and sent < len(content):
            try:
                sent += client.send(content[sent : sent + (1 << 16)])
                silent = time.monotonic()
            except BlockingIOError:
                pass
        assert sent < len(content)
        with socket.create_connection(idle.address(8080)) as other:
            beside = server.accept()[0]
            other.sendall(b"x")
            assert beside.recv(1) == b"x"
            beside.close()
        client.setblocking(True)
        rest = threading.Thread(
            target=lambda: (client.sendall(content[sent:]), client.shutdown(socket.SHUT_WR))
        )
        rest.start()
        with inside:
            received = inside.makefile("rb").read()
        rest.join()
        assert received == content
    assert comes_true(has_nothing_left)


def test_hundreds_of_connections_at_once_leave_nothing(echo):
    clients = [socket.create_connection(echo.address(8080)) for _ in range(200)]
    for number, client in enumerate(clients):
        client.sendall(b"%d" % number)
    for number, client in enumerate(clients):
        assert client.recv(3) == b"%d" % number
    for client in clients:
        client.close()
    assert comes_true(has_nothing_left)


def test_a_process_without_descriptors_accepts_later(idle):
    """Who comes meanwhile waits in the kernel's queue."""
    address = idle.publish(8080)
    with idle.listen(8080) as server:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        client = socket.socket()
        highest = max(map(int, os.listdir("/proc/self/fd")))
        held = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 8, hard))
        try:
            with contextlib.suppress(OSError):
                while True:
                    held.append(os.dup(0))
            client.connect(address)
            client.sendall(b"x")
            assert comes_true(lambda: forward.forwarder()._paused)
            for fd in held:
                os.close(fd)
            held.clear()
        finally:
            for fd in held:
                os.close(fd)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        with server.accept()[0] as inside:
            assert inside.recv(1) == b"x"
        client.close()


def test_the_end_of_the_container_frees_its_ports(free_port):
    with HOST.publish(80, free_port).start("sleep", "100") as running:
        running.kill()
        running.wait()
        assert comes_true(lambda: running.ports == ())
        socket.create_server(("127.0.0.1", free_port)).close()
    with HOST.publish(80, free_port).start("sleep", "100"):
        pass
    socket.create_server(("127.0.0.1", free_port)).close()


def test_an_event_of_an_earlier_descriptor_ends_nothing(idle):
    """epoll(7) tells numbers, and one may be somebody else's by the time when it is heard."""
    address = idle.publish(8080)
    with forward.forwarder().lock:
        for fd, attendant in list(forward.forwarder().attendants.items()):
            attendant.attend(fd, select.EPOLLIN)
    with idle.listen(8080) as server, socket.create_connection(address) as client:
        client.sendall(b"x")
        with server.accept()[0] as inside:
            assert inside.recv(1) == b"x"


def test_what_was_said_last_still_arrives():
    """The payload sends and ends; who connected gets all of it."""
    script = (
        "import socket; s = socket.create_server(('127.0.0.1', 80)); print('up', flush=True); "
        "c = s.accept()[0]; c.sendall(b'x' * 3000000)"
    )
    with HOST.publish(80).start("python3", "-c", script) as running:
        assert comes_true(lambda: running._exchange.stdout.bytes() == b"up\n")
        with socket.create_connection(running.address(80)) as client:
            received = b""
            while chunk := client.recv(1 << 14):
                received += chunk
        assert len(received) == 3_000_000


def test_when_the_owner_is_killed_its_ports_are_free(free_port):
    owner = start_owner(
        f"""
        from pycontain import Container
        with Container("host:").publish(80, {free_port}).start("sleep", "1000") as running:
            print(running.address(80), flush=True)
            running.wait()
        """
    )
    with owner:
        assert owner.stdout.readline() == f"('127.0.0.1', {free_port})\n"
        with pytest.raises(OSError, match="in use"):
            socket.create_server(("127.0.0.1", free_port))
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    socket.create_server(("127.0.0.1", free_port)).close()


def test_a_fork_of_the_owner_holds_no_connection(echo):
    """The child neither serves the port nor keeps it."""
    with socket.create_connection(echo.address(8080)) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        pid = os.fork()
        if pid == 0:
            try:
                os._exit(0 if list(own_sockets()) == [client.fileno()] else 1)
            finally:
                os._exit(2)
        assert os.waitpid(pid, 0)[1] == 0
        client.sendall(b"y")
        assert client.recv(1) == b"y"


def own_sockets():
    for fd in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):  # the one that listdir used
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                yield fd


def ask(address, text, *, source=None):
    """Send a datagram until it is answered."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        if source is not None:
            client.bind(source)
        client.connect(address)
        client.settimeout(5)
        client.send(text)
        return client.recv(1 << 16)


def test_datagrams_come_and_go(echo_udp):
    assert ask(echo_udp.address(53, "udp"), b"question").startswith(b"question ")


def test_each_peer_has_a_socket_of_its_own_inside(echo_udp):
    """The program inside tells its peers apart, and a peer keeps its place."""
    address = echo_udp.address(53, "udp")
    with socket.create_server(("127.0.0.1", 0)) as server:
        source = server.getsockname()
    first = ask(address, b"x", source=source)
    assert ask(address, b"x", source=source) == first
    assert ask(address, b"x") != first


def test_an_answer_comes_from_the_address_that_was_asked(echo_udp):
    _, port = echo_udp.publish(53, host_ip="0.0.0.0", protocol="udp")
    assert ask(("127.0.0.3", port), b"x").startswith(b"x ")
    _, port = echo_udp.publish(53, host_ip="::", protocol="udp")
    assert ask(("127.0.0.1", port), b"x").startswith(b"x ")


def test_a_peer_that_is_silent_is_forgotten(echo_udp, monkeypatch):
    gates = forward.forwarder().gates
    ask(echo_udp.address(53, "udp"), b"x")
    monkeypatch.setattr(forward, "_SILENT", 0.0)
    with forward.forwarder().lock:
        for gate in gates:
            gate.expire(time.monotonic() + 1)
        assert not any(isinstance(gate, forward.DatagramGate) and gate.peers for gate in gates)


def test_more_peers_than_are_kept_push_the_oldest_out(echo_udp, monkeypatch):
    monkeypatch.setattr(forward, "_MOST_PEERS", 3)
    for _ in range(8):
        ask(echo_udp.address(53, "udp"), b"x")
    (gate,) = [
        gate for gate in forward.forwarder().gates if isinstance(gate, forward.DatagramGate) and gate.peers
    ]
    assert len(gate.peers) == 3
