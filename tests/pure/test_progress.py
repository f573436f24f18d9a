"""Progress as values, and as bars that somebody looks at."""

import io
import threading

import pytest

from pycontain.image.progress import (
    Bars,
    Phase,
    Progress,
    Reporter,
    SingleLine,
    line_of,
    reporter_of,
    size_text,
    summary_of,
)
from pycontain.oci.digest import Digest

LAYER = Digest.of(b"layer")
OTHER = Digest.of(b"other")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_callback_gets_values():
    seen = []
    reporter_of(seen.append).say(LAYER, Phase.DOWNLOAD, 5, 10)
    assert seen == [Progress(str(LAYER), Phase.DOWNLOAD, 5, 10)]


def test_a_callback_is_called_by_one_thread_at_a_time():
    inside, most = [0], [0]

    def callback(_):
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        inside[0] -= 1

    reporter = Reporter(callback)
    threads = [
        threading.Thread(target=lambda: [reporter.say(LAYER, Phase.PUSH, n, 99) for n in range(99)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


def test_what_a_callback_raises_reaches_the_transfer():
    def refuse(_):
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        Reporter(refuse).say(LAYER, Phase.PUSH, 0, 1)


def test_without_a_wish_nothing_is_said():
    assert reporter_of(False).silent


def test_where_is_no_terminal_nothing_is_drawn():
    stream = io.StringIO()
    reporter_of(True, stream).say(LAYER, Phase.DOWNLOAD, 5, 10)
    assert stream.getvalue() == ""


def test_a_bar():
    assert line_of(Progress(str(LAYER), Phase.DOWNLOAD, 5_000_000, 10_000_000)) == (
        f"{LAYER.hex[:12]}  downloading  [{'=' * 14}{' ' * 14}] 5 MB of 10 MB"
    )


def test_a_layer_of_nothing_is_a_full_bar():
    assert "=" * 28 in line_of(Progress(str(LAYER), Phase.UNPACK, 0, 0))


def test_bars_are_drawn_over_the_last_ones():
    terminal = Terminal()
    reporter = reporter_of(True, terminal)
    reporter.say(LAYER, Phase.DOWNLOAD, 1, 2)
    reporter.say(OTHER, Phase.DOWNLOAD, 1, 2)
    reporter.say(LAYER, Phase.DONE, 2, 2)
    assert "\x1b[1A" in terminal.getvalue()
    assert terminal.getvalue().count("done") == 1


def test_the_last_picture_shows_everything_done():
    terminal = Terminal()
    bars = Bars(terminal)
    for layer in (LAYER, OTHER):
        bars(Progress(str(layer), Phase.DONE, 2, 2))
    assert terminal.getvalue().rpartition("A")[2].count("done") == 2


def test_no_more_lines_are_drawn_than_a_terminal_has():
    """What has scrolled away cannot be drawn over."""
    terminal = Terminal()
    bars = Bars(terminal, rows=3)
    for number in range(10):
        bars(Progress(str(Digest.of(bytes([number]))), Phase.DOWNLOAD, 0, 1))
    assert terminal.getvalue().rpartition("A")[2].count("\n") == 3


def test_small_steps_are_not_all_drawn():
    terminal = Terminal()
    bars = Bars(terminal)
    for position in range(1000):
        bars(Progress(str(LAYER), Phase.DOWNLOAD, position, 1000))
    assert terminal.getvalue().count("downloading") < 100


def test_a_notebook_gets_one_line():
    stream = io.StringIO()
    line = SingleLine(stream)
    line(Progress(str(LAYER), Phase.DOWNLOAD, 1000, 2000))
    line(Progress(str(LAYER), Phase.DONE, 2000, 2000))
    assert stream.getvalue().split("\r")[1:] == [
        f"{'0 of 1 layers, 1 kB of 2 kB':<70}",
        f"{'1 of 1 layers, 2 kB of 2 kB':<70}\n",
    ]


def test_a_summary():
    layers = [Progress("a:b", Phase.DONE, 0, 10), Progress("a:c", Phase.PUSH, 5, 10)]
    assert summary_of(layers) == "1 of 2 layers, 15 B of 20 B"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (67_094_123, "67.1 MB"),
        (999_999, "1 MB"),
        (2.5e9, "2.5 GB"),
    ],
)
def test_sizes_for_people(count, text):
    assert size_text(count) == text
