"""A control group for the zygote from systemd, where the owner's own cannot be used: a transient scope.

In v2 a login session, a service and a terminal share their group with others, or it is root's. systemd(1) then makes a
scope for processes that are named to it, with ``Delegate=yes``, systemd.resource-control(5): the group is ours and has the
controllers that the manager has. Only the zygote and what is below it move; the owner stays where it is. The scope
goes with its last process.

The manager is asked by busctl(1), which is where systemd is: a D-Bus client of our own would be more to read than this.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from pycontain.errors import HostUnsupported
from pycontain.runtime import probe

if TYPE_CHECKING:
    from collections.abc import Iterable

_OBJECT = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")
_PATIENCE = 10.0  # seconds for an answer, and for the processes to be moved
_PAUSE = 0.002
_FIRST_PID_NAMESPACE = 0xEFFF_FFFC  # proc_ns.h, PROC_PID_INIT_INO: systemd counts processes as this one does


class Manager:
    """systemd as this process may ask it: the user's, or for root the system's. *group* is where it makes groups."""

    __slots__ = ("busctl", "controllers", "group", "which")

    def __init__(self, busctl: str, which: str, group: str, controllers: Iterable[str]) -> None:
        self.busctl = busctl
        self.which = which
        self.group = group
        self.controllers = frozenset(controllers)

    @classmethod
    def find(cls, mount: str) -> Manager | None:
        """The one that answers, with its controllers in the v2 hierarchy at *mount*; None when none does. Changes nothing."""
        busctl = probe.find_program("busctl")
        which = "--system" if os.geteuid() == 0 else "--user"
        if not busctl or not has_bus() or os.stat("/proc/self/ns/pid").st_ino != _FIRST_PID_NAMESPACE:
            return None
        answer = _ask(busctl, which, "get-property", *_OBJECT, "ControlGroup")  # s "/user.slice/…"
        if not answer.startswith("s "):
            return None
        group = mount + answer[2:].strip().strip('"').rstrip("/")
        try:
            with open(f"{group}/cgroup.controllers", encoding="ascii") as file:
                return cls(busctl, which, group, file.read().split())
        except OSError:  # it has its groups in another hierarchy
            return None

    def start_scope(self, pids: list[int]) -> None:
        """Have *pids* moved into a new scope; :class:`HostUnsupported` when they are not within some seconds."""
        name = f"pycontain-{pids[0]}-{os.urandom(3).hex()}.scope"
        properties = (
            *("Description", "s", "Containers of pycontain"),
            *("PIDs", "au", str(len(pids)), *map(str, pids)),
            *("Delegate", "b", "true"),
            *("CollectMode", "s", "inactive-or-failed"),
        )
        signature = "ssa(sv)a(sa(sv))"
        said = _ask(
            self.busctl, self.which, "call", *_OBJECT, "StartTransientUnit", signature, name, "fail", "4", *properties, "0"
        )  # fmt: skip
        deadline = time.monotonic() + _PATIENCE
        while not _is_in(pids[0], name):
            if not said.startswith("o ") or time.monotonic() > deadline:
                raise HostUnsupported(
                    "a control group by systemd",
                    needs=f"StartTransientUnit of a scope for process {pids[0]}",
                    found=said.strip() or "no answer",
                    hint=f"see journalctl {self.which} -n 20; or start the program with systemd-run --scope -p Delegate=yes",
                )
            time.sleep(_PAUSE)


def has_bus() -> bool:
    """Whether there is a socket at which busctl(1) looks."""
    if os.geteuid() == 0:
        return "DBUS_SYSTEM_BUS_ADDRESS" in os.environ or os.path.exists("/run/dbus/system_bus_socket")
    folder = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    return "DBUS_SESSION_BUS_ADDRESS" in os.environ or os.path.exists(f"{folder}/bus")


def _ask(busctl: str, which: str, *words: str) -> str:
    """What busctl(1) prints: the answer, or what is wrong."""
    import subprocess  # noqa: PLC0415 - few hosts need it

    environment = {"XDG_RUNTIME_DIR": f"/run/user/{os.getuid()}", **os.environ, "LC_ALL": "C.UTF-8"}
    timeout = f"--timeout={_PATIENCE:g}"
    done = subprocess.run(
        [busctl, which, timeout, *words],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    return done.stdout


def _is_in(pid: int, name: str) -> bool:
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            return any(line.rstrip("\n").endswith(f"/{name}") for line in file if line.startswith("0::"))
    except FileNotFoundError:
        return False
