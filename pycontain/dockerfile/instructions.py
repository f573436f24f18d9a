"""What each instruction says, as typed values. Variables in them are not expanded yet: that needs what came before.

``parse_instructions`` names the instruction, the line and what to write when something is wrong, or is not supported.
"""

from __future__ import annotations

import csv
import difflib
import re
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs

from pycontain.dockerfile.heredoc import Heredoc, parse_heredoc
from pycontain.dockerfile.ignore import PatternError
from pycontain.dockerfile.words import WordError
from pycontain.errors import DockerfileError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pycontain.dockerfile.parser import Document, Node

Pairs: TypeAlias = tuple[tuple[str, str], ...]

_STAGE_NAME = re.compile(r"[a-z][a-z0-9_.-]*")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MILLISECOND = 1_000_000
_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": _MILLISECOND,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
NETWORKS = ("default", "none", "host")
SHARINGS = ("shared", "private", "locked")


@attrs.frozen(kw_only=True)
class Instruction:
    """One instruction. *text* is what stands in the file, *lines* where."""

    text: str = ""
    lines: tuple[int, int] = (0, 0)

    @property
    def keyword(self) -> str:
        """Its name, in capitals."""
        return type(self).__name__.upper()


@attrs.frozen
class Command:
    """What is to be run: the words of an exec form, or with *shell* one text for it, and heredocs."""

    words: tuple[str, ...]
    shell: bool
    heredocs: tuple[Heredoc, ...] = ()


@attrs.frozen
class From(Instruction):
    """Begin a stage on *image*, another stage, or ``scratch``."""

    image: str
    name: str = ""
    platform: str = ""


@attrs.frozen
class Arg(Instruction):
    """Build arguments, with their defaults or None."""

    pairs: tuple[tuple[str, str | None], ...]


@attrs.frozen
class Env(Instruction):
    """Variables of the image."""

    pairs: Pairs


@attrs.frozen
class Label(Instruction):
    """Labels of the image."""

    pairs: Pairs


@attrs.frozen
class Maintainer(Instruction):
    """The author; LABEL has replaced it."""

    name: str


@attrs.frozen
class Mount:
    """``RUN --mount``: what is there for one RUN only. *options* as they are written, but *kind*."""

    kind: str
    options: tuple[tuple[str, str], ...] = ()

    def get(self, *names: str, default: str = "") -> str:
        """The last option that has one of *names*."""
        return next((value for name, value in reversed(self.options) if name in names), default)

    def is_set(self, *names: str, default: bool = False) -> bool:
        """The same for a switch: ``required`` alone, or ``required=true``."""
        value = self.get(*names, default="true" if default else "false").lower()
        return value in {"true", "1", ""}


@attrs.frozen
class Run(Instruction):
    """Run a command in a container; what it writes is a layer."""

    command: Command
    mounts: tuple[Mount, ...] = ()
    network: str = ""
    security: str = "sandbox"


@attrs.frozen
class Copy(Instruction):
    """Copy from the build context, or *origin*: a stage or an image. *contents* are heredocs."""

    sources: tuple[str, ...]
    destination: str
    contents: tuple[Heredoc, ...] = ()
    origin: str = ""
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()


@attrs.frozen
class Add(Copy):
    """As COPY, and unpacks archives, and fetches URLs, which must be *checksum*."""

    checksum: str = ""
    unpack: bool | None = None
    keep_git_dir: bool = False


@attrs.frozen
class Cmd(Instruction):
    """What a container runs."""

    command: Command


@attrs.frozen
class Entrypoint(Instruction):
    """What stands before it."""

    command: Command


@attrs.frozen
class Shell(Instruction):
    """What runs the shell form."""

    words: tuple[str, ...]


@attrs.frozen
class Workdir(Instruction):
    """The working directory of what follows; it is made."""

    path: str


@attrs.frozen
class User(Instruction):
    """Who runs what follows."""

    user: str


@attrs.frozen
class Expose(Instruction):
    """Ports that the payload listens on."""

    ports: tuple[str, ...]


@attrs.frozen
class Volume(Instruction):
    """Places for data that is not of the image."""

    paths: tuple[str, ...]


@attrs.frozen
class Stopsignal(Instruction):
    """How to end it."""

    signal: str


@attrs.frozen
class Health(Instruction):
    """How to find out whether it is well. *test* as a config has it; times in nanoseconds."""

    test: tuple[str, ...]
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0

    @property
    def keyword(self) -> str:
        """Its name in the file."""
        return "HEALTHCHECK"


