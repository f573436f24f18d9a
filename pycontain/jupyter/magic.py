"""``%%container``: a command whose input is a cell, and whose output appears below it while it runs."""

from __future__ import annotations

import codecs
import os
import selectors
import shlex
import sys
import threading
import time
from contextlib import contextmanager, suppress
from functools import partial
from subprocess import PIPE
from typing import TYPE_CHECKING, Any

import attrs

from pycontain import Completed, Container, Image, Running
from pycontain.commands.options import container_parser, read_container, read_variables
from pycontain.commands.parser import UsageError
from pycontain.errors import CommandFailed, CommandTimeout, PycontainError
from pycontain.oci.source import HostImage, Rootfs

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from pycontain import Process
    from pycontain.commands.parser import Parser

_CHUNK = 1 << 16
_KEPT = 64 << 20  # bytes of each stream, as run() keeps
_RED, _PLAIN = "\x1b[31m", "\x1b[0m"


def parser() -> Parser:
    """The options of ``pycontain run`` that describe a container, and those of IPython's ``%%script``."""
    made = container_parser("run", description="Run a command whose standard input is the cell.")
    made.prog = "%container"
    made.usage = "%%container [OPTION…] IMAGE|VARIABLE [ARG…]"
    how = made.add_argument_group("how it runs")
    how.add_argument("--timeout", type=float, metavar="SECONDS", help="kill it then")
    how.add_argument("-o", "--out", metavar="NAME", help="keep the result in this variable")
    how.add_argument("-q", "--quiet", action="store_true", help="do not show what it prints")
    how.add_argument(
        "--no-raise-error", action="store_true", help="go on when it does not exit with 0, or not in time"
    )
    return made


_OF_VARIABLES = ("words", "env", "workdir", "user", "timeout", "out", "quiet", "no_raise_error", "debug")


def run(names: dict[str, Any], line: str, cell: str | None) -> None:
    """Do what the magic says; *names* are those of the notebook."""
    made = parser()
    try:
        options = made.parse_args(_words(line))
    except SystemExit:  # argparse has printed --help
        return
    except PycontainError as error:
        raise _short(error) from None
    try:
        done = _completed(names, options, made, cell)
        if options.out:
            names[options.out] = done
        if not options.no_raise_error:
            _check(done, options.timeout)
    except PycontainError as error:
        if not options.debug:
            # What it printed has just been shown.
            _short(error, notes=options.quiet or not isinstance(error, CommandFailed | CommandTimeout))
        raise


def _check(done: Completed[str], timeout: float) -> None:
    if done.timed_out:
        line = " ".join(done.argv)
        error = CommandTimeout(f"{line!r} did not end within {timeout:g} s and was killed", result=done)
        tail = done.tail()
        raise error.with_hint(f"it printed last:\n{tail}" if tail else "it had printed nothing")
    done.check()


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as error:
        raise _short(UsageError(f"%container {line}: {str(error).lower()}")) from None


def _short(error: PycontainError, *, notes: bool = True) -> PycontainError:
    """*error* as a notebook is to show it: where it came from inside of us helps nobody."""
    lines = [f"{_RED}{type(error).__name__}{_PLAIN}: {error}"]
    lines += getattr(error, "__notes__", ()) if notes else ()
    vars(error)["_render_traceback_"] = partial(list, lines)  # IPython asks for it; it can be pickled
    return error


# --- what runs ------------------------------------------------------------------------------------------


def _completed(
    names: dict[str, Any], options: argparse.Namespace, made: Parser, cell: str | None
) -> Completed[str]:
    word, *argv = options.words or ("",)
    value = names.get(word)
    fed = None if cell is None else _script(cell)
    deadline = None if options.timeout is None else time.monotonic() + options.timeout
    shown = _Shown(quiet=options.quiet)
    if isinstance(value, Running):
        _refuse(options, made, word)
        return _of_command(value, argv or _reader(value.spec.image, cell), fed, options, deadline, shown)
    if isinstance(value, Container):
        _refuse(options, made, word)
        described = _changed(value, options)
    else:
        images = {word: value} if isinstance(value, Image) else {}
        described, _ = read_container(options, images)
    if not (argv or described.spec.entrypoint):
        argv = _reader(described.spec.image, cell, own=True)
    return _of_container(described, argv, fed, deadline, shown)


def _script(cell: str) -> bytes:
    return (cell if cell.endswith("\n") else f"{cell}\n").encode()


def _reader(image: object, cell: str | None, *, own: bool = False) -> list[str]:
    """What reads a cell when nothing is said: nothing, where the image has a command of its *own*."""
    if cell is None:
        return []
    if isinstance(image, HostImage):
        return ["python3", "-"]
    return [] if own and not isinstance(image, Rootfs) else ["sh"]


def _refuse(options: argparse.Namespace, made: Parser, word: str) -> None:
    """What a variable holds is described already; only what concerns one command may be said of it."""
    defaults = made.parse_args([])
    given = [
        f"--{name.replace('_', '-')}"
        for name, value in vars(options).items()
        if name not in _OF_VARIABLES and value != getattr(defaults, name)
    ]
    if given:
        raise UsageError(
            f"{word} is a container already, and takes no {', '.join(given)}",
            hint="describe it with its methods, as .limits(memory='1G'), or name an image",
        )


