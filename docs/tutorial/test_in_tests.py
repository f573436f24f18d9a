import pytest

from pycontain import Container
from pycontain.errors import CommandFailed

BOX = Container("host:").hostname("test-box")


@pytest.fixture
def box():
    """A container that runs until the test is over."""
    with BOX.start("sleep", "infinity") as running:
        yield running


def test_a_backup_can_be_unpacked(box):
    box.exec("sh", "-c", "mkdir /data && echo x > /data/file && tar -C /data -cf /backup.tar .", check=True)
    box.exec("sh", "-c", "rm -r /data && mkdir /data && tar -C /data -xf /backup.tar", check=True)
    assert box.exec("cat", "/data/file").stdout == "x\n"


def test_nothing_is_left_of_the_other_test(box):
    assert not box.exec("ls", "/data").ok


def test_a_failure_says_what_was_printed(box):
    with pytest.raises(CommandFailed) as caught:
        box.exec("sh", "-c", "echo 'disk on fire' >&2; exit 2", check=True)
    assert "disk on fire" in str(caught.value.__notes__)


@pytest.fixture(scope="module")
def repository():
    """A directory with one file in it, in a container that lives as long as the module."""
    with BOX.env(HOME="/home/dev").tmpfs("/home/dev").start("sleep", "infinity") as running:
        running.exec("sh", "-c", "echo one > ~/file", check=True)
        yield running


@pytest.mark.parametrize("word", ["one", "file"])
def test_it_is_there(repository, word):
    assert word in repository.exec("sh", "-c", "ls ~; cat ~/file").stdout


def test_what_is_under_test_runs_without_a_network(tmp_path):
    (tmp_path / "program.py").write_text("import socket; print(len(socket.if_nameindex()))")
    program = Container("host:").mount(tmp_path, "/src", read_only=True).workdir("/src")
    assert program.run("python3", "program.py", timeout=30, check=True).stdout == "1\n"
