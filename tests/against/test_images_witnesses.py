"""What we write, others read; what they write, we run: skopeo, umoci, podman, buildah."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent / "kernel"))  # images that can run are made there
from busybox_images import busybox_layer, image, push_test_image, root, write_layout
from busybox_images import store as store  # noqa: PLC0414 - a fixture
from layer_tree import Dir, File, Whiteout, layer
from registry_server import server as server  # noqa: PLC0414 - a fixture

from pycontain import Container
from pycontain.image import Image
from pycontain.runtime.probe import is_privileged


def program(name):
    return pytest.mark.skipif(shutil.which(name) is None, reason=f"{name} is not installed")


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def made(tmp_path):
    lower = layer(root(Dir("d", mode=0o700)), root(File("d/gone")), root(File("etc/version", b"12\n")))
    return image(busybox_layer(tmp_path), lower, layer(root(Whiteout("d/gone"))), cmd=("cat", "/etc/version"))


@pytest.fixture
def app(store, server, made):
    return Image.pull(push_test_image(server.address, f"app{os.urandom(4).hex()}:1", made))


@pytest.fixture
def storage():
    """Options for podman and buildah, so that nothing of theirs stays; podman wants short paths."""
    with tempfile.TemporaryDirectory(prefix="witness-", dir="/var/tmp") as folder:
        yield ("--root", f"{folder}/root", "--runroot", f"{folder}/run", "--storage-driver", "vfs")


# --- what we write --------------------------------------------------------------------------------------


@program("skopeo")
@pytest.mark.parametrize(("format_", "transport"), [("oci", "oci-archive"), ("docker", "docker-archive")])
def test_skopeo_copies_what_we_save(app, tmp_path, format_, transport):
    app.save(tmp_path / "saved.tar", format_)
    run("skopeo", "copy", f"{transport}:{tmp_path}/saved.tar", f"oci:{tmp_path}/copy:1")
    (copied,) = Image.load(tmp_path / "copy")
    assert copied.config == app.config
    assert [one.diff_id for one in copied.layers] == [one.diff_id for one in app.layers]


@program("umoci")
def test_umoci_unpacks_what_we_save(app, tmp_path):
    app.tag("umoci:1")
    Image.find("umoci:1").save(tmp_path / "saved.tar")
    (tmp_path / "layout").mkdir()
    run("tar", "-xf", str(tmp_path / "saved.tar"), "-C", str(tmp_path / "layout"))
    reference = f"{tmp_path}/layout:docker.io/library/umoci:1"
    run("umoci", "unpack", "--rootless", "--image", reference, str(tmp_path / "bundle"))
    tree = tmp_path / "bundle" / "rootfs"
    assert (tree / "etc/version").read_text() == "12\n"
    assert os.listdir(tree / "d") == []


@program("podman")
@pytest.mark.skipif(not is_privileged(), reason="podman's own storage wants root here")
@pytest.mark.parametrize("format_", ["oci", "docker"])
def test_podman_loads_what_we_save(app, storage, tmp_path, format_):
    app.save(tmp_path / "saved.tar", format_)
    assert str(app) in run("podman", *storage, "load", "-i", str(tmp_path / "saved.tar"))
    (facts,) = json.loads(run("podman", *storage, "image", "inspect", str(app)))
    assert f"sha256:{facts['Id']}" == app.id


@program("skopeo")
def test_skopeo_reads_what_we_push(app, server):
    app.push(f"{server.address}/pushed:2")
    facts = json.loads(run("skopeo", "inspect", "--tls-verify=false", f"docker://{server.address}/pushed:2"))
    assert facts["Digest"] == app.digest


@program("skopeo")
def test_skopeo_reads_the_store(store, app):
    """The one that pulled, unpacked and runs."""
    Container(str(app)).run("true")
    assert json.loads(run("skopeo", "inspect", f"oci:{store.path}:{app.names[0]}"))["Digest"] == app.digest


# --- what they write ------------------------------------------------------------------------------------


@program("skopeo")
@pytest.mark.parametrize("transport", ["oci", "oci-archive", "docker-archive"])
def test_what_skopeo_writes_runs(store, tmp_path, made, transport):
    layout = write_layout(tmp_path / "layout", **{"1": made})
    target = f"{transport}:{tmp_path}/copy:{'app:1' if transport == 'docker-archive' else '1'}"
    run("skopeo", "copy", f"oci:{layout}:1", target)
    assert Container(target).run().stdout == "12\n"


@program("podman")
@pytest.mark.skipif(not is_privileged(), reason="podman's own storage wants root here")
@pytest.mark.parametrize("format_", ["oci-archive", "docker-archive"])
def test_what_podman_saves_runs(store, storage, app, tmp_path, format_):
    app.save(tmp_path / "ours.tar", "docker")
    run("podman", *storage, "load", "-i", str(tmp_path / "ours.tar"))
    run("podman", *storage, "save", "--format", format_, "-o", str(tmp_path / "theirs.tar"), str(app))
    app.remove()
    (back,) = Image.load(tmp_path / "theirs.tar")
    assert Container(str(back)).run().stdout == "12\n"


@program("umoci")
def test_what_umoci_repacks_runs(store, tmp_path, made):
    layout = write_layout(tmp_path / "layout", **{"1": made})
    run("umoci", "unpack", "--rootless", "--image", f"{layout}:1", str(tmp_path / "bundle"))
    (tmp_path / "bundle/rootfs/etc/version").write_text("13\n")
    run("umoci", "repack", "--image", f"{layout}:2", str(tmp_path / "bundle"))
    assert Container(f"oci:{layout}:2").run().stdout == "13\n"


@program("buildah")
@pytest.mark.skipif(not is_privileged(), reason="buildah's own storage wants root here")
def test_what_buildah_builds_runs(store, server, storage, tmp_path):
    (tmp_path / "busybox").write_bytes(Path(shutil.which("busybox")).read_bytes())
    (tmp_path / "busybox").chmod(0o755)
    (tmp_path / "Containerfile").write_text(
        'FROM scratch\nCOPY busybox /bin/sh\nWORKDIR /made/here\nENV A="b c"\nCMD ["/bin/sh", "-c", "pwd; echo $A"]\n'
    )
    reference = f"{server.address}/built:1"
    run("buildah", *storage, "build", "-t", reference, str(tmp_path))
    run("buildah", *storage, "push", "--tls-verify=false", reference)
    assert Container(reference).run().stdout == "/made/here\nb c\n"
