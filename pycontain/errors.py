"""Every error that pycontain raises, drawn as one tree.

::

    PycontainError
    ├── ImageError        InvalidReference(ValueError) · ImageNotFound(LookupError) · NoMatchingPlatform(LookupError)
    │                     InvalidImage(ValueError) · DigestMismatch(InvalidImage)
    ├── RegistryError     Unauthorized · Denied · TooManyRequests · TransferInterrupted(ConnectionError)
    ├── LayerError        UnsafeEntry(ValueError) · UnsupportedEntry · LayerTooLarge
    ├── StoreError        StoreBusy(TimeoutError) · StoreCorrupt
    ├── SandboxError      InvalidSpec(ValueError) · HostUnsupported · StepFailed(OSError)
    │                     CommandNotFound(FileNotFoundError) · CommandNotExecutable(PermissionError)
    │                     NotReady(TimeoutError)
    ├── PathError(OSError) PathNotFound(FileNotFoundError) · PathExists(FileExistsError) · PathForbidden(PermissionError)
    │                     PathIsDirectory(IsADirectoryError) · PathIsNoDirectory(NotADirectoryError)
    │                     PathIsNoFile · PathTooLarge
    ├── VolumeError       VolumeNotFound(LookupError) · VolumeInUse
    ├── NetworkError      PortInUse(OSError) · NothingListens(ConnectionRefusedError) · ConnectTimeout(TimeoutError)
    ├── BuildError        DockerfileError(ValueError) · InstructionFailed
    ├── ComposeError      InvalidProject(ValueError) · ServiceFailed
    ├── CommandFailed
    └── CommandTimeout(TimeoutError)

A message is one sentence in the user's words; facts are fields; the next step is a note
(:meth:`BaseException.add_note`), so a traceback prints it. Errors survive pickling with fields and notes.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from pycontain.process import Completed


def _restore(cls: type[PycontainError], args: tuple[object, ...], state: dict[str, object]) -> PycontainError:
    error = cls.__new__(cls, *args)
    error.args = args
    for name, value in state.items():
        setattr(error, name, value)
    return error


class PycontainError(Exception):
    """The root of the tree: catch it to catch everything that pycontain raises on purpose.

    *message* is one sentence; *hint*, when given, is the next step and becomes a note.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        if hint:
            self.add_note(hint)

    def __str__(self) -> str:
        # The kin of OSError would print "[Errno N]" from their own fields; our sentence says it in words.
        return str(self.args[0])

    def __reduce__(self) -> tuple[object, ...]:
        state = dict(self.__dict__)
        if isinstance(self, OSError):
            state |= {"errno": self.errno, "strerror": self.strerror}  # OSError keeps these outside __dict__
        return _restore, (type(self), self.args, state)

    def with_hint(self, hint: str) -> Self:
        """Add the next step as a note and return the error, to be raised at once."""
        self.add_note(hint)
        return self


# --- images ---------------------------------------------------------------------------------------------


class ImageError(PycontainError):
    """Something is wrong with an image or with its name."""


