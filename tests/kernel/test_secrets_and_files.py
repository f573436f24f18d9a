"""What is put into a container: trees of the host, memory, files and secrets."""

import os
import pickle
from pathlib import Path

import pytest
from owners import new_mark, start_owner
from trees import listing

from pycontain import Container
from pycontain.errors import CommandFailed, PycontainError

HOST = Container("host:")
VALUE = "s3cr3t-" + new_mark()


def sh(container, script):
    return container.run("sh", "-c", script)


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "file").write_text("x\n")
    return tmp_path


# --- mounts ---------------------------------------------------------------------------------------------


def test_a_mount_shows_the_hosts_tree(tree):
    assert sh(HOST.mount(tree, "/data"), "cat /data/file").stdout == "x\n"


def test_what_is_written_to_a_mount_is_on_the_host_and_the_owners(tree):
    assert sh(HOST.mount(tree, "/data"), "echo y > /data/made").ok
    assert (tree / "made").read_text() == "y\n"
    assert (tree / "made").stat().st_uid == os.getuid()


def test_a_read_only_mount_cannot_be_written(tree):
    result = sh(HOST.mount(tree, "/data", read_only=True), "echo y > /data/made")
    assert "Read-only" in result.stderr
    assert os.listdir(tree) == ["file"]


def test_a_file_is_mounted(tree):
    assert sh(HOST.mount(tree / "file", "/etc/of/mine"), "cat /etc/of/mine").stdout == "x\n"


def test_a_file_is_mounted_over_one_of_the_image(tree):
    assert sh(HOST.mount(tree / "file", "/etc/passwd"), "cat /etc/passwd").stdout == "x\n"


def test_a_relative_source_is_relative_to_now(tree, monkeypatch):
    monkeypatch.chdir(tree)
    container = HOST.mount("file", "/data").mount(".", "/all")
    monkeypatch.chdir("/")
    assert sh(container, "cat /data /all/file").stdout == "x\nx\n"


def test_a_mount_has_no_devices_and_no_set_user_id(tree):
    fields = sh(HOST.mount(tree, "/data"), "grep ' /data ' /proc/self/mounts").stdout.split()
    assert {"nosuid", "nodev"} <= set(fields[3].split(","))


@pytest.mark.parametrize("swap", [False, True])
def test_a_mount_in_a_mount_shows_whatever_the_order_of_the_calls(tree, swap):
    (tree / "outer").mkdir()
    (tree / "outer" / "inner").mkdir()
    (tree / "other").mkdir()
    (tree / "other" / "y").touch()
    pairs = [(tree / "outer", "/data"), (tree / "other", "/data/inner")]
    container = HOST
    for source, target in reversed(pairs) if swap else pairs:
        container = container.mount(source, target)
    assert sh(container, "ls /data /data/inner").stdout == "/data:\ninner\n\n/data/inner:\ny\n"


def test_a_source_that_is_a_link_is_followed_on_the_host(tree):
    (tree / "link").symlink_to(tree / "file")
    assert sh(HOST.mount(tree / "link", "/data"), "cat /data").stdout == "x\n"


@pytest.mark.parametrize(
    "name", ["with space", "with,comma", "with:colon", "with\\backslash", "häi", "\udcff"]
)
def test_a_source_may_have_any_name(tree, name):
    (tree / name).mkdir()
    (tree / name / "y").touch()
    assert sh(HOST.mount(tree / name, "/data"), "ls /data").stdout == "y\n"


@pytest.mark.parametrize(
    "name", ["with space", "with,comma", "with:colon", "with\\backslash", "häi", "\udcff"]
)
def test_a_target_may_have_any_name(tree, name):
    assert HOST.mount(tree, f"/{name}").run("ls", f"/{name}").stdout == "file\n"


def test_a_mount_at_the_place_of_our_own_files_wins(tree):
    """As in Docker: who mounts /etc/hosts wants to see it."""
    container = HOST.mount(tree / "file", "/etc/hosts").mount(tree / "file", "/etc/hostname")
    assert sh(container, "cat /etc/hosts /etc/hostname").stdout == "x\nx\n"


