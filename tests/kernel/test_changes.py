"""``Running.diff`` and ``Running.commit``: what a container has written, and an image of it."""

import json
import os
import shutil
import subprocess

import pytest
from trees import busybox_tree

import pycontain
from pycontain import Change, Container, Image
from pycontain.errors import HostUnsupported, ImageError, InvalidSpec, SandboxError, UnsupportedEntry
from pycontain.testing import temporary_store

SLEEP = ("sleep", "infinity")
TOOLS = ("chmod", "chown", "md5sum", "cp", "find", "ln", "mkdir", "mkfifo", "mv", "rm", "touch", "xargs")
CHANGES = """
set -e
echo new > /etc/conf; rm /etc/other; chmod 750 /kept
mkdir -p /new/deep; echo q > /new/deep/f; ln /new/deep/f /new/hard; chmod 4751 /new/deep/f
ln -s /etc/conf /new/link; mkfifo /new/fifo; touch -t 200001010000 /new/old; echo > /new/ä
rm -r /gone; rm -r /replaced; mkdir /replaced; echo fresh > /replaced/same
rm /file; mkdir /file; mv /folder/inner /file/moved; rm -r /folder; echo > /folder
"""
STATUS = "find / -xdev -path /proc -prune -o -print | xargs stat -c '%n %f %u:%g %h %Y %N'; find / -xdev -type f | xargs md5sum"


@pytest.fixture(scope="module")
def store():
    """A store for all tests here."""
    with temporary_store() as made:
        yield made


@pytest.fixture(scope="module")
def image(store, tmp_path_factory):
    top = busybox_tree(tmp_path_factory.mktemp("base") / "root")
    for name in TOOLS:
        os.symlink("busybox", top / "bin" / name)
    for name in ("etc", "kept", "gone", "replaced", "folder/inner", "data"):
        (top / name).mkdir(parents=True)
    for name in (
        "etc/conf",
        "etc/other",
        "gone/f",
        "replaced/old",
        "replaced/same",
        "file",
        "folder/inner/f",
        "data/f",
    ):
        (top / name).write_text(name)
    for name in ("lib", "lib64"):  # with /usr of the host there is Python
        os.symlink(f"usr/{name}", top / name)
    top.chmod(0o755)
    made = Image.from_rootfs(top, tag="base:1", config=pycontain.ExecutionParameters(volumes=("/data",)))
    Container(made).run("true", check=True)  # from now on this process holds a lease on it
    return made


@pytest.fixture
def base(image):
    return Container(image)


@pytest.fixture(params=["on disk", "in memory", "in the host's user namespace"])
def container(request, base, privilege):
    if privilege != "root" and "host" in request.param:
        pytest.skip("an ordinary user's are all the same")
    return {
        "on disk": base,
        "in memory": base.limits(disk="16M"),
        "in the host's user namespace": base.userns("host"),
    }[request.param]


def sh(running, script):
    return running.exec("sh", "-c", script, check=True).stdout


def changed(running):
    return [str(change) for change in running.diff()]


def status_of(running):
    """Every file but those that are mounted, as the payload sees them."""
    mounts = {line.split()[4] for line in running.exec("cat", "/proc/1/mountinfo").stdout.splitlines()} - {
        "/"
    }
    lines = sh(running, STATUS).splitlines()
    # A start makes places in these two, so their times are its own.
    return sorted(
        line for line in lines if not mounts & set(line.split()) and not line.startswith(("/ ", "/etc "))
    )


# --- changes ------------------------------------------------------------------------------------------------


def test_nothing_is_changed_by_a_start(container):
    """Although it has made the places for what is mounted."""
    rich = container.tmpfs("/a/scratch").file("/etc/app/x.conf", "x").secret("token", "s").workdir("/")
    with rich.mount("/usr", "/host/usr", read_only=True).start(*SLEEP) as running:
        assert running.diff() == ()


def test_what_is_changed(container):
    with container.start(*SLEEP) as running:
        sh(running, CHANGES)
        assert changed(running) == [
            *("C /etc", "C /etc/conf", "D /etc/other"),
            *("C /file", "A /file/moved", "A /file/moved/f"),
            *("C /folder", "D /gone", "C /kept"),
            *(
                "A /new",
                "A /new/deep",
                "A /new/deep/f",
                "A /new/fifo",
                "A /new/hard",
                "A /new/link",
                "A /new/old",
            ),
            "A /new/ä",
            *("C /replaced", "D /replaced/old", "C /replaced/same"),
        ]


