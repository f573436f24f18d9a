"""What a container prints, line by line, while it runs and afterwards."""

import gc
import threading
import time
from subprocess import PIPE

import pytest
from owners import comes_true, marked, new_mark

from pycontain import Container
from pycontain.errors import InvalidSpec

HOST = Container("host:")


def start(script, **options):
    return HOST.start("sh", "-c", script, **options)


def texts(lines):
    return [line.text for line in lines]


def test_lines_come_while_it_runs_and_end_with_it():
    """The payload goes on only when its first line was read."""
    with start(
        "echo first; while [ ! -e /go ]; do sleep 0.01; done; echo second; echo bad >&2; exit 3"
    ) as running:
        seen = []
        for line in running.lines():
            seen.append((line.stream, line.text))
            if line.text == "first":
                running.exec("touch", "/go")
        assert sorted(seen) == [("stderr", "bad"), ("stdout", "first"), ("stdout", "second")]
        assert running.wait().exit_code == 3


def test_streams_come_in_order_of_arrival():
    script = "for i in 1 2 3 4 5; do echo $i; sleep 0.02; echo $i >&2; sleep 0.02; done"
    with start(script) as running:
        got = [(line.text, line.stream) for line in running.lines()]
    assert got == [(str(n), stream) for n in range(1, 6) for stream in ("stdout", "stderr")]


def test_after_the_end_everything_is_still_there():
    with start("echo a; printf b") as running:
        result = running.wait()
    assert [(line.text, line.end) for line in running.lines()] == [("a", "\n"), ("b", "")]
    assert texts(running.logs()) == ["a", "b"]
    assert result.stdout == "a\nb"


def test_logs_do_not_wait_and_show_what_is_not_complete():
    with start("echo a; printf b; sleep 1000") as running:
        assert comes_true(lambda: texts(running.logs()) == ["a", "b"])
        assert texts(running.logs(tail=1)) == ["b"]


def test_a_tail_and_then_what_comes():
    with HOST.start("cat", stdin=PIPE) as running:
        running.stdin.write(b"1\n2\n3\n")
        running.stdin.flush()
        assert comes_true(lambda: len(running.logs()) == 3)
        lines = running.lines(tail=1)
        assert next(lines).text == "3"
        running.stdin.write(b"4\n")
        running.stdin.close()
        assert texts(lines) == ["4"]


def test_since():
    with HOST.start("cat", stdin=PIPE) as running:
        running.stdin.write(b"old\n")
        running.stdin.flush()
        (old,) = [next(running.lines())]
        assert abs(old.time - time.time()) < 60
        running.stdin.write(b"new\n")
        running.stdin.close()
        running.wait()
    assert texts(running.lines(since=old.time + 1e-6)) == ["new"]


def test_wrong_arguments_are_refused_at_once():
    with start("sleep 1000") as running, pytest.raises(InvalidSpec, match="tail"):
        running.lines(tail=-1)


def test_several_follow_at_once_and_each_sees_everything():
    with start("while [ ! -e /go ]; do sleep 0.01; done; seq 20000; seq 20000 >&2") as running:
        seen = [[] for _ in range(5)]
        threads = [threading.Thread(target=lambda mine=mine: mine.extend(running.lines())) for mine in seen]
        for thread in threads:
            thread.start()
        running.exec("touch", "/go")
        for thread in threads:
            thread.join()
    for mine in seen:
        for stream in ("stdout", "stderr"):
            assert [line.text for line in mine if line.stream == stream] == [str(n) for n in range(1, 20001)]


def test_a_million_lines_and_a_slow_reader():
    """It misses nothing of what fits, and the payload does not wait for it."""
    with start("seq 1000000") as running:
        lines = running.lines()
        assert next(lines).text == "1"
        assert running.wait(60).exit_code == 0  # nobody has read since
        count, last = 1, None
        for line in lines:
            count += 1
            last = line
    assert (count, last.text) == (1_000_000, "1000000")


