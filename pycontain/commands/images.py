"""``pycontain images``: what is in the store."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from pycontain.commands.parser import Parser
from pycontain.commands.tables import age, short, table
from pycontain.image import Image, Store
from pycontain.image.progress import size_text

if TYPE_CHECKING:
    import argparse

_HEADS = ("NAME", "ID", "PLATFORM", "CREATED", "SIZE")


def parser() -> Parser:
    """What it takes."""
    made = Parser("images", description="List the images in the store.")
    made.add_argument("pattern", metavar="PATTERN", nargs="?", help="only these: alpine, ghcr.io/a/*:1.*")
    made.add_argument("-q", "--quiet", action="store_true", help="only their IDs")
    made.add_argument("--json", action="store_true", help="for programs")
    return made


def act(options: argparse.Namespace) -> int:
    """Print them, sorted by name."""
    images = [image for image in Store.default().images() if _is_wanted(image, options.pattern)]
    images.sort(key=str)
    if options.quiet:
        sys.stdout.writelines(f"{line}\n" for line in dict.fromkeys(short(image.id) for image in images))
    elif options.json:
        sys.stdout.write(f"{json.dumps([_facts(image) for image in images], indent=2)}\n")
    else:
        sys.stdout.write(table(_HEADS, map(_row, images)))
    return 0


def _is_wanted(image: Image, pattern: str | None) -> bool:
    return pattern is None or bool(image.reference and image.reference.matches(pattern))


def _row(image: Image) -> tuple[str, ...]:
    return str(image), short(image.id), image.platform, age(image.created), size_text(image.size)


def _facts(image: Image) -> dict[str, object]:
    return {
        "name": str(image),
        "id": image.id,
        "digest": image.digest,
        "platform": image.platform,
        "created": image.config.created,
        "size": image.size,
    }
