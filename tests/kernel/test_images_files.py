"""Images by name, in files and on the command line: what goes out comes back, and is the same image."""

import io
import json
import os
import subprocess
import sys
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from busybox_images import (
    HERE,
    busybox_layer,
    docker_save,
    image,
    index_of,
    push_test_image,
    root,
    write_layout,
)
from busybox_images import store as store  # noqa: PLC0414 - a fixture
from layer_tree import File, layer
from trees import busybox_tree

import pycontain
from pycontain import Container
from pycontain.commands.tables import age, table
from pycontain.errors import ImageNotFound, InvalidImage, InvalidReference, InvalidSpec, StoreError
from pycontain.image import Image
from pycontain.image.progress import size_text
from pycontain.image.runnable import runnable
from pycontain.oci.config import ExecutionParameters
from pycontain.oci.platform import Platform
from pycontain.runtime import engine as engines

sys.path.append(str(Path(__file__).parent.parent / "against"))  # the registry is started there
from registry_server import serve_registry

CLI = (sys.executable, "-m", "pycontain")


def version_of(made):
    """What is written in exactly this image, as it is unpacked."""
    top = runnable(made.source, engines.engine()).rootfs.lowerdirs[0]
    return (Path(top) / "etc/version").read_text(encoding="ascii")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serve_registry(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture
def layers(tmp_path):
    return busybox_layer(tmp_path), layer(root(File("etc/version", b"12\n")))


@pytest.fixture
def app(store, tmp_path, layers):
    """An image in the store, called app:1."""
    archive = docker_save(tmp_path / "app.tar", {"app:1": image(*layers, cmd=("cat", "/etc/version"))})
    (loaded,) = Image.load(archive)
    return loaded


# --- values ---------------------------------------------------------------------------------------------


def test_an_image_says_what_it_is(app, layers):
    assert str(app) == "app:1"
    assert app.references == ("app:1",)
    assert app.id == app.inspect()["Id"] != app.digest
    assert app.digest.startswith("sha256:")
    assert len(app.layers) == 2
    assert app.size > len(layers[0])
    assert app.created is None
    assert app.inspect()["Config"] == {"Cmd": ["cat", "/etc/version"]}


def test_the_same_image_found_twice_is_equal(app):
    assert {Image.find("app:1"), Image.find("docker.io/library/app:1"), Image.find(app.id)} == {app}


def test_an_image_is_found_by_the_beginning_of_its_id(app):
    assert Image.find(app.id.removeprefix("sha256:")[:8]) == app
    assert Image.find(app.digest) == app


def test_an_image_that_is_not_there_is_answered_with_the_one_that_was_meant(app):
    with pytest.raises(ImageNotFound) as caught:
        Image.find("apps:1")
    assert caught.value.__notes__ == ["did you mean app:1?"]
    with pytest.raises(ImageNotFound):
        Image.find("sha256:" + "0" * 64)


def test_the_host_is_an_image_too(store):
    host = Image.host()
    assert host.layers == ()
    assert Image.find("host:") == host
    assert runnable(host.source, engines.engine()).rootfs.binds


def test_history_has_a_step_for_each_layer(app):
    steps = app.history()
    assert [step.digest for step in steps] == [str(one.descriptor.digest) for one in reversed(app.layers)]


def test_a_name_may_be_given_and_taken(app):
    app.tag("other:2")
    assert set(app.references) == {"app:1", "other:2"}
    app.untag("app:1")
    assert Image.find("other:2").references == ("other:2",)
    with pytest.raises(ImageNotFound) as caught:
        app.untag("app:1")
    assert caught.value.__notes__ == ["it has other:2"]


def test_a_removed_image_is_gone_with_its_blobs(store, app):
    assert app.remove().bytes >= app.size
    assert store.usage().bytes == 0
    with pytest.raises(ImageNotFound):
        Image.find("app:1")


# --- out and in -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", ["oci", "docker"])
def test_a_saved_image_comes_back_as_the_same(store, app, tmp_path, format_):
    app.save(tmp_path / "saved.tar", format_)
    app.remove()
    (back,) = Image.load(tmp_path / "saved.tar")
    assert (back.id, back.digest, str(back)) == (app.id, app.digest, "app:1")
    assert version_of(back) == "12\n"


@pytest.mark.parametrize("format_", ["oci", "docker"])
def test_several_images_in_one_stream(store, app, layers, tmp_path, format_):
    (other,) = Image.load(docker_save(tmp_path / "o.tar", {"other:2": image(*layers, user="1")}))
    stream = io.BytesIO()
    app.save(stream, format_, also=[other])
    assert [str(one) for one in Image.load(io.BytesIO(stream.getvalue()))] == ["app:1", "other:2"]
    with tarfile.open(fileobj=io.BytesIO(stream.getvalue())) as tar:
        names = tar.getnames()
    assert len(names) == len(set(names))


def test_an_archive_is_the_same_every_time(app):
    streams = io.BytesIO(), io.BytesIO()
    for stream in streams:
        app.save(stream)
    assert streams[0].getvalue() == streams[1].getvalue()


def test_an_archive_is_whole_or_not_there(store, app, tmp_path):
    """A layer that was damaged in the store must not end up in a file that looks complete."""
    path = Path(store.blobs.path(app.layers[0].descriptor.digest))
    content = bytearray(path.read_bytes())
    content[-600] ^= 1
    path.write_bytes(content)
    (tmp_path / "saved.tar").write_text("before")
    with pytest.raises(InvalidImage):
        app.save(tmp_path / "saved.tar")
    assert (tmp_path / "saved.tar").read_text() == "before"
    assert "saved.tar" in os.listdir(tmp_path)
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".part")]


