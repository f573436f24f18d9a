"""Containers without a daemon: a library whose containers belong to, and end with, your process.

The names below are loaded at their first use: the zygote imports this package too, and must stay small.

PYTEST_DONT_REWRITE: pytest would, since a plugin of its comes with this package, and complain where we are imported already.
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing would cost the zygote 6 ms and 1 MB
if TYPE_CHECKING:
    from pycontain.building.build import build
    from pycontain.building.session import BuildProgress
    from pycontain.compose.project import Project
    from pycontain.compose.running import RunningProject, ServiceLine
    from pycontain.container import Container
    from pycontain.diagnosis import doctor
    from pycontain.image import Image, Store
    from pycontain.image.progress import Phase, Progress
    from pycontain.jupyter import load_ipython_extension
    from pycontain.network import Network
    from pycontain.oci.config import ExecutionParameters
    from pycontain.process import Completed, Running
    from pycontain.process.changes import Change, ChangeKind
    from pycontain.process.filecopy import Copied
    from pycontain.process.files import Files, FileStatus
    from pycontain.process.health import Health
    from pycontain.process.logs import LogLine
    from pycontain.process.popen import Process
    from pycontain.process.resources import ProcessStatus, Stats
    from pycontain.process.terminal import Terminal
    from pycontain.registry.credentials import Credentials
    from pycontain.registry.settings import RegistrySettings, configure_registry
    from pycontain.runtime.engine import prewarm, shutdown
    from pycontain.sandbox.network import PublishedPort
    from pycontain.sandbox.plan import Plan
    from pycontain.volume import Volume, VolumeUsage

__version__ = "0.1.0"

_HOMES = {
    "BuildProgress": "pycontain.building.session",
    "Change": "pycontain.process.changes",
    "ChangeKind": "pycontain.process.changes",
    "Completed": "pycontain.process.completed",
    "Container": "pycontain.container",
    "Copied": "pycontain.process.filecopy",
    "Credentials": "pycontain.registry.credentials",
    "ExecutionParameters": "pycontain.oci.config",
    "FileStatus": "pycontain.process.files",
    "Files": "pycontain.process.files",
    "Health": "pycontain.process.health",
    "Image": "pycontain.image",
    "LogLine": "pycontain.process.logs",
    "Network": "pycontain.network",
    "Phase": "pycontain.image.progress",
    "Plan": "pycontain.sandbox.plan",
    "Process": "pycontain.process.popen",
    "ProcessStatus": "pycontain.process.resources",
    "Progress": "pycontain.image.progress",
    "Project": "pycontain.compose.project",
    "PublishedPort": "pycontain.sandbox.network",
    "RegistrySettings": "pycontain.registry.settings",
    "Running": "pycontain.process.running",
    "RunningProject": "pycontain.compose.running",
    "ServiceLine": "pycontain.compose.running",
    "Stats": "pycontain.process.resources",
    "Store": "pycontain.image",
    "Terminal": "pycontain.process.terminal",
    "build": "pycontain.building.build",
    "configure_registry": "pycontain.registry.settings",
    "Volume": "pycontain.volume",
    "VolumeUsage": "pycontain.volume",
    "doctor": "pycontain.diagnosis",
    "load_ipython_extension": "pycontain.jupyter",
    "prewarm": "pycontain.runtime.engine",
    "shutdown": "pycontain.runtime.engine",
}

# Modules whose own names are the interface: ``pycontain.errors.CommandFailed``.
_MODULES = frozenset({"aio", "errors", "testing"})

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
    "Project",
    "PublishedPort",
    "RegistrySettings",
    "Running",
    "RunningProject",
    "ServiceLine",
    "Stats",
    "Store",
    "Terminal",
    "Volume",
    "VolumeUsage",
    "build",
    "configure_registry",
    "doctor",
    "load_ipython_extension",
    "prewarm",
    "shutdown",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None and name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - so that the zygote does without

    if home is None:
        return import_module(f"{__name__}.{name}")
    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
