"""``Running.files``: what is inside, read, written and copied from outside, as whoever runs the tests."""

import contextlib
import errno
import io
import os
import pickle
import signal
import stat
import threading
from pathlib import Path

import pytest
from owners import comes_true, run_owner
from trees import busybox_tree

from pycontain import Container, Copied
from pycontain.errors import (
    InvalidSpec,
    PathError,
    PathExists,
    PathForbidden,
    PathIsDirectory,
    PathIsNoDirectory,
    PathIsNoFile,
    PathNotFound,
    PathTooLarge,
    SandboxError,
)
from pycontain.kernel.descriptors import pid_of
from pycontain.runtime import engine as engines

HOST = Container("host:")
SLEEP = ("sleep", "infinity")


@pytest.fixture(scope="module")
def running():
    """One container for all tests that leave nothing of it changed but below /work."""
    with HOST.tmpfs("/scratch").start(*SLEEP) as started:
        yield started


@pytest.fixture
def clean_machine(running):
    """The container above is there before and after, so its opener is no leak."""
    running.files.list("/")


@pytest.fixture
def work(running):
    """An empty directory inside."""
    path = f"/work-{os.urandom(4).hex()}"
    running.files.mkdir(path)
    yield path
    running.files.remove(path, recursive=True)


def sh(running, script):
    return running.exec("sh", "-c", script, check=True).stdout


# --- reading ------------------------------------------------------------------------------------------------


def test_text_and_bytes_come_back(running, work):
    running.files.write_text(f"{work}/f", "grüß\n")
    assert running.files.read_text(f"{work}/f") == "grüß\n"
    assert running.files.read_bytes(f"{work}/f") == "grüß\n".encode()
    assert sh(running, f"cat {work}/f") == "grüß\n"


def test_what_the_payload_writes_is_read(running, work):
    sh(running, f"printf abc > {work}/f; chmod 640 {work}/f")
    found = running.files.stat(f"{work}/f")
    assert (found.kind, found.mode, found.size, found.uid, found.is_file) == ("file", 0o640, 3, 0, True)


def test_mounts_are_seen_as_the_payload_sees_them(running):
    """A tmpfs, a file that was installed, and /proc of the container's own processes."""
    running.files.write_text("/scratch/f", "x")
    assert sh(running, "cat /scratch/f") == "x"
    assert running.files.read_text("/etc/hostname").strip() == sh(running, "hostname").strip()
    assert "pycontain-init" in running.files.read_text("/proc/1/status")  # which says that it has 0 bytes


def test_secrets_are_read():
    with HOST.secret("token", "s").start(*SLEEP) as started:
        assert started.files.read_text("/run/secrets/token") == "s"


def test_a_link_leads_to_a_place_inside(running, work):
    sh(
        running,
        f"echo inside > {work}/f; ln -s /../../../../{work}/f {work}/link; ln -s nowhere {work}/dangling",
    )
    assert running.files.read_text(f"{work}/link") == "inside\n"
    assert running.files.stat(f"{work}/link", follow=False).target == f"/../../../../{work}/f"
    assert running.files.exists(f"{work}/link")
    assert not running.files.exists(f"{work}/dangling")


def test_a_file_without_any_mode_is_read(running, work):
    sh(running, f"echo x > {work}/f; chmod 0 {work}/f; mkdir {work}/d; echo y > {work}/d/f; chmod 0 {work}/d")
    assert running.files.read_text(f"{work}/f") == "x\n"
    assert running.files.list(f"{work}/d") == ("f",)


def test_more_than_the_caller_wants_to_hold(running, work):
    """A file may be as large as the payload likes: this one would fill the memory of any machine."""
    sh(running, f"truncate -s 1T {work}/f")
    with pytest.raises(PathTooLarge, match="more than 1024 bytes") as caught:
        running.files.read_bytes(f"{work}/f", max_size="1K")
    assert (caught.value.path, caught.value.errno) == (f"{work}/f", errno.EFBIG)


def test_a_file_that_never_ends_is_read_to_the_limit(running, work):
    """A process appends faster than anybody reads."""
    writer = f"(while :; do head -c 1M /dev/zero; done > {work}/f) & sleep 0.05; kill $!"
    thread = threading.Thread(target=sh, args=(running, writer))
    thread.start()
    try:
        running.files.read_bytes(f"{work}/f", max_size="256K")
    except (PathTooLarge, PathNotFound):
        pass
    thread.join()