def test_a_change_is_a_value(base):
    with base.start(*SLEEP) as running:
        sh(running, "echo > /new")
        assert running.diff() == (Change("added", "/new"),)
        assert running.diff()[0].kind == "added"


def test_a_change_that_is_taken_back(base):
    with base.start(*SLEEP) as running:
        sh(running, "touch /new /etc/new; mkdir -p /a/b; rm -r /new /etc/new /a")
        assert running.diff() == ()


def test_what_is_mounted_is_no_change(container, tmp_path):
    (tmp_path / "given").mkdir()
    rich = container.tmpfs("/a/scratch").file("/etc/app.conf", "x").mount(tmp_path / "given", "/b/given")
    with rich.start(*SLEEP) as running:
        sh(
            running,
            "echo > /a/scratch/f; echo > /etc/app.conf; echo > /b/given/f; echo >> /etc/hosts; echo > /a/own",
        )
        assert changed(running) == ["A /a", "A /a/own"]


def test_volumes_are_no_change(base):
    """As for Docker, where they lie elsewhere."""
    with base.start(*SLEEP) as running:
        sh(running, "echo > /data/new; ln /data/new /link")
        assert changed(running) == ["A /link"]
        assert Container(running.commit()).run("sh", "-c", "ls /data; cat /link").stdout == "f\n\n"


def test_a_name_that_no_layer_can_hold(base):
    with base.start(*SLEEP) as running:
        sh(running, "echo x > /.wh.name")
        assert changed(running) == ["A /.wh.name"]
        with pytest.raises(UnsupportedEntry, match=r"\.wh\.name"):
            running.commit()


def test_what_host_has_changed(store):
    with Container("host:").start(*SLEEP) as running:
        sh(running, "mkdir -p /srv/new; echo x > /srv/new/f; echo > /etc/own")
        assert [line for line in changed(running) if line.startswith("A")] == [
            "A /etc/own",
            "A /srv/new",
            "A /srv/new/f",
        ]


def test_a_container_that_has_ended(base):
    with base.start("true") as running:
        running.wait()
        with pytest.raises(SandboxError, match="has exited"):
            running.diff()
        with pytest.raises(SandboxError, match="has exited"):
            running.commit()


# --- an image of it -----------------------------------------------------------------------------------------


def test_the_image_is_what_the_container_was(container):
    with container.start(*SLEEP) as running:
        sh(running, CHANGES)
        before = status_of(running)
        made = running.commit("after:1")
    with Container("after:1").start(*SLEEP) as running:
        assert status_of(running) == before
        assert running.diff() == ()
    assert made.references == ("after:1",)


def test_owners(container, privilege):
    if privilege == "single":
        pytest.skip("there is one id")
    with container.start(*SLEEP) as running:
        sh(running, "mkdir /d; chown 12:34 /d; touch /d/f; chown 65534:65534 /d/f; chown 7 /etc/conf")
        made = running.commit()
    assert (
        Container(made).run("stat", "-c", "%u:%g", "/d", "/d/f", "/etc/conf").stdout
        == "12:34\n65534:65534\n7:0\n"
    )


def test_attributes(container, privilege):
    """user.*, and the capabilities of a file, which in a user namespace are those of its root."""
    python = container.mount("/usr", "/usr", read_only=True)
    script = """
import os, struct
open("/f", "w").close()
try:
    os.setxattr("/f", "user.note", b"x")
except OSError as error:  # tmpfs before Linux 6.6, where the layers may be
    assert error.errno == 95
os.setxattr("/f", "security.capability", struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0))
"""
    look = """
import os
print(*sorted(os.listxattr("/f")), os.getxattr("/f", "security.capability").hex())
"""
    with python.capabilities(add=["SETFCAP"]).start(*SLEEP) as running:
        done = running.exec("/usr/bin/python3", "-c", script)
        assert done.ok, done.stderr
        before = running.exec("/usr/bin/python3", "-c", look).stdout
        made = running.commit()
    done = Container(made).mount("/usr", "/usr", read_only=True).run("/usr/bin/python3", "-c", look)
    assert done.stdout == before, done.stderr
    assert before.endswith(f" {'01000002' + '00040000' + '0' * 24}\n")


def test_the_root_itself(container):
    with container.start(*SLEEP) as running:
        sh(running, "chmod 711 /")
        assert changed(running) == ["C /"]
        made = running.commit()
    assert Container(made).run("stat", "-c", "%a", "/").stdout == "711\n"


