"""The build context: a directory, and what its ``.dockerignore`` leaves out."""

from __future__ import annotations

import os

import attrs

from pycontain.dockerfile.ignore import Ignore, PatternError
from pycontain.errors import BuildError
from pycontain.kernel import syscalls

_MOST = 4 << 20
_IN_ROOT = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS


@attrs.frozen
class Context:
    """The directory *path*, or nothing when that is empty. *ignored* as :class:`~pycontain.runtime.copying.Copying` takes it."""

    path: str = ""
    ignored: tuple[tuple[str, bool], ...] = ()


def open_context(path: str | None, dockerfile: str | None) -> Context:
    """The context at *path*. ``NAME.dockerignore`` beside the Dockerfile *dockerfile* wins over ``.dockerignore``."""
    if path is None:
        return Context()
    if not os.path.isdir(path):
        raise BuildError(f"the build context {path} is no directory", hint="name a directory")
    absolute = os.path.abspath(path)
    text = _read(f"{dockerfile}.dockerignore") if dockerfile else None
    if text is None:
        text = _read(os.path.join(absolute, ".dockerignore"))
    try:
        ignore = Ignore.parse(text or "")
    except PatternError as error:
        raise BuildError(f".dockerignore cannot be read: {error}") from error
    return Context(absolute, tuple((pattern.path, pattern.exception) for pattern in ignore.patterns))


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read(_MOST)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BuildError(f"{path} cannot be read: {error.strerror}") from error


def read_dockerfile(context: str | None, given: str | os.PathLike[str] | None) -> tuple[bytes, str]:
    """The Dockerfile and its path: *given*, relative to the context or to here, or the one of the context."""
    names = [os.fspath(given)] if given is not None else ["Dockerfile", "Containerfile"]
    folders = [context] if context is not None else []
    if given is not None or context is None:
        folders.append("")
    tried = [os.path.join(folder, name) for folder in folders for name in names]
    for path in tried:
        try:
            with open(path, "rb") as file:
                return file.read(_MOST), os.path.abspath(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise BuildError(f"{path} cannot be read: {error.strerror}") from error
    raise BuildError(
        f"there is no {tried[0]}", hint="name the Dockerfile: build(context, dockerfile=…), or -f"
    )
