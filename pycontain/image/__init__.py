"""Images: where they come from, what is kept of them, and the tree that a container stands on.

The names below are loaded at their first use: a start needs the tree alone.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycontain.image.image import HistoryEntry, Image, Store

__all__ = ["HistoryEntry", "Image", "Store"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pycontain.image import image  # noqa: PLC0415 - as above

    return getattr(image, name)
