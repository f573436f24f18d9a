"""``run``: a command in a new container, to its end."""

import os
import time

import pytest
from owners import comes_true, marked, new_mark

from pycontain import Container
from pycontain.errors import CommandFailed, CommandNotFound, CommandTimeout, InvalidSpec

HOST = Container("host:")


def sh(script, **options):
    return HOST.run("sh", "-c", script, **options)


def test_both_streams_and_the_exit_code_come_back():
    result = sh("echo out; echo err >&2; exit 3")
    assert (result.stdout, result.stderr, result.exit_code, result.signal) == ("out\n", "err\n", 3, None)


@pytest.mark.parametrize("code", [0, 1, 126, 127, 128, 137, 255])
def test_an_exit_code_is_what_the_payload_says(code):
    result = sh(f"exit {code}")
    assert (result.exit_code, result.signal, result.ok) == (code, None, code == 0)


@pytest.mark.parametrize("number", [1, 6, 9, 11, 15, 34, 64])
def test_a_payload_that_a_signal_ends_has_that_signal_and_no_exit_code(number):
    result = sh(f"kill -{number} $$")
    assert (result.exit_code, result.signal, result.ok) == (None, number, False)


def test_argv_is_what_was_executed():
    assert HOST.entrypoint("sh", "-c").run("true").argv == ("sh", "-c", "true")


def test_bytes_are_given_with_text_false():
    result = HOST.run("printf", r"\377\000a", text=False)
    assert (result.stdout, result.stderr) == (b"\xff\0a", b"")


def test_what_is_no_utf8_becomes_the_replacement_character():
    assert HOST.run("printf", r"a\377b").stdout == "a\N{REPLACEMENT CHARACTER}b"


@pytest.mark.parametrize("given", ["häi\n", "häi\n".encode()], ids=["str", "bytes"])
def test_input_is_text_or_bytes(given):
    assert HOST.run("cat", input=given).stdout == "häi\n"


def test_an_empty_input_is_an_end_of_file_at_once():
    assert HOST.run("cat", input="").stdout == ""


def test_without_input_the_payload_reads_dev_null():
    assert HOST.run("readlink", "/proc/self/fd/0").stdout == "/dev/null\n"


def test_a_payload_may_ignore_its_input():
    assert HOST.run("true", input=b"x" * (4 << 20)).ok


def test_a_payload_may_close_its_streams_and_go_on():
    assert sh("exec >&- 2>&- <&-; exit 7", input="x").exit_code == 7


def test_64_mib_go_in_and_out_at_once():
    content = os.urandom(1 << 16) * 1024
    result = HOST.run("cat", input=content, text=False)
    assert result.stdout == content
    assert not result.truncated


def test_both_streams_may_be_full_at_once():
    result = sh("head -c 3000000 /dev/zero >&2 & head -c 3000000 /dev/zero; wait", text=False)
    assert (len(result.stdout), len(result.stderr)) == (3_000_000, 3_000_000)


@pytest.mark.parametrize(("limit", "kept"), [(0, ""), (5, "01234"), (10, "0123456789"), ("1k", "0123456789")])
def test_max_output_keeps_the_first_bytes_and_says_whether_there_were_more(limit, kept):
    result = HOST.run("printf", "0123456789", max_output=limit)
    assert (result.stdout, result.truncated) == (kept, len(kept) < 10)


def test_max_output_counts_each_stream():
    result = sh("printf 12345; printf 12345 >&2", max_output=5)
    assert (result.stdout, result.stderr, result.truncated) == ("12345", "12345", False)


def test_a_payload_that_prints_more_than_is_kept_is_not_held_up():
    assert HOST.run("head", "-c", "20M", "/dev/zero", max_output=1).ok


def test_check_returns_a_result_that_is_good():
    assert HOST.run("true", check=True).ok


