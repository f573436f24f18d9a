"""``pycontain version``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pycontain import __version__
from pycontain.commands.parser import Parser

if TYPE_CHECKING:
    import argparse


def parser() -> Parser:
    """What it takes."""
    return Parser("version", description="Print the version.")


def act(_: argparse.Namespace) -> int:
    """Print it."""
    sys.stdout.write(f"pycontain {__version__}\n")
    return 0
