"""``pycontain push``: send an image to a registry."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pycontain.commands.parser import Parser
from pycontain.commands.registries import add_registry_options, read_registry_options
from pycontain.image import Image

if TYPE_CHECKING:
    import argparse


def parser() -> Parser:
    """What it takes."""
    made = Parser("push", description="Send an image to a registry, which then calls it like that.")
    made.add_argument("image", metavar="IMAGE", help="a name or an ID")
    made.add_argument("target", metavar="TARGET", nargs="?", help="NAME[:TAG], instead of IMAGE's own")
    made.add_argument(
        "--all-platforms", action="store_true", help="the index that it was chosen from, with all it lists"
    )
    made.add_argument("-q", "--quiet", action="store_true", help="no progress")
    add_registry_options(made)
    return made


def act(options: argparse.Namespace) -> int:
    """Print the digest by which it is there now."""
    digest = Image.find(options.image).push(
        options.target,
        all_platforms=options.all_platforms,
        progress=not options.quiet,
        **read_registry_options(options),
    )
    sys.stdout.write(f"{digest}\n")
    return 0
