"""Paths that know on which side of the wall they lie."""

from __future__ import annotations

import posixpath


class HostPath(str):
    """An absolute path on the host."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> HostPath:
        """Accept an absolute path without NUL bytes; the door makes relative ones absolute first."""
        if not text.startswith("/"):
            raise ValueError(f"host path {text!r} is not absolute")
        if "\0" in text:
            raise ValueError(f"host path {text!r} holds a NUL byte")
        return cls(posixpath.normpath(text))


class RootPath(str):
    """An absolute path inside a container's root: it means nothing on the host.

    It is opened only through a descriptor of that root, with ``openat2(RESOLVE_IN_ROOT)``.
    """

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> RootPath:
        """Accept an absolute path without ``..`` and NUL bytes; doubled and trailing slashes go."""
        if not text.startswith("/"):
            raise ValueError(f"container path {text!r} is not absolute")
        if "\0" in text:
            raise ValueError(f"container path {text!r} holds a NUL byte")
        parts = [part for part in text.split("/") if part not in {"", "."}]
        if ".." in parts:
            raise ValueError(f"container path {text!r} holds '..'")
        return cls("/" + "/".join(parts))


class StagePath(RootPath):
    """A path below the stage: a tree of the child's own, whose parts move to the same places below the root."""

    __slots__ = ()
