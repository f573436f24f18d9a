"""``apt-get install`` in a Debian, started by an ordinary user who has no subordinate ids."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import pycontain
from pycontain.runtime.probe import find_program, is_privileged, subordinate_ids

CONTROL = """\
Package: pycontain-test
Version: 1
Architecture: all
Maintainer: nobody <nobody@example.org>
Description: gives files away
"""
POSTINST = """\
#!/bin/sh
set -e
chown daemon:adm /usr/share/pycontain-test
chgrp mail /usr/share/pycontain-test
su -s /bin/sh nobody -c true
groupadd --system pycontain-test
useradd --system --gid pycontain-test pycontain-test
install -d -o pycontain-test -g pycontain-test /var/lib/pycontain-test
"""
INSTALL = """
import sys
from pycontain import Container
box = Container(f"rootfs:{sys.argv[1]}").mount(sys.argv[2], "/test.deb")
script = "cp /test.deb /tmp/ && apt-get -y install /tmp/test.deb && dpkg -s pycontain-test && id pycontain-test"
print(box.run("sh", "-c", script, timeout=200).check().stdout)
"""


def somebody():
    """A user with no name here, and so without subordinate ids."""
    return next(uid for uid in range(54_321, 60_000) if not subordinate_ids("/etc/subuid", uid))


def readable_by(uid, path):
    return (
        subprocess.run(["test", "-r", path], user=uid, group=uid, extra_groups=[], check=False).returncode
        == 0
    )


@pytest.fixture
def folder():
    """One that others may go through, as pytest's own is not."""
    with tempfile.TemporaryDirectory(prefix="pycontain-apt-", dir="/var/tmp") as made:
        os.chmod(made, 0o755)
        yield Path(made)


@pytest.fixture
def package(folder):
    """A package whose installation gives files to others, and becomes others."""
    if find_program("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not installed here")
    for name, text, mode in (("control", CONTROL, 0o644), ("postinst", POSTINST, 0o755)):
        path = folder / "package" / "DEBIAN" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
    (folder / "package/usr/share/pycontain-test").mkdir(parents=True)
    deb = folder / "test.deb"
    subprocess.run(["dpkg-deb", "--build", folder / "package", deb], check=True, capture_output=True)
    return deb


@pytest.mark.timeout(400)  # a whole distribution is fetched and installed
@pytest.mark.skipif(not is_privileged(), reason="mmdebstrap is asked for a tree with all owners")
def test_apt_installs_a_package_where_one_id_is_mapped(folder, package):
    if find_program("mmdebstrap") is None:
        pytest.skip("mmdebstrap is not installed here")
    uid, tar = somebody(), folder / "debian.tar"
    sources = Path(pycontain.__file__)
    if not readable_by(uid, sources):
        pytest.skip("other users cannot read this checkout")
    made = subprocess.run(
        ["mmdebstrap", "--variant=apt", "--quiet", "bookworm", tar], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("there is no Debian mirror here")
    home = folder / "home"
    home.mkdir()
    os.chown(home, uid, uid)
    done = subprocess.run(
        [sys.executable, "-c", INSTALL, tar, package],
        user=uid,
        group=uid,
        extra_groups=[],
        env={
            "HOME": str(home),
            "PYCONTAIN_STATE": f"{home}/state",
            "PATH": os.defpath,
            "PYTHONPATH": str(sources.parent.parent),
        },
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Status: install ok installed" in done.stdout
    assert "(pycontain-test)" in done.stdout
