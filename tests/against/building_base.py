"""What the tests of builds against others' data share: a store of their own, with base images made of busybox."""

import base64
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest

from pycontain import Image
from pycontain.oci.config import ExecutionParameters
from pycontain.testing import temporary_store

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PASSWD = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/:/bin/false\nbin:x:2:2::/bin:/bin/false\nlp:x:4:7::/:/bin/false\nnobody:x:65534:65534::/:/bin/false\n"
ADDUSER = """#!/bin/sh
id=$((1000 + $(wc -l < /etc/passwd)))
echo "$2:x:$id:$id::/home/$2:/bin/sh" >> /etc/passwd
echo "$2:x:$id:" >> /etc/group
mkdir -p /home/$2
chown $id:$id /home/$2
"""
GROUP = "root:x:0:\ndaemon:x:1:\nbin:x:2:\nadm:x:4:\nlp:x:7:\nmail:x:12:\nus:x:8:\nnobody:x:65534:\n"


def busybox_root(top):
    """A root file system as that of the image busybox: every applet, accounts, a home."""
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox is not there")
    for name in ("bin", "etc", "root", "tmp", "var", "home", "usr/bin", "usr/local"):
        (top / name).mkdir(parents=True)
    shutil.copy(busybox, top / "bin/busybox")
    for name in subprocess.run(
        [busybox, "--list"], capture_output=True, text=True, check=True
    ).stdout.split():
        if not (top / "bin" / name).exists():
            os.symlink("busybox", top / "bin" / name)
    if not (top / "bin/adduser").exists():  # Debian's busybox does without
        (top / "bin/adduser").write_text(ADDUSER)
        (top / "bin/adduser").chmod(0o755)
    (top / "etc/passwd").write_text(PASSWD)
    (top / "etc/group").write_text(GROUP)
    (top / "etc/os-release").write_text("ID=busybox\n")
    (top / "usr/bin/script").write_text("")  # the image of CentOS has util-linux
    (top / "tmp").chmod(0o1777)
    top.chmod(0o755)


def store_with(*names):
    """A generator for a fixture: the default store, with busybox under *names*."""
    with temporary_store() as store, tempfile.TemporaryDirectory() as top:
        busybox_root(Path(top))
        image = Image.from_rootfs(top, tag=names[0], config=ExecutionParameters(env=(PATH,), cmd=("sh",)))
        for name in names[1:]:
            image.tag(name)
        yield store


def write_context(folder, entries):
    """Make what the data says a context has."""
    for entry in entries:
        path = folder / entry["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        match entry["type"]:
            case "dir":
                path.mkdir(exist_ok=True)
            case "symlink":
                os.symlink(entry.get("target") or entry.get("link") or entry["linkname"], path)
            case "file":
                content = entry.get("content")
                path.write_bytes(
                    base64.b64decode(entry.get("content_b64") or "") if content is None else content.encode()
                )
        if entry["type"] != "symlink":
            path.chmod(entry.get("mode", 0o644))


def tree_of(image, *, first=0):
    """What the layers from *first* on leave: entries by path, with the content of files."""
    tree = {}
    for layer in image.layers[first:]:
        with tarfile.open(image.store.blobs.path(layer.descriptor.digest)) as tar:
            for entry in tar:
                name = entry.name.strip("/")
                above, _, last = name.rpartition("/")
                if last.startswith(".wh."):
                    gone = f"{above}/{last[4:]}".strip("/")
                    tree = {
                        path: it
                        for path, it in tree.items()
                        if path != gone and not path.startswith(gone + "/")
                    }
                    continue
                if not entry.isdir():
                    tree = {path: it for path, it in tree.items() if not path.startswith(name + "/")}
                content = tar.extractfile(entry).read() if entry.isfile() else entry.linkname.encode()
                tree[name] = (entry, content)
    return tree
