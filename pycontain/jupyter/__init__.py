"""Notebooks: ``%load_ext pycontain`` adds the magic ``%%container``, and values of ours show themselves as tables.

Nothing of IPython is imported: what has to be known of it is :class:`Shell`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class Shell(Protocol):
    """What we use of IPython's ``InteractiveShell``."""

    user_ns: dict[str, Any]

    def register_magic_function(
        self, func: Callable[..., Any], magic_kind: str = ..., magic_name: str | None = ...
    ) -> None:
        """Make *func* a magic."""


def load_ipython_extension(shell: Shell) -> None:
    """Add ``%container`` and ``%%container``. IPython calls this for ``%load_ext pycontain``; safe to repeat."""

    def container(line: str, cell: str | None = None) -> None:
        from pycontain.jupyter import magic  # noqa: PLC0415 - at the first use

        magic.run(shell.user_ns, line, cell)

    container.__doc__ = _HELP
    shell.register_magic_function(container, "line_cell", "container")


_HELP = """Run a command in a new container, or in one that runs; the text of a cell is its standard input.

    %%container [OPTION…] IMAGE [ARG…]
    %%container [OPTION…] VARIABLE [ARG…]

VARIABLE holds a Container, an Image, or a Running, in which the command is executed. Without ARG the image's own command
reads the cell; for host: and a Running of it that is "python3 -", for rootfs: and other Runnings "sh". Interrupting the kernel ends the
command. `%container --help` lists the options.
"""
