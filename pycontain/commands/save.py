"""``pycontain save``: images into one file, for another machine."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pycontain.commands.parser import Parser, UsageError
from pycontain.image import Image

if TYPE_CHECKING:
    import argparse


def parser() -> Parser:
    """What it takes."""
    made = Parser("save", description="Write images with their names into one tar.")
    made.add_argument("images", metavar="IMAGE", nargs="+", help="a name or an ID")
    made.add_argument("-o", "--output", metavar="FILE", help="instead of standard output")
    made.add_argument(
        "--format", choices=("oci", "docker"), default="docker", help="docker: any docker can load it"
    )
    return made


def act(options: argparse.Namespace) -> int:
    """Write the archive."""
    if options.output is None and sys.stdout.isatty():
        raise UsageError("a terminal is no place for an archive", hint="use -o FILE, or a pipe")
    first, *others = map(Image.find, options.images)
    first.save(options.output or sys.stdout.buffer, options.format, also=others)
    return 0
