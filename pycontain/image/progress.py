"""What a pull or a push is doing, as values for a callback, and as bars for people.

``progress=`` takes a callable, which gets each :class:`Progress`, one at a time, in whatever thread the work happens;
what it raises ends the transfer. True means bars: a line for each layer on a terminal, one line in a notebook, and
nothing where neither is.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Final, TextIO, TypeAlias

import attrs

if TYPE_CHECKING:
    from pycontain.oci.digest import Digest

_WIDTH: Final = 28  # characters of a bar
_EVERY: Final = 0.1  # seconds between two pictures
_SHORT: Final = 12  # hex digits, as everybody shows them
_UNITS: Final = ("B", "kB", "MB", "GB", "TB")


class Phase(StrEnum):
    """What happens to a layer."""

    DOWNLOAD = "downloading"
    UNPACK = "unpacking"
    PUSH = "pushing"
    DONE = "done"


@attrs.frozen
class Progress:
    """A layer, by the digest of its blob, has *bytes* of *total* behind it in its *phase*."""

    layer: str
    phase: Phase
    bytes: int
    total: int


#: What is called with each :class:`Progress`.
Callback: TypeAlias = Callable[[Progress], None]


class Reporter:
    """Tells one callback at a time, also from several threads."""

    def __init__(self, callback: Callback | None = None) -> None:
        self._callback = callback
        self._lock = threading.Lock()

    @property
    def silent(self) -> bool:
        """Whether nobody listens."""
        return self._callback is None

    def say(self, layer: Digest, phase: Phase, bytes: int, total: int) -> None:  # noqa: A002 - the name of the field
        """Report where *layer* is."""
        if self._callback is not None:
            with self._lock:
                self._callback(Progress(str(layer), phase, bytes, total))


def reporter_of(progress: bool | Callback, stream: TextIO | None = None) -> Reporter:  # noqa: FBT001 - the public argument's type
    """The reporter for what a caller gave as ``progress=``; bars go to *stream*, or to standard error."""
    if callable(progress):
        return Reporter(progress)
    stream = stream or sys.stderr
    if not progress or stream is None:
        return Reporter()
    if stream.isatty():
        return Reporter(Bars(stream))
    return Reporter(SingleLine(stream)) if _in_notebook() else Reporter()


def _in_notebook() -> bool:
    # Only Jupyter's kernels have it; who has not loaded IPython is in none.
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return type(shell).__name__ == "ZMQInteractiveShell"


# --- pictures -------------------------------------------------------------------------------------------


def size_text(count: float) -> str:
    """Bytes for people: three digits and a unit of thousands."""
    unit = 0
    while count >= 999.5 and unit < len(_UNITS) - 1:
        count /= 1000
        unit += 1
    return f"{count:.0f} {_UNITS[unit]}" if unit == 0 or count >= 99.95 else f"{count:.3g} {_UNITS[unit]}"


def line_of(progress: Progress) -> str:
    """One layer as a line of text."""
    name = progress.layer.partition(":")[2][:_SHORT]
    if progress.phase is Phase.DONE:
        return f"{name}  done         {size_text(progress.total)}"
    share = progress.bytes / progress.total if progress.total else 1.0
    bar = ("=" * int(share * _WIDTH)).ljust(_WIDTH)
    return f"{name}  {progress.phase:<12} [{bar}] {size_text(progress.bytes)} of {size_text(progress.total)}"


def summary_of(layers: list[Progress]) -> str:
    """All layers as a line of text."""
    ready = sum(layer.phase is Phase.DONE for layer in layers)
    moved = sum(layer.total if layer.phase is Phase.DONE else layer.bytes for layer in layers)
    return f"{ready} of {len(layers)} layers, {size_text(moved)} of {size_text(sum(layer.total for layer in layers))}"


class _Picture:
    """Draws the latest of every layer, not more often than an eye can follow, and always what is last."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._layers: dict[str, Progress] = {}
        self._drawn = 0.0

    def __call__(self, progress: Progress) -> None:
        before = self._layers.get(progress.layer)
        self._layers[progress.layer] = progress
        changed = before is None or before.phase is not progress.phase
        if changed or time.monotonic() - self._drawn >= _EVERY:
            self._drawn = time.monotonic()
            self._draw(list(self._layers.values()))
            self._stream.flush()

    def _draw(self, layers: list[Progress]) -> None:
        raise NotImplementedError


class Bars(_Picture):
    """A line for each layer, the latest of them where there are more than *rows*, drawn over the last picture."""

    def __init__(self, stream: TextIO, rows: int | None = None) -> None:
        super().__init__(stream)
        self._rows = rows or max(1, shutil.get_terminal_size().lines - 2)
        self._drawn_lines = 0

    def _draw(self, layers: list[Progress]) -> None:
        # ECMA-48: cursor up, and erase to the end of the line.
        up = f"\x1b[{self._drawn_lines}A" if self._drawn_lines else ""
        shown = layers[-self._rows :]
        self._stream.write(up + "".join(f"\r{line_of(layer)}\x1b[K\n" for layer in shown))
        self._drawn_lines = len(shown)


class SingleLine(_Picture):
    """One line for all, drawn over itself; a notebook knows no other movement than the return."""

    def _draw(self, layers: list[Progress]) -> None:
        self._stream.write(f"\r{summary_of(layers):<70}")
        if all(layer.phase is Phase.DONE for layer in layers):
            self._stream.write("\n")
