"""A second Python process that measures on request: what is measured happens there, and so does the clock."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Self

from benchmarks.measure import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_EXCEPTION = re.compile(r"(\w+\.)+\w+: ")
_PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Remote:
    """``python -m MODULE SETTINGS``: one line of JSON for each request, one for each answer; the first says ready."""

    def __init__(self, module: str, settings: object, *, prefix: Sequence[str] = ()) -> None:
        argv = [*prefix, sys.executable, "-m", module, json.dumps(settings)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(argv, cwd=_PROJECT, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        try:
            self._read()
        except BaseException:
            self.close()
            raise

    def ask(self, request: object) -> Any:
        """The answer to *request*; :class:`Unavailable` with its error when it has ended."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{json.dumps(request)}\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            assert self._process.stderr is not None
            raise Unavailable(_last_error(self._process.stderr.read()))
        return json.loads(line)

    def close(self) -> None:
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _last_error(said: str) -> str:
    """The exception at the end of a traceback, without the notes below it; or the last line, whatever it is."""
    lines = said.strip().splitlines() or ["it ended without a word"]
    return next((line for line in reversed(lines) if _EXCEPTION.match(line)), lines[-1])


def serve(answer: Callable[[Any], object]) -> None:
    """The other side: say ready, then answer until nobody asks any more."""
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
