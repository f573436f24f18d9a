"""From the process that the engine spawns to the zygote: into its namespaces, and nothing left in between.

The engine runs :func:`main` in a fresh interpreter, ``-I -S``, with a socket at descriptor 3 and, once the namespaces
are there, a pidfd of the owner at 4. This *launcher* ends as soon as the zygote exists; with CLONE_PARENT the zygote
is a child of the owner.

Rootless, the launcher first enters a user namespace, whose ids the owner maps because only there may newuidmap(1) be
run.

The zygote then executes the interpreter once more, for two reasons. A payload may execute /proc/self/exe, which is what
its init runs, and then change that file by the same name (CVE-2019-5736): so the interpreter is executed from a mount
of its own that is read-only and nowhere attached. And rootless, ptrace(2) and setns(2) ask for rights over the user
namespace in which a program was *executed*; the zygote must have them over its children, which nobody may trace.
"""

from __future__ import annotations

import marshal
import os
import socket
import sys

from pycontain.kernel import descriptors, syscalls

CONTROL, OWNER = 3, 4


def main(mode: str, state_folder: str, again: list[str]) -> None:
    """Become the zygote. *mode* is ``root`` or ``rootless``, and ends with ``zygote`` in the second run that *again* starts."""
    control = socket.socket(fileno=CONTROL)
    if not mode.endswith("zygote"):
        interpreter = _leave_the_host(control, rootless=mode == "rootless")
        os.set_inheritable(CONTROL, True)
        arguments = [sys.executable, *again, f"{mode} zygote", *sys.argv[2:]]
        os.execve(interpreter, arguments, os.environ)
    os.set_inheritable(CONTROL, False)
    os.set_inheritable(OWNER, False)
    syscalls.close_range(OWNER + 1)
    from pycontain.runtime import zygote  # noqa: PLC0415 - the first run does without

    zygote.main(control, OWNER, state_folder, rootless=mode == "rootless zygote")


def _leave_the_host(control: socket.socket, *, rootless: bool) -> int:
    """Returns in a new process, PID 1 of its own PID namespace, with the interpreter to execute; this one ends."""
    try:
        os.setsid()  # the owner's terminal signals are not ours
        _, (owner,), _ = descriptors.receive(control, 64, 1)
        os.dup2(owner, OWNER)
        os.set_inheritable(OWNER, True)  # dup2(2) of a descriptor to itself changes nothing
        if rootless:
            _enter_user_namespace(control)
        syscalls.unshare(syscalls.CLONE_NEWPID | syscalls.CLONE_NEWNS)
        interpreter = syscalls.read_only_copy(sys.executable)
        pid, _ = syscalls.clone3(syscalls.CLONE_PARENT, exit_signal=0)
    except OSError as error:
        import traceback  # noqa: PLC0415 - big, and needed by failures alone

        control.send(marshal.dumps(("refused", error.errno, "", traceback.format_exc())))
        os._exit(1)
    if pid:
        os._exit(0)
    return interpreter


def _enter_user_namespace(control: socket.socket) -> None:
    """unshare(2) a user namespace whose ids the owner maps, or, told that it cannot, map the own id to 0."""
    uid, gid = os.geteuid(), os.getegid()
    syscalls.unshare(syscalls.CLONE_NEWUSER)
    control.send(marshal.dumps(("userns",)))
    (answer,) = marshal.loads(control.recv(64))
    if answer == "single":
        # user_namespaces(7): without privilege, setgroups(2) must be denied before gid_map is written.
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    if answer != "single":
        os.setgroups(())
