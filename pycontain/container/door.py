"""The door of the builder methods: what is given there is read once, and all that is wrong is said at once."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Self, TypeVar

from pycontain.errors import InvalidSpec
from pycontain.sandbox.limits import MAX
from pycontain.sandbox.paths import HostPath, RootPath
from pycontain.sandbox.size import parse_size

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

Given = TypeVar("Given")
Value = TypeVar("Value")

UNLIMITED = -1
_USER = re.compile(r"[^:\s\0/-][^:\s\0/]*(:[^:\s\0/-][^:\s\0/]*)?")
_KERNEL_TREES = ("/proc", "/sys")
_LEAST_LAYER = 1 << 20
_LONGEST_OFFSET = 1 << 33  # seconds; the kernel's clocks end soon after


class Door:
    """Collects what is wrong with the arguments of one builder method, and says all of it at once."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self.problems:
            raise InvalidSpec(tuple(self.problems))

    def read(self, parse: Callable[[Given], Value], given: Given) -> Value:
        """*parse* the value; what it complains of is a problem, and nothing after the block sees the result."""
        try:
            return parse(given)
        except (ValueError, TypeError) as error:
            self.problems.append(str(error))
            return None  # type: ignore[return-value]

    def refuse(self, wrong: bool, problem: str) -> None:  # noqa: FBT001 - reads as a sentence at its callers
        """Note *problem* when *wrong*."""
        if wrong:
            self.problems.append(problem)


def parse_text(given: str) -> str:
    """A plain str that a file system and a program can take, as os.fsencode would write it."""
    if not isinstance(given, str):
        raise TypeError(f"{given!r} is no text; write it as a str")
    if "\0" in given:
        raise ValueError(f"{given!r} holds a NUL byte")
    try:
        given.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ValueError(f"{given!r} holds half a surrogate pair, which no program can be given") from None
    return str.__str__(given)  # what travels to the zygote must not be of a subclass


def matching(pattern: re.Pattern[str], what: str) -> Callable[[str], str]:
    """A parser of texts that are *what*, as the whole of *pattern* says."""

    def parse(given: str) -> str:
        if not isinstance(given, str) or not pattern.fullmatch(given):
            raise ValueError(f"{given!r} is no {what}")
        return parse_text(given)

    return parse


def parse_content(given: str | bytes) -> bytes:
    """The bytes of a file."""
    if isinstance(given, bytes):
        return bytes(given)
    if not isinstance(given, str):
        raise TypeError(f"the content is neither str nor bytes but {type(given).__name__}")
    try:
        return given.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ValueError("the content holds half a surrogate pair; give it as bytes") from None


def parse_mapping(given: Mapping[str, Value] | None) -> dict[str, Value]:
    """A dict of its own; None is an empty one."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise InvalidSpec(f"{given!r} is no mapping; write name=value, or give a dict")
    return dict(given)


def parse_file_mode(given: int) -> int:
    """A mode of chmod(2)."""
    if not isinstance(given, int) or not 0 <= given <= 0o7777:
        raise ValueError(
            f"{given:#o} is no file mode" if isinstance(given, int) else f"{given!r} is no file mode"
        )
    return given


def parse_tmpfs_size(given: str | int) -> int:
    """Bytes, and at least one."""
    size = parse_size(given)
    if not 0 < size < 1 << 63:
        raise ValueError(f"{given!r} is no size for a file system in memory")
    return size


def parse_layer_size(given: str | int) -> int:
    """Bytes, and as many as the container's own files need."""
    size = parse_tmpfs_size(given)
    if size < _LEAST_LAYER:
        raise ValueError(f"disk: {given!r} is too little for the container's own files; the least is 1M")
    return size


def unless_max(parse: Callable[[str | int], int]) -> Callable[[str | int], int | None]:
    """A parser that reads ``"max"`` as None, and else what *parse* does."""
    return lambda given: None if given == MAX else parse(given)


def parse_window_size(given: int) -> int:
    """Columns or rows of a terminal."""
    if isinstance(given, bool) or not isinstance(given, int) or not 0 < given < 1 << 16:
        raise ValueError(f"{given!r} is no number of columns or rows")
    return given


def parse_restart(given: str) -> tuple[bool, int] | None:
    """Whether always, and how often at most, -1 for any number; None for never."""
    match given.split(":") if isinstance(given, str) else ():
        case ["no"]:
            return None
        case ["always"]:
            return True, -1
        case ["on-failure"]:
            return False, -1
        case ["on-failure", most] if most.isdecimal() and most.isascii() and len(most) < 10:
            return False, int(most)
    raise ValueError(f"{given!r} is no restart policy; there are no, always, on-failure and on-failure:N")


def parse_offset(given: float) -> int:
    """Nanoseconds, from seconds."""
    number = isinstance(given, int | float) and not isinstance(given, bool)
    if not number or not abs(given) < _LONGEST_OFFSET:  # which is false for nan as well
        raise ValueError(f"{given!r} is no offset of a clock; write seconds")
    return round(given * 1_000_000_000)


def parse_user(given: str | int) -> str:
    """A user and maybe a group, by their names or numbers."""
    if isinstance(given, bool) or not isinstance(given, str | int):
        raise TypeError(f"{given!r} is no user; write name, uid, name:group or uid:gid")
    return matching(_USER, "user; write name, uid, name:group or uid:gid")(str(given))


def parse_capabilities(given: Iterable[str]) -> list[str]:
    """The names, which are not looked at yet."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(f"{given!r} is no list of capabilities; write ('NET_RAW',)")
    return list(given)


def parse_rlimit(given: int) -> int:
    """A limit of getrlimit(2), or :data:`UNLIMITED`."""
    if isinstance(given, bool) or not isinstance(given, int) or not UNLIMITED <= given < 1 << 63:
        raise ValueError(f"{given!r} is no limit; write a number, or -1 for none")
    return given


def parse_variable_name(given: str) -> str:
    """A name that environ(7) can hold."""
    if not isinstance(given, str) or not given or "=" in given:
        raise ValueError(f"{given!r} is no name for a variable")
    return parse_text(given)


def parse_target(given: str) -> RootPath:
    """A path in the container that something may be put at."""
    path = RootPath.parse(parse_text(given))
    if path == "/" or any(path == tree or path.startswith(f"{tree}/") for tree in _KERNEL_TREES):
        raise ValueError(f"nothing can be put at {path}: it is the container's own")
    return path


def parse_container_path(given: str) -> RootPath:
    """Any path in the container."""
    return RootPath.parse(parse_text(given))


def parse_host_path(given: str | os.PathLike[str]) -> HostPath:
    """A path of the host, made absolute."""
    if not given:
        raise ValueError("the mount source is empty")
    return HostPath.parse(os.path.abspath(parse_text(os.fspath(given))))