@attrs.frozen
class Onbuild(Instruction):
    """An instruction for images that will be built on this one."""

    trigger: str


class _Flags:
    """The flags of one instruction: each is asked for by name, and then none may be left."""

    def __init__(self, node: Node) -> None:
        self._keyword = node.keyword.upper()
        self._given: list[tuple[str, str | None]] = []
        self._known: list[str] = []
        for flag in node.flags:
            name, equals, value = flag.removeprefix("--").partition("=")
            self._given.append((name, value if equals else None))

    def all(self, name: str) -> tuple[str, ...]:
        """Every value of a flag that may be repeated."""
        self._known.append(name)
        found = [value for given, value in self._given if given == name]
        if None in found:
            raise ValueError(f"--{name} has no value; write --{name}=…")
        return tuple(value for value in found if value is not None)

    def one(self, name: str, default: str = "") -> str:
        """The value of a flag that may be there once."""
        found = self.all(name)
        if len(found) > 1:
            raise ValueError(f"--{name} is there {len(found)} times; keep one")
        return found[0] if found else default

    def switch(self, name: str) -> bool | None:
        """A flag that is on when it has no value; None when it is not there."""
        self._known.append(name)
        found = [value for given, value in self._given if given == name]
        if len(found) > 1:
            raise ValueError(f"--{name} is there {len(found)} times; keep one")
        if not found:
            return None
        value = (found[0] or "true").lower()
        if value not in {"true", "false", "1", "0"}:
            raise ValueError(f"--{name} is true or false, not {found[0]!r}")
        return value in {"true", "1"}

    def end(self) -> None:
        """Refuse what nobody has asked for."""
        for name, _ in self._given:
            if name not in self._known:
                near = difflib.get_close_matches(name, self._known, 1)
                other = f"; did you mean --{near[0]}?" if near else ""
                has = ", ".join(f"--{known}" for known in sorted(self._known)) or "none"
                raise ValueError(f"has no flag --{name}{other} (there are: {has})")


# --- from nodes -----------------------------------------------------------------------------------------


def parse_instructions(document: Document) -> tuple[Instruction, ...]:
    """Every instruction of *document*, in order. :class:`DockerfileError`."""
    return tuple(instruction_of(node, document) for node in document.nodes)


def instruction_of(node: Node, document: Document) -> Instruction:
    """What *node* says. :class:`DockerfileError`."""
    make = _MAKERS.get(node.keyword)
    if make is None:
        near = difflib.get_close_matches(node.keyword, _MAKERS, 1)
        raise document.error(
            f"unknown instruction: {node.keyword.upper()}",
            node.lines,
            f"did you mean {near[0].upper()}?" if near else f"there are {', '.join(sorted(_MAKERS)).upper()}",
        )
    flags = _Flags(node)
    try:
        made = make(node, flags)
        flags.end()
    except (WordError, PatternError, ValueError) as error:
        if isinstance(error, DockerfileError):
            raise
        problem = str(error)
        text = problem if problem.startswith(node.keyword.upper()) else f"{node.keyword.upper()} {problem}"
        raise document.error(text, node.lines, _USAGE[node.keyword]) from None
    return attrs.evolve(made, text=node.text.strip(), lines=node.lines)


def _one(node: Node) -> str:
    if len(node.args) != 1 or not node.args[0]:
        raise ValueError("requires exactly one argument")
    return node.args[0]


def _some(node: Node, least: int = 1) -> tuple[str, ...]:
    if len(node.args) < least:
        raise ValueError(f"requires at least {'one argument' if least == 1 else 'two arguments'}")
    return node.args


def _from(node: Node, flags: _Flags) -> Instruction:
    platform = flags.one("platform")
    match node.args:
        case (image,):
            return From(image, platform=platform)
        case (image, word, name) if word.lower() == "as":
            if not _STAGE_NAME.fullmatch(name.lower()):
                raise ValueError(
                    f"has the stage name {name!r}; begin with a letter, use letters, digits, . _ -"
                )
            return From(image, name.lower(), platform)
    raise ValueError("requires either one or three arguments")


def _arg(node: Node, _: _Flags) -> Instruction:
    pairs = []
    for word in _some(node):
        name, equals, value = word.partition("=")
        if not name:
            raise ValueError(f"has {word!r}, which has no name")
        pairs.append((name, value if equals else None))
    return Arg(tuple(pairs))


