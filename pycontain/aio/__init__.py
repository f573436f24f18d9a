r"""``pycontain`` for programs with an event loop: the same names, and what waits there is awaited here.

What has verbs that wait has a twin; what has none (results, lines, errors, plans) is the very same object. Needs a running loop of
:mod:`asyncio`.

>>> import asyncio
>>> from pycontain import aio
>>> asyncio.run(aio.Container("host:").run("echo", "hello")).stdout
'hello\n'
"""

from __future__ import annotations

import pycontain

TYPE_CHECKING = False  # as in pycontain
if TYPE_CHECKING:
    from pycontain import Completed, LogLine
    from pycontain.aio.container import Container
    from pycontain.aio.running import Running

_HOMES = {
    "Container": "pycontain.aio.container",
    "Running": "pycontain.aio.running",
}

__all__ = ["Completed", "Container", "LogLine", "Running"]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is not None:
        from importlib import import_module  # noqa: PLC0415 - as in pycontain

        value: object = getattr(import_module(home), name)
    elif name in __all__:
        value = getattr(pycontain, name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
