"""From what a child reported to the error that the user reads."""

from __future__ import annotations

import errno
import os
import shlex
from typing import TYPE_CHECKING

from pycontain.errors import (
    CommandNotExecutable,
    CommandNotFound,
    HostUnsupported,
    SandboxError,
    StepFailed,
)
from pycontain.runtime.probe import folder_refusal

if TYPE_CHECKING:
    from pycontain.runtime.engine import Engine
    from pycontain.runtime.exchange import Exchange
    from pycontain.sandbox.plan import Plan


def failure_of(exchange: Exchange, plan: Plan, engine: Engine) -> SandboxError | None:
    """Why the payload of *plan* never ran, or None when it did."""
    if exchange.failed is not None:
        return _step_failed(plan, *exchange.failed)
    if exchange.no_folder is not None:
        number, path = exchange.no_folder
        return folder_refusal(number, os.path.join(engine.folder, path))
    if exchange.unsupported is not None:
        feature, needs, found, hint = exchange.unsupported
        return HostUnsupported(feature, needs=needs, found=found, hint=hint or None)
    if exchange.unusable is not None:
        return _command_unusable(*exchange.unusable)
    if exchange.broken:
        return SandboxError("pycontain failed in a way that it does not know; this is a defect").with_hint(
            exchange.broken
        )
    if exchange.lost and exchange.result is None:
        return _lost(engine)
    return None


def has_exited(name: str) -> SandboxError:
    """The error for a container that has ended."""
    return SandboxError(f"the container {name} has exited", hint="start it again")


def _lost(engine: Engine) -> SandboxError:
    if not engine.alive:
        return engine.broken()
    return SandboxError(
        "the zygote could not take up the request: it has no descriptor left for another container",
        hint="it has the limit that this process had at its start: raise ulimit -n, or end some containers",
    )


def _step_failed(plan: Plan, index: int, number: int, path: str) -> SandboxError:
    step = plan.steps[index]
    known = step.explain(number, path)
    sentence, hint = known or (f"{os.strerror(number)} at {step}" + (f" ({path})" if path else ""), None)
    error = StepFailed(sentence, errno=number, step=str(step), index=index, because=step.because, hint=hint)
    error.add_note(f"step {index} of the plan: {step}")
    return error


def _command_unusable(number: int, path: str, exists: bool) -> SandboxError:  # noqa: FBT001 - a message's fields
    name = shlex.quote(path)
    if number in {errno.ENOENT, errno.ENOTDIR}:
        if exists:
            return CommandNotFound(
                f"the interpreter of {name} does not exist in the container",
                command=path,
                errno=number,
                hint="see its first line (#!), or the dynamic loader it was linked for: the image may be of another libc",
            )
        where = "does not exist in the container" if "/" in path else "is not in the PATH of the container"
        return CommandNotFound(
            f"{name} {where}", command=path, errno=number, hint="name a program of the image"
        )
    if number == errno.ENOEXEC:
        return CommandNotExecutable(
            f"{name} is no program for this machine",
            command=path,
            errno=number,
            hint="a script needs a first line such as #!/bin/sh; a binary must be of this architecture",
        )
    if number == errno.EAGAIN:
        return CommandNotExecutable(
            f"{name} cannot be executed: the container's limit on processes is reached",
            command=path,
            errno=number,
            hint="raise pids= of .limits(), where the container's own init counts as one, or the user's ulimit -u",
        )
    if number == errno.E2BIG:
        return CommandNotExecutable(
            f"the arguments and variables for {name} are too long for execve(2)",
            command=path,
            errno=number,
            hint="pass what is long as input, or with .file()",
        )
    return CommandNotExecutable(
        f"{name} cannot be executed: {os.strerror(number)}",
        command=path,
        errno=number,
        hint="it needs the x bit for this user, on a file system that is not mounted noexec",
    )
