"""``python -m benchmarks.applying LAYER TREE``: apply a layer; print what it took and how large this process became."""

from __future__ import annotations

import sys
import time

import isal.igzip
import zstandard

from pycontain.layers.apply import apply

_LOADED = (isal.igzip, zstandard)  # as the unpacker has them before its first layer


def main() -> None:
    with open(sys.argv[1], "rb") as layer:
        began = time.perf_counter()
        apply(layer, sys.argv[2])
        took = (time.perf_counter() - began) * 1000
    with open("/proc/self/status", encoding="ascii") as file:
        peak = next(int(line.split()[1]) for line in file if line.startswith("VmHWM:"))
    print(took, peak / 1024)


if __name__ == "__main__":
    main()
