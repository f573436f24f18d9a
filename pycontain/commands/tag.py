"""``pycontain tag``: one more name for an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pycontain.commands.parser import Parser
from pycontain.image import Image

if TYPE_CHECKING:
    import argparse


def parser() -> Parser:
    """What it takes."""
    made = Parser("tag", description="Give an image one more name.")
    made.add_argument("image", metavar="IMAGE", help="a name or an ID")
    made.add_argument("name", metavar="NAME", help="NAME[:TAG], which may have meant something else before")
    return made


def act(options: argparse.Namespace) -> int:
    """Let NAME mean IMAGE."""
    Image.find(options.image).tag(options.name)
    return 0
