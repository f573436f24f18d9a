"""``pycontain load``: images from a file of another machine."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pycontain.commands.parser import Parser, UsageError
from pycontain.image import Image

if TYPE_CHECKING:
    import argparse


def parser() -> Parser:
    """What it takes."""
    made = Parser("load", description="Bring the images of an archive or an OCI layout into the store.")
    made.add_argument("-i", "--input", metavar="PATH", help="instead of standard input")
    made.add_argument("--platform", metavar="OS/ARCH[/VARIANT]", help="of an image for several")
    return made


def act(options: argparse.Namespace) -> int:
    """Print the names of what was loaded."""
    if options.input is None and sys.stdin.isatty():
        raise UsageError("there is no archive on standard input", hint="use -i PATH, or a pipe")
    for image in Image.load(options.input or sys.stdin.buffer, platform=options.platform):
        sys.stdout.write(f"loaded {image}\n")
    return 0
