"""``pycontain plan``: the steps that ``pycontain run`` would take."""

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
        "plan", description="Print the steps that would start a container, and do nothing."
    )
    add_access_options(made)
    return made


def act(options: argparse.Namespace) -> int:
    """Print the plan."""
    use_registry_of(options)
    container, argv = read_container(options)
    sys.stdout.write(f"{container.plan(*argv)}\n")
    return 0
