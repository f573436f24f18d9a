"""``rootfs:DIR``: a tree with next to nothing in it, and trees that were made to deceive.

As root these run in a mount namespace of their own; what the deceivers want to reach is only read.
"""

import os
import stat

import pytest
from trees import busybox_tree, listing

from pycontain import Container
from pycontain.errors import ImageNotFound, PycontainError, StepFailed


@pytest.fixture
def tree(tmp_path):
    return busybox_tree(tmp_path / "tree")


def container(tree):
    return Container(f"rootfs:{tree}")


def sh(tree, script):
    return container(tree).run("sh", "-c", script)


def test_a_tree_without_anything_is_enough(tree):
    assert container(tree).run("echo", "hello").stdout == "hello\n"


def test_mount_points_are_made(tree):
    assert set(container(tree).run("ls", "/").stdout.split()) == {"bin", "dev", "etc", "proc", "sys"}
    assert sh(tree, "cat /proc/self/comm; cat /etc/hosts | head -n 1").stdout == "cat\n127.0.0.1\tlocalhost\n"


def test_the_tree_is_as_it_was(tree):
    before = listing(tree)
    script = "echo x > /made; echo y > /bin/echo2; busybox rm /bin/ls; busybox mkdir /d; echo z >> /bin/true"
    sh(tree, script)
    container(tree).mount("/usr", "/deep/down/usr", read_only=True).file("/f", "x").tmpfs("/t").run("true")
    assert listing(tree) == before


def test_a_relative_path_is_relative_to_now(tree, monkeypatch):
    monkeypatch.chdir(tree.parent)
    assert Container("rootfs:tree").run("echo", "x").stdout == "x\n"


@pytest.mark.parametrize("name", ["with space", "with,comma", "with\\backslash", "häi"])
def test_a_tree_may_have_any_name(tree, name):
    moved = tree.rename(tree.parent / name)
    assert container(moved).run("echo", "x").stdout == "x\n"


def test_a_colon_in_the_name(tree):
    moved = tree.rename(tree.parent / "with:colon")
    assert container(moved).run("echo", "x").stdout == "x\n"


def test_without_accounts_root_is_a_number(tree):
    assert container(tree).run("id", "-u").stdout == "0\n"


def test_without_accounts_a_name_is_unknown(tree):
    with pytest.raises(StepFailed, match="nobody"):
        container(tree).user("nobody").run("true")


def test_no_tree_at_all_is_named(tmp_path):
    with pytest.raises(ImageNotFound, match="missing") as caught:
        Container(f"rootfs:{tmp_path}/missing").run("true")
    assert caught.value.__notes__


def test_a_file_is_no_tree(tmp_path):
    (tmp_path / "file").write_text("neither a directory nor a tar\n" * 100)
    with pytest.raises(PycontainError, match="file") as caught:
        Container(f"rootfs:{tmp_path}/file").run("true")
    assert caught.value.__notes__


def test_an_exec_runs_there_too(tree):
    with container(tree).start("sleep", "100") as running:
        assert running.exec("echo", "x").stdout == "x\n"


def test_a_device_of_the_image_cannot_be_opened(tree, privilege):
    """Devices are those of /dev: a node in a layer would be a way to the host's disks."""
    if privilege != "root":
        pytest.skip("only root can make one")
    os.mknod(tree / "disk", stat.S_IFCHR | 0o666, os.makedev(10, 229))
    result = sh(tree, ": < /disk")
    assert "denied" in result.stderr or "not permitted" in result.stderr


def test_a_set_user_id_program_of_the_image_gains_nothing(tree, privilege):
    """no_new_privs holds, so that nosuid on the root is not needed."""
    if privilege == "single":
        pytest.skip("one id is mapped")
    os.unlink(tree / "bin" / "id")
    os.link(tree / "bin" / "busybox", tree / "bin" / "id")
    (tree / "bin" / "id").chmod(0o4755)
    assert container(tree).user("1000").run("id", "-u").stdout == "1000\n"