def test_a_reader_that_is_too_slow_is_told():
    with start("head -c 5000000 /dev/zero | tr '\\0' x; echo; seq 100000", max_output="1M") as running:
        running.wait(60)
        lines = list(running.lines())
    assert lines[-1].text == "100000"
    assert sum(len(line.text) + len(line.end) for line in lines) <= 1 << 20
    assert running.wait().truncated
    assert running.wait().stdout == "x" * (1 << 20)


def test_64_mib_without_a_newline():
    with start("head -c 64M /dev/zero", max_output="80M") as running:
        parts = list(running.lines())
        assert running.wait().exit_code == 0
    assert sum(len(part.text) for part in parts) == 64 << 20
    assert {part.end for part in parts} == {""}
    assert max(len(part.text) for part in parts) == 1 << 20


def test_crlf_and_bytes_that_are_no_text():
    with start(r"printf 'a\r\n\377\n\n\rb'") as running:
        lines = [(line.text, line.end) for line in running.lines()]
    assert lines == [("a", "\r\n"), ("\N{REPLACEMENT CHARACTER}", "\n"), ("", "\n"), ("\rb", "")]


def test_a_follower_ends_when_the_container_is_killed_from_another_thread():
    with start("echo x; sleep 1000") as running:
        lines = running.lines()
        assert next(lines).text == "x"
        threading.Timer(0.05, running.kill).start()
        assert list(lines) == []


def test_a_follower_ends_when_the_block_is_left():
    seen = []
    with start("echo x; sleep 1000") as running:
        lines = running.lines()
        seen.append(next(lines))
        follower = threading.Thread(target=lambda: seen.extend(lines))
        follower.start()
    follower.join(20)
    assert not follower.is_alive()
    assert texts(seen) == ["x"]


def test_who_follows_keeps_the_container():
    mark = new_mark()
    lines = start(f"echo x; sleep {mark}").lines()
    gc.collect()
    assert next(lines).text == "x"
    assert comes_true(lambda: marked(mark))
    lines.close()
    del lines
    gc.collect()
    assert comes_true(lambda: not marked(mark))


def test_with_nothing_kept_lines_are_there_all_the_same():
    with start("echo x", max_output=0) as running:
        assert texts(running.lines()) == ["x"]
        assert running.wait().stdout == ""


def test_a_hundred_containers_stream_at_once():
    count = 100
    running = [HOST.start("sh", "-c", f"for i in 1 2; do echo {n} $i; sleep 0.3; done") for n in range(count)]
    try:
        names = {thread.name for thread in threading.enumerate()}
        assert len([name for name in names if name == "pycontain-watcher"]) == 1
        for number, one in enumerate(running):
            assert texts(one.lines()) == [f"{number} {i}" for i in (1, 2)]
    finally:
        for one in running:
            one.close()


# --- standard input of what was started ---------------------------------------------------------------


def test_a_pipe_to_what_was_started():
    with HOST.start("cat", stdin=PIPE) as running:
        lines = running.lines()
        for word in ("one", "two"):
            running.stdin.write(f"{word}\n".encode())
            running.stdin.flush()
            assert next(lines).text == word
        running.stdin.close()
        assert running.wait(20).exit_code == 0


def test_a_file_for_what_was_started(tmp_path):
    (tmp_path / "in").write_text("hello")
    with (
        (tmp_path / "in").open("rb") as file,
        HOST.start("sh", "-c", "readlink /proc/self/fd/0; cat", stdin=file) as running,
    ):
        assert running.wait(20).stdout.startswith("pipe:")
        assert running.wait().stdout.endswith("\nhello")
        assert running.stdin is None


def test_leaving_the_block_closes_the_pipe():
    with HOST.start("cat", stdin=PIPE) as running:
        running.stdin.write(b"x")
    assert running.stdin.closed


def test_input_and_a_pipe_are_too_much():
    with pytest.raises(InvalidSpec, match="stdin"):
        HOST.start("cat", stdin=PIPE, input="x")
