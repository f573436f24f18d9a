"""Lines from pieces, and the ring that readers follow."""

import datetime as dt
import threading
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycontain.errors import InvalidSpec
from pycontain.process.logs import LogLine, Splitter, check, lines_of
from pycontain.runtime import log as logs
from pycontain.runtime.log import Log

CONTENT = st.lists(
    st.sampled_from([b"\n", b"\r\n", b"\r", b"a", b"\xff", b"\xc3", b"\xc3\xa4", "𝄞".encode(), b"x" * 9])
).map(b"".join)


def cut(content, places):
    """*content* in pieces, cut at *places*."""
    ends = sorted({place % (len(content) + 1) for place in places} | {0, len(content)})
    return [content[start:end] for start, end in pairwise(ends)]


def split(pieces, longest=1 << 20):
    splitter = Splitter(longest)
    lines = [line for piece in pieces for line in splitter.feed(piece)]
    rest = splitter.rest()
    return [*lines, (rest, b"")] if rest else lines


@given(CONTENT, st.lists(st.integers(0, 200)))
def test_bytes_in_are_bytes_out_whatever_the_pieces(content, places):
    lines = split(cut(content, places))
    assert b"".join(line + end for line, end in lines) == content
    assert all(b"\n" not in line for line, _ in lines)


@given(CONTENT, st.lists(st.integers(0, 200)), st.integers(1, 12))
def test_lines_do_not_depend_on_the_pieces(content, places, longest):
    lines = split(cut(content, places), longest)
    assert lines == split([content], longest)
    assert b"".join(line + end for line, end in lines) == content
    assert all(len(line) <= longest for line, _ in lines)


@given(st.text(max_size=50), st.integers(4, 12))
def test_a_long_line_is_cut_between_characters(text, longest):
    for line, _ in split([text.encode()], longest):
        line.decode()


def text_of(log, **options):
    options = {"follow": False, "since": None, "tail": None, **options}
    return [(line.stream, line.text, line.end) for line in lines_of(log, None, **options)]


@pytest.fixture
def log():
    return Log(1 << 20)


def test_streams_come_in_order_of_arrival(log):
    log.add(0, b"a\nb")
    log.add(1, b"e\r\n")
    log.add(0, b"c\nd")
    assert text_of(log) == [
        ("stdout", "a", "\n"),
        ("stderr", "e", "\r\n"),
        ("stdout", "bc", "\n"),
        ("stdout", "d", ""),
    ]


def test_what_is_no_utf_8_becomes_the_replacement_character(log):
    log.add(0, b"\xff\n")
    assert text_of(log) == [("stdout", "\N{REPLACEMENT CHARACTER}", "\n")]


def test_a_tail(log):
    log.add(0, b"1\n2\n3\n")
    assert [text for _, text, _ in text_of(log, tail=2)] == ["2", "3"]
    assert text_of(log, tail=0) == []


def test_since(log, monkeypatch):
    moments = iter([10.0, 20.0])
    monkeypatch.setattr(logs.time, "time", lambda: next(moments))
    log.add(0, b"old\n")
    log.add(0, b"new\n")
    assert [text for _, text, _ in text_of(log, since=15.0)] == ["new"]


def test_a_moment_is_seconds_or_a_datetime():
    moment = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    assert check(moment, None) == moment.timestamp()
    assert check(5, 3) == 5
    with pytest.raises(InvalidSpec) as caught:
        check("yesterday", -1)
    assert len(caught.value.problems) == 2


def test_what_is_dropped_is_told():
    log = Log(0)  # the least that a ring holds is 1 MiB
    for number in range(40):
        log.add(0, b"%02d" % number + b"x" * 65533 + b"\n")
    lines = list(lines_of(log, None, follow=False, since=None, tail=None))
    assert [line.text[:2] for line in lines] == [f"{number:02}" for number in range(40 - len(lines), 40)]
    assert 14 <= len(lines) <= 16
    assert lines[0].missed == 0  # what was gone before a reader began is not missed by it


def test_a_reader_that_falls_behind_is_told_how_much_it_missed():
    log = Log(0)
    log.add(0, b"first\nhal")
    reader = lines_of(log, None, follow=True, since=None, tail=None)
    assert next(reader).text == "first"
    for _ in range(40):
        log.add(0, b"x" * 65535 + b"\n")
    log.end()
    half, *rest = reader
    assert (half.text, half.end) == ("hal", "")
    assert rest[0].missed + sum(len(line.text) + 1 for line in rest) == 40 * 65536
    assert {line.missed for line in rest[1:]} == {0}


def test_the_beginning_is_kept_for_the_result():
    log = Log(2 << 20)
    for number in range(60):
        log.add(number % 2, bytes([number]) * 65536)
    for stream in (0, 1):
        whole = b"".join(bytes([number]) * 65536 for number in range(stream, 60, 2))
        assert log.kept(stream) == log.streams[stream].bytes() == whole
        assert not log.streams[stream].truncated
    for _ in range(60):
        log.add(0, b"y" * 65536)
    assert len(log.kept(0)) == 2 << 20
    assert log.kept(0).startswith(bytes(65536))
    assert log.streams[0].truncated
    assert not log.streams[1].truncated


def test_small_pieces_do_not_cost_more_than_the_limit():
    log = Log(1 << 20)
    for _ in range(20_000):
        log.add(0, b"x")
    assert len(log._records) - log._gone < (1 << 20) // 128
    assert log.kept(0) == b"x" * 20_000


def test_the_ring_does_not_keep_what_it_dropped():
    log = Log(0)
    for _ in range(100):
        log.add(0, b"x" * 65536)
    assert sum(len(chunk) for _, _, chunk in log._records) <= 1 << 20


def test_a_follower_ends_with_the_log(log):
    seen = []
    follower = threading.Thread(
        target=lambda: seen.extend(lines_of(log, None, follow=True, since=None, tail=None))
    )
    follower.start()
    log.add(0, b"one\ntwo")
    log.end()
    follower.join(10)
    assert [(line.text, line.end) for line in seen] == [("one", "\n"), ("two", "")]


def test_a_line_prints_as_its_text():
    assert str(LogLine("stdout", 0.0, "text")) == "text"
