"""What the tests of programs that use containers need, and what our own tests use."""

from __future__ import annotations

from pycontain.testing.factory import ContainerFactory

__all__ = ["ContainerFactory"]
