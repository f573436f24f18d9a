"""How all verbs read their arguments: argparse, with errors that are raised and never exit."""

from __future__ import annotations

import argparse
from typing import NoReturn

from pycontain.errors import PycontainError


class UsageError(PycontainError):
    """The command line itself is wrong."""


class Parser(argparse.ArgumentParser):
    """The parser of one verb. Every verb has ``--debug``."""

    def __init__(self, verb: str, *, description: str, usage: str = "") -> None:
        super().__init__(
            prog=f"pycontain {verb}",
            usage=f"pycontain {verb} {usage}" if usage else None,
            description=description,
            allow_abbrev=False,
        )
        self.add_argument("--debug", action="store_true", help="show the traceback of an error")

    def error(self, message: str) -> NoReturn:
        """Raise, so that the caller decides on the exit status."""
        raise UsageError(message, hint=f"{self.prog} --help says what it takes")
