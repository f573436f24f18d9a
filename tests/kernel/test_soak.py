"""Many containers one after another: nothing grows.

``PYCONTAIN_SOAK=1`` makes it 10,000 as root and 2,000 as another user instead of 150.
"""

import os
from pathlib import Path

import pytest

from pycontain import Container
from pycontain.testing.leaks import zygote_pid

SOAK = bool(os.environ.get("PYCONTAIN_SOAK"))
RUNS = (10_000 if os.geteuid() == 0 else 2_000) if SOAK else 150
GROWTH = 512  # KiB: what an allocator may keep, far below what a byte for each container would be worth looking for


def anonymous_memory(pid):
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("RssAnon:"))


def observe():
    zygote = zygote_pid()
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "processes below the zygote": len(Path(f"/proc/{zygote}/task/{zygote}/children").read_text().split()),
        "mounts": len(Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()),
        "memory of the owner": anonymous_memory("self"),
        "memory of the zygote": anonymous_memory(zygote),
    }


@pytest.mark.timeout(900 if SOAK else 120)
def test_many_runs_leave_nothing_that_grows():
    box = Container("host:")
    for _ in range(50):  # caches fill, spares are made
        box.run("true", check=True)
    before = observe()
    for _ in range(RUNS):
        box.run("true", check=True)
    after = observe()
    for name, amount in before.items():
        allowed = GROWTH if name.startswith("memory") else 3  # spares come and go
        assert after[name] - amount <= allowed, (name, before, after)
    print(RUNS, before, after)
