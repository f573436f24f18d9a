"""Debian's docker-registry on a loopback port of its own, as long as a block lasts."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from benchmarks.measure import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

_PATIENCE = 20.0  # seconds
_LOOK_EVERY = 0.02
_LISTENING = re.compile(r"listening on ([0-9.]+:[0-9]+)")


@contextmanager
def serve_registry(folder: str) -> Iterator[str]:
    """The address of an empty registry that keeps its blobs below *folder*, which is made."""
    program = shutil.which("docker-registry")
    if program is None:
        raise Unavailable("docker-registry is not installed (Debian: docker-registry)")
    os.mkdir(folder)
    config = {
        "version": 0.1,
        "log": {"level": "info", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": f"{folder}/blobs"}},
        "http": {"addr": "127.0.0.1:0"},
    }
    with open(f"{folder}/config.yml", "w", encoding="utf-8") as file:
        json.dump(config, file)  # every JSON text is a YAML text
    with open(f"{folder}/log", "w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [program, "serve", f"{folder}/config.yml"], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        yield _wait_for_address(process, f"{folder}/log")
    finally:
        process.terminate()
        process.wait()


def _wait_for_address(process: subprocess.Popen[bytes], log: str) -> str:
    deadline = time.monotonic() + _PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        with open(log, encoding="utf-8") as file:
            if found := _LISTENING.search(file.read()):
                return found[1]
        time.sleep(_LOOK_EVERY)
    raise Unavailable("docker-registry does not start here")