def test_check_raises_with_the_result_and_the_last_lines():
    with pytest.raises(CommandFailed) as caught:
        sh("seq 100; seq 100 140 >&2; exit 4", check=True)
    assert caught.value.result.exit_code == 4
    assert "exit code 4" in str(caught.value)
    assert "140" in caught.value.__notes__[0]
    assert "\n100" not in caught.value.__notes__[0]


def test_check_shows_the_output_when_there_are_no_errors():
    with pytest.raises(CommandFailed) as caught:
        sh("echo explained; exit 1").check()
    assert "explained" in caught.value.__notes__[0]


@pytest.mark.parametrize("number", [9, 40])
def test_check_names_the_signal(number):
    with pytest.raises(CommandFailed, match="SIGKILL" if number == 9 else "40"):
        sh(f"kill -{number} $$", check=True)


def test_a_timeout_is_a_timeout_error_with_what_was_printed_until_then():
    with pytest.raises(CommandTimeout) as caught:
        sh("echo before; sleep 100", timeout=0.5)
    result = caught.value.result
    assert isinstance(caught.value, TimeoutError)
    assert (result.stdout, result.timed_out, result.ok) == ("before\n", True, False)
    assert "before" in caught.value.__notes__[0]


def test_a_timeout_ends_every_process_of_the_container():
    mark = new_mark()
    with pytest.raises(CommandTimeout):
        sh(f"setsid sleep {mark} & (trap '' TERM INT HUP; sleep {mark}) & wait", timeout=0.3)
    assert marked(mark) == []


def test_a_timeout_that_is_over_before_it_begins():
    with pytest.raises(CommandTimeout):
        HOST.run("sleep", "100", timeout=0)


def test_a_timeout_counts_from_the_call_and_is_not_waited_for_when_all_is_done():
    assert HOST.run("true", timeout=1000).duration < 100


def test_a_timed_out_payload_that_reads_no_input():
    with pytest.raises(CommandTimeout):
        HOST.run("sleep", "100", input=b"x" * (1 << 20), timeout=0.3)


def test_the_end_of_the_payload_is_the_end_whoever_holds_its_output():
    """A background process inherits the pipes; the container ends with its payload all the same."""
    mark = new_mark()
    result = sh(f"sleep {mark} & echo done")
    assert result.stdout == "done\n"
    assert marked(mark) == []


def test_what_a_background_process_printed_before_the_end_is_there():
    result = sh("(echo early; sleep 100) & sleep 0.1; echo late")
    assert result.stdout == "early\nlate\n"


def test_cpu_time_is_counted():
    usage = sh("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done").usage
    assert usage.cpu_user + usage.cpu_system > 0.01


def test_cpu_time_of_children_that_were_waited_for_is_counted():
    usage = sh("(i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done); true").usage
    assert usage.cpu_user + usage.cpu_system > 0.01


def test_memory_peak_is_in_bytes():
    peak = HOST.run("dd", "if=/dev/zero", "of=/dev/null", "bs=50M", "count=1").usage.memory_peak
    assert 50 << 20 < peak < 100 << 20


def test_timings_name_the_phases_and_add_up_to_the_duration():
    result = HOST.run("sleep", "0.3")
    timings = result.timings
    phases = (timings.resolve, timings.snapshot, timings.clone, timings.setup, timings.run)
    assert min(phases) >= 0
    assert timings.run >= 0.05  # its begin is told by the init, which a busy machine may keep waiting
    assert sum(phases) <= result.duration


def test_two_runs_of_one_value_share_nothing():
    assert sh("echo x > /left; ls /left").ok
    assert not sh("ls /left").ok