def _pairs(node: Node) -> Pairs:
    words = _some(node)
    pairs = tuple(zip(words[::3], words[1::3], strict=True))
    if not all(name for name, _ in pairs):
        raise ValueError("names can not be blank")
    return pairs


def _command(node: Node) -> Command:
    return Command(node.args, not node.exec_form, node.heredocs)


def _run(node: Node, flags: _Flags) -> Instruction:
    mounts = tuple(map(parse_mount, flags.all("mount")))
    network, security = flags.one("network"), flags.one("security", "sandbox")
    if network and network not in NETWORKS:
        raise ValueError(f"--network is one of {', '.join(NETWORKS)}, not {network!r}")
    if security not in {"sandbox", "insecure"}:
        raise ValueError(f"--security is sandbox or insecure, not {security!r}")
    if not any(node.args):
        raise ValueError("requires a command")
    return Run(_command(node), mounts, network, security)


_MOUNT_OPTIONS = {
    "bind": "target dst destination source src from readonly ro readwrite rw",
    "cache": "id target dst destination readonly ro readwrite rw sharing from source src mode uid gid",
    "tmpfs": "target dst destination size",
    "secret": "id target dst destination src source env required mode uid gid",
    "ssh": "id target dst destination required mode uid gid",
}


def parse_mount(text: str) -> Mount:
    """Read the value of ``--mount``. :class:`ValueError`."""
    fields = next(csv.reader([text], strict=True), [])
    options = []
    kind = "bind"
    for field in fields:
        name, equals, value = field.partition("=")
        name = name.lower()
        if name == "type":
            kind = value
        else:
            options.append((name, value if equals else "true"))
    mount = Mount(kind, tuple(options))
    if "$" not in kind:
        check_mount(mount)
    return mount


def check_mount(mount: Mount) -> None:
    """Raise :class:`ValueError` unless there are such mounts, with such options."""
    kind, options = mount.kind, mount.options
    if kind not in _MOUNT_OPTIONS:
        raise ValueError(f"--mount has the type {kind!r}; there are {', '.join(_MOUNT_OPTIONS)}")
    known = _MOUNT_OPTIONS[kind].split()
    for name, value in options:
        if name not in known:
            raise ValueError(f"--mount=type={kind} has no option {name!r}; there are {', '.join(known)}")
        if name == "sharing" and "$" not in value and value not in SHARINGS:
            raise ValueError(f"--mount has sharing={value}; there are {', '.join(SHARINGS)}")
    if kind in {"bind", "cache", "tmpfs"} and not mount.get("target", "dst", "destination"):
        raise ValueError(f"--mount=type={kind} has no target")


def _copied(node: Node, flags: _Flags) -> dict[str, Any]:
    words = _some(node, 2)
    given = {heredoc.name: heredoc for heredoc in node.heredocs}
    sources, contents = [], []
    for word in words[:-1]:
        heredoc = None if node.exec_form else parse_heredoc(word)
        if heredoc is None:
            sources.append(word)
        else:
            contents.append(given.get(heredoc.name, heredoc))
    if not node.exec_form and parse_heredoc(words[-1]) is not None:
        raise ValueError("cannot have a here-document as its destination")
    chmod = flags.one("chmod")
    return {
        "sources": tuple(sources),
        "destination": words[-1],
        "contents": tuple(contents),
        "chown": flags.one("chown"),
        "chmod": chmod,
        "link": bool(flags.switch("link")),
        "exclude": flags.all("exclude"),
    }


def _copy(node: Node, flags: _Flags) -> Instruction:
    origin, parents = flags.one("from"), bool(flags.switch("parents"))
    if "$" in origin:
        raise ValueError(
            "--from cannot have variables; give the image a stage of its own: FROM $IMAGE AS name"
        )
    return Copy(**_copied(node, flags), origin=origin, parents=parents)


def _add(node: Node, flags: _Flags) -> Instruction:
    checksum, unpack = flags.one("checksum"), flags.switch("unpack")
    keep = bool(flags.switch("keep-git-dir"))
    return Add(**_copied(node, flags), checksum=checksum, unpack=unpack, keep_git_dir=keep)


