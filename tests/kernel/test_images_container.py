"""What ``Container`` makes of images: by value, by platform and policy, and with the directories that they name."""

import pytest
from busybox_images import busybox_layer, image, root, write_layout
from busybox_images import store as store  # noqa: PLC0414 - a fixture
from layer_tree import File, layer
from trees import busybox_tree

from pycontain import Container
from pycontain.errors import ImageNotFound, InvalidSpec, StepFailed
from pycontain.image import Image


@pytest.fixture
def app(store, tmp_path):
    return Image.from_rootfs(str(busybox_tree(tmp_path / "tree")), tag="app:1")


def test_an_image_is_run_as_a_value(app):
    assert Container(app).run("echo", "x").stdout == "x\n"


def test_a_stored_image_is_run_by_its_name_without_a_registry(app):
    assert Container("app:1").pull("never").run("echo", "x").stdout == "x\n"


def test_never_means_that_nothing_is_asked(store):
    with pytest.raises(ImageNotFound) as caught:
        Container("127.0.0.1:1/missing:1").pull("never").run("true")
    assert caught.value.__notes__


def test_a_moved_tag_is_another_image_in_the_same_process(store, tmp_path):
    box = Container(f"oci:{tmp_path}/layout:v1")
    for version in ("old", "new"):
        made = image(busybox_layer(tmp_path), layer(root(File("etc/version", version.encode()))))
        write_layout(tmp_path / "layout", v1=made)
        assert box.run("cat", "/etc/version").stdout == version


def test_the_directory_that_an_image_names_is_made(store, tmp_path):
    made = image(busybox_layer(tmp_path), working_dir="/srv/deep/app")
    write_layout(tmp_path / "layout", v1=made)
    box = Container(f"oci:{tmp_path}/layout:v1")
    assert box.run("pwd").stdout == "/srv/deep/app\n"
    with pytest.raises(StepFailed, match="/srv/other"):
        box.workdir("/srv/other").run("pwd")


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.pull("sometimes"),
        lambda c: c.pull(""),
        lambda c: c.platform("linux/"),
        lambda c: c.platform(""),
    ],
)
def test_a_wrong_policy_or_platform_is_refused_at_once(change):
    with pytest.raises(InvalidSpec):
        change(Container("app:1"))
