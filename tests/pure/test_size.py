"""Amounts of bytes as people write them."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pycontain.sandbox.size import parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("100", 100),
        ("512k", 512 << 10),
        ("64M", 64 << 20),
        ("64m", 64 << 20),
        ("64MB", 64 << 20),
        ("64MiB", 64 << 20),
        ("64 M", 64 << 20),
        ("1.5G", 3 << 29),
        ("2T", 2 << 40),
        (" 7b ", 7),
        (7, 7),
        (0, 0),
    ],
)
def test_a_size(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "-1",
        "+1",
        "1e3",
        "M",
        "1X",
        "1 2",
        "0x10",
        "1.2.3",
        ".5",
        "\N{ARABIC-INDIC DIGIT ONE}",
        "nan",
        -1,
        -(1 << 70),
    ],
)
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match="size"):
        parse_size(text)


@pytest.mark.parametrize("given_", [None, 1.5, True, [], b"1", object()])
def test_what_is_no_text(given_):
    with pytest.raises((TypeError, ValueError)):
        parse_size(given_)


def test_a_size_larger_than_any_float():
    with pytest.raises(ValueError, match="size"):
        parse_size("9" * 400 + "T")


@example(number=2**53 + 1, unit=("", 0))
@given(st.integers(0, 1 << 80), st.sampled_from([("", 0), ("k", 10), ("M", 20), ("GiB", 30), ("tb", 40)]))
def test_whole_numbers_are_exact(number, unit):
    assert parse_size(f"{number}{unit[0]}") == number << unit[1]


@given(st.text(max_size=10))
def test_any_text_is_a_size_or_refused(text):
    try:
        assert parse_size(text) >= 0
    except ValueError as error:
        assert "size" in str(error)  # noqa: PT017 - it may be a size
