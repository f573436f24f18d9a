"""``pycontain explain``: the walls that a container would have on this host."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pycontain.commands.options import container_parser, read_container
from pycontain.commands.registries import add_access_options, use_registry_of

if TYPE_CHECKING:
    import argparse

    from pycontain.commands.parser import Parser


def parser() -> Parser:
    """What it takes: a container."""
    made = container_parser(
        "explain", description="Print every wall of a container, whether it stands on this host, and why not."
    )
    made.add_argument("--json", action="store_true", help="for programs")
    add_access_options(made)
    return made


def act(options: argparse.Namespace) -> int:
    """Print the walls."""
    use_registry_of(options)
    container, _ = read_container(options)
    found = container.explain()
    sys.stdout.write(f"{found.to_json() if options.json else found}\n")
    return 0
