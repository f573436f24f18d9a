"""Owners in processes of their own, to be interrupted or killed, and the processes that a container of theirs has."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from pathlib import Path

import pycontain

_PATH = str(Path(pycontain.__file__).parents[1])
PATIENCE = 20.0  # seconds until a test gives up; nothing waits that long when all is well


def new_mark():
    """An argument for sleep(1) that no other process on this machine has."""
    return f"98765.{uuid.uuid4().int % 10**15:015}"


def marked(mark):
    """The pids of the processes with *mark* on their command line, seen from the host."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes()
            state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
            if mark.encode() in arguments and state not in {b"Z", b"X"}:
                found.append(int(pid))
    return found


def ours():
    """Every process on this machine that pycontain has named, with the state that proc_pid_stat(5) tells."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, _, rest = stat.read_text(errors="replace").rpartition(")")
            if "(pycontain" in name:
                found.append(f"{name}) {rest.split()[0]}")
    return found


def eventually(condition, patience=PATIENCE):
    """Whether *condition* comes true in time; how long it took is returned, None when it did not."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > patience:
            return None
        time.sleep(0.002)
    return time.monotonic() - began


def comes_true(condition, patience=PATIENCE):
    """As :func:`eventually`, as a plain yes or no."""
    return eventually(condition, patience) is not None


def start_owner(code, *, state=None, python=("-X", "dev", "-W", "error"), **variables):
    """A Python process in a session of its own that runs *code*; variables come to it by its environment."""
    env = {**os.environ, "PYTHONPATH": _PATH, **variables}
    if state is not None:
        env["PYCONTAIN_STATE"] = str(state)
    return subprocess.Popen(
        [sys.executable, *python, "-c", textwrap.dedent(code)],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run_owner(code, *, timeout=PATIENCE * 3, **options):
    """Run *code* in an owner of its own to the end; ``(exit code, stdout, stderr)``."""
    with start_owner(code, **options) as owner:
        try:
            stdout, stderr = owner.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            owner.send_signal(signal.SIGKILL)
            stdout, stderr = owner.communicate()
            raise AssertionError(f"the owner hangs: {stdout}{stderr}") from None
    return owner.returncode, stdout, stderr