@pytest.mark.parametrize("kind", ["fifo", "device", "socket"])
def test_what_could_wait_for_ever_is_refused(running, work, kind):
    path = f"{work}/f"
    make = {
        "fifo": f"mkfifo {path}",
        "device": f"ln -s /dev/zero {path}",
        "socket": f"python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"{path}\")'",
    }
    sh(running, make[kind])
    with pytest.raises(PathIsNoFile, match=kind):
        running.files.read_bytes(path)
    with pytest.raises(PathIsNoFile, match=kind):
        running.files.write_text(path, "x")
    with pytest.raises(PathIsNoFile):
        running.files.get(path, io.BytesIO())


def test_magic_links_of_proc_are_not_followed(running):
    for path in ("/proc/1/root/etc/passwd", "/proc/1/cwd", "/proc/1/exe", "/proc/1/fd/0"):
        with pytest.raises(PathError):
            running.files.read_bytes(path)


def test_names_are_listed_in_order(running, work):
    sh(running, f"cd {work}; touch b a c; mkdir d")
    assert running.files.list(work) == ("a", "b", "c", "d")


def test_a_directory_with_more_names_than_a_packet_holds(running, work):
    sh(running, f"cd {work}; seq -f name-%g 2000 | xargs touch")
    assert len(running.files.list(work)) == 2000


def test_names_that_are_no_text(running, work):
    sh(running, f"cd {work}; touch \"$(printf 'a\\377b')\"")
    (name,) = running.files.list(work)
    assert os.fsencode(name) == b"a\xffb"
    assert running.files.stat(f"{work}/{name}").size == 0


def test_walk_is_that_of_os(running, work):
    sh(running, f"cd {work}; mkdir -p a/b c; touch a/f a/b/g c/h; ln -s a link")
    found = list(running.files.walk(work))
    assert found == [
        (work, ["a", "c"], ["link"]),
        (f"{work}/a", ["b"], ["f"]),
        (f"{work}/a/b", [], ["g"]),
        (f"{work}/c", [], ["h"]),
    ]


def test_what_is_taken_out_is_not_walked(running, work):
    sh(running, f"cd {work}; mkdir -p a/b c")
    seen = []
    for path, folders, _ in running.files.walk(work):
        seen.append(path)
        folders[:] = [name for name in folders if name != "a"]
    assert seen == [work, f"{work}/c"]


# --- errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("act", "error", "builtin"),
    [
        (lambda files, work: files.read_text(f"{work}/nothing"), PathNotFound, FileNotFoundError),
        (lambda files, work: files.read_text(work), PathIsDirectory, IsADirectoryError),
        (lambda files, work: files.list("/etc/hostname"), PathIsNoDirectory, NotADirectoryError),
        (lambda files, work: files.write_text(work, ""), PathIsDirectory, IsADirectoryError),
        (lambda files, work: files.write_text(f"{work}/a/b", ""), PathNotFound, FileNotFoundError),
        (lambda files, work: files.mkdir(work), PathExists, FileExistsError),
        (lambda files, work: files.remove(f"{work}/nothing"), PathNotFound, FileNotFoundError),
        (lambda files, work: files.remove("/scratch"), PathError, OSError),
        (lambda files, work: files.write_text("/usr/nothing", ""), PathError, OSError),
        (lambda files, work: files.put("/nonexistent", work), PathNotFound, FileNotFoundError),
        (lambda files, work: files.get(work, "/nonexistent/place"), PathNotFound, FileNotFoundError),
    ],
)  # fmt: skip
def test_errors_are_ours_and_those_of_the_language(running, work, act, error, builtin):
    with pytest.raises(builtin) as caught:
        act(running.files, work)
    assert type(caught.value) is error
    assert pickle.loads(pickle.dumps(caught.value)).path == caught.value.path


def test_an_error_says_on_which_side_it_is(running, work, tmp_path):
    with pytest.raises(PathNotFound, match="of the host") as caught:
        running.files.put(tmp_path / "nothing", work)
    assert caught.value.on_host
    with pytest.raises(PathNotFound) as caught:
        running.files.get(f"{work}/nothing", tmp_path)
    assert not caught.value.on_host


@pytest.mark.parametrize("path", ["relative", "", "/a\0b", "/a/../b", 3])
def test_a_path_is_absolute(running, path):
    with pytest.raises(InvalidSpec):
        running.files.stat(path)