def _health(node: Node, flags: _Flags) -> Instruction:
    kind, *words = _some(node)
    kind = kind.upper()
    if kind == "NONE":
        if words:
            raise ValueError("NONE takes no arguments")
        return Health(("NONE",))
    if kind != "CMD":
        raise ValueError(f"has the type {kind!r}; there are CMD and NONE")
    if not words:
        raise ValueError("CMD has no command")
    interval, timeout, start_period, start_interval = (
        _interval(f"--{name}", flags.one(name))
        for name in ("interval", "timeout", "start-period", "start-interval")
    )
    retries = flags.one("retries", "0")
    if not retries.isdigit():
        raise ValueError(f"--retries is a number that is not negative, not {retries!r}")
    test = ("CMD" if node.exec_form else "CMD-SHELL", *words)
    return Health(test, interval, timeout, start_period, start_interval, int(retries))


def _interval(name: str, text: str) -> int:
    value = parse_duration(text) if text else 0
    if 0 < value < _MILLISECOND:
        raise ValueError(f"{name} cannot be less than 1ms")
    return value


def parse_duration(text: str) -> int:
    """Nanoseconds, of ``1m30s`` and such. :class:`ValueError`."""
    if text == "0":
        return 0
    parts = list(_DURATION.finditer(text))
    if not parts or "".join(part[0] for part in parts) != text:
        raise ValueError(f"has the duration {text!r}; write 30s, 1m30s or 500ms")
    return round(sum(float(part[1]) * _UNITS[part[2]] for part in parts))


def _onbuild(node: Node, _: _Flags) -> Instruction:
    if node.nested is None:
        raise ValueError("requires at least one argument")
    trigger = node.nested.keyword.upper()
    if trigger == "ONBUILD":
        raise ValueError("ONBUILD in ONBUILD is not allowed")
    if trigger in {"FROM", "MAINTAINER"}:
        raise ValueError(f"{trigger} is not allowed in ONBUILD")
    text = re.sub(r"(?i)^\s*onbuild\s*", "", node.text)
    text += "".join(f"\n{one.content}{one.name}" for one in node.heredocs)
    return Onbuild(text)


def _shell(node: Node, _: _Flags) -> Instruction:
    if not node.exec_form:
        raise ValueError('requires the JSON form: SHELL ["/bin/sh", "-c"]')
    return Shell(_some(node))


def _volume(node: Node, _: _Flags) -> Instruction:
    paths = tuple(path.strip() for path in _some(node))
    if not all(paths):
        raise ValueError("has an empty path")
    return Volume(paths)


_Maker: TypeAlias = "Callable[[Node, _Flags], Instruction]"

_MAKERS: dict[str, _Maker] = {
    "add": _add,
    "arg": _arg,
    "cmd": lambda node, _: Cmd(_command(node)),
    "copy": _copy,
    "entrypoint": lambda node, _: Entrypoint(_command(node)),
    "env": lambda node, _: Env(_pairs(node)),
    "expose": lambda node, _: Expose(_some(node)),
    "from": _from,
    "healthcheck": _health,
    "label": lambda node, _: Label(_pairs(node)),
    "maintainer": lambda node, _: Maintainer(_one(node)),
    "onbuild": _onbuild,
    "run": _run,
    "shell": _shell,
    "stopsignal": lambda node, _: Stopsignal(_one(node)),
    "user": lambda node, _: User(_one(node)),
    "volume": _volume,
    "workdir": lambda node, _: Workdir(_one(node)),
}

_USAGE = {
    "add": "ADD SOURCE… DESTINATION",
    "arg": "ARG NAME or ARG NAME=DEFAULT",
    "cmd": 'CMD ["program", "argument"] or CMD command',
    "copy": "COPY SOURCE… DESTINATION",
    "entrypoint": 'ENTRYPOINT ["program", "argument"]',
    "env": 'ENV NAME=value OTHER="more words"',
    "expose": "EXPOSE 8080/tcp",
    "from": "FROM IMAGE or FROM IMAGE AS NAME",
    "healthcheck": "HEALTHCHECK [--interval=30s] CMD command, or HEALTHCHECK NONE",
    "label": 'LABEL name=value other="more words"',
    "maintainer": "MAINTAINER NAME",
    "onbuild": "ONBUILD INSTRUCTION",
    "run": "RUN command",
    "shell": 'SHELL ["/bin/sh", "-c"]',
    "stopsignal": "STOPSIGNAL SIGTERM",
    "user": "USER name, or USER uid:gid",
    "volume": "VOLUME /path",
    "workdir": "WORKDIR /path",
}


def keywords() -> Iterator[str]:
    """Every instruction there is, in capitals."""
    yield from (name.upper() for name in _MAKERS)