@pytest.mark.parametrize("read_only", [False, True])
def test_a_mount_over_etc_is_left_as_it_is(tree, read_only):
    """Our own /etc/hosts and /etc/hostname have no place there, and none is made on the host."""
    before = listing(tree)
    assert sh(HOST.mount(tree, "/etc", read_only=read_only), "cat /etc/file").stdout == "x\n"
    assert listing(tree) == before


def test_a_mount_does_not_show_on_the_host(tree):
    with HOST.mount(tree, "/data").start("sleep", "100") as running:
        assert running.exec("cat", "/data/file").stdout == "x\n"
        assert " /data " not in Path("/proc/self/mountinfo").read_text(errors="replace")


# --- memory ---------------------------------------------------------------------------------------------


def test_a_tmpfs_is_empty_and_open_to_all():
    assert sh(HOST.tmpfs("/scratch"), "ls -A /scratch; stat -c %a /scratch").stdout == "1777\n"


def test_a_tmpfs_has_the_size_and_mode_that_it_is_given():
    script = "df -k /scratch | tail -1 | awk '{print $2}'; stat -c %a /scratch"
    assert sh(HOST.tmpfs("/scratch", size="1M", mode=0o700), script).stdout == "1024\n700\n"


def test_a_full_tmpfs_says_so():
    result = sh(HOST.tmpfs("/scratch", size="64k"), "head -c 1M /dev/zero > /scratch/x")
    assert "No space" in result.stderr


def test_a_tmpfs_hides_what_the_image_has_there():
    assert HOST.run("ls", "/var/tmp/..").stdout != ""
    assert HOST.tmpfs("/var").run("ls", "/var").stdout == ""


def test_a_tmpfs_may_be_where_our_own_files_go():
    assert sh(HOST.tmpfs("/etc").hostname("box"), "cat /etc/hostname").stdout == "box\n"


# --- files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", ["", "häi\n", b"\0\xff", b"x" * 3_000_000], ids=["empty", "str", "bytes", "large"]
)
def test_a_file_has_its_content(content):
    expected = content.encode() if isinstance(content, str) else content
    assert HOST.file("/opt/of/mine", content).run("cat", "/opt/of/mine", text=False).stdout == expected


def test_a_file_has_its_mode():
    container = HOST.file("/a", "").file("/b", "", mode=0o600)
    assert sh(container, "stat -c %a /a /b").stdout == "644\n600\n"


def test_a_file_may_be_a_program():
    container = HOST.file("/usr/local/bin/hello", "#!/bin/sh\necho hello\n", mode=0o755)
    assert HOST.file("/hello", "#!/bin/sh\necho hello\n", mode=0o755).run("/hello").stdout == "hello\n"
    assert container.spec.files[0].mode == 0o755


def test_a_file_can_be_changed_inside_and_the_value_stays():
    container = HOST.file("/a", "x\n")
    assert sh(container, "echo y > /a; cat /a").stdout == "y\n"
    assert sh(container, "cat /a").stdout == "x\n"


def test_a_file_goes_over_one_of_the_image():
    assert sh(HOST.file("/etc/passwd", "x\n"), "cat /etc/passwd").stdout == "x\n"


def test_a_file_of_the_user_goes_over_one_of_ours():
    assert sh(HOST.file("/etc/hosts", "x\n"), "cat /etc/hosts").stdout == "x\n"


def test_a_file_in_a_tmpfs_and_in_a_mount_point_of_its_own(tree):
    container = HOST.tmpfs("/scratch").file("/scratch/deep/a", "x\n")
    assert sh(container, "cat /scratch/deep/a").stdout == "x\n"


def test_a_file_is_there_with_a_read_only_root():
    assert sh(HOST.read_only().file("/opt/a", "x\n"), "cat /opt/a").stdout == "x\n"


# --- secrets --------------------------------------------------------------------------------------------


def test_a_secret_is_read_where_it_is_expected():
    assert sh(HOST.secret("token", VALUE), "cat /run/secrets/token").stdout == VALUE


def test_a_secret_is_in_memory_read_only_and_for_its_user_alone():
    container = HOST.secret("token", VALUE)
    assert sh(container, "stat -c %a /run/secrets/token").stdout == "400\n"
    kind, options = sh(container, "grep ' /run/secrets' /proc/self/mounts | cut -d' ' -f3,4").stdout.split()
    assert kind == "tmpfs"
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(options.split(","))


