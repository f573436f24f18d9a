"""``pycontain rmi``: take names away, and free what nothing needs any more."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pycontain.commands.parser import Parser
from pycontain.image import Image, Store
from pycontain.image.progress import size_text

if TYPE_CHECKING:
    import argparse


def parser() -> Parser:
    """What it takes."""
    made = Parser("rmi", description="Take names of images away, and free what nothing needs any more.")
    made.add_argument("images", metavar="IMAGE", nargs="+", help="a name; or an ID, for all its names")
    return made


def act(options: argparse.Namespace) -> int:
    """Print what was taken away. All are looked for before any of them goes."""
    store = Store.default()
    for image, text in [(Image.find(text, store=store), text) for text in options.images]:
        names = (
            (image.reference,) if image.reference and not image.id.startswith(_digits(text)) else image.names
        )
        store.names.remove(names)
        sys.stdout.writelines(f"removed {name.familiar}\n" for name in names)
    sys.stdout.write(f"freed {size_text(store.gc().bytes)}\n")
    return 0


def _digits(text: str) -> str:
    return f"sha256:{text.removeprefix('sha256:')}"