def test_a_name_longer_than_the_kernel_takes(running):
    for path in ("/" + "a" * 300, "/a" * 40_000):
        with pytest.raises(PathError):
            running.files.write_text(path, "")


# --- writing ------------------------------------------------------------------------------------------------


def test_a_file_that_is_replaced_keeps_mode_and_owner(running, work):
    sh(running, f"echo old > {work}/f; chmod 4710 {work}/f; ln {work}/f {work}/other")
    running.files.write_text(f"{work}/f", "new")
    assert (
        sh(running, f"stat -c %a {work}/f; cat {work}/f {work}/other") == "4710\nnewold\n"
    )  # it is another file


def test_modes_and_users(running, work, privilege):
    running.files.write_text(f"{work}/f", "", mode=0o600)
    assert running.files.stat(f"{work}/f").mode == 0o600
    if privilege != "single":
        running.files.write_text(f"{work}/g", "", user="1000:1001")
        running.files.write_text(f"{work}/h", "", user="nobody")
        assert sh(running, f"stat -c %u:%g {work}/g {work}/h") == "1000:1001\n65534:65534\n"


def test_files_belong_to_the_containers_user(privilege):
    if privilege == "single":
        pytest.skip("there is one id")
    with HOST.user("1000:1000").start(*SLEEP) as started:
        started.files.write_text("/tmp/f", "x")
        started.files.mkdir("/tmp/d/e", parents=True)
        assert sh(started, "stat -c %u:%g /tmp/f /tmp/d /tmp/d/e") == "1000:1000\n" * 3
        assert started.exec("touch", "/tmp/d/e/own").ok


def test_an_unknown_user(running, work, privilege):
    if privilege == "single":
        pytest.skip("there is one id")
    with pytest.raises(InvalidSpec, match="no user 'somebody'"):
        running.files.write_text(f"{work}/f", "", user="somebody")


def test_writing_follows_a_link(running, work):
    sh(running, f"cd {work}; echo x > f; ln -s f one; ln -s {work}/one two; ln -s new three; ln -s loop loop")
    running.files.write_text(f"{work}/two", "y")
    running.files.write_text(f"{work}/three", "z")
    assert sh(running, f"cat {work}/f {work}/new; readlink {work}/two") == f"yz{work}/one\n"
    with pytest.raises(PathError):
        running.files.write_text(f"{work}/loop", "")


def test_nothing_is_left_when_writing_fails(running, work):
    class Broken(io.RawIOBase):
        def read(self, _=-1):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        running.files.put(Broken(), f"{work}/f")
    assert running.files.list(work) == ()


def test_a_file_that_is_mounted_is_written_in_its_place():
    with HOST.file("/etc/app.conf", "a long first content\n").read_only().start(*SLEEP) as started:
        started.files.write_text("/etc/app.conf", "short\n")
        started.files.write_text("/etc/hosts", "127.0.0.1 me\n")
        assert sh(started, "cat /etc/app.conf /etc/hosts") == "short\n127.0.0.1 me\n"
        with pytest.raises(PathError, match="read-only"):
            started.files.write_text("/etc/other", "")


def test_directories(running, work):
    running.files.mkdir(f"{work}/a/b", parents=True, mode=0o700)
    running.files.mkdir(f"{work}/a/b", exist_ok=True)
    assert [running.files.stat(f"{work}/{path}").mode for path in ("a", "a/b")] == [0o755, 0o700]
    running.files.write_text(f"{work}/f", "")
    with pytest.raises(PathExists):
        running.files.mkdir(f"{work}/f", exist_ok=True)


def test_a_tree_is_removed_only_when_asked(running, work):
    sh(running, f"cd {work}; mkdir -p a/b/c; touch a/f a/b/g; ln -s /etc a/link; chmod 0 a/b")
    with pytest.raises(PathError, match="not empty"):
        running.files.remove(f"{work}/a")
    running.files.remove(f"{work}/a", recursive=True)
    running.files.remove(f"{work}/a", missing_ok=True)
    assert running.files.list(work) == ()
    assert running.files.exists("/etc/hostname")


def test_a_tree_that_is_deeper_than_descriptors(running, work):
    sh(running, f"cd {work}; for i in $(seq 300); do mkdir d; cd d; done; touch f")
    running.files.remove(f"{work}/d", recursive=True)
    assert running.files.list(work) == ()