def test_commits_lie_on_one_another(base):
    with base.start(*SLEEP) as running:
        sh(running, "rm -r /replaced; mkdir /replaced; echo 1 > /replaced/f; echo 1 > /gone/new")
        first = running.commit()
    with Container(first).start(*SLEEP) as running:
        sh(running, "rm -r /gone; echo 2 > /replaced/g")
        assert changed(running) == ["D /gone", "C /replaced", "A /replaced/g"]
        second = running.commit()
    assert len(second.layers) == 3
    assert Container(second).run("ls", "/", "/replaced").stdout.split("\n\n")[1] == "/replaced:\nf\ng\n"
    assert "gone" not in Container(second).run("ls", "/").stdout.split()


def test_a_commit_changes_nothing_of_the_container(base):
    with base.start(*SLEEP) as running:
        sh(running, "echo 1 > /new")
        running.commit()
        assert (running.status, changed(running)) == ("running", ["A /new"])
        sh(running, "echo 2 > /new")
        assert Container(running.commit()).run("cat", "/new").stdout == "2\n"


def test_what_the_image_says(base):
    before = base.env(SECRET="s")
    with before.start(*SLEEP) as running:
        made = running.commit(
            "said:1",
            message="why",
            author="me",
            changes=['CMD ["cat", "/etc/conf"]', "ENV A=b", "USER 0", "LABEL x=y", "WORKDIR /etc"],
        )
    step, *_ = made.history()
    assert (step.comment, step.created_by, made.config.author) == ("why", "pycontain commit", "me")
    assert dict(made.config.config.labels) == {"x": "y"}
    assert made.config.config.env == ("A=b",)  # not the container's own
    assert made.config.config.volumes == ("/data",)
    assert Container(made).run().stdout == "etc/conf"


def test_of_images_that_run_alike_it_is_the_right_one(base):
    """A name moves to an image that differs in what does not matter to a start."""
    with base.start(*SLEEP) as running:
        for label in ("x", "y"):
            running.commit("moves:1", changes=[f"LABEL which={label}"])
            with Container("moves:1").start(*SLEEP) as moved:
                assert dict(moved.commit().config.config.labels) == {"which": label}


def test_wrong_changes_are_all_named(base):
    with base.start(*SLEEP) as running, pytest.raises(InvalidSpec) as caught:
        running.commit(changes=["RUN true", "ENV x", "CMD [1]", "USER"])
    assert len(caught.value.problems) == 4


def test_an_image_without_a_name(base):
    with base.start(*SLEEP) as running:
        sh(running, "echo > /new")
        made = running.commit()
    assert Image.find(made.id) == made


def test_a_root_file_system_becomes_an_image(store, tmp_path):
    with Container(f"rootfs:{busybox_tree(tmp_path / 'root')}").start(*SLEEP) as running:
        sh(running, "echo x > /new")
        made = running.commit()
    assert len(made.layers) == 2
    assert Container(made).run("cat", "/new").stdout == "x\n"


def test_host_has_no_layers(store):
    with Container("host:").start(*SLEEP) as running, pytest.raises(ImageError, match="no layers"):
        running.commit()


def test_it_stands_still_meanwhile(base):
    with base.start(*SLEEP) as running:
        hints = "pause=False"
        try:
            running.commit(pause=True)
        except HostUnsupported as error:
            hints = "".join(error.__notes__)
        assert "pause=False" in hints
        assert running.status == "running"
        running.commit(pause=False)


def test_other_programs_read_it(base, store, tmp_path):
    with base.start(*SLEEP) as running:
        sh(running, CHANGES)
        made = running.commit("docker.io/library/read:1")
    if shutil.which("skopeo") is None or shutil.which("umoci") is None:
        pytest.skip("needs skopeo and umoci")
    name = "docker.io/library/read:1"
    said = subprocess.run(["skopeo", "inspect", f"oci:{store.path}:{name}"], check=True, capture_output=True)
    assert json.loads(said.stdout)["Digest"] == made.digest
    command = ["umoci", "unpack", "--rootless", "--image", f"{store.path}:{name}", tmp_path / "bundle"]
    if os.geteuid() == 0:
        command.remove("--rootless")
    subprocess.run(command, check=True, capture_output=True)
    root = tmp_path / "bundle" / "rootfs"
    assert (root / "etc" / "conf").read_text() == "new\n"
    assert (root / "new" / "hard").stat().st_nlink == 2
    assert sorted(os.listdir(root / "replaced")) == ["same"]
    assert not (root / "gone").exists()
