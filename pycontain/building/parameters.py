"""The instructions that change only how the image is run, on the config as Docker does. Pure."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, Any, assert_never

import attrs

from pycontain.dockerfile import instructions as said
from pycontain.oci.config import Healthcheck

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pycontain.building.state import State
    from pycontain.dockerfile.scope import Scope

SHELL = ("/bin/sh", "-c")
_MOST_PORT = 65_535

Parameter = (
    said.Cmd
    | said.Entrypoint
    | said.Env
    | said.Expose
    | said.Health
    | said.Label
    | said.Maintainer
    | said.Onbuild
    | said.Shell
    | said.Stopsignal
    | said.User
    | said.Volume
)


def changed(state: State, one: Parameter, scope: Scope, *, cmd_is_own: bool) -> State:  # noqa: C901 - a table
    """*state* as *one* makes it. *cmd_is_own*: CMD was there in this stage before."""
    match one:
        case said.Cmd(command=command):
            return state.saying(cmd=words_of(state, command), args_escaped=False)
        case said.Entrypoint(command=command):
            cmd = state.said.cmd if cmd_is_own else ()
            return state.saying(entrypoint=words_of(state, command), cmd=cmd)
        case said.Env(pairs=pairs):
            values = dict(entry.split("=", 1) for entry in state.said.env)
            values |= {scope.text(one, name): scope.text(one, value) for name, value in pairs}
            return state.saying(env=tuple(f"{name}={value}" for name, value in values.items()))
        case said.Label(pairs=pairs):
            labels: Any = dict(state.said.labels)
            labels |= {scope.text(one, name): scope.text(one, value) for name, value in pairs}
            return state.saying(labels=labels)
        case said.Expose(ports=ports):
            found = [
                port for text in ports for word in scope.words(one, text) for port in _ports(word, one, scope)
            ]
            return state.saying(exposed_ports=(*state.said.exposed_ports, *found))
        case said.Volume(paths=paths):
            return state.saying(volumes=(*state.said.volumes, *(scope.text(one, path) for path in paths)))
        case said.User(user=user):
            return state.saying(user=scope.text(one, user))
        case said.Stopsignal(signal=signal):
            return state.saying(stop_signal=scope.text(one, signal))
        case said.Shell(words=words):
            return state.saying(shell=words)
        case said.Onbuild(trigger=trigger):
            return state.saying(on_build=(*state.said.on_build, trigger))
        case said.Maintainer(name=name):
            return attrs.evolve(state, config=attrs.evolve(state.config, author=name))
        case said.Health():
            return state.saying(healthcheck=_healthcheck(state, one))
    assert_never(one)


def words_of(state: State, command: said.Command) -> tuple[str, ...]:
    """The command line: the shell form is given to the shell of the image."""
    if not command.shell:
        return command.words
    return (*(state.said.shell or SHELL), *command.words)


def workdir_of(state: State, path: str) -> str:
    """What WORKDIR *path* means after the ones before."""
    return posixpath.normpath(posixpath.join("/", state.said.working_dir, path)).replace("//", "/")


def _healthcheck(state: State, one: said.Health) -> Healthcheck:
    """What is not said stays as the image has it, as Docker's config merging does with 0."""
    del state
    return Healthcheck(one.test, one.interval, one.timeout, one.start_period, one.start_interval, one.retries)


def _ports(word: str, one: said.Expose, scope: Scope) -> Iterator[str]:
    """``8080``, ``8080/udp``, ``8000-8002/tcp``; with a host port in front, which means nothing here."""
    ports, _, protocol = word.partition("/")
    first, dash, last = ports.rpartition(":")[2].partition("-")
    protocol = (protocol or "tcp").lower()
    if not first.isdigit() or (dash and not last.isdigit()) or protocol not in {"tcp", "udp", "sctp"}:
        raise scope.document.error(
            f"EXPOSE {word!r} is no port", one.lines, "write 8080, 8080/udp or 8000-8002"
        )
    low, high = int(first), int(last or first)
    if not 0 <= low <= high <= _MOST_PORT:
        raise scope.document.error(f"EXPOSE {word!r} is no range of ports", one.lines)
    yield from (f"{port}/{protocol}" for port in range(low, high + 1))
