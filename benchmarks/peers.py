"""The programs that start a container as we do, each on the same root file system."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.bench import command
from benchmarks.dockerd import open_daemon_for_containers
from benchmarks.measure import Unavailable, timed
from benchmarks.private_cgroup import open_place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.bench import Bench
    from benchmarks.measure import Once

_DOCKER_IMAGE = "pycontain-benchmark"


def _require(program: str, package: str) -> None:
    if shutil.which(program) is None:
        raise Unavailable(f"{program} is not installed (Debian: {package})")


@contextmanager
def plain_subprocess(bench: Bench) -> Iterator[Once]:
    """The same static binary without any wall."""
    yield bench.subprocess_true()


@contextmanager
def bwrap(bench: Bench) -> Iterator[Once]:
    """All namespaces, a bind mount as root; no /proc, no /dev, no overlay, no seccomp, no capabilities dropped."""
    _require("bwrap", "bubblewrap")
    yield timed(command("bwrap", "--unshare-all", "--bind", bench.rootfs, "/", "true"))


@contextmanager
def bwrap_with_proc_and_dev(bench: Bench) -> Iterator[Once]:
    """The same with /proc and /dev."""
    _require("bwrap", "bubblewrap")
    system = ("--proc", "/proc", "--dev", "/dev")
    yield timed(command("bwrap", "--unshare-all", "--bind", bench.rootfs, "/", *system, "true"))


@contextmanager
def sandlock(bench: Bench) -> Iterator[Once]:
    """Landlock and seccomp with a supervisor, no namespaces."""
    try:
        module: Any = importlib.import_module("sandlock")
    except ImportError:
        raise Unavailable("sandlock is not installed (PyPI: sandlock)") from None
    sandbox = module.Sandbox(fs_readable=[bench.rootfs])
    argv = [f"{bench.rootfs}/bin/true"]

    def run() -> None:
        if not sandbox.run(argv).success:
            raise Unavailable("sandlock does not run here")

    yield timed(run)


@contextmanager
def crun(bench: Bench) -> Iterator[Once]:
    """``crun run`` of an equal bundle."""
    _require("crun", "crun")
    with _runtime(bench, "crun", "--cgroup-manager=disabled") as once:
        yield once


@contextmanager
def runc(bench: Bench) -> Iterator[Once]:
    """``runc run`` of an equal bundle."""
    _require("runc", "runc")
    with _runtime(bench, "runc") as once:
        yield once


@contextmanager
def _runtime(bench: Bench, program: str, *options: str) -> Iterator[Once]:
    bundle, state = f"{bench.folder}/bundle", f"{bench.folder}/{program}"
    os.makedirs(bundle, exist_ok=True)
    with open(f"{bundle}/config.json", "w", encoding="utf-8") as file:
        json.dump(bundle_config(bench.rootfs), file)
    names = (f"pycontain-benchmark-{number}" for number in itertools.count())
    with open_place() as place:

        def once() -> float:
            argv = [program, "--root", state, *options, "run", "--bundle", bundle, next(names)]
            took, code, errors = place.ask(argv)
            if code != 0:
                raise Unavailable(f"{program} fails here: {errors.splitlines()[-1] if errors else code}")
            return float(took)

        yield once


def bundle_config(rootfs: str) -> dict[str, Any]:
    """runtime-spec: what a container of ours gets, as far as a bundle can say it, in ``runc spec``'s order."""
    capabilities = [
        f"CAP_{name}"
        for name in (
            *("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP"),
            *("NET_BIND_SERVICE", "SYS_CHROOT", "SETFCAP"),
        )
    ]
    confined = ["nosuid", "noexec", "nodev"]
    tty = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
    mounts = (
        ("/proc", "proc", confined),
        ("/dev", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        ("/dev/pts", "devpts", tty),
        ("/dev/shm", "tmpfs", [*confined, "mode=1777", "size=65536k"]),
        ("/dev/mqueue", "mqueue", confined),
        ("/sys", "sysfs", [*confined, "ro"]),
    )
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": ["true"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
            "noNewPrivileges": True,
        },
        "root": {"path": rootfs, "readonly": True},
        "hostname": "benchmark",
        "mounts": [
            {"destination": target, "type": kind, "source": kind, "options": options}
            for target, kind, options in mounts
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")],
            "maskedPaths": [
                f"/proc/{name}"
                for name in ("acpi", "asound", "kcore", "keys", "latency_stats", "timer_list", "scsi")
            ]
            + ["/sys/firmware"],
            "readonlyPaths": [f"/proc/{name}" for name in ("bus", "fs", "irq", "sys", "sysrq-trigger")],
        },
    }


@contextmanager
def docker(bench: Bench) -> Iterator[Once]:
    """``docker run --network none`` of an image with the same files, by a daemon of our own."""
    with open_daemon_for_containers(f"{bench.folder}/docker") as client:
        archive = f"{bench.folder}/rootfs.tar"
        subprocess.run(["tar", "-C", bench.rootfs, "-cf", archive, "."], check=True)
        subprocess.run([*client, "import", archive, _DOCKER_IMAGE], capture_output=True, check=True)
        yield timed(command(*client, "run", "--rm", "--network", "none", _DOCKER_IMAGE, "true"))
