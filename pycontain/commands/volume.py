"""``pycontain volume``: named volumes, listed, made, looked at and removed."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from pycontain.commands.parser import Parser, UsageError
from pycontain.commands.tables import age, table
from pycontain.image.progress import size_text
from pycontain.volume import Volume

if TYPE_CHECKING:
    import argparse

_ACTS = {
    "ls": "list them",
    "create": "make one, and print its name",
    "inspect": "print what there is to know about them",
    "rm": "remove them with all that is in them",
    "prune": "remove those that no container uses and that were made without a name",
}
_HEADS = ("NAME", "CREATED", "SIZE", "IN USE", "LABELS")


def parser() -> Parser:
    """What it takes."""
    made = Parser(
        "volume",
        usage="ls | create [NAME] | inspect NAME… | rm NAME… | prune [--all]",
        description="; ".join(f"{name}: {what}" for name, what in _ACTS.items()) + ".",
    )
    made.add_argument("what", metavar="|".join(_ACTS), choices=tuple(_ACTS))
    made.add_argument("names", metavar="NAME", nargs="*")
    made.add_argument("-q", "--quiet", action="store_true", help="ls: only their names")
    made.add_argument("--json", action="store_true", help="ls: for programs")
    made.add_argument(
        "-l", "--label", action="append", default=[], metavar="NAME[=VALUE]", help="create: attach a label"
    )
    made.add_argument("-a", "--all", action="store_true", help="prune: those with a name, too")
    return made


def act(options: argparse.Namespace) -> int:
    """Do it; what is wrong with one name is said before anything of the next is done."""
    names: list[str] = options.names
    few, many = {"ls": (0, 0), "create": (0, 1), "prune": (0, 0)}.get(options.what, (1, 1000))
    if not few <= len(names) <= many:
        raise UsageError(f"volume {options.what}: {'name a volume' if few else 'too many names'}")
    match options.what:
        case "ls":
            _list(options)
        case "create":
            labels = dict(_pair(text) for text in options.label)
            sys.stdout.write(f"{Volume(*names, labels=labels or None).name}\n")
        case "inspect":
            sys.stdout.write(f"{json.dumps([Volume.find(name).inspect() for name in names], indent=2)}\n")
        case "rm":
            for name in names:
                Volume.find(name).remove()
                sys.stdout.write(f"{name}\n")
        case _:
            sys.stdout.writelines(f"{name}\n" for name in Volume.prune(all=options.all))
    return 0


def _list(options: argparse.Namespace) -> None:
    volumes = Volume.list()
    if options.quiet:
        sys.stdout.writelines(f"{volume.name}\n" for volume in volumes)
    elif options.json:
        sys.stdout.write(f"{json.dumps([volume.inspect() for volume in volumes], indent=2)}\n")
    else:
        sys.stdout.write(table(_HEADS, map(_row, volumes)))


def _row(volume: Volume) -> tuple[str, ...]:
    labels = ",".join(f"{name}={value}" for name, value in volume.labels.items())
    return (
        volume.name,
        age(volume.created),
        size_text(volume.usage().bytes),
        "yes" if volume.in_use else "",
        labels,
    )


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value
