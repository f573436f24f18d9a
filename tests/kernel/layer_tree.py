"""Layers in few words, and a tree to apply them to."""

import io
import os
import stat
from pathlib import Path

import attrs

from pycontain.layers.apply import apply
from pycontain.layers.encode import encode
from pycontain.layers.entries import Entry, Kind

MTIME = 1_700_000_000 * 10**9


def entry(path, kind, content=b"", **fields):
    """An entry that belongs to whoever runs the tests, with its content."""
    fields = {"uid": os.geteuid(), "gid": os.getegid(), "mtime": MTIME} | fields
    return Entry(os.fsencode(path), kind, **fields), (content,)


def File(path, content=b"", **fields):  # noqa: N802 - reads as the value that it makes
    return entry(path, Kind.FILE, content, **({"size": len(content)} | fields))


def Dir(path, mode=0o755, **fields):  # noqa: N802 - as above
    return entry(path, Kind.DIRECTORY, mode=mode, **fields)


def Symlink(path, to, **fields):  # noqa: N802 - as above
    return entry(path, Kind.SYMLINK, target=os.fsencode(to), mode=0o777, **fields)


def HardLink(path, to, **fields):  # noqa: N802 - as above
    return entry(path, Kind.HARD_LINK, target=os.fsencode(to), **fields)


def Fifo(path, **fields):  # noqa: N802 - as above
    return entry(path, Kind.FIFO, **fields)


def Device(path, major, minor, kind=Kind.CHARACTER_DEVICE, **fields):  # noqa: N802 - as above
    return entry(path, kind, device=(major, minor), **fields)


def Whiteout(path):  # noqa: N802 - as above
    above, _, name = path.rpartition("/")
    return File(f"{above}/.wh.{name}")


def Opaque(path):  # noqa: N802 - as above
    return File(f"{path}/.wh..wh..opq")


def layer(*entries):
    """The bytes of the layer with these *entries*, in this order."""
    return b"".join(encode(entries))


@attrs.frozen
class LayerTree:
    """A directory to apply layers to; a folder beside it is what attacks aim at."""

    root: Path

    def apply(self, *entries, **options):
        return apply(io.BytesIO(layer(*entries)), str(self.root), **options)

    def path(self, name):
        return self.root / name

    def read(self, name):
        return self.path(name).read_bytes()

    def stat(self, name):
        return self.path(name).lstat()

    def mode(self, name):
        return stat.S_IMODE(self.stat(name).st_mode)

    def names(self):
        """All paths below the root, sorted; directories end in a slash."""
        found = []
        for above, directories, files in os.walk(self.root):
            base = os.path.relpath(above, self.root)
            found += [os.path.normpath(f"{base}/{name}") for name in files]
            for name in directories:
                mark = "" if os.path.islink(f"{above}/{name}") else "/"
                found.append(os.path.normpath(f"{base}/{name}") + mark)
        return sorted(found)
