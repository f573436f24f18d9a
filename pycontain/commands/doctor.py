"""``pycontain doctor``: what this host can do, what is missing, why, and the fix."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pycontain.commands.parser import Parser
from pycontain.diagnosis import doctor

if TYPE_CHECKING:
    import argparse


def parser() -> Parser:
    """What it takes."""
    made = Parser("doctor", description="Say what this host can do, what is missing, why, and the fix.")
    made.add_argument("--json", action="store_true", help="for programs")
    return made


def act(options: argparse.Namespace) -> int:
    """Exit with 0 when containers start here, else with 1."""
    report = doctor()
    sys.stdout.write(f"{report.to_json() if options.json else report}\n")
    return 0 if report.ok else 1
