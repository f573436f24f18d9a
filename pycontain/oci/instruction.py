"""Those instructions of a Dockerfile that change only how an image is run: ``docker commit --change`` has them too."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable

    from pycontain.oci.config import ExecutionParameters

    Change = Callable[[ExecutionParameters, str], ExecutionParameters]

_SHELL = ("/bin/sh", "-c")


def changed(parameters: ExecutionParameters, line: str) -> ExecutionParameters:
    """*parameters* as the instruction in *line* makes them, such as ``CMD ["python3", "-m", "app"]``.

    Known are CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME and WORKDIR. Raises :class:`ValueError`.
    """
    name, _, rest = line.strip().partition(" ")
    change = _CHANGES.get(name.upper())
    if change is None:
        raise ValueError(f"{name!r} is no instruction for a config; there are {', '.join(_CHANGES)}")
    if not rest.strip():
        raise ValueError(f"{name} has nothing after it")
    return change(parameters, rest.strip())


def _words(text: str) -> tuple[str, ...]:
    """The exec form, a JSON array of texts, or words as a shell divides them."""
    if text.startswith("["):
        try:
            given = json.loads(text)
        except ValueError:
            raise ValueError(f"{text!r} is no JSON array") from None
        if not all(isinstance(word, str) for word in given):
            raise ValueError(f"{text!r} is no JSON array of texts")
        return tuple(given)
    return tuple(shlex.split(text))


def _command(parameters: ExecutionParameters, text: str) -> tuple[str, ...]:
    return _words(text) if text.startswith("[") else (*(parameters.shell or _SHELL), text)


def _pairs(text: str) -> dict[str, str]:
    words = shlex.split(text)
    if words and "=" not in words[0]:  # the old form: one name, and the rest of the line
        name, _, value = text.partition(" ")
        if not value.strip():
            raise ValueError(f"{name!r} is given no value")
        return {name: value.strip()}
    wrong = [word for word in words if not word.partition("=")[0] or "=" not in word]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is no NAME=value")
    return dict(word.split("=", 1) for word in words)


def _env(parameters: ExecutionParameters, text: str) -> ExecutionParameters:
    values = dict(text.split("=", 1) for text in parameters.env) | _pairs(text)
    return attrs.evolve(parameters, env=tuple(f"{name}={value}" for name, value in values.items()))


def _label(parameters: ExecutionParameters, text: str) -> ExecutionParameters:
    labels: Any = dict(parameters.labels) | _pairs(text)  # a converter makes it what it is
    return attrs.evolve(parameters, labels=labels)


def _workdir(parameters: ExecutionParameters, text: str) -> ExecutionParameters:
    if not text.startswith("/"):
        text = f"{parameters.working_dir.rstrip('/')}/{text}"
    return attrs.evolve(parameters, working_dir=text)


_CHANGES: dict[str, Change] = {
    "CMD": lambda said, text: attrs.evolve(said, cmd=_command(said, text)),
    "ENTRYPOINT": lambda said, text: attrs.evolve(said, entrypoint=_command(said, text), cmd=()),
    "ENV": _env,
    "EXPOSE": lambda said, text: attrs.evolve(
        said,
        exposed_ports=(
            *said.exposed_ports,
            *(port if "/" in port else f"{port}/tcp" for port in text.split()),
        ),
    ),
    "LABEL": _label,
    "STOPSIGNAL": lambda said, text: attrs.evolve(said, stop_signal=text),
    "USER": lambda said, text: attrs.evolve(said, user=text),
    "VOLUME": lambda said, text: attrs.evolve(said, volumes=(*said.volumes, *_words(text))),
    "WORKDIR": _workdir,
}
