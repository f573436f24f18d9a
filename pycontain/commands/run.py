"""``pycontain run``: a command in a new container, on our own streams and with its exit status."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from pycontain.commands.options import container_parser, read_container
from pycontain.commands.parser import UsageError
from pycontain.commands.registries import add_access_options, use_registry_of
from pycontain.process.attached import run_attached

if TYPE_CHECKING:
    import argparse

    from pycontain.commands.parser import Parser
    from pycontain.process import Completed, Timings
    from pycontain.sandbox.plan import Plan

_SIGNALLED = 128  # POSIX, Shell Command Language, 2.8.2: more than 128 for a command that a signal ended; docker run too


def parser() -> Parser:
    """What it takes: a container, and how to run it."""
    made = container_parser("run", description="Run a command in a new container, which is gone afterwards.")
    how = made.add_argument_group("how it runs")
    how.add_argument("-i", "--interactive", action="store_true", help="pass our standard input on")
    how.add_argument("-t", "--tty", action="store_true", help="a terminal for the payload, shown on ours")
    how.add_argument("--timeout", type=float, metavar="SECONDS", help="kill it then, and exit with 124")
    how.add_argument("--plan", action="store_true", help="print the steps and do nothing")
    how.add_argument("--profile", action="store_true", help="print at the end where the time went")
    how.add_argument("--rm", action="store_true", help="always so; for the fingers of docker's users")
    add_access_options(made)
    return made


def act(options: argparse.Namespace) -> int:
    """Exit as the payload did."""
    use_registry_of(options)
    container, argv = read_container(options)
    if options.tty:
        columns, rows = _window(options)
        container = container.tty(columns=columns, rows=rows)
    if options.plan:
        sys.stdout.write(f"{container.plan(*argv)}\n")
        return 0
    completed = run_attached(
        container, *argv, stdin=options.interactive, timeout=options.timeout, profile=options.profile
    )
    if options.profile:
        sys.stderr.write(profile(container.plan(*argv), completed.timings))
    return status_of(completed)


def _window(options: argparse.Namespace) -> tuple[int, int]:
    """Columns and rows of our own terminal, which must be one when its keys are to be passed on."""
    from pycontain.process.console import window  # noqa: PLC0415 - for who has a terminal

    if options.interactive and not options.plan and not os.isatty(0):
        raise UsageError(
            "standard input is no terminal, so -i and -t do not go together", hint="leave -t out"
        )
    return window()


def status_of(completed: Completed[Any]) -> int:
    """The exit status of a shell for a command that ended like this."""
    if completed.signal is not None:
        return _SIGNALLED + completed.signal
    return completed.exit_code or 0


def profile(plan: Plan, timings: Timings) -> str:
    """Where the time went, phase by phase, with the steps of the plan below ``setup``.

    A spare child had done its steps before: they are not there. Nor is any step without an init, which reports them.
    """
    lines = ["where the time went, in ms"]
    for phase in ("resolve", "snapshot", "clone", "setup", "run"):
        lines.append(f"{getattr(timings, phase) * 1000:9.3f}  {phase}")
        if phase == "setup":
            first = len(plan.steps) - 1 - len(timings.steps)
            for number, seconds in enumerate(timings.steps, first):
                lines.append(f"{seconds * 1000:11.3f}  {number:>3} {plan.steps[number]}")
    return "\n".join(lines) + "\n"