def test_a_container_leaves_no_trace_in_the_directory_of_the_owner(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sh("echo x > here").ok
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("word", ["", " ", "a b", "-n", "$HOME", "a\nb", "häi ☃", "'\"\\", "\udcff"])
def test_an_argument_arrives_as_it_is(word):
    expected = word.encode("utf-8", "surrogateescape")
    assert HOST.run("printf", "%s", word, text=False).stdout == expected


class Word(str):
    """As enum.StrEnum, numpy.str_ and our own paths are."""

    __slots__ = ()


def test_an_argument_a_variable_and_an_input_may_be_a_kind_of_str():
    result = HOST.env({Word("A"): Word("a")}).run(
        "sh", "-c", 'echo $A "$1"; cat', Word("sh"), Word("b"), input=Word("c")
    )
    assert result.stdout == "a b\nc"


def test_every_text_of_a_value_may_be_a_kind_of_str(tmp_path):
    container = (
        Container(Word("host:")).hostname(Word("box")).workdir(Word("/usr")).user(Word("0")).name(Word("n"))
        .mount(Word(tmp_path), Word("/a")).tmpfs(Word("/b"), size=Word("1M")).file(Word("/c"), Word("x"))
        .secret(Word("s"), Word("y")).rlimit(Word("nofile"), 99).capabilities(drop=[Word("CHOWN")])
        .stop_signal(Word("TERM")).label({Word("a"): Word("b")})
    )  # fmt: skip
    assert container.run(Word("hostname")).stdout == "box\n"


def test_a_command_line_longer_than_a_packet():
    words = [f"{number:0100}" for number in range(10_000)]
    assert HOST.run("sh", "-c", 'echo $# "${10000}"', "sh", *words).stdout == f"10000 {9999:0100}\n"


def test_an_environment_longer_than_a_packet():
    container = HOST.env({f"NAME{number}": "x" * 1000 for number in range(500)})
    assert container.run("sh", "-c", "env | grep -c ^NAME").stdout == "500\n"


def test_the_entrypoint_comes_before_the_arguments():
    assert HOST.entrypoint("echo", "a").run("b", "c").stdout == "a b c\n"


def test_an_entrypoint_runs_alone():
    assert HOST.entrypoint("echo", "a").run().stdout == "a\n"


def test_an_empty_entrypoint_is_none():
    assert HOST.entrypoint("echo").entrypoint().run("printf", "x").stdout == "x"


def test_no_command_at_all_is_refused_with_advice():
    with pytest.raises(InvalidSpec, match="no command") as caught:
        HOST.run()
    assert caught.value.__notes__


def test_a_program_is_looked_for_in_the_path_of_the_container():
    script = "mkdir /own; printf '#!/bin/sh\\necho hello' > /own/hello; chmod +x /own/hello; exec env hello"
    assert HOST.env(PATH="/own:/usr/bin:/bin").run("sh", "-c", script).stdout == "hello\n"
    with pytest.raises(CommandNotFound):
        HOST.env(PATH="/own").run("sh")


def test_a_relative_program_is_looked_for_in_the_working_directory():
    assert HOST.workdir("/usr/bin").run("./printf", "x").stdout == "x"


def test_the_repr_of_a_result_is_short_whatever_was_printed():
    result = HOST.run("head", "-c", "1M", "/dev/zero")
    assert len(repr(result)) < 1000


def test_the_repr_of_a_result_is_short_whatever_was_executed():
    assert len(repr(HOST.run("true", "x" * 100_000))) < 1000


def test_a_plan_does_nothing(tmp_path):
    plan = HOST.mount(tmp_path / "missing", "/x").plan("nothing", "here")
    assert 'execve("nothing", ["nothing", "here"]' in str(plan)
    assert not (tmp_path / "missing").exists()


def test_a_plan_prints_one_line_for_each_step():
    plan = HOST.plan("true")
    assert len(str(plan).splitlines()) == len(plan) + 1


def test_a_plan_is_a_table_in_a_notebook():
    plan = HOST.env(A="<b>").plan("true")
    html = plan._repr_html_()
    assert html.count("<tr>") == len(plan) + 1
    assert "&lt;b&gt;" in html


def test_a_killed_container_is_gone_when_run_returns():
    mark = new_mark()
    began = time.monotonic()
    with pytest.raises(CommandTimeout):
        HOST.run("sleep", mark, timeout=0.1)
    assert comes_true(lambda: not marked(mark), patience=0)
    assert time.monotonic() - began < 10