def test_removing_does_not_cross_a_mount(tmp_path):
    """The host's files are no part of the tree in which they are shown."""
    (tmp_path / "precious").write_text("x")
    with (
        HOST.mount(tmp_path, "/a/b/mounted").start(*SLEEP) as started,
        pytest.raises(PathError, match="mounted"),
    ):
        started.files.remove("/a", recursive=True)
    assert (tmp_path / "precious").read_text() == "x"


# --- copying ------------------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path):
    """A tree of the host with all that a copy keeps."""
    top = tmp_path / "tree"
    (top / "sub" / "closed").mkdir(parents=True)
    (top / "run").write_text("#!/bin/sh\n")
    (top / "run").chmod(0o751)
    (top / "sub" / "closed" / "f").write_bytes(b"x" * 3_000_000)
    os.symlink("/etc/shadow", top / "link")
    os.utime(top / "run", ns=(10**18, 10**18 + 5))
    (top / "sub" / "closed").chmod(0o500)
    os.utime(top / "sub", ns=(10**18, 10**18 + 7))
    yield top
    (top / "sub" / "closed").chmod(0o700)


def shape(top):
    """Every path below *top* with type, permissions, time and content."""
    found = {}
    for path, folders, names in os.walk(top):
        for name in (*folders, *names):
            place = Path(path) / name
            status = place.lstat()
            content = (
                os.readlink(place) if place.is_symlink() else place.read_bytes() if place.is_file() else b""
            )
            mode = 0 if place.is_symlink() else stat.S_IMODE(status.st_mode)
            found[str(place.relative_to(top))] = (
                stat.S_IFMT(status.st_mode),
                mode,
                status.st_mtime_ns,
                content,
            )
    return found


def test_a_tree_goes_in_and_out_again(running, work, tree, tmp_path):
    copied = running.files.put(tree, f"{work}/new")
    assert copied == Copied(f"{work}/new", 3, 3_000_010)
    back = running.files.get(f"{work}/new", tmp_path / "back")
    assert back == Copied(str(tmp_path / "back"), 3, 3_000_010)
    assert shape(tmp_path / "back") == shape(tree)
    (tmp_path / "back" / "sub" / "closed").chmod(0o700)


def test_a_file_goes_in_and_out_again(running, work, tree, tmp_path):
    assert running.files.put(tree / "run", f"{work}/other").path == f"{work}/other"
    assert running.files.put(tree / "run", work).path == f"{work}/run"
    found = running.files.stat(f"{work}/run")
    assert (found.mode, found.mtime_ns, found.uid) == (0o751, 10**18 + 5, 0)
    assert running.files.get(f"{work}/run", tmp_path).path == str(tmp_path / "run")
    assert (tmp_path / "run").stat().st_mtime_ns == 10**18 + 5


def test_streams_are_copied(running, work):
    content = os.urandom(3_000_000)
    running.files.put(io.BytesIO(content), f"{work}/f", mode=0o600)
    out = io.BytesIO()
    assert running.files.get(f"{work}/f", out).bytes == len(content)
    assert out.getvalue() == content


def test_a_directory_of_the_host_keeps_its_mode(running, work, tmp_path):
    """What is in the container's goes into it; it is not made like the container's."""
    sh(running, f"cd {work}; chmod 700 .; mkdir -m 711 there new; touch there/f")
    (tmp_path / "out" / "there").mkdir(parents=True)
    for place in ("out", "out/there"):
        (tmp_path / place).chmod(0o755)
    running.files.get(work, tmp_path / "out")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("out", "out/there", "out/new")]
    assert modes == [0o755, 0o755, 0o711]
    assert (tmp_path / "out" / "there" / "f").exists()


def test_errors_of_the_callers_stream_pass_unchanged(running, work):
    class Full(io.RawIOBase):
        def read(self, _=-1):
            raise BrokenPipeError(errno.EPIPE, "read")

        def write(self, _):
            raise OSError(errno.ENOSPC, "write")

    with pytest.raises(BrokenPipeError, match="read"):
        running.files.put(Full(), f"{work}/f")
    running.files.write_text(f"{work}/f", "x")
    with pytest.raises(OSError, match="write") as caught:
        running.files.get(f"{work}/f", Full())
    assert not isinstance(caught.value, PathError)