class InvalidReference(ImageError, ValueError):
    """A text that is no image reference; ``text`` is what was given."""

    def __init__(self, message: str, *, text: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.text = text


class ImageNotFound(ImageError, LookupError):
    """No image has this name; ``reference`` is the name that was asked for."""

    def __init__(self, message: str, *, reference: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.reference = reference


class NoMatchingPlatform(ImageError, LookupError):
    """An index holds no manifest for ``wanted``; ``available`` lists what it holds."""

    def __init__(
        self, message: str, *, wanted: str = "", available: tuple[str, ...] = (), hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.wanted = wanted
        self.available = available


class InvalidImage(ImageError, ValueError):
    """A document, archive or layer of an image breaks its specification."""


class DigestMismatch(InvalidImage):
    """Bytes do not have the digest under which they were named."""

    def __init__(self, message: str, *, expected: str = "", found: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.expected = expected
        self.found = found


# --- registries -----------------------------------------------------------------------------------------


class RegistryError(PycontainError):
    """A registry refused or broke the protocol; ``registry``, ``status`` and ``code`` say where and how.

    ``code`` is the distribution-spec error code (``MANIFEST_UNKNOWN``, ...), empty when the registry gave none.
    """

    def __init__(
        self, message: str, *, registry: str = "", status: int = 0, code: str = "", hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.registry = registry
        self.status = status
        self.code = code


class Unauthorized(RegistryError):
    """The registry wants credentials, or does not accept the ones it got (HTTP 401)."""


class Denied(RegistryError):
    """The credentials are good and the act is forbidden (HTTP 403)."""


class TooManyRequests(RegistryError):
    """The registry limits the rate (HTTP 429) and retries did not help."""


class TransferInterrupted(RegistryError, ConnectionError):
    """The connection broke and retries did not help; what was fetched is kept for the next try."""


# --- layers ---------------------------------------------------------------------------------------------


class LayerError(PycontainError):
    """A layer cannot be applied or made; ``path`` names the entry."""

    def __init__(self, message: str, *, path: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.path = path


class UnsafeEntry(LayerError, ValueError):
    """An entry would reach outside the root."""


class UnsupportedEntry(LayerError):
    """An entry has a type or a feature that cannot be applied here."""


class LayerTooLarge(LayerError):
    """A layer exceeds one of the limits on bytes, entries, ratio, name length or depth."""


# --- store ----------------------------------------------------------------------------------------------


class StoreError(PycontainError):
    """The image store cannot do what was asked; ``path`` is the store's folder."""

    def __init__(self, message: str, *, path: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.path = path


class StoreBusy(StoreError, TimeoutError):
    """Another process holds a lock of the store; ``holder`` says which."""

    def __init__(self, message: str, *, path: str = "", holder: str = "", hint: str | None = None) -> None:
        super().__init__(message, path=path, hint=hint)
        self.holder = holder


class StoreCorrupt(StoreError):
    """Stored bytes are not what their digest says."""


# --- sandbox --------------------------------------------------------------------------------------------


class SandboxError(PycontainError):
    """A container cannot be described, started or reached."""


class InvalidSpec(SandboxError, ValueError):
    """Values given to a builder method are wrong; ``problems`` names all of them."""

    def __init__(self, problems: tuple[str, ...] | str, *, hint: str | None = None) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("; ".join(self.problems), hint=hint)


class HostUnsupported(SandboxError):
    """This host cannot do what the container asks for; ``needs`` and ``found`` say what is missing."""

    def __init__(self, feature: str, *, needs: str = "", found: str = "", hint: str | None = None) -> None:
        message = f"this host cannot provide {feature}"
        if needs:
            message += f": it needs {needs}"
        if found:
            message += f", found {found}"
        super().__init__(message, hint=hint)
        self.feature = feature
        self.needs = needs
        self.found = found


class StepFailed(SandboxError, OSError):
    """The kernel refused one step of the plan.

    ``step`` is the step as :meth:`Container.plan` prints it, ``index`` its place in the plan, ``errno`` and
    ``strerror`` the kernel's answer, ``because`` the reason that the plan gives for the step.
    """

    def __init__(
        self,
        message: str,
        *,
        errno: int = 0,
        step: str = "",
        index: int = -1,
        because: str = "",
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.errno = errno
        self.strerror = os.strerror(errno) if errno else ""
        self.step = step
        self.index = index
        self.because = because


class _CommandUnusable(SandboxError, OSError):
    def __init__(self, message: str, *, command: str = "", errno: int = 0, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.command = command
        self.errno = errno
        self.strerror = os.strerror(errno) if errno else ""


class CommandNotFound(_CommandUnusable, FileNotFoundError):
    """The payload does not exist in the container; ``command`` is what was looked for."""


class CommandNotExecutable(_CommandUnusable, PermissionError):
    """The payload exists and cannot be executed; ``command`` is its path."""


class NotReady(SandboxError, TimeoutError):
    """What was waited for did not come in time, and everything goes on; ``waited_for`` says what it was."""

    def __init__(self, message: str, *, waited_for: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.waited_for = waited_for


# --- files ----------------------------------------------------------------------------------------------


class PathError(PycontainError, OSError):
    """A file of a container cannot be used, or one of the host that goes there or comes from there.

    ``path`` says which, ``on_host`` on which side, ``errno`` and ``strerror`` what the kernel said. Its kin are what
    the same act raises of a file of one's own, such as :class:`FileNotFoundError`.
    """

    def __init__(
        self, message: str, *, path: str = "", on_host: bool = False, errno: int = 0, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.path = path
        self.on_host = on_host
        self.errno = errno
        self.strerror = os.strerror(errno) if errno else ""


class PathNotFound(PathError, FileNotFoundError):
    """There is nothing at the path, or at one that leads to it."""


class PathExists(PathError, FileExistsError):
    """Something is there already."""


class PathForbidden(PathError, PermissionError):
    """It may not be read or changed."""


class PathIsDirectory(PathError, IsADirectoryError):
    """A file is wanted, and a directory is there."""


class PathIsNoDirectory(PathError, NotADirectoryError):
    """A directory is wanted, and something else is there."""


class PathIsNoFile(PathError):
    """A fifo, a socket or a device: opening it could wait for ever, or do something."""


class PathTooLarge(PathError):
    """The file is longer than what the caller wants to hold."""


# --- volumes --------------------------------------------------------------------------------------------


class VolumeError(PycontainError):
    """A volume cannot be had; ``volume`` is its name."""

    def __init__(self, message: str, *, volume: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.volume = volume


class VolumeNotFound(VolumeError, LookupError):
    """There is no volume of this name."""


class VolumeInUse(VolumeError):
    """A container has it."""


# --- networks -------------------------------------------------------------------------------------------


class NetworkError(PycontainError):
    """A network or a port cannot be set up."""


class _PortError(NetworkError, OSError):
    def __init__(self, message: str, *, port: int = 0, errno: int = 0, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.port = port
        self.errno = errno
        self.strerror = os.strerror(errno) if errno else ""


class PortInUse(_PortError):
    """Another program listens on the port; ``port`` is its number."""


class NothingListens(_PortError, ConnectionRefusedError):
    """No program accepts connections on the port inside the container; ``port`` is its number, 0 for a unix socket."""


class ConnectTimeout(_PortError, TimeoutError):
    """The program inside did not accept the connection in time; ``port`` is its number, 0 for a unix socket."""


# --- builds ---------------------------------------------------------------------------------------------


class BuildError(PycontainError):
    """A build failed; ``line`` and ``last_line`` are the lines in the Dockerfile, 0 when there are none."""

    def __init__(self, message: str, *, line: int = 0, last_line: int = 0, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.line = line
        self.last_line = last_line or line


class DockerfileError(BuildError, ValueError):
    """A Dockerfile breaks its grammar, or asks for what there is not. The notes show the lines, and say what to write."""


class InstructionFailed(BuildError):
    """An instruction was carried out, and failed.

    ``instruction`` is its text, ``stage`` the stage that it is in, ``output`` the end of what it printed, and ``result``
    what became of its command, when it is a RUN that could be started.
    """

    def __init__(
        self,
        message: str,
        *,
        line: int = 0,
        last_line: int = 0,
        instruction: str = "",
        stage: str = "",
        output: str = "",
        result: Completed[Any] | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, line=line, last_line=last_line, hint=hint)
        self.instruction = instruction
        self.stage = stage
        self.output = output
        self.result = result


# --- several services together --------------------------------------------------------------------------


class ComposeError(PycontainError):
    """A project of several services cannot be read or run."""


class InvalidProject(ComposeError, ValueError):
    """A project is described wrongly; ``problems`` names all that is wrong, each with its file, line and path."""

    def __init__(self, problems: tuple[str, ...] | str, *, hint: str | None = None) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("; ".join(self.problems), hint=hint)


class ServiceFailed(ComposeError):
    """A service did not start, or did not become what others wait for; everything of the project was ended.

    ``service`` is its name, ``result`` what became of its container, when there was one that has ended. The note shows what it printed.
    """

    def __init__(
        self,
        message: str,
        *,
        service: str = "",
        result: Completed[Any] | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.service = service
        self.result = result


# --- results --------------------------------------------------------------------------------------------


class CommandFailed(PycontainError):
    """The payload ran and ended badly, and the caller asked for a check; ``result`` has everything."""

    def __init__(self, message: str, *, result: Completed[Any], hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.result = result


class CommandTimeout(PycontainError, TimeoutError):
    """The payload did not end in time and was killed; ``result`` has what it printed until then."""

    def __init__(self, message: str, *, result: Completed[Any], hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.result = result
