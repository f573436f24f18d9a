"""The magic of notebooks in IPython's own shell, once through a kernel, and what values look like there."""

import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from busybox_images import busybox_layer, image, store, write_layout  # noqa: F401 - store is a fixture
from owners import comes_true, marked, new_mark

import pycontain
from pycontain import Container, Image
from pycontain.errors import CommandFailed, CommandNotFound, CommandTimeout, SandboxError

IPython = pytest.importorskip("IPython.core.interactiveshell")
config = pytest.importorskip("traitlets.config")  # which it brings

ROOT = Path(pycontain.__file__).parents[1]
BOX = Container("host:").name("box")


@pytest.fixture(scope="module")
def ipython(tmp_path_factory):
    """A shell with the extension, whose history is nobody's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(tmp_path_factory.mktemp("ipython")))
        shell = IPython.InteractiveShell(config=config.Config({"HistoryManager": {"enabled": False}}))
        shell.run_line_magic("load_ext", "pycontain")
        yield shell


@pytest.fixture
def cell(ipython, capsys):
    """Execute a cell and return ``(what it printed, to standard error, the error that it ended with)``."""
    ipython.user_ns.clear()

    def execute(text, **names):
        ipython.user_ns.update(names)
        done = ipython.run_cell(textwrap.dedent(text))
        return (*capsys.readouterr(), done.error_before_exec or done.error_in_exec)

    return execute


# --- which command reads the cell --------------------------------------------------------------------------


def test_a_cell_on_the_host_image_is_python(cell):
    assert cell("%%container host:\nimport os\nprint(os.getpid())") == ("2\n", "", None)


def test_the_command_that_is_named_reads_the_cell(cell):
    assert cell("%%container host: sh -s a 'b c'\necho $2; echo oh >&2") == ("b c\n", "oh\n", None)


def test_a_root_file_system_has_a_shell(cell, tmp_path):
    from trees import busybox_tree

    assert cell(f"%%container rootfs:{busybox_tree(tmp_path / 'root')}\necho $0") == ("sh\n", "", None)


def test_a_line_has_no_input(cell):
    assert cell("%container host: sh -c 'cat; echo end'") == ("end\n", "", None)


def test_options_are_those_of_the_command_line(cell):
    text = "%%container -e A=1 --workdir /tmp --hostname box host: sh\necho $A $(pwd) $(hostname)"
    assert cell(text) == ("1 /tmp box\n", "", None)


def test_python_values_stand_in_braces(cell):
    assert cell("%container -e A={2 + 3} host: sh -c 'echo $A'") == ("5\n", "", None)


# --- variables ---------------------------------------------------------------------------------------------


def test_a_variable_may_hold_what_describes_a_container(cell):
    assert cell("%%container box\nimport os; print(os.environ['A'])", box=BOX.env(A="1"))[0] == "1\n"
    assert cell("%%container -e A=2 box sh\necho $A", box=BOX.env(A="1"))[0] == "2\n"


def test_a_variable_may_hold_an_image(cell):
    assert (
        cell("%%container --hostname x it\nimport os; print(os.uname().nodename)", it=Image.host())[0]
        == "x\n"
    )


def test_a_variable_may_hold_a_container_that_runs(cell, privilege):
    user = 0 if privilege == "single" else 7
    with BOX.env(A="1").start("sleep", "infinity") as box:
        assert cell("%%container box sh\necho one > /tmp/file", box=box)[2] is None
        assert cell("%%container box\nprint(open('/tmp/file').read().strip())")[0] == "one\n"
        text = f"%container -e B=2 -w /tmp -u {user}:{user} box sh -c 'echo $A $B $(pwd); id -u'"
        assert cell(text)[0] == f"1 2 /tmp\n{user}\n"
        assert box.status == "running"


def test_what_is_described_takes_no_more_options(cell):
    _, _, error = cell("%container --memory 1G -p 80 box true", box=BOX)
    assert str(error) == "box is a container already, and takes no --publish, --memory"


# --- what is shown, and kept -------------------------------------------------------------------------------


class Opens:
    """A stream that lets the payload go on when it has said what is *awaited*: then it was shown while it ran."""

    def __init__(self, box, awaited):
        self.box, self.awaited, self.text = box, awaited, ""

    def write(self, text):
        self.text += text
        if self.awaited in self.text:
            self.awaited = "\0"
            self.box.files.write_text("/tmp/go", "")

    def flush(self):
        pass


WAITS = "printf half; while ! test -e /tmp/go; do sleep 0.01; done; echo; rm /tmp/go"


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_output_is_shown_while_it_runs(cell, monkeypatch, stream):
    redirected = "exec >&2\n" if stream == "stderr" else ""
    with BOX.tmpfs("/tmp").start("sleep", "infinity") as box:
        shown = Opens(box, "half")
        monkeypatch.setattr(sys, stream, shown)
        *_, error = cell(f"%%container --timeout 60 box sh\n{redirected}{WAITS}", box=box)
    assert (shown.text, error) == ("half\n", None)


def test_output_of_a_new_container_is_shown_while_it_runs(cell, monkeypatch, tmp_path):
    class Touches(Opens):
        def write(self, text):
            self.text += text
            (tmp_path / "go").touch()

    tmp_path.chmod(0o777)
    shown = Touches(None, "half")
    monkeypatch.setattr(sys, "stdout", shown)
    *_, error = cell(
        f"%%container --timeout 60 box sh\n{WAITS.replace('; rm /tmp/go', '')}",
        box=BOX.mount(tmp_path, "/tmp"),
    )
    assert (shown.text, error) == ("half\n", None)


@pytest.mark.parametrize("running", [False, True])
def test_characters_may_come_in_pieces(cell, running):
    text = "%%container -o done box\nimport os, time\nfor byte in '€ü'.encode() + b'\\xff':\n  os.write(1, bytes([byte])); time.sleep(0.01)"
    with BOX.start("sleep", "infinity") as started:
        assert cell(text, box=started if running else BOX) == ("€ü�", "", None)


def test_the_result_is_kept(cell, ipython):
    cell("%%container -o done host: sh\necho out; echo err >&2")
    done = ipython.user_ns["done"]
    assert (done.stdout, done.stderr, done.ok) == ("out\n", "err\n", True)


def test_the_result_of_a_command_in_a_container_is_kept(cell, ipython):
    with BOX.start("sleep", "infinity") as box:
        cell("%%container -o done --no-raise-error box sh\necho out; echo err >&2; exit 3", box=box)
    done = ipython.user_ns["done"]
    assert (done.stdout, done.stderr, done.exit_code, done.argv) == ("out\n", "err\n", 3, ("sh",))


def test_quiet_shows_nothing(cell, ipython):
    assert cell("%container -q -o done host: echo hi") == ("", "", None)
    assert ipython.user_ns["done"].stdout == "hi\n"


def test_what_is_left_in_the_background_does_not_hold_the_cell(cell):
    with BOX.start("sleep", "infinity") as box:
        assert cell("%%container --timeout 60 box sh\nsleep 1000 & echo hi", box=box) == ("hi\n", "", None)


# --- errors ------------------------------------------------------------------------------------------------


def test_a_failure_is_an_error_with_the_result(cell, ipython):
    out, err, error = cell("%%container -o done host: sh\necho oh >&2; exit 3")
    assert isinstance(error, CommandFailed)
    assert (error.result, err) == (ipython.user_ns["done"], "oh\n")
    assert out == "\x1b[31mCommandFailed\x1b[0m: 'sh' ended with exit code 3\n"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_what_was_not_shown_is_a_note_of_the_error(cell):
    assert cell("%%container -q host: sh\necho oh >&2; exit 3")[0].endswith("it printed last:\noh\n")


def test_a_failure_may_be_no_error(cell, ipython):
    assert cell("%container --no-raise-error -o done host: false")[2] is None
    assert ipython.user_ns["done"].exit_code == 1


def test_hints_are_shown(cell):
    out, _, error = cell("%container host: pyhton")
    assert isinstance(error, CommandNotFound)
    assert (
        out
        == "\x1b[31mCommandNotFound\x1b[0m: pyhton is not in the PATH of the container\nname a program of the image\n"
    )


def test_debug_shows_the_traceback(cell):
    assert "Traceback" in cell("%container --debug host: pyhton")[0]


@pytest.mark.parametrize("running", [False, True])
def test_after_the_timeout_it_is_killed(cell, ipython, running):
    mark = new_mark()
    with BOX.start("sleep", "infinity") as box:
        text = f"%%container --timeout 0.3 -o done box sh\necho before\nsleep {mark}"
        out, _, error = cell(text, box=box if running else BOX)
        assert isinstance(error, CommandTimeout)
        assert error.result == ipython.user_ns["done"]
        assert (error.result.stdout, error.result.timed_out) == ("before\n", True)
        assert "'sh' did not end within 0.3 s and was killed" in out
        assert comes_true(lambda: marked(mark) == [])
        assert box.status == "running"


@pytest.mark.parametrize("running", [False, True])
def test_an_interrupt_ends_the_command(cell, running):
    mark = new_mark()

    def interrupt():
        comes_true(lambda: marked(mark))
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    with BOX.start("sleep", "infinity") as box:
        thread.start()
        *_, error = cell(f"%container box sleep {mark}", box=box if running else BOX)
        thread.join()
        assert isinstance(error, KeyboardInterrupt)
        assert comes_true(lambda: marked(mark) == [])
        assert box.status == "running"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("%container", "there is no image"),
        ("%container --nonsense host: true", "unrecognized arguments"),
        ("%container host: 'x", "no closing quotation"),
        ("%container host:", "there is no command"),
    ],
)
def test_a_wrong_line_is_refused(cell, line, said):
    out, _, error = cell(line)
    assert said in out
    assert isinstance(error, pycontain.errors.PycontainError)


def test_what_has_exited_executes_nothing(cell):
    with BOX.start("true") as box:
        box.wait()
        assert isinstance(cell("%container box true", box=box)[2], SandboxError)


def test_help_is_shown(cell):
    out, _, error = cell("%container --help")
    assert (out.split("\n")[0], error) == ("usage: %container [OPTION…] IMAGE|VARIABLE [ARG…]", None)


# --- through a kernel --------------------------------------------------------------------------------------

CLIENT = """
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel()
def execute(text):
    def show(message):
        content = message["content"]
        if message["msg_type"] == "stream":
            print(content["name"], repr(content["text"]))
            if "interrupt me" in content["text"]:
                manager.interrupt_kernel()
        if message["msg_type"] == "error":
            print(content["ename"])
        if message["msg_type"] == "execute_result":
            print(content["data"]["text/html"][:7])
    client.execute_interactive(text, output_hook=show, timeout=60)