def test_a_tree_is_merged_into_what_is_there(running, work, tree):
    """A file replaces a file or a link, and a link to a directory counts as one."""
    sh(
        running,
        f"cd {work}; mkdir -p real there; touch there/own; ln -s {work}/real there/sub; ln -s /nowhere there/run",
    )
    running.files.put(tree, f"{work}/there")
    assert (
        sh(running, f"cd {work}; ls there real; head -c 2 there/run")
        == "real:\nclosed\n\nthere:\nlink\nown\nrun\nsub\n#!"
    )


def test_more_files_than_one_request_is_about(running, work, tmp_path):
    """With names so long that their number is not what ends a request."""
    top = tmp_path / "many"
    top.mkdir()
    for number in range(100):
        (top / f"{number}".rjust(250, "n")).write_text(f"{number}")
    assert running.files.put(top, f"{work}/many").files == 100
    assert running.files.get(f"{work}/many", tmp_path / "back").files == 100
    assert shape(tmp_path / "back") == shape(top)


def test_nothing_is_left_of_files_that_were_begun(running, work, tmp_path):
    """One of them cannot be made, because a directory has its name."""
    top = tmp_path / "many"
    top.mkdir()
    for number in range(10):
        (top / f"{number}").write_text("x")
    running.files.mkdir(f"{work}/7")
    with pytest.raises(PathIsDirectory, match="/7 is a directory"):
        running.files.put(top, work)
    assert running.files.list(work) == ("7",)
    running.files.put(top / "1", work)  # and the opener does as it did before


def test_a_directory_is_never_replaced(running, work, tree, tmp_path):
    running.files.mkdir(f"{work}/run")
    with pytest.raises(PathIsDirectory):
        running.files.put(tree, work)
    (tmp_path / "out" / "f").mkdir(parents=True)
    running.files.remove(f"{work}/run")
    running.files.mkdir(f"{work}/d")
    running.files.write_text(f"{work}/d/f", "")
    with pytest.raises(PathIsDirectory):
        running.files.get(f"{work}/d", tmp_path / "out")


def test_holes_stay_holes(running, work, tmp_path):
    """A terabyte of nothing takes no time and no room."""
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
        file.seek(1 << 30)
        file.write(b"x")
    running.files.put(tmp_path / "sparse", f"{work}/f")
    assert sh(running, f"stat -c %s {work}/f") == f"{1 << 40}\n"
    running.files.get(f"{work}/f", tmp_path / "back")
    assert (tmp_path / "back").stat().st_size == 1 << 40
    assert (tmp_path / "back").stat().st_blocks < 100
    with (tmp_path / "back").open("rb") as file:
        file.seek(1 << 30)
        assert file.read(2) == b"x\0"


def test_special_files_are_left_out_and_named(running, work, tmp_path):
    sh(running, f"cd {work}; mkfifo fifo; mkdir d; mkfifo d/fifo; touch f")
    copied = running.files.get(work, tmp_path / "out")
    assert sorted(copied.skipped) == ["d/fifo", "fifo"]
    os.mkfifo(tmp_path / "out" / "own")
    assert running.files.put(tmp_path / "out", f"{work}/again").skipped == ("own",)


def test_the_kernels_trees_are_left_out(running, tmp_path):
    copied = running.files.get("/dev", tmp_path / "dev")
    assert "null" in copied.skipped
    with Container(f"rootfs:{busybox_tree(tmp_path / 'root')}").start("sleep", "100") as started:
        copied = started.files.get("/", tmp_path / "all")
        assert {"proc", "sys"} <= set(copied.skipped)
        assert (tmp_path / "all" / "bin" / "busybox").stat().st_size > 0


def test_set_id_bits_stay_behind(running, work, tmp_path):
    """As the host's root a program of the payload's would be root's."""
    sh(running, f"cd {work}; echo x > f; chmod 6755 f; mkdir d; chmod 2755 d; cp -p f d/f")
    running.files.get(work, tmp_path / "out")
    assert [(tmp_path / "out" / name).stat().st_mode & 0o7777 for name in ("f", "d", "d/f")] == [0o755] * 3
    running.files.get(f"{work}/f", tmp_path / "f", keep_ids=os.geteuid() == 0)
    assert (tmp_path / "f").stat().st_mode & 0o7777 == 0o755


