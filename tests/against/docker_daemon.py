"""A Docker daemon of the tests' own, which nothing else on the machine notices.

It has its own process, mount and network namespaces, keeps everything below one folder, and ends with its first
process. No container is started in it, so it makes no control groups.
"""

import os
import selectors
import shutil
import socket
import socketserver
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

from pycontain.kernel import syscalls

PATIENCE = 60.0  # seconds for the daemon to start
UNPACKED = Path(__file__).parents[2] / ".venv/docker/usr"
"""Where .ci/docker-programs has put them."""


@attrs.frozen
class DockerDaemon:
    """A running daemon, spoken to with Docker's own client."""

    client: tuple[str, ...]
    network: str  # the path of its network namespace

    def __call__(self, *words):
        """Run a command of ``docker``, and give what it printed."""
        done = subprocess.run([*self.client, *words], capture_output=True, check=False, timeout=100)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    @contextmanager
    def forward(self, address):
        """An address that the daemon can reach, which leads to *address* of ours."""
        made = []

        def listen():
            # setns(2): a socket belongs to the namespace in which its thread was when it made it.
            namespace = os.open(self.network, os.O_RDONLY | os.O_CLOEXEC)
            syscalls.setns(namespace, syscalls.CLONE_NEWNET)
            os.close(namespace)
            made.append(_Forwarder(address))

        thread = threading.Thread(target=listen)
        thread.start()
        thread.join()
        (forwarder,) = made
        serving = threading.Thread(target=forwarder.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        try:
            yield "{}:{}".format(*forwarder.server_address)
        finally:
            forwarder.shutdown()
            serving.join()
            forwarder.server_close()


class _Forwarder(socketserver.ThreadingTCPServer):
    daemon_threads = False
    block_on_close = True

    def __init__(self, address):
        super().__init__(("127.0.0.1", 0), _Connection)
        host, _, port = address.partition(":")
        self.upstream = (host, int(port))
        self.ending = threading.Event()

    def shutdown(self):
        self.ending.set()
        super().shutdown()


class _Connection(socketserver.BaseRequestHandler):
    def handle(self):
        with socket.create_connection(self.server.upstream) as upstream, selectors.DefaultSelector() as ready:
            ready.register(self.request, selectors.EVENT_READ, upstream)
            ready.register(upstream, selectors.EVENT_READ, self.request)
            while not self.server.ending.is_set():
                for key, _ in ready.select(timeout=0.05):
                    chunk = key.fileobj.recv(1 << 16)
                    if not chunk:
                        return
                    key.data.sendall(chunk)


def find_programs():
    """The folders of dockerd and docker: those that were unpacked for the tests, else those of the machine."""
    if (UNPACKED / "sbin/dockerd").exists():
        return [str(UNPACKED / "sbin"), str(UNPACKED / "bin")]
    if shutil.which("dockerd") and shutil.which("docker") and shutil.which("containerd"):
        return []
    pytest.skip("there is no Docker: neither installed, nor unpacked by .ci/docker-programs")


@contextmanager
def serve_docker(folder):
    """A :class:`DockerDaemon` that lives as long as the block."""
    path = os.pathsep.join([*find_programs(), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "DOCKER_CONFIG": str(folder / "client"), "HOME": str(folder)}
    address = f"unix://{folder}/socket"
    daemon = [
        *("dockerd", "--host", address, "--data-root", folder / "data", "--exec-root", folder / "exec"),
        *("--pidfile", folder / "pid", "--config-file", folder / "daemon.json", "--storage-driver", "vfs"),
        *(
            "--bridge",
            "none",
            "--iptables=false",
            "--ip6tables=false",
            "--ip-forward=false",
            "--ip-masq=false",
        ),
        *("--userland-proxy=false", "--oom-score-adjust", "0"),
    ]
    (folder / "daemon.json").write_text("{}")
    apart = [
        "unshare",
        "--mount",
        "--net",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "--propagation",
    ]
    script = 'ip link set lo up && exec "$@"'
    command = [*apart, "private", "sh", "-c", script, "sh", *map(str, daemon)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            wait_for(folder / "socket", process, folder / "log")
            first = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0]
            client = (shutil.which("docker", path=path), "--host", address)
            yield DockerDaemon(client, f"/proc/{first}/ns/net")
        finally:
            process.kill()  # its child is killed with it, and all of that one's namespace
            process.wait()
            wait_for_the_end(folder)


def wait_for(path, process, log):
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        if process.poll() is not None:
            pytest.fail(f"dockerd has ended:\n{log.read_text()[-2000:]}")
        assert time.monotonic() < deadline, log.read_text()[-2000:]
        time.sleep(0.02)


def wait_for_the_end(folder):
    """Until none of its processes is left: then its files can be removed."""
    mark = os.fsencode(str(folder))
    deadline = time.monotonic() + PATIENCE
    while any(mark in line for line in map(_command_line, filter(str.isdigit, os.listdir("/proc")))):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _command_line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
