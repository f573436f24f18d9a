"""A host of our own and what is outside of it: network namespaces that root makes for a test, and that end with it.

::

    owner, in the host's namespace      192.0.2.2 ── 192.0.2.1      outside: answers on TCP 7 and as a name server on UDP 53
                                                     198.51.100.1   another address of the outside, only by its route

The machine's own network is not touched. Who runs in the host's namespace is a process of its own, see :meth:`World.run`.
"""

import os
import pwd
import shutil
import signal
import socket
import tempfile
import textwrap

from owners import comes_true, run_owner, start_owner

from pycontain.kernel import syscalls
from pycontain.kernel.links import Links

OUTSIDE, HOST = "192.0.2.1", "192.0.2.2"
ECHO, DOMAIN = 7, 53
_PR_SET_PDEATHSIG = 1

# What an owner does first: it goes where the host of the test is, and with other rights when they are given.
_PROLOGUE = """
import os, sys
from pycontain.kernel import syscalls
syscalls.setns(os.open(os.environ["WORLD_NET"], os.O_RDONLY), syscalls.CLONE_NEWNET)
syscalls.unshare(syscalls.CLONE_NEWNS)
syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE, None)
syscalls.mount("sysfs", "/sys", "sysfs", 0, None)
if os.environ.get("WORLD_RESOLVER"):
    syscalls.mount(os.environ["WORLD_RESOLVER"], "/etc/resolv.conf", None, syscalls.MS_BIND, None)
with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", "w") as file:
    file.write("53")  # so that an owner without rights can be a name server of the host
if os.environ.get("WORLD_UID"):
    import stat
    syscalls.mount("tmpfs", "/dev/net", "tmpfs", 0, None)
    os.mknod("/dev/net/tun", stat.S_IFCHR | 0o666, os.makedev(10, 200))
    os.chmod("/dev/net/tun", 0o666)
    uid = int(os.environ["WORLD_UID"])
    os.setgroups(())
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
"""


class World:
    """One host and its outside, as long as the block lasts."""

    def __init__(self, *, forwards):
        self._forwards = forwards
        self._pids = []

    def __enter__(self):
        self._outside = self._start(_be_outside)
        self._host = self._start(_be_host, self._outside, self._forwards)
        self.folder = tempfile.mkdtemp(prefix="pycontain-world-", dir="/var/tmp")
        os.chmod(self.folder, 0o777)
        return self

    def __exit__(self, *_):
        for pid in self._pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        # The zygote of an owner that was killed is removing its own folder.
        assert comes_true(self._is_empty)
        shutil.rmtree(self.folder)

    def _is_empty(self):
        """Whether every zygote has removed its folder."""
        states = [name for name in os.listdir(self.folder) if name.startswith("state")]
        return not any(os.listdir(os.path.join(self.folder, name)) for name in states)

    @property
    def namespace(self):
        """A path of the host's network namespace."""
        return f"/proc/{self._host}/ns/net"

    def _start(self, be, *arguments):
        """Fork a process that makes itself a namespace and says when it is ready."""
        ready, told = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(ready)
                be(told, *arguments)
            finally:
                os._exit(1)
        os.close(told)
        self._pids.append(pid)
        said = os.read(ready, 1)
        os.close(ready)
        assert said == b"!", "the world could not be made"
        return pid

    def _variables(self, uid, resolver):
        state = os.path.join(self.folder, "state")
        variables = {"WORLD_NET": self.namespace}
        if resolver is not None:
            variables["WORLD_RESOLVER"] = os.path.join(self.folder, "resolv.conf")
            with open(variables["WORLD_RESOLVER"], "w", encoding="ascii") as file:
                file.write(resolver)
        if uid is not None:
            variables["WORLD_UID"] = str(uid)
            state = os.path.join(self.folder, f"state-{uid}")
            variables["HOME"] = self.folder
        return {**variables, "PYCONTAIN_STATE": state}

    def start(self, code, *, uid=None, resolver=None, **variables):
        """As :func:`owners.start_owner`, on this host; as user *uid* without any capability, and with this resolv.conf."""
        code = _PROLOGUE + textwrap.dedent(code)
        return start_owner(code, **self._variables(uid, resolver), **variables)

    def run(self, code, *, uid=None, resolver=None):
        """What *code* prints there."""
        status, stdout, stderr = run_owner(
            _PROLOGUE + textwrap.dedent(code), **self._variables(uid, resolver)
        )
        assert (status, stderr) == (0, ""), stderr
        return stdout

    def look(self, what):
        """Return *what()* as seen from the host's namespace; it is printable."""
        ready, told = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                syscalls.setns(os.open(self.namespace, os.O_RDONLY), syscalls.CLONE_NEWNET)
                os.write(told, repr(what()).encode())
                os._exit(0)
            finally:
                os._exit(1)
        os.close(told)
        with open(ready, encoding="utf-8") as answer:
            said = answer.read()
        assert os.waitpid(pid, 0)[1] == 0
        return said


def nobody():
    """An ordinary user's id that may read this checkout and execute this Python; None when there is none."""
    uid = pwd.getpwnam("nobody").pw_uid
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups(())
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            import sys

            import pycontain

            open(pycontain.__file__).close()
            os._exit(0 if os.access(sys.executable, os.X_OK) else 1)
        finally:
            os._exit(1)
    return uid if os.waitpid(pid, 0)[1] == 0 else None


def _die_with_the_test():
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _be_outside(told):
    _die_with_the_test()
    syscalls.unshare(syscalls.CLONE_NEWNET)
    with Links() as links:
        links.bring_up("lo")
    if os.fork() == 0:
        _die_with_the_test()
        names = _bound(socket.SOCK_DGRAM, DOMAIN)
        while True:
            question, peer = names.recvfrom(512)
            names.sendto(answer_to(question), peer)
    os.write(told, b"!")
    server = _bound(socket.SOCK_STREAM, ECHO)
    server.listen()
    while True:
        client, peer = server.accept()
        with client:
            client.sendall(peer[0].encode())


def _bound(kind, port):
    """A socket at our address, as soon as the host has connected us."""
    made = socket.socket(socket.AF_INET, kind)
    while True:
        try:
            made.bind((OUTSIDE, port))
        except OSError:
            signal.sigtimedwait((signal.SIGUSR1,), 0.005)
        else:
            return made


def _be_host(told, outside, forwards):
    _die_with_the_test()
    syscalls.unshare(syscalls.CLONE_NEWNET)
    far = os.open(f"/proc/{outside}/ns/net", os.O_RDONLY)
    with Links() as links:
        links.bring_up("lo")
        links.add_veth("up0", "eth0", far)
        links.add_address("up0", HOST, 24)
        links.add_default_route(OUTSIDE)
    with open("/proc/sys/net/ipv4/ip_forward", "w") as file:
        file.write("1" if forwards else "0")
    here = os.open("/proc/self/ns/net", os.O_RDONLY)
    syscalls.setns(far, syscalls.CLONE_NEWNET)
    with Links() as links:
        links.add_address("eth0", OUTSIDE, 24)
        links.bring_up("eth0")
    syscalls.setns(here, syscalls.CLONE_NEWNET)
    os.write(told, b"!")
    signal.pause()


def answer_to(question):
    """RFC 1035: every name has the address 203.0.113.9."""
    end = question.index(b"\0", 12) + 5
    header = question[:2] + b"\x81\x80" + b"\0\1\0\1\0\0\0\0"
    return header + question[12:end] + b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + bytes([203, 0, 113, 9])