def _changed(described: Container, options: argparse.Namespace) -> Container:
    described = described.env(dict(read_variables(options.env)))
    for name in ("workdir", "user"):
        value = getattr(options, name)
        if value is not None:
            described = getattr(described, name)(value)
    return described


def _of_container(
    described: Container, argv: list[str], fed: bytes | None, deadline: float | None, shown: _Shown
) -> Completed[str]:
    with described.start(*argv, input=fed, max_output=_KEPT) as running:
        log = running._log  # noqa: SLF001 - in pieces, as they come: a progress bar has no lines
        cursor, expired = log.cursor(), False
        while True:
            records, missed = log.read(cursor, _left(deadline))
            shown.missed(missed)
            for _, stream, chunk in records:
                shown.show(stream, chunk)
            if not records and log.ended:
                break
            if not records:
                running.kill()
                expired, deadline = True, None
        shown.end()
        return attrs.evolve(running.wait(), timed_out=expired)


def _of_command(
    running: Running,
    argv: list[str],
    fed: bytes | None,
    options: argparse.Namespace,
    deadline: float | None,
    shown: _Shown,
) -> Completed[str]:
    env, user, workdir = dict(read_variables(options.env)), options.user, options.workdir
    with (
        _file_of(fed) as stdin,
        running.popen(
            *argv, stdin=stdin, stdout=PIPE, stderr=PIPE, env=env, user=user, workdir=workdir
        ) as command,
    ):
        try:
            expired = _show_until_it_ends(command, deadline, shown)
        except BaseException:
            command.kill()
            raise
        shown.end()
        command.wait()
        done = command._completed()  # noqa: SLF001 - a Completed, which Popen has not
    stdout, stderr = shown.kept()
    return attrs.evolve(done, stdout=stdout, stderr=stderr, timed_out=expired)


def _show_until_it_ends(command: Process[bytes], deadline: float | None, shown: _Shown) -> bool:
    """Carry both streams until the command itself has ended, as exec() has it; whether that was by *deadline*."""
    expired = False
    with selectors.DefaultSelector() as selector, _ended(command) as end:
        selector.register(end, selectors.EVENT_READ)
        for stream, file in enumerate((command.stdout, command.stderr)):
            assert file is not None
            os.set_blocking(file.fileno(), False)
            selector.register(file, selectors.EVENT_READ, stream)
        while True:
            ready = selector.select(_left(deadline))
            for key, _ in ready:
                if key.data is not None:
                    chunk = os.read(key.fd, _CHUNK)
                    shown.show(key.data, chunk)
                    if not chunk:
                        selector.unregister(key.fileobj)
            if [key.fd for key, _ in ready] == [end]:  # and nothing else is there
                return expired
            if not ready:
                command.kill()
                expired, deadline = True, None


@contextmanager
def _ended(command: Process[bytes]) -> Iterator[int]:
    """A descriptor that can be read when *command* has ended."""
    end = os.eventfd(0)

    def watch() -> None:
        try:
            command.wait()
        finally:
            os.eventfd_write(end, 1)

    watching = threading.Thread(target=watch, name="pycontain-cell")
    try:
        watching.start()
        yield end
    except BaseException:
        command.kill()
        raise
    finally:
        with suppress(RuntimeError):  # it was interrupted before it had begun
            watching.join()
        os.close(end)


@contextmanager
def _file_of(content: bytes | None) -> Iterator[int | None]:
    if content is None:
        yield None
        return
    fd = os.memfd_create("cell")
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(content)
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


# --- what is shown --------------------------------------------------------------------------------------


class _Shown:
    """Both streams, as they appear below the cell, and what is kept of them."""

    def __init__(self, *, quiet: bool) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")
        self._decoders = decoder("replace"), decoder("replace")
        self._kept = bytearray(), bytearray()
        self._quiet = quiet

    def show(self, stream: int, chunk: bytes) -> None:
        """Show what has come; characters may come in pieces."""
        self._kept[stream].extend(chunk[: max(0, _KEPT - len(self._kept[stream]))])
        self._write(stream, self._decoders[stream].decode(chunk))

    def missed(self, count: int) -> None:
        """Say that *count* bytes were thrown away, because the notebook takes them too slowly."""
        if count:
            self._write(1, f"[{count} bytes are not shown: they came too fast]\n")

    def end(self) -> None:
        """Show what is left of characters that are not complete."""
        for stream in (0, 1):
            self._write(stream, self._decoders[stream].decode(b"", final=True))

    def kept(self) -> tuple[str, str]:
        """Standard output and standard error."""
        stdout, stderr = (bytes(kept).decode(errors="replace") for kept in self._kept)
        return stdout, stderr

    def _write(self, stream: int, text: str) -> None:
        if text and not self._quiet:
            file = (sys.stdout, sys.stderr)[stream]
            file.write(text)
            file.flush()