def test_a_secret_cannot_be_changed():
    container = HOST.secret("token", VALUE)
    for act in ("echo x > {0}", "chmod 644 {0}", "rm -f {0}"):
        assert not sh(container, act.format("/run/secrets/token")).ok


def test_the_payload_can_read_its_secret_whoever_it_is(privilege):
    if privilege == "single":
        pytest.skip("one id is mapped")
    container = HOST.secret("token", VALUE).user("1000:1000")
    assert (
        sh(container, "cat /run/secrets/token; stat -c '%u %a' /run/secrets/token").stdout
        == f"{VALUE}1000 400\n"
    )


def test_two_secrets_and_bytes():
    container = HOST.secret("a", b"\xff").secret("b", "x")
    assert container.run("cat", "/run/secrets/a", "/run/secrets/b", text=False).stdout == b"\xffx"


def test_a_secret_is_there_with_a_read_only_root_and_a_tmpfs_at_run():
    container = HOST.read_only().tmpfs("/run").secret("token", VALUE)
    assert sh(container, "cat /run/secrets/token").stdout == VALUE


def test_an_exec_sees_the_secret():
    with HOST.secret("token", VALUE).start("sleep", "100") as running:
        assert running.exec("cat", "/run/secrets/token").stdout == VALUE


def everything_shown(container):
    """Whatever a value or an error prints about *container*."""
    plan = container.plan("true")
    yield from (repr(container), str(container), repr(container.spec), str(container.spec))
    yield from (str(plan), repr(plan), plan._repr_html_(), repr(plan.steps), repr(plan.wire()))
    with container.start("sleep", "100") as running:
        yield repr(running)
        yield repr(running.spec)
        yield repr(running.exec("true"))
    yield repr(container.run("true"))
    for broken, argv in (
        (container, ("nothing-here",)),
        (container.workdir("/nowhere"), ("true",)),
        (container.mount("/nothing/here", "/mnt/x"), ("true",)),
    ):
        with pytest.raises(PycontainError) as caught:
            broken.run(*argv)
        yield from (repr(caught.value), str(caught.value), *caught.value.__notes__)
    with pytest.raises(CommandFailed) as caught:
        container.run("false", check=True)
    yield from (repr(caught.value), *caught.value.__notes__, repr(pickle.loads(pickle.dumps(caught.value))))


@pytest.mark.parametrize("kind", ["secret", "file"])
def test_a_content_is_shown_nowhere(kind):
    container = HOST.secret("token", VALUE) if kind == "secret" else HOST.file("/x", VALUE)
    assert [
        text for text in everything_shown(container) if VALUE in text or VALUE.encode().hex() in text
    ] == []


def test_a_secret_is_on_no_disk_while_it_runs(state_folder):
    with HOST.secret("token", VALUE).start("sleep", "100"):
        for path, _, files in os.walk(state_folder):
            for name in files:
                with open(os.path.join(path, name), "rb") as file:
                    assert VALUE.encode() not in file.read()


def test_a_secret_is_on_no_command_line_and_in_no_environment(tmp_path):
    code = """
        import os
        from pycontain import Container
        with open(os.environ["VALUE_FILE"]) as file:
            value = file.read()
        with Container("host:").secret("token", value).start("sleep", "100") as running:
            found = []
            for pid in filter(str.isdigit, os.listdir("/proc")):
                for name in ("cmdline", "environ"):
                    try:
                        with open(f"/proc/{pid}/{name}", "rb") as file:
                            if value.encode() in file.read():
                                found.append((pid, name))
                    except OSError:
                        continue
            print(found)
    """
    (tmp_path / "value").write_text(VALUE)
    with start_owner(code, state=tmp_path / "state", VALUE_FILE=str(tmp_path / "value")) as owner:
        out, err = owner.communicate(timeout=60)
    assert (out, err) == ("[]\n", "")


def test_the_zygote_gives_a_secret_to_its_container_alone():
    with HOST.secret("token", VALUE).start("sleep", "100"):
        assert not HOST.run("ls", "/run/secrets").ok
