"""Containers without a daemon: a library whose containers belong to, and end with, your process."""

from __future__ import annotations

__version__ = "0.1.0"