# --- trees that deceive ---------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["proc", "sys", "dev"])
@pytest.mark.parametrize("target", ["/", "/etc", "../../../../..", "/proc/self/root", "/missing"])
def test_a_link_in_place_of_a_kernel_file_system_is_refused(tree, place, target):
    """CVE-2019-16884 and its kin: a /proc elsewhere is a /proc unmasked."""
    (tree / place).symlink_to(target)
    with pytest.raises(StepFailed, match=f"/{place}") as caught:
        container(tree).run("true")
    assert caught.value.__notes__


@pytest.mark.parametrize("place", ["proc", "sys", "dev"])
def test_a_file_in_place_of_a_kernel_file_system_is_refused(tree, place):
    (tree / place).touch()
    with pytest.raises(StepFailed, match=f"/{place}"):
        container(tree).run("true")


@pytest.mark.parametrize("name", ["hosts", "hostname"])
@pytest.mark.parametrize(
    "target",
    ["/proc/self/attr/exec", "/proc/sys/kernel/domainname", "/sys/kernel/uevent_helper", "/proc/self/fd/3"],
)
def test_a_link_to_a_file_of_the_kernel_in_place_of_one_of_ours_is_refused(tree, name, target):
    """CVE-2025-52881: what we write must not end up in a file of /proc."""
    (tree / "etc").mkdir()
    (tree / "etc" / name).symlink_to(target)
    with pytest.raises(PycontainError) as caught:
        container(tree).run("true")
    assert caught.value.__notes__


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../../../../etc/passwd", "/../../etc/passwd"])
def test_a_link_out_of_the_tree_leads_into_it(tree, target):
    (tree / "etc").mkdir()
    (tree / "etc" / "passwd").write_text("ours\n")
    (tree / "leak").symlink_to(target)
    assert container(tree).run("cat", "/leak").stdout == "ours\n"


def test_a_mount_that_cannot_be_made_does_not_blame_its_source(tree, tmp_path):
    (tree / "data").symlink_to("/missing/place")
    (tmp_path / "source").mkdir()
    try:
        container(tree).mount(tmp_path / "source", "/data/sub").run("true")
    except StepFailed as error:
        assert "source" not in str(error)  # noqa: PT017 - that it works is as good


