"""``pycontain inspect``: everything that images say about themselves."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from pycontain.commands.parser import Parser
from pycontain.image import Image

if TYPE_CHECKING:
    import argparse


def parser() -> Parser:
    """What it takes."""
    made = Parser("inspect", description="Print what images say about themselves, as docker inspect does.")
    made.add_argument("images", metavar="IMAGE", nargs="+", help="a name or an ID")
    return made


def act(options: argparse.Namespace) -> int:
    """Print a JSON array."""
    found = [Image.find(text).inspect() for text in options.images]
    sys.stdout.write(f"{json.dumps(found, indent=2, ensure_ascii=False)}\n")
    return 0
