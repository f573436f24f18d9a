"""Values as HTML, for notebooks. What a payload has printed, and what an image says of itself, is a stranger's: all of it is escaped."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

from pycontain.image.progress import size_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pycontain import Completed, Image, Running

_LINES, _LETTERS = 100, 20_000  # of each stream
_LEFT = "style='text-align:left'"


def completed_html(done: Completed[Any]) -> str:
    """How a command has ended, and the end of what it printed."""
    from pycontain.process.completed import how_it_ended  # noqa: PLC0415 - which shows itself by this module

    remarks = {"timed out": done.timed_out, "out of memory": done.oom_killed, "truncated": done.truncated}
    ended = ", ".join(
        (how_it_ended(done), f"{done.duration:.3g} s", *(word for word, on in remarks.items() if on))
    )
    rows = [("command", _code(" ".join(done.argv))), ("ended with", html.escape(ended))]
    rows += [(name, _printed(getattr(done, name))) for name in ("stdout", "stderr") if getattr(done, name)]
    return _table(rows)


def running_html(running: Running, argv: Iterable[str]) -> str:
    """What runs, how it is, and what it printed last."""
    ports = ", ".join(
        f"{port.port}/{port.protocol} at {port.host_ip}:{port.host_port}" for port in running.ports
    )
    rows = [
        ("container", html.escape(running.name)),
        ("image", html.escape(running.image)),
        ("command", _code(" ".join(argv))),
        ("status", html.escape(running.status)),
        ("pid", str(running.pid)),
    ]
    rows += [("ports", html.escape(ports))] if ports else []
    printed = "\n".join(line.text for line in running.logs(tail=_LINES))
    rows += [("printed", _printed(printed))] if printed else []
    return _table(rows)


def image_html(image: Image) -> str:
    """What an image is, and what it would run."""
    settings = image.config.config
    command = " ".join((*settings.entrypoint, *settings.cmd))
    rows = [
        ("names", html.escape(", ".join(image.references))),
        ("digest", _code(image.digest)),
        ("platform", html.escape(image.platform)),
        ("size", f"{size_text(image.size)} in {len(image.layers)} layers"),
        ("created", html.escape(image.config.created or "")),
        ("command", _code(command)),
    ]
    return _table(rows)


def _table(rows: Iterable[tuple[str, str]]) -> str:
    body = "".join(f"<tr><th {_LEFT}>{name}</th><td {_LEFT}>{value}</td></tr>" for name, value in rows)
    return f"<table><tbody>{body}</tbody></table>"


def _code(text: str) -> str:
    return f"<code>{html.escape(text)}</code>"


def _printed(given: str | bytes) -> str:
    """The end of *given*, with a word when that is not all."""
    text = (given if isinstance(given, str) else given.decode(errors="replace")).rstrip("\n")
    shown = "\n".join(text[-_LETTERS:].split("\n")[-_LINES:])
    left_out = "" if len(shown) == len(text) else f"<small>the last of {len(text)} characters:</small>"
    return f"{left_out}<pre>{html.escape(shown)}</pre>"
