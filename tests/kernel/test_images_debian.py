"""A real Debian, from a registry and from a layout on disk: what people will do first."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from busybox_images import store as store  # noqa: PLC0414 - a fixture

from pycontain import Container, ExecutionParameters
from pycontain.image import Image

sys.path.append(str(Path(__file__).parent.parent / "against"))  # the registry is started there
from registry_server import serve_registry

TAR = Path(__file__).parents[2] / ".venv/debian.tar"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),  # thousands of files are packed and unpacked
    pytest.mark.skipif(not TAR.exists(), reason=f"there is no {TAR}: see .ci/debian-tree"),
]


@pytest.fixture
def debian(store):
    config = ExecutionParameters(cmd=("cat", "/etc/debian_version"), env=("LANG=C.UTF-8",))
    return Image.from_rootfs(TAR, tag="debian:12", config=config)


def check(reference):
    box = Container(reference)
    assert float(box.run().stdout) >= 12
    done = box.run("apt", "list", "--installed")
    assert done.exit_code == 0, done.stderr
    assert any(line.startswith("dpkg/") for line in done.stdout.splitlines())


def test_a_debian_runs_from_a_registry(debian, store, tmp_path):
    with serve_registry(tmp_path) as server:
        reference = f"{server.address}/debian:12"
        debian.push(reference)
        debian.remove()
        check(reference)
        check(f"{reference}@{debian.digest}")


def test_a_debian_runs_from_a_layout(debian, store, tmp_path):
    debian.save(tmp_path / "debian.tar")
    debian.remove()
    (tmp_path / "layout").mkdir()
    subprocess.run(["tar", "-xf", tmp_path / "debian.tar", "-C", tmp_path / "layout"], check=True)
    os.unlink(tmp_path / "debian.tar")
    check(f"oci:{tmp_path}/layout")
