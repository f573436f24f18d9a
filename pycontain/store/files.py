"""Files that are whole or not there, and errors that say what can be done about the disk."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from pycontain.errors import PycontainError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

_FULL = "free some space, for instance with Store.gc(), and try again"
_FORBIDDEN = "use a store of your own: Store(path), or PYCONTAIN_STORE in the environment"

#: What the kernel says about a disk, in the user's words, and the next step.
_EXPLAINED: Final = {
    errno.ENOSPC: ("the disk is full", _FULL),
    errno.EDQUOT: ("your disk quota is used up", _FULL),
    errno.EFBIG: ("a file would be larger than allowed here", "raise the limit: ulimit -f"),
    errno.EMFILE: ("this program has too many open files", "raise the limit: ulimit -n"),
    errno.EACCES: ("you have no permission", _FORBIDDEN),
    errno.EPERM: ("you have no permission", _FORBIDDEN),
    errno.EROFS: ("it is on a read-only file system", _FORBIDDEN),
}


@contextmanager
def storing(path: str) -> Iterator[None]:
    """Turn what the kernel refuses into a :class:`StoreError` about *path*, the folder of the store."""
    try:
        yield
    except PycontainError:
        raise  # some of them are OSErrors as well
    except OSError as error:
        sentence, hint = _EXPLAINED.get(error.errno or 0, (error.strerror or str(error), None))
        where = f" ({error.filename})" if error.filename else ""
        raise StoreError(
            f"the store {path} cannot be used: {sentence}{where}", path=path, hint=hint
        ) from error


def read_file(path: str) -> bytes:
    """The content of a small file."""
    with open(path, "rb") as file:
        return file.read()


def replace_file(path: str, content: bytes, beside: str) -> None:
    """Give *path* this content in one instant, also should the power fail.

    It is written to *beside* on the same file system first, which nobody else may use meanwhile and which is gone
    afterwards.
    """
    try:
        with open(beside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.rename(beside, path)
    except OSError:
        remove_file(beside)
        raise


def remove_file(path: str) -> None:
    """Remove *path*; nothing to do when it is gone."""
    with suppress(FileNotFoundError):
        os.unlink(path)