@pytest.mark.root
def test_ids_are_kept_when_asked(running, work, tree, tmp_path):
    os.chown(tree / "run", 1000, 1001)
    running.files.put(tree, f"{work}/kept", keep_ids=True)
    running.files.put(tree, f"{work}/given")
    assert sh(running, f"stat -c %u:%g {work}/kept/run {work}/given/run") == "1000:1001\n0:0\n"
    running.files.get(f"{work}/kept", tmp_path / "kept", keep_ids=True)
    running.files.get(f"{work}/kept", tmp_path / "own")
    assert (tmp_path / "kept" / "run").stat().st_uid == 1000
    assert (tmp_path / "own" / "run").stat().st_uid == 0


def test_what_may_not_be_read_on_the_host(running, work, tmp_path, privilege):
    if privilege == "root":
        pytest.skip("root may")
    (tmp_path / "f").write_text("x")
    (tmp_path / "f").chmod(0)
    with pytest.raises(PathForbidden, match="of the host"):
        running.files.put(tmp_path / "f", work)


# --- containers of every kind -------------------------------------------------------------------------------


KINDS = {
    "limited": HOST.limits(disk="8M"),
    "in the host's user namespace": HOST.userns("host"),
    "without init": HOST.init(False),
    "untrusted": HOST.untrusted(required=False).tmpfs("/room"),
    "privileged": HOST.privileged(),
    "on the host's network": HOST.network("host"),
    "all capabilities": HOST.capabilities(add=["ALL"]).seccomp("unconfined"),
}


@pytest.mark.parametrize("container", KINDS.values(), ids=KINDS)
def test_a_container_of_another_kind(container, tree):
    with container.start(*SLEEP) as started:
        folder = "/room" if any(tmpfs.target == "/room" for tmpfs in started.spec.tmpfs) else "/room/new"
        started.files.mkdir(folder, parents=True, exist_ok=True)
        started.files.put(tree, f"{folder}/tree")
        started.files.write_text(f"{folder}/f", "x")
        assert sh(started, f"cat {folder}/f; head -c 2 {folder}/tree/run; touch {folder}/g") == "x#!"
        assert started.files.list(folder) == ("f", "g", "tree")


def test_no_space_left(tmp_path):
    (tmp_path / "large").write_bytes(os.urandom(4 << 20))
    with HOST.limits(disk="1M").start(*SLEEP) as started:
        with pytest.raises(PathError, match="no space left") as caught:
            started.files.put(tmp_path / "large", "/large")
        assert caught.value.errno == errno.ENOSPC
        assert "large" not in started.files.list("/")


def test_a_container_that_is_paused(tmp_path):
    try:
        with HOST.start(*SLEEP) as started:
            started.pause()
            started.files.write_text("/f", "x")
            assert started.files.read_text("/f") == "x"
            started.files.put(tmp_path, "/d")
            started.resume()
            assert sh(started, "cat /f; ls -d /d") == "x/d\n"
    except SandboxError as error:
        if "cannot provide" in str(error):
            pytest.skip(str(error))
        raise


def test_a_container_that_has_ended(running):
    with HOST.start("sh", "-c", "read line", input="x\n") as started:
        files = started.files
        started.wait()
        with pytest.raises(SandboxError, match="has exited"):
            files.read_text("/etc/hostname")
    with pytest.raises(SandboxError, match="has exited"):
        started.files.list("/")


def test_a_container_that_ends_while_its_files_are_used():
    with HOST.start(*SLEEP) as started:
        files = started.files
        files.write_text("/f", "x")
        started.kill()
        with pytest.raises(SandboxError, match="has exited"):
            all(files.read_text("/f") for _ in range(100_000))


def openers():
    """The openers of this process's containers."""
    zygote = pid_of(engines.engine().pidfd)
    found = set()
    for pid in map(int, Path(f"/proc/{zygote}/task/{zygote}/children").read_text().split()):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended just now
            if Path(f"/proc/{pid}/comm").read_text() == "pycontain-opene\n":
                found.add(pid)
    return found


def test_an_opener_that_is_killed_is_followed_by_another():
    before = openers()
    with HOST.start(*SLEEP) as started:
        started.files.list("/")
        (opener,) = openers() - before
        os.kill(opener, signal.SIGKILL)
        assert comes_true(lambda: opener not in openers())
        with pytest.raises(SandboxError, match="was killed"):
            started.files.list("/")
        assert started.files.list("/")


def test_an_opener_ends_with_its_container():
    before = openers()
    with HOST.start(*SLEEP) as started:
        started.files.list("/")
        (opener,) = openers() - before
        started.kill()
        started.wait()
        assert comes_true(lambda: opener not in openers())


