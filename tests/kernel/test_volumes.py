"""Named volumes: what is kept, whose it is, who may remove it, and what a kill leaves."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from owners import start_owner
from trees import busybox_tree

from pycontain import Container, Volume
from pycontain.__main__ import main
from pycontain.errors import InvalidSpec, VolumeError, VolumeInUse, VolumeNotFound
from pycontain.volume import folder

HOST = Container("host:")
SLEEP = ("sleep", "infinity")


@pytest.fixture
def volume():
    """A volume with a name of its own, removed at the end."""
    with Volume(f"test-{os.urandom(4).hex()}") as made:
        yield made


@pytest.fixture
def name():
    """A name that no volume has yet; what gets it is removed at the end."""
    chosen = f"test-{os.urandom(4).hex()}"
    yield chosen
    if chosen in {volume.name for volume in Volume.list()}:
        Volume(chosen).remove()


@pytest.fixture
def tree(tmp_path):
    """A root file system with something at /data."""
    top = busybox_tree(tmp_path / "root")
    (top / "data" / "sub").mkdir(parents=True)
    (top / "data" / "sub" / "f").write_text("of the image")
    (top / "data" / "closed").write_text("x")
    (top / "data" / "closed").chmod(0o600)
    os.link(top / "data" / "closed", top / "data" / "other")
    (top / "data").chmod(0o750)
    os.symlink("/data", top / "link")
    top.chmod(0o755)
    return top


def sh(container, script, **options):
    done = container.run("sh", "-c", script, **options)
    assert done.ok, done.stderr
    return done.stdout


# --- what is kept -------------------------------------------------------------------------------------------


def test_what_is_written_is_there_for_the_next(name):
    """The first start creates the volume."""
    box = HOST.volume(name, "/var/cache/own")
    sh(box, "echo kept > /var/cache/own/f; chmod 640 /var/cache/own/f")
    assert sh(box, "cat /var/cache/own/f; stat -c '%a %u:%g' /var/cache/own/f") == "kept\n640 0:0\n"
    assert [volume.name for volume in Volume.list()] == [name]
    assert Path(Volume(name).path, "f").read_text() == "kept\n"


def test_two_at_once(volume):
    """As root they have different ids on the host, and the same inside."""
    box = HOST.volume(volume, "/v")
    with box.start(*SLEEP) as one, box.start(*SLEEP) as two:
        one.exec("sh", "-c", "echo 1 > /v/f; mkdir -m 700 /v/d", check=True)
        assert (
            two.exec("sh", "-c", "cat /v/f; stat -c %u:%g /v/f /v/d; echo 2 > /v/d/g").stdout
            == "1\n0:0\n0:0\n"
        )
        assert one.files.read_text("/v/d/g") == "2\n"


def test_owners_are_the_containers_numbers(volume, privilege):
    if privilege == "single":
        pytest.skip("there is one id")
    sh(HOST.volume(volume, "/v"), "touch /v/f /v/g; chown 7:8 /v/f; chown 65534 /v/g")
    look = "stat -c %u:%g /v/f /v/g"
    assert sh(HOST.volume(volume, "/v"), look) == "7:8\n65534:0\n"
    assert sh(HOST.userns("host").volume(volume, "/v"), look) == "7:8\n65534:0\n"
    if privilege == "root":
        assert Path(volume.path, "f").stat().st_uid == 7


def test_read_only(volume):
    sh(HOST.volume(volume, "/v"), "echo x > /v/f")
    done = HOST.volume(volume, "/v", read_only=True).run("sh", "-c", "cat /v/f; echo y > /v/f")
    assert done.stdout == "x\n"
    assert "Read-only" in done.stderr


def test_it_stays_writable_when_the_root_is_not(volume):
    sh(HOST.read_only().volume(volume, "/v"), "echo x > /v/f")


def test_the_untrusted_may_have_one(volume):
    sh(HOST.untrusted(required=False).volume(volume, "/v"), "echo x > /v/f; cat /v/f")


@pytest.mark.root
def test_who_may_mount_writes_to_a_volume_and_not_to_a_read_only_one(volume):
    mighty = HOST.capabilities(add=["SYS_ADMIN"]).seccomp("unconfined")
    sh(mighty.volume(volume, "/v"), "echo x > /v/f")
    done = mighty.volume(volume, "/v", read_only=True).run(
        "sh", "-c", "mount -o remount,bind,rw /v; echo y > /v/f"
    )
    assert not done.ok
    assert Path(volume.path, "f").read_text() == "x\n"


def test_no_devices_and_no_set_id_programs(volume):
    options = sh(HOST.volume(volume, "/v"), "grep ' /v ' /proc/self/mountinfo").split()[5]
    assert {"nosuid", "nodev"} <= set(options.split(","))


def test_others_cannot_come_by(volume):
    """What root inside makes set-user-ID root would be that for every user of the host."""
    for place in (folder(), Path(volume.path).parent):
        assert os.stat(place).st_mode & 0o077 == 0


def test_a_folder_that_others_may_change(monkeypatch, tmp_path):
    (tmp_path / "volumes").mkdir()
    (tmp_path / "volumes").chmod(0o777)
    monkeypatch.setenv("PYCONTAIN_VOLUMES", str(tmp_path / "volumes"))
    with pytest.raises(VolumeError, match="others may not write"):
        Volume("x")


# --- what an image gives ------------------------------------------------------------------------------------


def test_an_empty_volume_gets_what_the_image_has(tree, name):
    box = Container(f"rootfs:{tree}").volume(name, "/data")
    sh(box, "cat /data/sub/f; stat -c '%a %h' /data/closed /data; echo changed > /data/sub/f")
    assert sh(box, "cat /data/sub/f") == "changed\n"
    assert (tree / "data" / "sub" / "f").read_text() == "of the image"
    assert sh(box, "stat -c '%a %h' /data/closed; stat -c %a /data") == "600 2\n750\n"


def test_through_a_link_of_the_image(tree, name):
    assert sh(Container(f"rootfs:{tree}").volume(name, "/link"), "cat /data/sub/f") == "of the image"


def test_owners_of_the_image(tree, name, privilege):
    if privilege != "root":
        pytest.skip("the image is made by root")
    os.chown(tree / "data" / "closed", 12, 34)
    os.chown(tree / "data", 5, 6)
    box = Container(f"rootfs:{tree}").volume(name, "/data")
    assert sh(box, "stat -c %u:%g /data /data/other") == "5:6\n12:34\n"


def test_a_volume_that_holds_something_is_left_as_it_is(tree, volume):
    Path(volume.path, "own").write_text("x")
    assert sh(Container(f"rootfs:{tree}").volume(volume, "/data"), "ls /data") == "own\n"


@pytest.mark.parametrize("options", [{"copy": False}, {"read_only": True}])
def test_nothing_is_copied(tree, volume, options):
    assert sh(Container(f"rootfs:{tree}").volume(volume, "/data", **options), "ls /data") == ""


def test_an_empty_volume_belongs_to_the_containers_user(volume, privilege):
    """So that the payload can use it, where the image has nothing at that place."""
    if privilege == "single":
        pytest.skip("there is one id")
    box = HOST.user("1000:1001").volume(volume, "/v")
    assert sh(box, "touch /v/f; stat -c %u:%g /v /v/f") == "1000:1001\n1000:1001\n"


def test_a_user_by_name(volume, privilege):
    if privilege == "single":
        pytest.skip("there is one id")
    assert sh(HOST.user("nobody").volume(volume, "/v"), "touch /v/f; stat -c %u /v") == "65534\n"


def test_what_a_killed_one_had_begun_to_copy_is_begun_anew(tree, volume):
    begun = Path(volume.path).parent / "data.new"
    begun.mkdir()
    (begun / "half").write_text("x")
    assert sh(Container(f"rootfs:{tree}").volume(volume, "/data"), "ls /data") == "closed\nother\nsub\n"
    assert not begun.exists()


def test_many_fill_one(tree, name):
    """Threads that start at once see all of it, or nobody would know what is missing."""
    box, seen = Container(f"rootfs:{tree}").volume(name, "/data"), []
    threads = [threading.Thread(target=lambda: seen.append(sh(box, "ls /data"))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == ["closed\nother\nsub\n"] * 6


# --- without a name -----------------------------------------------------------------------------------------


def test_without_a_name_it_ends_with_its_container(tree):
    box = Container(f"rootfs:{tree}").volume(None, "/data").volume(None, "/new/place").read_only()
    script = "cat /data/sub/f; echo x > /data/sub/f; echo y > /new/place/f; echo z > /f"
    done = box.run("sh", "-c", script)
    assert done.stdout == "of the image"
    assert "/f: Read-only" in done.stderr
    assert "/data" not in done.stderr
    assert sh(box, "cat /data/sub/f; ls /new/place") == "of the image"
    assert Volume.list() == ()


def test_it_is_no_change(volume):
    with HOST.volume(None, "/a").volume(volume, "/b").start(*SLEEP) as running:
        running.exec("sh", "-c", "echo > /a/f; echo > /b/f", check=True)
        assert running.diff() == ()


# --- removing -----------------------------------------------------------------------------------------------


def test_what_is_used_is_not_removed(volume):
    with HOST.volume(volume, "/v").start(*SLEEP) as running:
        assert volume.in_use
        with pytest.raises(VolumeInUse, match="used by a container") as caught:
            volume.remove()
        assert caught.value.volume == volume.name
        assert Volume.prune(all=True) == ()
        assert running.exec("touch", "/v/f").ok
    assert not volume.in_use


def test_a_killed_owner_uses_nothing(volume):
    code = f"""
        import time
        from pycontain import Container
        running = Container("host:").volume({volume.name!r}, "/v").start("sh", "-c", "echo x > /v/f; sleep 1000")
        while not running.files.exists("/v/f"):
            pass
        print("ready", flush=True)
        time.sleep(1000)
    """
    with start_owner(code) as owner:
        assert owner.stdout.readline() == "ready\n"
        with pytest.raises(VolumeInUse):
            volume.remove()
        owner.send_signal(signal.SIGKILL)
        owner.communicate()
    assert not volume.in_use
    assert Path(volume.path, "f").read_text() == "x\n"


def test_all_that_is_in_it_goes(name, privilege):
    """Also what belongs to users of whom the owner is none, and is closed to it."""
    box = HOST.volume(name, "/v")
    sh(box, "mkdir -p /v/a/b; touch /v/a/b/f; chmod 0 /v/a/b; chmod 0 /v/a")
    if privilege != "single":
        sh(box, "mkdir /v/theirs; touch /v/theirs/f; chmod 700 /v/theirs; chown -R 1000:1000 /v/theirs")
    assert Volume(name).usage().entries == (5 if privilege != "single" else 3)
    Volume(name).remove()
    assert os.listdir(folder()) == [".locks"]
    assert name not in os.listdir(f"{folder()}/.locks")


def test_there_is_no_such_volume(name):
    for act in (lambda: Volume.find(name), lambda: Volume.find("../x"), lambda: Volume.find(".locks")):
        with pytest.raises(VolumeNotFound, match="no volume"):
            act()
    with Volume(name) as volume:
        volume.remove()
        with pytest.raises(VolumeNotFound):
            volume.remove()
        with pytest.raises(LookupError):
            volume.inspect()


def test_a_block_removes_what_it_has_made(name):
    with Volume(name) as first:
        assert first.made
        with Volume(name) as second:
            assert not second.made
            assert first == second
        assert Path(first.path).is_dir()
    assert not Path(first.path).exists()


def test_pruning(name):
    named, without = Volume(name), Volume()
    assert Volume.prune() == (without.name,)
    assert [volume.name for volume in Volume.list()] == [named.name]
    assert Volume.prune(all=True) == (name,)


def test_what_was_left_behind_is_swept(volume):
    """By one that was killed when it made or removed a volume."""
    for left in (".new-1234", ".trash-5678"):
        Path(folder(), left, "data").mkdir(parents=True)
    Volume().remove()
    assert sorted(os.listdir(folder())) == [".locks", volume.name]


# --- making -------------------------------------------------------------------------------------------------


def test_one_of_many_makes_it(name):
    made = []
    threads = [threading.Thread(target=lambda: made.append(Volume(name).made)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [False] * 7 + [True]


def test_labels(name):
    with Volume(name, labels={"team": "x"}) as volume:
        assert Volume(name).labels == volume.labels == {"team": "x"}
        assert volume.inspect()["Labels"] == {"team": "x"}
        with pytest.raises(VolumeError, match="other labels"):
            Volume(name, labels={"team": "y"})


def test_a_plan_makes_nothing(name):
    assert folder() in str(HOST.volume(name, "/v").plan("true"))
    assert Volume.list() == ()


@pytest.mark.parametrize("wrong", ["", "a/b", ".hidden", "x" * 200, "a b", 3])
def test_a_name_that_is_none(wrong):
    for act in (lambda: Volume(wrong), lambda: HOST.volume(wrong, "/v")):
        with pytest.raises(InvalidSpec, match="no name for a volume"):
            act()


def test_a_place_that_is_taken(volume, tmp_path):
    with pytest.raises(InvalidSpec, match="already something"):
        HOST.tmpfs("/v").volume(volume, "/v")
    with pytest.raises(InvalidSpec, match="already something"):
        HOST.volume(volume, "/v").mount(tmp_path, "/v")
    with pytest.raises(InvalidSpec, match="read-only"):
        HOST.volume(None, "/v", read_only=True)


def test_a_folder_that_cannot_be_used(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PYCONTAIN_VOLUMES", str(tmp_path / "file" / "volumes"))
    with pytest.raises(VolumeError, match="cannot be used"):
        Volume("x")
    with pytest.raises(VolumeError, match="cannot be used"):
        HOST.volume("x", "/v").run("true")


# --- on the command line ------------------------------------------------------------------------------------


def test_the_command_line(name, capsys):
    def pycontain(*words):
        return main(["volume", *words]), capsys.readouterr().out

    assert pycontain("create", name, "--label", "a=b") == (0, f"{name}\n")
    run = [
        sys.executable,
        "-m",
        "pycontain",
        "run",
        "-v",
        f"{name}:/v",
        "-v",
        f"{name}:/w:ro",
        "host:",
        "sh",
        "-c",
    ]
    done = subprocess.run(
        [*run, "echo x > /v/f; cat /w/f; echo > /w/f"], capture_output=True, text=True, check=False
    )
    assert done.stdout == "x\n"
    assert "Read-only" in done.stderr
    code, out = pycontain("ls")
    assert (code, out.split("\n")[1].split()[0]) == (0, name)
    assert pycontain("ls", "-q") == (0, f"{name}\n")
    (found,) = json.loads(pycontain("inspect", name)[1])
    assert (found["Name"], found["Labels"]) == (name, {"a": "b"})
    assert pycontain("prune") == (0, "")
    assert pycontain("rm", name) == (0, f"{name}\n")
    assert pycontain("rm", name) == (125, "")
    assert pycontain("rm") == (125, "")


def test_where_nobody_has_made_a_volume_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("PYCONTAIN_VOLUMES", str(tmp_path / "none"))
    assert Volume.list() == ()
    assert not (tmp_path / "none").exists()
