"""Docker itself reads what we write, and we read what it writes: files, and images in a registry."""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent / "kernel"))  # images that can run are made there
from busybox_images import busybox_layer, image, root, write_layout
from busybox_images import store as store  # noqa: PLC0414 - a fixture
from docker_daemon import serve_docker
from layer_tree import Dir, File, Whiteout, layer
from registry_server import server as server  # noqa: PLC0414 - a fixture

from pycontain import Container
from pycontain.image import Image

pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.fixture(scope="module")
def docker():
    folder = Path(tempfile.mkdtemp(prefix="docker-", dir="/var/tmp"))  # a socket's path is short
    with serve_docker(folder) as docker:
        yield docker
    shutil.rmtree(folder)


@pytest.fixture
def made(tmp_path):
    lower = layer(root(Dir("d", mode=0o700)), root(File("d/gone")), root(File("etc/version", b"12\n")))
    return image(busybox_layer(tmp_path), lower, layer(root(Whiteout("d/gone"))), cmd=("cat", "/etc/version"))


@pytest.fixture
def app(store, tmp_path, made):
    """An image with a name that no other test has."""
    name = f"app{os.urandom(4).hex()}:1"
    (loaded,) = Image.load(write_layout(tmp_path / "layout", **{name.replace(":", "_"): made}))
    loaded.tag(name)
    return Image.find(name)


def diff_ids(docker, name):
    (facts,) = json.loads(docker("image", "inspect", name))
    return facts["RootFS"]["Layers"]


def test_docker_loads_what_we_save(docker, app, tmp_path):
    app.save(tmp_path / "saved.tar", "docker")
    assert docker("load", "--input", str(tmp_path / "saved.tar")) == f"Loaded image: {app}\n"
    assert docker("image", "inspect", "--format", "{{.Id}}", str(app)).strip() == app.id
    assert diff_ids(docker, str(app)) == [str(one.diff_id) for one in app.layers]


def test_docker_loads_several_images_from_one_archive(docker, app, tmp_path):
    app.tag("second:1")
    app.save(tmp_path / "saved.tar", "docker", also=[Image.find("second:1")])
    assert docker("load", "--input", str(tmp_path / "saved.tar")).count("Loaded image: ") == 2
    assert diff_ids(docker, "second:1") == diff_ids(docker, str(app))


def test_what_docker_saves_runs(docker, app, tmp_path):
    app.save(tmp_path / "ours.tar", "docker")
    docker("load", "--input", str(tmp_path / "ours.tar"))
    docker("save", "--output", str(tmp_path / "theirs.tar"), str(app))
    name, identity = str(app), app.id
    app.remove()
    (back,) = Image.load(tmp_path / "theirs.tar")
    assert (str(back), back.id) == (name, identity)
    assert Container(name).run().stdout == "12\n"
    assert Container(f"docker-archive:{tmp_path}/theirs.tar").run("ls", "/d").stdout == ""


def test_what_docker_pushes_runs(docker, server, app, tmp_path):
    app.save(tmp_path / "ours.tar", "docker")
    docker("load", "--input", str(tmp_path / "ours.tar"))
    name = f"pushed{os.urandom(4).hex()}:1"
    with docker.forward(server.address) as address:
        docker("tag", str(app), f"{address}/{name}")
        docker("push", f"{address}/{name}")
    assert Image.pull(f"{server.address}/{name}").id == app.id
    assert Container(f"{server.address}/{name}").run().stdout == "12\n"


def test_docker_pulls_what_we_push(docker, server, app):
    name = f"ours{os.urandom(4).hex()}:1"
    app.push(f"{server.address}/{name}")
    with docker.forward(server.address) as address:
        assert f"Digest: {app.digest}" in docker("pull", f"{address}/{name}")
        assert diff_ids(docker, f"{address}/{name}") == [str(one.diff_id) for one in app.layers]
