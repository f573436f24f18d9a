"""Containers without a daemon: a library whose containers belong to, and end with, your process."""

from __future__ import annotations

from pycontain.container import Container
from pycontain.process import Completed, Running
from pycontain.runtime.engine import prewarm, shutdown

__version__ = "0.1.0"

__all__ = ["Completed", "Container", "Running", "prewarm", "shutdown"]
