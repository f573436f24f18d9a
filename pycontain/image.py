"""Images by name, and as trees on disk that a container can stand on."""

from __future__ import annotations

from pycontain.runnable import runnable as runnable  # noqa: PLC0414 - offered here too
