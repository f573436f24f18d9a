"""The options that describe a container, under the names that users of ``docker run`` know, read into a Container."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from pycontain.commands.parser import Parser, UsageError
from pycontain.container import UNLIMITED, Container

if TYPE_CHECKING:
    from collections.abc import Iterator


def container_parser(verb: str, *, description: str) -> Parser:
    """A parser with every option of a container, whose options end at IMAGE: what follows is the payload's."""
    parser = Parser(verb, description=description, usage="[OPTION…] IMAGE [ARG…]")
    parser.add_argument(
        "words", nargs=argparse.REMAINDER, metavar="IMAGE [ARG…]", help="host:, rootfs:DIR, …"
    )
    what = parser.add_argument_group("what runs")
    what.add_argument("--entrypoint", metavar="PROGRAM", help="instead of the image's; '' for none")
    what.add_argument(
        "-e", "--env", action="append", default=[], metavar="NAME[=VALUE]", help="without =VALUE: ours"
    )
    what.add_argument("-w", "--workdir", metavar="PATH", help="start in this directory")
    what.add_argument("-u", "--user", metavar="USER[:GROUP]", help="names or numbers")
    what.add_argument(
        "--init", action=argparse.BooleanOptionalAction, default=True, help="PID 1 is an init of ours"
    )
    what.add_argument("--stop-signal", metavar="SIGNAL", help="what asks the payload to end")
    names = parser.add_argument_group("how it is called")
    names.add_argument("--name", help="a name, for people")
    names.add_argument("--hostname", metavar="NAME", help="instead of the container's id")
    names.add_argument(
        "-l", "--label", action="append", default=[], metavar="NAME[=VALUE]", help="attach a label"
    )
    sees = parser.add_argument_group("what it sees")
    sees.add_argument(
        "-v", "--volume", action="append", default=[], metavar="SRC:DST[:ro]", help="a path of the host"
    )
    sees.add_argument(
        "--tmpfs", action="append", default=[], metavar="DST[:size=SIZE]", help="an empty tree in memory"
    )
    sees.add_argument("--read-only", action="store_true", help="the root cannot be written")
    may = parser.add_argument_group("what it may")
    may.add_argument(
        "--cap-add", action="append", default=[], metavar="CAPABILITY", help="grant; ALL for all"
    )
    may.add_argument(
        "--cap-drop", action="append", default=[], metavar="CAPABILITY", help="take away; ALL for all"
    )
    may.add_argument("--ulimit", action="append", default=[], metavar="NAME=SOFT[:HARD]", help="setrlimit(2)")
    return parser


def read_container(options: argparse.Namespace) -> tuple[Container, tuple[str, ...]]:
    """The container that the options describe, and the payload's command line."""
    words = options.words[1:] if options.words[:1] == ["--"] else options.words
    if not words:
        raise UsageError(
            "there is no image", hint="name one: host: is this machine, rootfs:DIR a tree on disk"
        )
    image, *argv = words
    container = (
        Container(image)
        .env(dict(_variables(options.env)))
        .label(dict(_pair(text) for text in options.label))
        .capabilities(add=options.cap_add, drop=options.cap_drop)
        .read_only(options.read_only)
        .init(options.init)
    )
    for name in ("workdir", "user", "hostname", "name", "stop_signal"):
        value = getattr(options, name)
        if value is not None:
            container = getattr(container, name)(value)
    if options.entrypoint is not None:
        container = container.entrypoint(*filter(None, (options.entrypoint,)))
    for text in options.volume:
        container = _mounted(container, text)
    for text in options.tmpfs:
        container = _with_tmpfs(container, text)
    for text in options.ulimit:
        container = _limited(container, text)
    return container, tuple(argv)


def _variables(texts: list[str]) -> Iterator[tuple[str, str]]:
    for text in texts:
        name, equals, value = text.partition("=")
        if equals:
            yield name, value
        elif name in os.environ:  # as docker run: a variable that we lack is not set
            yield name, os.environ[name]


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


def _mounted(container: Container, text: str) -> Container:
    source, colon, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    if not colon or mode not in {"", "ro", "rw"}:
        raise UsageError(f"-v {text}: it is SRC:DST, SRC:DST:ro or SRC:DST:rw")
    if "/" not in source and source not in {".", ".."}:
        raise UsageError(f"-v {text}: there are no named volumes yet", hint=f"for a folder write -v ./{text}")
    return container.mount(source, target, read_only=mode == "ro")


def _with_tmpfs(container: Container, text: str) -> Container:
    target, _, settings = text.partition(":")
    size, mode = None, 0o1777
    for setting in filter(None, settings.split(",")):
        match setting.partition("="):
            case "size", "=", value:
                size = value
            case "mode", "=", value if value.isdigit() and not set(value) & set("89"):
                mode = int(value, 8)
            case _:
                raise UsageError(f"--tmpfs {text}: it takes size=SIZE and mode=OCTAL, not {setting!r}")
    return container.tmpfs(target, size=size, mode=mode)


def _limited(container: Container, text: str) -> Container:
    name, _, values = text.partition("=")
    try:
        limits = [UNLIMITED if value == "unlimited" else int(value) for value in values.split(":")]
    except ValueError:
        limits = []
    if len(limits) not in {1, 2}:
        raise UsageError(f"--ulimit {text}: it is NAME=SOFT or NAME=SOFT:HARD, with numbers or unlimited")
    return container.rlimit(name, *limits)
