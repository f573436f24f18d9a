"""From a reference to a running container: pulled, verified, unpacked, and run as the image says."""

import os
import sys
import tarfile
from pathlib import Path

import attrs
import pytest
from busybox_images import (
    HERE,
    ROOT,
    busybox_layer,
    docker_save,
    image,
    index_of,
    push_test_image,
    root,
    write_layout,
)
from busybox_images import store as store  # noqa: PLC0414 - a fixture
from layer_tree import Device, Dir, File, Opaque, Symlink, Whiteout, layer
from trees import listing

import pycontain
from pycontain import Container, RegistrySettings
from pycontain.errors import ImageNotFound, InvalidImage, NoMatchingPlatform, StepFailed
from pycontain.image import Image
from pycontain.image.runnable import runnable
from pycontain.image.transfer import kind_of
from pycontain.oci.config import Healthcheck
from pycontain.oci.platform import Platform
from pycontain.oci.source import parse_source
from pycontain.runtime import engine as engines

sys.path.append(str(Path(__file__).parent.parent / "against"))  # the registry is started there
from fault_proxy import serve_faults
from registry_server import serve_registry


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serve_registry(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture
def base(tmp_path):
    return busybox_layer(tmp_path, root(File("etc/version", b"12\n")))


@pytest.fixture
def push(server):
    """Put an image with these layers into the registry, under a name of its own."""

    def put(*layers, **parameters):
        return push_test_image(server.address, f"app{os.urandom(4).hex()}:1", image(*layers, **parameters))

    return put


def sh(reference, script):
    done = Container(reference).run("sh", "-c", script)
    assert done.stderr == ""
    return done.stdout


# --- the whole way --------------------------------------------------------------------------------------


def test_an_image_is_pulled_and_runs(store, push, base):
    assert Container(push(base)).run("cat", "/etc/version").stdout == "12\n"


def test_it_is_in_the_store_afterwards(store, push, base):
    reference = push(base)
    Container(reference).run("true")
    assert [str(found) for found in store.images()] == [reference]


def test_the_second_start_asks_nobody(store, server, base):
    with serve_faults(server.address) as proxy:
        name = f"app{os.urandom(4).hex()}:1"
        push_test_image(server.address, name, image(base))
        reference = f"{proxy.address}/{name}"
        Container(reference).run("true")
        pycontain.shutdown()
        before = len(proxy.asked)
        assert Container(reference).run("cat", "/etc/version").stdout == "12\n"
        assert len(proxy.asked) == before


def test_a_mirror_of_the_process_is_asked_for_containers_too(store, server, base):
    name = f"app{os.urandom(4).hex()}:1"
    push_test_image(server.address, name, image(base))
    mirrors = RegistrySettings(mirrors=(f"http://{server.address}",))
    pycontain.configure_registry("registry.invalid", mirrors)  # RFC 6761: there is no such host
    try:
        assert Container(f"registry.invalid/{name}").run("cat", "/etc/version").stdout == "12\n"
        assert Image.pull(f"registry.invalid/{name}").references == (f"registry.invalid/{name}",)
    finally:
        pycontain.configure_registry("registry.invalid", None)


def test_an_image_by_digest(store, server, push, base):
    reference = push(base)
    digest = Image.pull(reference).digest
    assert Container(f"{reference}@{digest}").run("cat", "/etc/version").stdout == "12\n"


def test_an_image_of_the_store_runs_by_itself(store, push, base):
    """Whatever its names mean by now: the source of an Image is its content."""
    pulled = Image.pull(push(base))
    source = pulled.source
    store.names.remove(pulled.names)
    assert runnable(source, engines.engine()).rootfs.lowerdirs


def test_a_tag_that_moved_means_the_new_image(store, push, base):
    old, new = Image.pull(push(base)), Image.pull(push(base, layer(root(File("new")))))
    old.tag("app:moving")
    source = parse_source("app:moving")
    before = runnable(source, engines.engine()).rootfs
    assert runnable(source, engines.engine()).rootfs == before
    new.tag("app:moving")
    assert len(runnable(source, engines.engine()).rootfs.lowerdirs) == 2


# --- what the config says -------------------------------------------------------------------------------


def test_entrypoint_and_cmd(store, push, base):
    reference = push(base, entrypoint=("echo", "from"), cmd=("the", "image"))
    assert Container(reference).run().stdout == "from the image\n"
    assert Container(reference).run("me").stdout == "from me\n"


def test_env_and_workdir(store, push, base):
    reference = push(base, env=("A=b=c", "PATH=/bin"), working_dir="/tmp")
    assert sh(reference, "pwd; echo $A $PATH") == "/tmp\nb=c /bin\n"


def test_the_user(store, push, base, privilege):
    if privilege == "single":
        pytest.skip("one id is mapped")
    assert sh(push(base, user="7:8"), "id -u; id -g") == "7\n8\n"


def test_the_stop_signal(store, push, base):
    source = parse_source(push(base, stop_signal="SIGINT"))
    assert runnable(source, engines.engine()).stop_signal == "SIGINT"


def test_what_is_not_for_running_is_kept(store, push, base):
    health = Healthcheck(test=("CMD", "true"), interval=5_000_000_000)
    reference = push(
        base, labels={"team": "x"}, volumes=("/data",), exposed_ports=("80/tcp",), healthcheck=health
    )
    pulled = Image.pull(reference)
    said, shown = pulled.config.config, pulled.inspect()["Config"]
    assert (said.labels["team"], said.volumes, said.exposed_ports) == ("x", ("/data",), ("80/tcp",))
    assert said.healthcheck == health
    assert (shown["Labels"], shown["Volumes"], shown["ExposedPorts"]) == (
        {"team": "x"},
        {"/data": {}},
        {"80/tcp": {}},
    )
    assert shown["Healthcheck"] == {"Test": ["CMD", "true"], "Interval": 5_000_000_000}


# --- volumes --------------------------------------------------------------------------------------------


@pytest.fixture
def with_data(base):
    """Layers with a directory that has a content and a mode of its own."""
    return base, layer(*map(root, (Dir("data", mode=0o1777), File("data/own", b"12\n"))))


def test_a_volume_exists(store, push, base):
    assert sh(push(base, volumes=("/var/db/x",)), "cd /var/db/x && touch file && ls") == "file\n"


def test_a_volume_has_what_the_image_has_there(store, push, with_data):
    reference = push(*with_data, volumes=("/data",))
    done = Container(reference).read_only().run("sh", "-c", "stat -c '%a' /data; cat /data/own")
    assert done.stdout == "1777\n12\n"


@pytest.mark.parametrize("volume", ["/data", "/var/db/x", "relative"])
def test_a_volume_stays_writable_when_the_root_is_not(store, push, with_data, volume):
    box = Container(push(*with_data, volumes=(volume,))).read_only().workdir("/")
    assert box.run("sh", "-c", f"touch {volume}/file && cat {volume}/file").exit_code == 0
    assert box.run("sh", "-c", "touch /etc/file").exit_code != 0


def test_a_volume_ends_with_its_container(store, push, with_data):
    box = Container(push(*with_data, volumes=("/data",))).read_only()
    box.run("sh", "-c", "touch /data/file", check=True)
    assert box.run("ls", "/data").stdout == "own\n"


def test_the_user_of_the_image_may_own_its_volume(store, push, base, privilege):
    if privilege == "single":
        pytest.skip("one id is mapped")
    data = layer(Dir("data", mode=0o700, uid=7, gid=8))
    box = Container(push(base, data, volumes=("/data",), user="7:8")).read_only()
    assert box.run("sh", "-c", "touch /data/f && stat -c '%u:%g' /data/f").stdout == "7:8\n"


def test_a_mount_takes_the_place_of_a_volume(store, push, with_data, tmp_path):
    (tmp_path / "host").touch()
    box = Container(push(*with_data, volumes=("/data", "/data/deep"))).mount(
        tmp_path, "/data", read_only=True
    )
    assert box.run("ls", "/data").stdout == "host\n"


def test_a_mount_lies_in_a_volume(store, push, with_data, tmp_path):
    (tmp_path / "host").touch()
    box = Container(push(*with_data, volumes=("/data",))).mount(tmp_path, "/data/deep").read_only()
    assert box.run("sh", "-c", "ls /data/deep; touch /data/x && ls /data").stdout == "host\ndeep\nown\nx\n"


def test_a_tmpfs_takes_the_place_of_a_volume(store, push, with_data):
    box = Container(push(*with_data, volumes=("/data", "/data/deep"))).tmpfs("/data")
    assert box.run("ls", "/data").stdout == "deep\n"


def test_a_link_in_the_place_of_a_volume_leads_to_a_place_inside(store, push, base):
    links = (Symlink("data", to="/elsewhere"), Symlink("up", to="../../../../elsewhere"))
    box = Container(push(base, layer(*map(root, links)), volumes=("/data", "/up"))).read_only()
    assert box.run("sh", "-c", "touch /data/x && ls /elsewhere /up/").stdout == "/elsewhere:\nx\n\n/up/:\nx\n"


@pytest.mark.parametrize("target", ["/proc", "/proc/sys", "/sys/kernel"])
def test_a_link_to_a_tree_of_the_kernel_is_no_volume(store, push, base, target):
    """CVE-2025-52565 and its kin: an image must not have parts of them bound elsewhere."""
    reference = push(base, layer(root(Symlink("data", to=target))), volumes=("/data",))
    with pytest.raises(StepFailed, match="tree of the kernel"):
        Container(reference).read_only().run("true")


def test_volumes_in_trees_of_the_kernel_are_the_kernels(store, push, base):
    """Images for systemd name /sys/fs/cgroup."""
    reference = push(base, volumes=("/sys/fs/cgroup", "/proc", "/dev/shm"))
    assert Container(reference).read_only().run("sh", "-c", "ls -d /proc/1").stdout == "/proc/1\n"


def test_untrusted_code_cannot_write_to_a_volume_without_an_end(store, push, with_data):
    box = Container(push(*with_data, volumes=("/data", "/new"))).untrusted(required=False)
    done = box.run("sh", "-c", "ls /data; touch /data/x; touch /new/x")
    assert (done.stdout, done.stderr.count("Read-only file system")) == ("own\n", 2)
    sized = box.limits(disk="16M", required=False)
    assert sized.run("sh", "-c", "touch /data/x && ls /data").stdout == "own\nx\n"


def test_landlock_lets_a_volume_be_written(store, push, with_data):
    if not engines.engine().facts.landlock:
        pytest.skip("this kernel has no Landlock")
    box = Container(push(*with_data, volumes=("/data",))).read_only().landlock()
    assert box.run("sh", "-c", "touch /data/x && ls /data").stdout == "own\nx\n"


@pytest.mark.parametrize("volume", ["/", "/a/../../b"])
def test_an_unusable_volume_is_refused(store, push, base, volume):
    with pytest.raises(InvalidImage, match="volume"):
        Container(push(base, volumes=(volume,))).run("true")


# --- layers ---------------------------------------------------------------------------------------------


def test_whiteouts_hide_what_is_below(store, push, base):
    lower = layer(*map(root, (Dir("d"), File("d/a"), File("d/b"), Dir("o"), File("o/old"))))
    upper = layer(*map(root, (Whiteout("d/a"), File("o/new"), Opaque("o"))))
    assert sh(push(base, lower, upper), "ls /d /o") == "/d:\nb\n\n/o:\nnew\n"


def test_a_directory_that_a_layer_only_uses_keeps_its_mode(store, push, base):
    """It would be 0755 and hide the one below: /root and /tmp of many images would be open, or closed."""
    lower = layer(*map(root, (Dir("root", mode=0o700), Dir("var"), Dir("var/lock", mode=0o1777))))
    upper = layer(*map(root, (File("root/x"), File("var/lock/deep/er"))))
    assert sh(push(base, lower, upper), "stat -c '%a %n' /root /var/lock /var/lock/deep") == (
        "700 /root\n1777 /var/lock\n755 /var/lock/deep\n"
    )


def test_a_directory_that_a_layer_only_uses_keeps_its_owner_and_time(store, push, base, privilege):
    if privilege == "single":
        pytest.skip("one id is mapped")
    lower = layer(Dir("home", uid=5, gid=6))
    upper = layer(root(File("home/x")))
    assert sh(push(base, lower, upper), "stat -c '%u:%g %Y' /home") == "5:6 1700000000\n"


def test_a_directory_below_a_link_of_a_lower_layer_is_not_looked_up_through_it(store, push, base):
    lower = layer(*map(root, (Dir("secret", mode=0o700), Symlink("place", to="/secret"))))
    upper = layer(root(File("place/sub/x")))
    assert sh(push(base, lower, upper), "stat -c '%a' /place") == "755\n"


def test_the_root_directory_keeps_its_mode(store, push, base, privilege):
    if privilege == "single":
        pytest.skip("one id is mapped")
    pulled = Image.pull(push(layer(Dir("", mode=0o711, uid=3, gid=4)), base))
    kind = kind_of(engines.engine())
    top = store.snapshots(kind).find(pulled.layers[-1].chain_id).path
    assert os.stat(top).st_mode & 0o7777 == 0o711
    assert os.stat(top).st_uid != os.geteuid()


def test_the_container_sees_the_mode_and_owner_of_the_images_root(store, push, base, privilege):
    owner = ROOT if privilege == "single" else {"uid": 3, "gid": 4}
    entry, content = Dir("", mode=0o1711)
    reference = push(layer((attrs.evolve(entry, **owner), content)), base)
    for box in (Container(reference), Container(reference).read_only()):
        assert box.run("stat", "-c", "%a %u:%g", "/").stdout == "1711 {uid}:{gid}\n".format(**owner)


def test_127_layers(store, push, base):
    upper = [layer(root(File(f"d/{number}"))) for number in range(126)]
    assert sh(push(base, *upper), "ls /d | head -n 1000").count("\n") == 126


def test_an_image_without_layers_has_a_root_all_the_same(store, push):
    source = parse_source(push())
    assert os.listdir(runnable(source, engines.engine()).rootfs.lowerdirs[0]) == []


def test_a_device_in_a_layer_does_no_harm(store, push, base):
    reference = push(base, layer(root(Device("disk", 10, 229))))
    assert Container(reference).run("sh", "-c", ": < /disk").exit_code != 0


# --- platforms ------------------------------------------------------------------------------------------


def test_an_index_is_searched_for_this_machine(store, server, base):
    wrong = image(layer(root(File("wrong"))))
    several = index_of({"linux/s390x": wrong, str(HERE): image(base), "windows/amd64": wrong})
    reference = push_test_image(server.address, "several:1", several)
    assert Container(reference).run("cat", "/etc/version").stdout == "12\n"


def test_a_platform_that_is_not_there_is_answered_with_those_that_are(store, server, base):
    several = index_of({"linux/s390x": image(base), "linux/riscv64": image(base, cmd=("x",))})
    reference = push_test_image(server.address, "elsewhere:1", several)
    with pytest.raises(NoMatchingPlatform) as caught:
        Container(reference).run("true")
    assert caught.value.available == ("linux/s390x", "linux/riscv64")


def test_an_image_for_another_machine_is_not_run_by_accident(store, push, base):
    reference = push(base, platform=Platform("linux", "s390x"))
    with pytest.raises(NoMatchingPlatform, match="linux/s390x") as caught:
        Container(reference).run("true")
    assert caught.value.__notes__
    assert store.images() == ()


def test_another_platform_is_pulled_when_asked_for(store, server, base):
    foreign = image(layer(root(File("x"))), platform=Platform("linux", "s390x"))
    several = index_of({"linux/s390x": foreign, str(HERE): image(base)})
    reference = push_test_image(server.address, "two:1", several)
    assert Image.pull(reference, platform="linux/s390x").platform == "linux/s390x"
    assert Container(reference).run("cat", "/etc/version").stdout == "12\n"


# --- on disk --------------------------------------------------------------------------------------------


@pytest.fixture
def layout(tmp_path, base):
    other = image(base, layer(root(File("etc/version", b"13\n"))))
    return write_layout(tmp_path / "layout", **{"12": image(base), "13": other})


def test_a_layout_of_several_platforms_is_searched_for_this_machine(store, tmp_path, base):
    """Docker names its variants: what others call linux/arm64 is linux/arm64/v8, and 32-bit Arm comes in several."""
    wrong = image(layer(root(File("wrong"))))
    own = attrs.evolve(HERE, variant={"arm64": "v8"}.get(HERE.architecture, ""))
    others = {"amd64": "linux/arm64", "arm64": "linux/amd64"}[HERE.architecture], "linux/arm/v7", "linux/386"
    several = index_of({**dict.fromkeys(others, wrong), own: image(base)})
    layout = write_layout(tmp_path / "layout", several=several)
    assert Container(f"oci:{layout}:several").run("cat", "/etc/version").stdout == "12\n"


def test_an_oci_layout_runs(store, layout):
    assert Container(f"oci:{layout}:12").run("cat", "/etc/version").stdout == "12\n"
    assert Container(f"oci:{layout}:13").run("cat", "/etc/version").stdout == "13\n"


def test_a_foreign_layout_is_not_written(store, layout):
    before = listing(layout)
    Container(f"oci:{layout}:12").run("true")
    assert listing(layout) == before


def test_a_layout_with_several_images_wants_a_tag(store, layout):
    with pytest.raises(ImageNotFound) as caught:
        Container(f"oci:{layout}").run("true")
    assert caught.value.__notes__ == ["it has 12, 13"]


def test_a_tag_that_a_layout_lacks_is_answered_with_those_it_has(store, layout):
    with pytest.raises(ImageNotFound, match="14") as caught:
        Container(f"oci:{layout}:14").run("true")
    assert caught.value.__notes__ == ["it has 12, 13"]


def test_a_layout_that_is_not_there(store, tmp_path):
    with pytest.raises(ImageNotFound, match="no folder"):
        Container(f"oci:{tmp_path}/nowhere:1").run("true")


def test_a_flipped_blob_in_a_layout_is_refused(store, layout):
    for blob in (layout / "blobs" / "sha256").iterdir():
        content = bytearray(blob.read_bytes())
        content[-1] ^= 1
        blob.write_bytes(content)
    with pytest.raises(InvalidImage):
        Container(f"oci:{layout}:12").run("true")


def test_an_oci_archive_runs(store, layout, tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("oci-layout", "index.json", "blobs"):
            tar.add(layout / name, name)
    assert Container(f"oci-archive:{tmp_path}/a.tar:13").run("cat", "/etc/version").stdout == "13\n"


def test_a_docker_archive_runs(store, tmp_path, base):
    path = docker_save(tmp_path / "d.tar", {"debian:12": image(base, cmd=("cat", "/etc/version"))})
    assert Container(f"docker-archive:{path}").run().stdout == "12\n"
    assert Container(f"docker-archive:{path}:debian:12").run().stdout == "12\n"


# --- leases ---------------------------------------------------------------------------------------------


def test_what_a_container_stands_on_is_not_collected(store, push, base):
    with Container(push(base)).start("sleep", "100") as running:
        store.names.remove([entry.name for entry in store.names.list()])
        store.gc()
        assert running.exec("cat", "/etc/version").stdout == "12\n"


def test_with_the_engine_its_lease_ends(store, push, base):
    Container(push(base)).run("true")
    store.names.remove([entry.name for entry in store.names.list()])
    pycontain.shutdown()
    assert store.gc().snapshots
    assert store.usage().bytes == 0


def test_the_child_of_a_fork_does_not_end_the_lease_of_its_parent(store, push, base):
    Container(push(base)).run("true")
    store.names.remove([entry.name for entry in store.names.list()])
    child = os.fork()
    if child == 0:
        pycontain.shutdown()
        os._exit(0)
    os.waitpid(child, 0)
    assert os.listdir(store.folder.leases)
    assert store.gc().snapshots == ()


def test_removing_an_image_frees_its_layers(store, push, base):
    """Also those that were unpacked in a user namespace, with files of subordinate ids."""
    pulled = Image.pull(push(base, layer(Dir("d", mode=0, uid=9), File("d/f", uid=9))))
    assert len(pulled.remove().snapshots) == 2
    assert os.listdir(store.snapshots(kind_of(engines.engine())).folder) == []
