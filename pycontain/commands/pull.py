"""``pycontain pull``: bring an image from its registry."""

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
    made = Parser("pull", description="Bring an image from its registry into the store.")
    made.add_argument("image", metavar="IMAGE", help="NAME[:TAG][@DIGEST]")
    made.add_argument("--platform", metavar="OS/ARCH[/VARIANT]", help="instead of this machine's")
    made.add_argument(
        "--policy", choices=("always", "missing", "newer", "never"), default="always", help="when to ask"
    )
    made.add_argument(
        "--mirror", action="append", default=[], metavar="HOST[/PREFIX]", help="ask it first; may be repeated"
    )
    made.add_argument("--no-unpack", action="store_true", help="store it only; its first start unpacks it")
    made.add_argument("-q", "--quiet", action="store_true", help="no progress")
    add_registry_options(made)
    return made


def act(options: argparse.Namespace) -> int:
    """Print the digest of what is here now."""
    image = Image.pull(
        options.image,
        platform=options.platform,
        policy=options.policy,
        unpack=False if options.no_unpack else None,
        progress=not options.quiet,
        mirrors=options.mirror,
        **read_registry_options(options),
    )
    sys.stdout.write(f"{image.digest}\n")
    return 0