try:
    execute("%load_ext pycontain")
    execute("%%container -o done host: sh\\necho hello")
    execute("done")
    execute("%%container host: sh\\necho interrupt me; sleep 1000")
    execute("%container host: echo goes on")
finally:
    client.stop_channels()
    manager.shutdown_kernel(now=True)
"""


def test_it_works_in_a_kernel(tmp_path):
    pytest.importorskip("ipykernel")
    done = subprocess.run(
        [sys.executable, "-c", CLIENT],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "IPYTHONDIR": str(tmp_path),
            "JUPYTER_RUNTIME_DIR": str(tmp_path),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout.splitlines() == [
        r"stdout 'hello\n'",
        "<table>",
        r"stdout 'interrupt me\n'",
        "KeyboardInterrupt",
        r"stdout 'goes on\n'",
    ], done.stderr


# --- values ------------------------------------------------------------------------------------------------

HOSTILE = "<script>alert('&')</script></pre>\x00"


def is_tame(html):
    return (
        "<script" not in html
        and "&lt;script&gt;alert(&#x27;&amp;&#x27;)" in html
        and html.count("</pre>") < 3
    )


@pytest.mark.parametrize("text", [True, False])
def test_what_was_printed_is_escaped(text):
    script = 'cat >&2; echo "$0"'
    done = BOX.run("sh", "-c", script, HOSTILE.strip("\0"), input=HOSTILE, text=text)
    html = done._repr_html_()
    assert is_tame(html)
    assert html.count("&lt;script&gt;") == 3  # the command and both streams


def test_how_it_ended_is_shown():
    with pytest.raises(CommandTimeout) as caught:
        BOX.run("sleep", "1000", timeout=0.1)
    assert "timed out" in caught.value.result._repr_html_()
    assert "exit code 3" in BOX.run("sh", "-c", "exit 3")._repr_html_()


def test_of_long_output_the_end_is_shown():
    html = BOX.run("seq", "1000")._repr_html_()
    assert html.count("\n") == 99
    assert html.index("the last of 3892 characters") < html.index("901\n") < html.index("1000</pre>")


def test_a_container_that_runs_is_escaped():
    with BOX.start("sh", "-c", 'echo "$0"; sleep 1000', HOSTILE.strip("\0")) as running:
        running.wait_for(log="script")
        assert is_tame(running._repr_html_())
        assert "<td style='text-align:left'>running</td>" in running._repr_html_()


def test_the_ports_of_a_container_are_shown():
    with BOX.publish(80).start("sleep", "1000") as running:
        assert f"80/tcp at 127.0.0.1:{running.ports[0].host_port}" in running._repr_html_()


def test_an_image_is_escaped(store, tmp_path):  # noqa: F811 - the fixture
    folder = write_layout(tmp_path / "layout", it=image(busybox_layer(tmp_path), cmd=("echo", HOSTILE)))
    html = Image.find(f"oci:{folder}:it")._repr_html_()
    assert is_tame(html)
    assert "linux/" in html


def test_a_plan_is_escaped():
    assert is_tame(BOX.env(A=HOSTILE.strip("\0")).plan("echo", HOSTILE.strip("\0"))._repr_html_())