def test_a_file_that_cannot_be_written_is_named(app, tmp_path):
    with pytest.raises(StoreError, match="nowhere"):
        app.save(tmp_path / "nowhere" / "saved.tar")


def test_an_image_without_a_name_gets_one_from_its_digest(store, tmp_path, layers):
    (loaded,) = Image.load(write_layout(tmp_path / "layout", **{"1.0": image(*layers)}))
    assert str(loaded) == f"localhost/image@{loaded.digest}"
    store.gc()
    assert Image.find(loaded.id) == loaded


def test_an_image_found_in_a_layout_is_kept_as_long_as_it_is_held(store, tmp_path, layers):
    found = Image.find(f"oci:{write_layout(tmp_path / 'layout', **{'1': image(*layers)})}:1")
    store.gc()
    assert version_of(found) == "12\n"
    pycontain.shutdown()
    del found
    assert store.gc().bytes


def test_loading_what_is_there_is_no_harm(app, tmp_path, layers):
    again = docker_save(tmp_path / "again.tar", {"app:1": image(*layers, cmd=("cat", "/etc/version"))})
    assert Image.load(again) == (app,)


@pytest.mark.parametrize("format_", ["tar", ""])
def test_a_format_that_there_is_not(app, tmp_path, format_):
    with pytest.raises(InvalidSpec) as caught:
        app.save(tmp_path / "x", format_)
    assert caught.value.__notes__ == ["use one of oci, docker"]


def test_an_archive_that_is_not_there(store, tmp_path):
    with pytest.raises(ImageNotFound, match="nowhere"):
        Image.load(tmp_path / "nowhere")


# --- from a root file system ----------------------------------------------------------------------------


def test_a_directory_becomes_an_image_that_runs(store, tmp_path):
    tree = busybox_tree(tmp_path / "tree")
    (tree / "private").mkdir(mode=0o700)
    made = Image.from_rootfs(tree, tag="tree:1", config=ExecutionParameters(entrypoint=("echo",)))
    done = Container("tree:1").run("hello")
    assert (made.references, done.stdout) == (("tree:1",), "hello\n")
    owned = Container("tree:1").entrypoint().run("stat", "-c", "%u:%g %a", "/private").stdout
    assert owned == "0:0 700\n"


def test_the_same_directory_gives_the_same_image(store, tmp_path):
    tree = busybox_tree(tmp_path / "tree")
    assert Image.from_rootfs(tree) == Image.from_rootfs(tree)


def test_a_tar_becomes_an_image(store, tmp_path, layers):
    (tmp_path / "root.tar").write_bytes(layers[0])
    assert Image.from_rootfs(tmp_path / "root.tar").layers[0].diff_id.hex
    Image.from_rootfs(tmp_path / "root.tar", tag="tar:1")
    assert Container("tar:1").run("echo", "x").stdout == "x\n"


@pytest.mark.parametrize("content", [b"", b"x" * 5000])
def test_what_is_no_tar_becomes_no_image(store, tmp_path, content):
    (tmp_path / "root.tar").write_bytes(content)
    with pytest.raises(InvalidImage):
        Image.from_rootfs(tmp_path / "root.tar")
    assert store.images() == ()


# --- the command line -----------------------------------------------------------------------------------


def cli(*words, **options):
    return subprocess.run([*CLI, *words], capture_output=True, timeout=60, check=False, **options)


