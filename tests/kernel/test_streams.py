"""Standard streams under load, and when one side has gone."""

import os
import threading

import pytest

from pycontain import Container

HOST = Container("host:")
SIZE = 64 << 20


@pytest.fixture(scope="module")
def content():
    return os.urandom(1 << 16) * (SIZE >> 16)


@pytest.fixture(scope="module")
def running():
    with HOST.start("sleep", "1000") as running:
        yield running


def test_an_exec_takes_and_gives_64_mib_at_once(running, content):
    result = running.exec("cat", input=content, text=False)
    assert result.stdout == content
    assert not result.truncated


def test_what_was_started_takes_and_gives_64_mib_at_once(content):
    with HOST.start("cat", input=content, max_output=SIZE) as running:
        exit_code = running.wait(60).exit_code
        assert exit_code == 0
        assert running._exchange.stdout.bytes() == content


def test_one_byte_more_than_is_kept_is_said():
    assert HOST.run("head", "-c", str((1 << 20) + 1), "/dev/zero", max_output="1M").truncated
    assert not HOST.run("head", "-c", str(1 << 20), "/dev/zero", max_output="1M").truncated


def test_a_character_that_is_cut_in_two_is_replaced():
    result = HOST.run("printf", "aä", max_output=2)
    assert (result.stdout, result.truncated) == ("a\N{REPLACEMENT CHARACTER}", True)


def test_a_payload_whose_reader_is_late_is_not_held_up():
    """A background process goes on writing after the payload's end; nobody waits for it."""
    result = HOST.run("sh", "-c", "yes & head -c 100000 /dev/zero")
    assert result.exit_code == 0


def test_an_exec_that_leaves_a_writer_behind_returns(running):
    result = running.exec("sh", "-c", "(yes || true) & echo done; exit 2", max_output="1M")
    assert result.exit_code == 2


def test_the_streams_of_two_commands_do_not_mix(running):
    results = {}

    def work(number):
        results[number] = running.exec("sh", "-c", f"for i in $(seq 200); do echo {number}; done").stdout

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: f"{number}\n" * 200 for number in range(6)}


def test_standard_error_and_output_are_different_pipes(running):
    script = "readlink /proc/self/fd/1; readlink /proc/self/fd/2"
    one, other = running.exec("sh", "-c", script).stdout.split()
    assert one != other


def test_a_payload_that_writes_after_the_owner_has_read_enough_is_not_killed_by_sigpipe():
    assert HOST.run("head", "-c", "5M", "/dev/zero", max_output=0).exit_code == 0


def test_the_end_of_input_is_seen_when_all_was_fed():
    assert HOST.run("sh", "-c", "cat > /dev/null; echo end", input="x" * 100_000).stdout == "end\n"


def test_lines_appear_while_the_payload_runs(running):
    with HOST.start("sh", "-c", "echo first; sleep 100") as other:
        deadline = threading.Event()
        for _ in range(2000):
            if other._exchange.stdout.bytes() == b"first\n":
                break
            deadline.wait(0.005)
        else:
            pytest.fail("the first line never came")


def test_no_bytes_are_lost_at_the_end():
    for _ in range(30):
        result = HOST.run("sh", "-c", "head -c 60000 /dev/zero; head -c 60000 /dev/zero >&2", text=False)
        assert (len(result.stdout), len(result.stderr)) == (60_000, 60_000)


def test_a_stream_that_a_payload_hands_on_and_closes_stays_readable():
    script = "exec 3>&1 1>&-; (sleep 0.05; echo late >&3) & wait"
    assert HOST.run("sh", "-c", script).stdout == "late\n"
