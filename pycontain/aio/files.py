"""``Files`` whose methods are awaited."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, BinaryIO

from pycontain.aio.threads import in_thread

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator

    from pycontain.process import files
    from pycontain.process.filecopy import Copied
    from pycontain.process.files import FileStatus, Names

    Path = str | os.PathLike[str]


class Files:
    """The files of a running container, as :class:`pycontain.Files`, which see: the same methods, awaited; ``async for`` walks."""

    def __init__(self, files: files.Files) -> None:
        self._files = files

    def __repr__(self) -> str:
        return repr(self._files)

    # --- reading ----------------------------------------------------------------------------------------

    async def read_bytes(self, path: Path, *, max_size: str | int = "64M") -> bytes:
        """The content of a file; :class:`PathTooLarge` when it has more than *max_size* bytes."""
        return await in_thread(partial(self._files.read_bytes, path, max_size=max_size))

    async def read_text(
        self, path: Path, *, encoding: str = "utf-8", errors: str = "strict", max_size: str | int = "64M"
    ) -> str:
        """The same as text."""
        return await in_thread(
            partial(self._files.read_text, path, encoding=encoding, errors=errors, max_size=max_size)
        )

    async def stat(self, path: Path, *, follow: bool = True) -> FileStatus:
        """What is at *path*; with *follow* what it leads to if it is a symbolic link."""
        return await in_thread(partial(self._files.stat, path, follow=follow))

    async def exists(self, path: Path) -> bool:
        """Whether *path* leads to something."""
        return await in_thread(partial(self._files.exists, path))

    async def list(self, path: Path = "/") -> tuple[str, ...]:
        """The names in a directory, sorted."""
        return await in_thread(partial(self._files.list, path))

    async def walk(self, path: Path = "/") -> AsyncIterator[tuple[str, Names, Names]]:
        """Each directory below *path*, as :meth:`pycontain.Files.walk`."""
        walking = self._files.walk(path)
        while (found := await in_thread(partial(next, walking, None))) is not None:
            yield found

    # --- writing ----------------------------------------------------------------------------------------

    async def write_bytes(
        self, path: Path, content: bytes, *, mode: int | None = None, user: str | int | None = None
    ) -> None:
        """Give the file *path* this content, in one instant, as :meth:`pycontain.Files.write_bytes`."""
        await in_thread(partial(self._files.write_bytes, path, content, mode=mode, user=user))

    async def write_text(
        self,
        path: Path,
        content: str,
        *,
        encoding: str = "utf-8",
        mode: int | None = None,
        user: str | int | None = None,
    ) -> None:
        """The same with text."""
        await in_thread(
            partial(self._files.write_text, path, content, encoding=encoding, mode=mode, user=user)
        )

    async def mkdir(
        self,
        path: Path,
        *,
        mode: int = 0o755,
        parents: bool = False,
        exist_ok: bool = False,
        user: str | int | None = None,
    ) -> None:
        """Make a directory, as :meth:`pathlib.Path.mkdir`."""
        await in_thread(
            partial(self._files.mkdir, path, mode=mode, parents=parents, exist_ok=exist_ok, user=user)
        )

    async def remove(self, path: Path, *, recursive: bool = False, missing_ok: bool = False) -> None:
        """Remove a file, a link, which is not followed, or an empty directory; *recursive*, with all that is in it."""
        await in_thread(partial(self._files.remove, path, recursive=recursive, missing_ok=missing_ok))

    # --- copying ----------------------------------------------------------------------------------------

    async def put(
        self,
        source: Path | BinaryIO,
        path: Path,
        *,
        user: str | int | None = None,
        mode: int | None = None,
        keep_ids: bool = False,
    ) -> Copied:
        """Copy the host's *source* to *path*, as :meth:`pycontain.Files.put`. Who is cancelled has copied a part of a directory, or nothing."""
        return await in_thread(
            partial(self._files.put, source, path, user=user, mode=mode, keep_ids=keep_ids)
        )

    async def get(self, path: Path, target: Path | BinaryIO, *, keep_ids: bool = False) -> Copied:
        """Copy *path* of the container to *target* on the host, as :meth:`pycontain.Files.get`."""
        return await in_thread(partial(self._files.get, path, target, keep_ids=keep_ids))
