"""What runs: a container, a command in it, their streams and files, and what is left when they have ended.

The names below are loaded at their first use: a container that runs to its end needs the result alone.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycontain.process.completed import Completed, Timings, Usage
    from pycontain.process.running import Running

__all__ = ["Completed", "Running", "Timings", "Usage"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "Running":
        from pycontain.process import running  # noqa: PLC0415 - as above

        return running.Running
    from pycontain.process import completed  # noqa: PLC0415 - as above

    return getattr(completed, name)
