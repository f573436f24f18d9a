import pytest

from pycontain import Container
from pycontain.errors import CommandFailed

BOX = Container("host:").hostname("test-box")


@pytest.fixture
def box(container):
    """A container that runs until the test is over."""
    return container(BOX, "sleep", "infinity")


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


SERVER = """
import socketserver
class Shout(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(self.rfile.readline().upper())
socketserver.TCPServer(("127.0.0.1", 7000), Shout).serve_forever()
"""


def test_the_server_answers(container):
    server = container("host:", "python3", "-c", SERVER).wait_for(port=7000)
    with server.connect(7000) as connection:
        connection.sendall(b"hello\n")
        assert connection.recv(100) == b"HELLO\n"


@pytest.fixture(scope="module")
def repository(module_container):
    """A directory with one file in it, in a container that lives as long as the module."""
    running = module_container(BOX.env(HOME="/home/dev").tmpfs("/home/dev"), "sleep", "infinity")
    running.exec("sh", "-c", "echo one > ~/file", check=True)
    return running


@pytest.mark.parametrize("word", ["one", "file"])
def test_it_is_there(repository, word):
    assert word in repository.exec("sh", "-c", "ls ~; cat ~/file").stdout


def test_what_is_under_test_runs_without_a_network(tmp_path):
    (tmp_path / "program.py").write_text("import socket; print(len(socket.if_nameindex()))")
    program = Container("host:").mount(tmp_path, "/src", read_only=True).workdir("/src")
    assert program.run("python3", "program.py", timeout=30, check=True).stdout == "1\n"