def test_a_mount_through_a_link_lands_in_the_tree(tree, tmp_path):
    """The link says /, which is the container's root."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "x").touch()
    (tree / "out").symlink_to(f"{tmp_path}/reached")
    (tmp_path / "reached").mkdir()
    outcome = container(tree).mount(tmp_path / "source", "/out/inner")
    try:
        outcome.run("true")
    except PycontainError:
        pass
    assert os.listdir(tmp_path / "reached") == []


def test_a_mount_at_a_link_that_leads_nowhere_is_made_where_it_leads(tree, tmp_path):
    """As Docker does: /var/run is a link to /run in many images."""
    (tree / "var").mkdir()
    (tree / "var" / "run").symlink_to("/run")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "x").touch()
    assert container(tree).mount(tmp_path / "source", "/var/run/sub").run("ls", "/run/sub").stdout == "x\n"


@pytest.mark.parametrize("target", ["/proc", "/proc/self", "/sys/fs", "/proc/1/fdinfo"])
def test_a_mount_through_a_link_into_the_kernels_trees_is_refused(tree, tmp_path, target):
    """CVE-2025-52565: a mount over /proc would unmask it."""
    (tree / "data").symlink_to(target)
    (tmp_path / "source").mkdir()
    with pytest.raises(StepFailed):
        container(tree).mount(tmp_path / "source", "/data").run("true")


@pytest.mark.parametrize("target", ["/proc", "/sys/fs"])
def test_a_tmpfs_through_a_link_into_the_kernels_trees_is_refused(tree, target):
    (tree / "data").symlink_to(target)
    with pytest.raises(StepFailed):
        container(tree).tmpfs("/data").run("true")


@pytest.mark.parametrize("target", ["/proc/self/attr/current", "/proc/sys/kernel/domainname"])
def test_a_file_through_a_link_into_the_kernels_trees_is_refused(tree, target):
    (tree / "data").symlink_to(target)
    with pytest.raises(StepFailed):
        container(tree).file("/data", "x").run("true")


def make_fifo(path):
    os.mkfifo(path)


def make_directory(path):
    path.mkdir()


def make_link_to_a_descriptor(path):
    path.symlink_to("/proc/self/fd/3")


def make_loop(path):
    path.symlink_to(path.name)


def make_endless(path):
    path.symlink_to("/dev/zero")


def make_sparse(path):
    with path.open("wb") as file:
        file.truncate(100 << 20)


def make_garbage(path):
    path.write_bytes(b"\xff\0:::::\n" * 1000 + b"a:b:-1:99999999999999999999::/\n:\n\n")


@pytest.mark.parametrize(
    "make",
    [
        make_fifo,
        make_directory,
        make_link_to_a_descriptor,
        make_loop,
        make_endless,
        make_sparse,
        make_garbage,
    ],
)
@pytest.mark.parametrize("name", ["passwd", "group"])
def test_accounts_that_are_no_accounts_do_not_hold_up_a_start(tree, name, make):
    (tree / "etc").mkdir()
    make(tree / "etc" / name)
    assert container(tree).user("0:0").run("echo", "x", timeout=20).stdout == "x\n"
    with pytest.raises(StepFailed, match="nobody"):
        container(tree).user("nobody").run("true", timeout=20)


@pytest.mark.parametrize("number", range(10))
def test_a_working_directory_that_is_a_descriptor_is_refused(tree, number):
    """CVE-2024-21626: a descriptor of the host that was left open would be a way out."""
    with pytest.raises(PycontainError) as caught:
        container(tree).workdir(f"/proc/self/fd/{number}").run("pwd")
    assert caught.value.__notes__


def test_a_working_directory_that_is_a_link_to_a_descriptor_is_refused(tree):
    (tree / "here").symlink_to("/proc/self/fd/4")
    with pytest.raises(PycontainError):
        container(tree).workdir("/here").run("pwd")


@pytest.mark.parametrize("number", range(3, 10))
def test_an_exec_in_a_directory_that_is_a_descriptor_is_refused(tree, number):
    with container(tree).start("sleep", "100") as running, pytest.raises(PycontainError):
        running.exec("pwd", workdir=f"/proc/self/fd/{number}")


@pytest.mark.parametrize("path", ["/proc/self/root", "/proc/self/cwd", "/proc/1/root", "/proc/1/cwd"])
def test_a_working_directory_by_way_of_proc_is_inside_or_refused(tree, path):
    try:
        result = container(tree).workdir(path).run("ls")
    except PycontainError:
        return
    assert "bin" in result.stdout.split()
    assert "usr" not in result.stdout.split()


@pytest.mark.parametrize("link", ["/proc/self/exe", "/proc/1/exe", "/proc/self/fd/3"])
def test_a_program_that_is_a_link_into_proc_gets_nowhere(tree, link):
    """CVE-2019-5736: the runtime's own program must not be opened from inside."""
    (tree / "bin" / "trap").symlink_to(link)
    try:
        result = container(tree).run("/bin/trap")
    except PycontainError:
        return
    assert not result.ok or "busybox" in result.stdout.lower()


def test_an_interpreter_that_is_a_link_into_proc_gets_nowhere(tree):
    (tree / "bin" / "trap").write_text("#!/proc/self/exe\nimport os; print('python', os.listdir('/'))\n")
    (tree / "bin" / "trap").chmod(0o755)
    try:
        result = container(tree).run("/bin/trap")
    except PycontainError:
        return
    assert "python" not in result.stdout
