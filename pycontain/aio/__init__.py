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
    from pycontain import (
        BuildProgress,
        Change,
        ChangeKind,
        Completed,
        Copied,
        Credentials,
        ExecutionParameters,
        FileStatus,
        Health,
        LogLine,
        Phase,
        Plan,
        ProcessStatus,
        Progress,
        PublishedPort,
        RegistrySettings,
        ServiceLine,
        Stats,
        VolumeUsage,
        configure_registry,
        load_ipython_extension,
    )
    from pycontain.aio.container import Container
    from pycontain.aio.files import Files
    from pycontain.aio.image import Image, Store
    from pycontain.aio.network import Network
    from pycontain.aio.process import Process
    from pycontain.aio.running import Running
    from pycontain.aio.streams import Reader, Writer
    from pycontain.aio.terminal import Terminal
    from pycontain.aio.verbs import build, doctor, prewarm, shutdown
    from pycontain.aio.volume import Volume

_HOMES = {
    "Container": "pycontain.aio.container",
    "Files": "pycontain.aio.files",
    "Image": "pycontain.aio.image",
    "Network": "pycontain.aio.network",
    "Process": "pycontain.aio.process",
    "Reader": "pycontain.aio.streams",
    "Running": "pycontain.aio.running",
    "Store": "pycontain.aio.image",
    "Terminal": "pycontain.aio.terminal",
    "Volume": "pycontain.aio.volume",
    "Writer": "pycontain.aio.streams",
    "build": "pycontain.aio.verbs",
    "doctor": "pycontain.aio.verbs",
    "prewarm": "pycontain.aio.verbs",
    "shutdown": "pycontain.aio.verbs",
}

__all__ = [
    "BuildProgress",
    "Change",
    "ChangeKind",
    "Completed",
    "Container",
    "Copied",
    "Credentials",
    "ExecutionParameters",
    "FileStatus",
    "Files",
    "Health",
    "Image",
    "LogLine",
    "Network",
    "Phase",
    "Plan",
    "Process",
    "ProcessStatus",
    "Progress",
    "PublishedPort",
    "Reader",
    "RegistrySettings",
    "Running",
    "ServiceLine",
    "Stats",
    "Store",
    "Terminal",
    "Volume",
    "VolumeUsage",
    "Writer",
    "build",
    "configure_registry",
    "doctor",
    "load_ipython_extension",
    "prewarm",
    "shutdown",
]


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
