"""The lowest layer, which has the places to mount on, and the writable one, which has what the payload wrote."""

import os

from trees import busybox_tree

from pycontain import Container
from pycontain.runtime import engine as engines


def written():
    """What is in each folder that the zygote has for a writable layer, in use or for the next start."""
    folder = f"{engines.engine().folder}/layers"
    return [os.listdir(f"{folder}/{name}/upper") for name in os.listdir(folder) if name.isdigit()]


def test_a_payload_that_writes_nothing_leaves_the_layer_empty(tmp_path):
    """The image has nothing but programs: the places of /proc, /etc/hosts and the like come from the lowest layer."""
    with Container(f"rootfs:{busybox_tree(tmp_path)}").start("sleep", "1000") as running:
        running.exec("true", check=True)
        assert all(names == [] for names in written())


def test_what_the_payload_writes_is_in_the_layer(tmp_path):
    with Container(f"rootfs:{busybox_tree(tmp_path)}").start("sleep", "1000") as running:
        running.exec("sh", "-c", "echo x > /new", check=True)
        assert ["new"] in written()


def test_the_end_of_a_container_does_not_write_back_the_disk():
    """overlayfs.rst, "Volatile mount"; where a sync is cheap it is not asked for, as HostFacts says."""
    mounts = Container("host:").run("cat", "/proc/self/mountinfo", check=True).stdout
    root = next(line for line in mounts.splitlines() if line.split()[4] == "/")
    assert ("volatile" in root) == engines.engine().facts.layers_volatile


def test_a_place_that_the_image_lacks_belongs_to_root(tmp_path):
    script = "for place in / /etc /etc/hosts /dev; do stat -c '%u %g %n' $place; done"
    listed = Container(f"rootfs:{busybox_tree(tmp_path)}").run("sh", "-c", script, check=True)
    assert {line.rpartition(" ")[0] for line in listed.stdout.splitlines()} == {"0 0"}


def test_an_image_whose_etc_is_a_link_has_the_files_where_it_leads(tmp_path):
    tree = busybox_tree(tmp_path)
    (tree / "usr/etc").mkdir(parents=True)
    (tree / "etc").symlink_to("usr/etc")
    assert Container(f"rootfs:{tree}").run("cat", "/usr/etc/hostname", check=True).stdout.strip()
