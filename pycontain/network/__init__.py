"""Networks: what joins containers, what leads into one from outside, and whom it asks for names.

The name below is loaded at its first use: a published port needs no network.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycontain.network.network import Network

__all__ = ["Network"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pycontain.network import network  # noqa: PLC0415 - as above

    return getattr(network, name)