def test_nobody_inside_sees_the_opener(running):
    running.files.list("/")
    assert "opene" not in sh(running, "cat /proc/[0-9]*/comm")


@pytest.mark.root
def test_the_opener_has_nothing_of_the_host_open():
    before = openers()
    with HOST.start(*SLEEP) as started:
        started.files.list("/")
        (opener,) = openers() - before
        folder = Path(f"/proc/{opener}/fd")
        opened = sorted(os.readlink(folder / name).split(":")[0] for name in os.listdir(folder))
        assert opened == ["/", f"/proc/{opener}/fd", "socket"]
        assert os.readlink(f"/proc/{opener}/ns/mnt") == os.readlink(f"/proc/{started.pid}/ns/mnt")


def test_the_child_of_a_fork_uses_no_files_of_its_parent():
    code, out, err = run_owner("""
        import os
        from pycontain import Container
        from pycontain.errors import SandboxError
        with Container("host:").start("sleep", "infinity") as running:
            running.files.write_text("/f", "x")
            if os.fork() == 0:
                try:
                    running.files.read_text("/f")
                except SandboxError as error:
                    os._exit(7)
            print(os.waitstatus_to_exitcode(os.wait()[1]), running.files.read_text("/f"))
    """)
    assert (code, out, err) == (0, "7 x\n", "")


def test_threads_share_it(running, work):
    """Each reads what it wrote, and nothing is mixed up."""
    wrong = []

    def use(number):
        for turn in range(30):
            text = f"{number} {turn}"
            running.files.write_text(f"{work}/{number}", text)
            if running.files.read_text(f"{work}/{number}") != text:
                wrong.append(text)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(running.files.list(work)) == 8


# --- hard links and extended attributes -----------------------------------------------------------------


def linked_tree(folder):
    (folder / "d").mkdir(parents=True)
    (folder / "a").write_text("A")
    os.link(folder / "a", folder / "b")
    os.link(folder / "a", folder / "d" / "c")
    (folder / "other").write_text("A")
    return folder


def test_hard_links_stay_hard_links(running, work, tmp_path):
    """In both directions, of files in several directories, also a second time over what is there."""
    put = linked_tree(tmp_path / "put")
    for _ in range(2):
        assert running.files.put(put, f"{work}/t").files == 4
        assert [running.files.stat(f"{work}/t/{name}").links for name in ("a", "b", "d/c", "other")] == [
            3,
            3,
            3,
            1,
        ]
        assert running.files.get(f"{work}/t", tmp_path / "got").files == 4
    names = ("a", "b", "d/c", "other")
    inodes = [(tmp_path / "got" / name).stat().st_ino for name in names]
    assert len(set(inodes)) == 2
    assert inodes[0] == inodes[1] == inodes[2]
    assert [(tmp_path / "got" / name).read_text() for name in names] == ["A"] * 4
    assert not [name for name in os.listdir(tmp_path / "got") if name.startswith(".pycontain")]
    assert running.files.list(f"{work}/t") == ("a", "b", "d", "other")


def test_a_link_that_cannot_be_is_a_copy(running, work, tmp_path):
    """On the host, the directory is another file system's when it is a mount; inside, a tmpfs is."""
    put = linked_tree(tmp_path / "put")
    with HOST.tmpfs("/t/d").start(*SLEEP) as started:
        assert started.files.put(put, "/t").files == 4
        assert [started.files.stat(f"/t/{name}").links for name in ("a", "b", "d/c")] == [2, 2, 1]
        assert started.files.read_text("/t/d/c") == "A"


def test_attributes_of_users_are_kept(running, work, tmp_path):
    """Where both file systems have them; those of overlays are not."""
    (tmp_path / "put").mkdir()
    source = tmp_path / "put" / "file"
    source.write_text("x")
    try:
        os.setxattr(source, "user.colour", b"red")
    except OSError:
        pytest.skip("the file system of temporary files has no attributes of users")
    os.setxattr(source, "user.overlay.opaque", b"y")
    running.files.put(tmp_path / "put", f"{work}/t")
    running.files.put(source, f"{work}/single")
    for name in ("t/file", "single"):
        running.files.get(f"{work}/{name}", tmp_path / "got")
        assert os.listxattr(tmp_path / "got") == ["user.colour"]
        assert os.getxattr(tmp_path / "got", "user.colour") == b"red"
