"""What several verbs read in the same way: secrets, spans of time, mounts in the long form."""

from __future__ import annotations

import csv
import os
from typing import TYPE_CHECKING

from pycontain.commands.parser import UsageError
from pycontain.dockerfile.instructions import parse_duration

if TYPE_CHECKING:
    from pycontain.container.container import Container

_SECOND = 10**9  # in nanoseconds
_TARGET = ("target", "destination", "dst")
_SOURCE = ("source", "src")
_READ_ONLY = ("readonly", "ro")
_KINDS = {
    "bind": {*_TARGET, *_SOURCE, *_READ_ONLY},
    "volume": {*_TARGET, *_SOURCE, *_READ_ONLY, "volume-nocopy"},
    "tmpfs": {*_TARGET, "tmpfs-size", "tmpfs-mode"},
}


def read_secret(text: str) -> tuple[str, bytes]:
    """The name and the value of ``id=NAME,src=PATH`` or ``id=NAME,env=VARIABLE``."""
    parts = dict(part.partition("=")[::2] for part in text.split(","))
    ident = parts.get("id", "")
    if not ident:
        raise UsageError(f"--secret {text} has no id", hint="write id=token,src=PATH, or id=token,env=NAME")
    try:
        if "env" in parts:
            return ident, os.environb[os.fsencode(parts["env"])]
        with open(parts.get("src") or parts.get("source") or ident, "rb") as file:
            return ident, file.read()
    except (OSError, KeyError) as error:
        raise UsageError(f"the secret {ident} cannot be read: {error}") from error


def seconds(option: str, text: str | None) -> float | None:
    """A span of time as docker writes it, such as ``1m30s``, in seconds; a plain number is seconds."""
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return parse_duration(text) / _SECOND
    except ValueError:
        raise UsageError(f"--{option} {text}: it is a time such as 30s or 1m30s") from None


def with_mount(container: Container, text: str) -> Container:
    """*container* with ``type=bind,source=PATH,target=PATH,readonly``, as docker run has it."""
    fields = next(csv.reader([text]), [])
    given = {
        name.lower(): (value if equals else "true")
        for name, equals, value in (each.partition("=") for each in fields)
    }
    kind = given.pop("type", "volume")
    if kind not in _KINDS:
        raise UsageError(f"--mount {text}: its type is one of {', '.join(_KINDS)}")
    if unknown := given.keys() - _KINDS[kind]:
        raise UsageError(
            f"--mount {text}: type={kind} does not take {min(unknown)!r}",
            hint=f"there are {', '.join(sorted(_KINDS[kind]))}",
        )
    target = next((given[name] for name in _TARGET if name in given), "")
    source = next((given[name] for name in _SOURCE if name in given), "")
    read_only = next((_switch(text, given[name]) for name in _READ_ONLY if name in given), False)
    if not target or (kind == "bind" and not source):
        raise UsageError(f"--mount {text}: it has no {'source' if target else 'target'}")
    if kind == "bind":
        return container.mount(source, target, read_only=read_only)
    if kind == "volume":
        copy = not _switch(text, given.get("volume-nocopy", "false"))
        return container.volume(source or None, target, read_only=read_only, copy=copy)
    mode = given.get("tmpfs-mode", "1777")
    if not mode.isascii() or not mode.isdigit() or set(mode) & set("89"):
        raise UsageError(f"--mount {text}: tmpfs-mode is octal")
    return container.tmpfs(target, size=given.get("tmpfs-size"), mode=int(mode, 8))


def _switch(text: str, value: str) -> bool:
    if value.lower() not in {"true", "false", "1", "0"}:
        raise UsageError(f"--mount {text}: {value!r} is neither true nor false")
    return value.lower() in {"true", "1"}


def with_security(container: Container, text: str) -> Container:
    """*container* with one ``--security-opt`` of docker run, as far as it means something here."""
    name, _, value = text.replace(":", "=", 1).partition("=") if "=" not in text else text.partition("=")
    match name, value:
        case "seccomp", "builtin":
            return container.seccomp("default")
        case "seccomp", _ if value:
            return container.seccomp(value)
        case "no-new-privileges", "" | "true":
            return container  # always so, but with --privileged
        case "apparmor" | "label" | "systempaths" | "mask" | "unmask" | "proc-opts", _:
            raise UsageError(
                f"--security-opt {text}: pycontain cannot do that",
                hint="leave it out; explain shows what holds instead",
            )
    raise UsageError(
        f"--security-opt {text}: it is seccomp=default, seccomp=unconfined, seccomp=PROFILE.json or no-new-privileges"
    )


def variables_of(path: str) -> list[str]:
    """The lines of an ``--env-file``, as ``--env`` takes them; empty ones and comments are left out."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line.strip("\r\n").lstrip() for line in file]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--env-file {path} cannot be read: {error}") from error
    return [line for line in lines if line and not line.startswith("#")]
