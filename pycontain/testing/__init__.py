"""What the tests of programs that use containers need, and what our own tests use.

The names below are loaded at their first use, as those of :mod:`pycontain`: our pytest plugin needs one of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pycontain.testing.factory import ContainerFactory
    from pycontain.testing.images import make_image, temporary_store
    from pycontain.testing.leaks import no_leaks
    from pycontain.testing.server import registry

_HOMES = {
    "ContainerFactory": "pycontain.testing.factory",
    "make_image": "pycontain.testing.images",
    "no_leaks": "pycontain.testing.leaks",
    "registry": "pycontain.testing.server",
    "temporary_store": "pycontain.testing.images",
}

__all__ = ["ContainerFactory", "make_image", "no_leaks", "registry", "temporary_store"]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
