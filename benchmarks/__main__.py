"""``python -m benchmarks [ACT …] [--rounds N] [--json FILE] [--profile]``."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import tempfile
import time
from typing import TYPE_CHECKING

from benchmarks.bench import Bench
from benchmarks.measure import Unavailable
from benchmarks.profile import profiles
from benchmarks.results import Row, as_json, table
from pycontain.errors import PycontainError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.results import Growth

ACTS = (
    "start",
    "host_start",
    "exec",
    "owner_size",
    "threads",
    "import_time",
    "memory",
    "rootless",
    "walls",
    "network",
    "output",
    "unpack",
    "pull",
    "find",
    "build",
)
_LONG_SHARE = 6  # so many rounds of a short act for one of a long one: 30 and 5


def main() -> int:
    asked = _arguments()
    with tempfile.TemporaryDirectory(prefix="pycontain-benchmark-") as folder:
        os.chmod(folder, 0o755)
        bench = Bench(folder, os.path.abspath(asked.cache), asked.rounds, max(1, asked.rounds // _LONG_SHARE))
        try:
            bench.make_rootfs()
        except Unavailable as reason:
            print(f"nothing can be measured: {reason}", file=sys.stderr)
            return 1
        print(machine(), end="\n\n")
        if asked.profile:
            print(profiles(bench))
            return 0
        found = measure_all(bench, asked.acts or ACTS)
    print(table(found))
    if asked.json:
        write_json(asked.json, found)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="How fast pycontain is here.")
    parser.add_argument("acts", nargs="*", metavar="ACT", help=f"of {', '.join(ACTS)}; default: all")
    parser.add_argument("--rounds", type=int, default=30, help="of a short act; a long one has a sixth of it")
    parser.add_argument(
        "--cache", metavar="DIR", default=_cache(), help="where the Debian image is kept: %(default)s"
    )
    parser.add_argument("--json", metavar="FILE", help="write all numbers there, too")
    parser.add_argument("--profile", action="store_true", help="print where the time of one start goes")
    asked = parser.parse_args()
    unknown = sorted(set(asked.acts) - set(ACTS))
    if unknown:
        parser.error(f"no such act: {', '.join(unknown)}; there are {', '.join(ACTS)}")
    if asked.rounds < 1:
        parser.error("--rounds must be at least 1")
    return asked


def _cache() -> str:
    """XDG Base Directory Specification: what can be made again."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return f"{base}/pycontain-benchmarks"


def measure_all(bench: Bench, acts: Sequence[str]) -> list[Row | Growth]:
    """Act after act; each is a module with a ``measure``. What an act found before it failed is kept."""
    found: list[Row | Growth] = []
    for act in acts:
        began = time.monotonic()
        print(f"{act} …", end=" ", file=sys.stderr, flush=True)
        try:
            for result in importlib.import_module(f"benchmarks.{act}").measure(bench):
                found.append(result)  # one by one: extend() would lose them with the exception
        except (Unavailable, PycontainError) as error:
            found.append(Row(act, "the rest of the act", "anybody", missing=str(error)))
        print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
    return found


def machine() -> str:
    """What the numbers hold for; the load tells how far they can be trusted."""
    release = ".".join(platform.release().split(".")[:2])
    return (
        f"{os.cpu_count()}-core {platform.machine()}, Linux {release}, "
        f"{platform.python_implementation()} {platform.python_version()}, "
        f"{'root' if os.geteuid() == 0 else 'an ordinary user'}, load {os.getloadavg()[0]:.1f}"
    )


def write_json(path: str, found: Sequence[Row | Growth]) -> None:
    """All of it, for a later run to be compared with."""
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"machine": machine(), "results": [as_json(result) for result in found]}, file, indent=2)
        file.write("\n")


if __name__ == "__main__":
    sys.exit(main())
