"""``pycontain history``: how an image was made."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING

from pycontain.commands.parser import Parser
from pycontain.commands.tables import age, short, table
from pycontain.image import Image
from pycontain.image.progress import size_text

if TYPE_CHECKING:
    import argparse

    from pycontain.image import HistoryEntry

_HEADS = ("LAYER", "CREATED", "SIZE", "CREATED BY")
_WIDTH = 80


def parser() -> Parser:
    """What it takes."""
    made = Parser("history", description="Print how an image was made, the last step first.")
    made.add_argument("image", metavar="IMAGE", help="a name or an ID")
    made.add_argument("--no-trunc", action="store_true", help="whole commands and digests")
    return made


def act(options: argparse.Namespace) -> int:
    """Print a line for each step."""
    steps = Image.find(options.image).history()
    sys.stdout.write(table(_HEADS, (_row(step, whole=options.no_trunc) for step in steps)))
    return 0


def _row(step: HistoryEntry, *, whole: bool) -> tuple[str, ...]:
    made = " ".join((step.created_by or step.comment).split())
    if not whole and len(made) > _WIDTH:
        made = made[: _WIDTH - 1] + "…"
    created = age(datetime.fromisoformat(step.created)) if step.created else ""
    digest = step.digest if whole else short(step.digest)
    return digest, created, size_text(step.size), made
