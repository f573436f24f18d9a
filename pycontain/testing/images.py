"""Images out of plain values, without a network, and a store that is gone afterwards."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pycontain
from pycontain import ExecutionParameters, Image, Store
from pycontain.errors import HostUnsupported

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_PROGRAMS = (b"#!", b"\x7fELF")


def make_image(
    tag: str,
    files: Mapping[str, str | bytes],
    *,
    busybox: bool = False,
    config: ExecutionParameters | None = None,
    platform: str | None = None,
    store: Store | None = None,
) -> Image:
    r"""Make an image of one layer from *files*, each path with its content, and name it *tag* in the store.

    All belongs to root. What begins as a script or a program has the mode 0755, the rest 0644. With *busybox* there is /bin/sh and
    what else this machine's static busybox can do; :class:`HostUnsupported` when there is none. *config* says how it
    is run. The same values give the same image.

    >>> with temporary_store():
    ...     make_image("greeting:1", {"/etc/greeting": "hello\n"}).references
    ('greeting:1',)
    """
    contents = {path.strip("/"): _encoded(content) for path, content in files.items()}
    links: dict[str, str] = {}
    if busybox:
        program = _busybox()
        with open(program, "rb") as file:
            contents["bin/busybox"] = file.read()
        listed = subprocess.run([program, "--list"], check=True, capture_output=True, text=True).stdout
        links = {f"bin/{name}": "busybox" for name in listed.split() if name != "busybox"}
    with tempfile.NamedTemporaryFile(suffix=".tar") as file:
        _write_layer(file, contents, links)
        return Image.from_rootfs(file.name, tag=tag, config=config, platform=platform, store=store)


def _encoded(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content


def _write_layer(
    file: tempfile._TemporaryFileWrapper[bytes], contents: Mapping[str, bytes], links: Mapping[str, str]
) -> None:
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(_folders((*contents, *links))):
            tar.addfile(_member(path, tarfile.DIRTYPE, 0o755))
        for path, content in sorted(contents.items()):
            member = _member(path, tarfile.REGTYPE, 0o755 if content.startswith(_PROGRAMS) else 0o644)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for path, target in sorted(links.items()):
            if path not in contents:
                member = _member(path, tarfile.SYMTYPE, 0o777)
                member.linkname = target
                tar.addfile(member)
    file.flush()


def _member(path: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(path)
    member.type, member.mode = kind, mode
    return member


def _folders(paths: tuple[str, ...]) -> set[str]:
    """All that lie above *paths*."""
    return {
        "/".join(parts[:depth])
        for path in paths
        for parts in (path.split("/"),)
        for depth in range(1, len(parts))
    }


def _busybox() -> str:
    program = shutil.which("busybox")
    if program is None:
        raise HostUnsupported(
            "an image with busybox",
            needs="a static busybox",
            hint="on Debian: apt-get install busybox-static",
        )
    return program


@contextmanager
def temporary_store() -> Iterator[Store]:
    """Have a new store as the default one of this process, and remove it after the block.

    Containers of this process end there, for they may stand on what is removed. So a suite of tests has one for all.

    >>> with temporary_store() as store:
    ...     store.images()
    ()
    """
    # Not in /tmp, which may be in memory, where Linux before 6.6 lets an ordinary user have no overlay.
    folder = tempfile.mkdtemp(prefix="pycontain-store-", dir="/var/tmp")
    before = os.environ.get("PYCONTAIN_STORE")
    os.environ["PYCONTAIN_STORE"] = f"{folder}/store"
    try:
        yield Store()
    finally:
        pycontain.shutdown()
        emptied = Store()
        emptied.names.remove([entry.name for entry in emptied.names.list()])
        emptied.gc(build_caches=True)  # trees may belong to the users of containers
        shutil.rmtree(folder)
        if before is None:
            del os.environ["PYCONTAIN_STORE"]
        else:
            os.environ["PYCONTAIN_STORE"] = before