def lines(*words):
    done = cli(*words, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_images_lists_them(app):
    short = app.id.partition(":")[2][:12]
    assert lines("images")[1].split()[:2] == ["app:1", short]
    assert lines("images", "-q") == [short]
    assert json.loads("\n".join(lines("images", "--json")))[0]["digest"] == app.digest
    assert len(lines("images", "other*")) == 1


def test_tag_and_rmi(app):
    lines("tag", "app:1", "new:2")
    assert lines("rmi", "app:1")[0] == "removed app:1"
    assert lines("rmi", app.id) == ["removed new:2", f"freed {size_text(app.size)}"]


def test_save_and_load_through_a_pipe(app, tmp_path):
    saved = cli("save", "app:1").stdout
    lines("rmi", "app:1")
    assert cli("load", input=saved).stdout == b"loaded app:1\n"
    lines("save", "--format", "oci", "-o", str(tmp_path / "x.tar"), "app:1")
    assert lines("load", "-i", str(tmp_path / "x.tar")) == ["loaded app:1"]


def test_inspect_and_history(app):
    (facts,) = json.loads("\n".join(lines("inspect", "app:1")))
    assert facts["Id"] == app.id
    assert len(lines("history", "app:1")) == 3


def test_run_asks_the_registry_when_it_is_told_to(store, server, layers):
    reference = push_test_image(server.address, f"app{os.urandom(4).hex()}:1", image(*layers))
    name = reference.partition("/")[2]
    never = cli("run", "--pull", "never", reference, "true", text=True)
    assert (never.returncode, never.stderr.startswith(f"pycontain: the store has no image {reference}")) == (
        125,
        True,
    )
    assert lines("run", reference, "ls", "/") == lines("run", "--pull", "never", reference, "ls", "/")
    push_test_image(server.address, name, image(*layers, layer(root(File("moved")))))
    assert "moved" not in lines("run", reference, "ls", "/")
    assert "moved" in lines("run", "--pull", "always", reference, "ls", "/")


def test_run_takes_another_platform(store, server, layers):
    foreign = image(*layers, platform=Platform("linux", "s390x"), cmd=("echo", "as if there"))
    several = index_of({"linux/s390x": foreign, str(HERE): image(*layers)})
    reference = push_test_image(server.address, f"app{os.urandom(4).hex()}:1", several)
    assert lines("run", "--platform", "linux/s390x", reference) == ["as if there"]
    wrong = cli("plan", "--platform", "linux/riscv64", reference, text=True)
    assert wrong.returncode == 125
    assert "linux/s390x" in wrong.stderr


def test_pull_and_push(store, server, layers):
    reference = push_test_image(server.address, f"app{os.urandom(4).hex()}:1", image(*layers))
    (digest,) = lines("pull", "-q", reference)
    assert Image.find(reference).digest == digest
    assert lines("push", "-q", reference, f"{reference}-again") == [digest]
    assert lines("pull", "-q", "--policy", "newer", f"{reference}-again") == [digest]


def test_pull_from_a_mirror(store, server, layers):
    name = f"app{os.urandom(4).hex()}:1"
    push_test_image(server.address, name, image(*layers))
    lines("pull", "-q", "--mirror", f"http://{server.address}", f"registry.invalid/{name}")
    assert Image.find(f"registry.invalid/{name}").references == (f"registry.invalid/{name}",)


def test_system_frees_and_verifies(store, app):
    assert lines("system", "df")[0] == f"1 images in {store.path}"
    assert lines("system", "verify")[0].startswith("read 4 blobs")
    assert "would be forgotten: docker.io/library/app:1" in lines(
        "system", "prune", "--max-bytes", "0", "--dry-run"
    )
    assert "forgotten: docker.io/library/app:1" in lines("system", "prune", "--max-bytes", "0")
    assert store.usage().bytes == 0


@pytest.mark.parametrize(
    "words",
    [
        ("images", "--nonsense"),
        ("rmi", "nope"),
        ("inspect", "nope"),
        ("save", "nope", "-o", "/nonexistent/x"),
        ("load", "-i", "/nonexistent"),
        ("tag", "nope", "x"),
        ("push", "nope"),
        ("pull", "host:"),
        ("pull", "--username", "x", "r.example/x"),
        ("system", "prune", "--max-bytes", "much"),
        ("history", "UPPER"),
    ],
)
def test_a_mistake_is_one_sentence_and_a_hint(store, words):
    done = cli(*words, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 125
    assert done.stderr.startswith("pycontain: ")
    assert "Traceback" not in done.stderr


def test_an_image_that_was_never_named_cannot_be_pushed_nowhere(store, tmp_path, layers):
    (loaded,) = Image.load(write_layout(tmp_path / "layout", **{"1.0": image(*layers)}))
    with pytest.raises(InvalidReference, match="0 names"):
        loaded.push()


# --- small things ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (None, ""),
        (datetime(2026, 1, 1, tzinfo=UTC), "just now"),
        (datetime(2025, 12, 31, 23, 58, tzinfo=UTC), "2 minutes ago"),
        (datetime(2025, 12, 31, tzinfo=UTC), "1 day ago"),
        (datetime(2020, 1, 1, tzinfo=UTC), "6 years ago"),
    ],
)
def test_ages(moment, text):
    assert age(moment, datetime(2026, 1, 1, tzinfo=UTC)) == text


def test_a_table_without_rows():
    assert table(("A", "B"), ()) == "A  B\n"
