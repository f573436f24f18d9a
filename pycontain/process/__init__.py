"""What runs: a container, a command in it, their streams and files, and what is left when they have ended."""

from pycontain.process.running import Completed, Running, Timings, Usage

__all__ = ["Completed", "Running", "Timings", "Usage"]
