"""Users and groups of an image's own files: passwd(5) and group(5), read with suspicion."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycontain.sandbox.accounts import UnknownAccount, resolve_user

PASSWD = "root:x:0:0:root:/root:/bin/sh\nu:x:1000:1001:A User:/home/u:/bin/sh\n77:x:78:79::/home/77:\n"
GROUP = "root:x:0:\nu:x:1001:\none:x:1002:x,u,y\ntwo:x:1003:u\nother:x:1004:uu,xu\n88:x:89:\n"


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", (0, 0, (), "/root")),
        ("0", (0, 0, (), "/root")),
        ("root", (0, 0, (), "/root")),
        ("u", (1000, 1001, (1002, 1003), "/home/u")),
        ("1000", (1000, 1001, (1002, 1003), "/home/u")),
        ("u:one", (1000, 1002, (), "/home/u")),
        ("u:5", (1000, 5, (), "/home/u")),
        ("1000:two", (1000, 1003, (), "/home/u")),
        ("55", (55, 0, (), "/")),
        ("55:66", (55, 66, (), "/")),
        ("55:u", (55, 1001, (), "/")),
        ("77", (78, 79, (), "/home/77")),
        ("u:88", (1000, 89, (), "/home/u")),
        ("4294967294", (4294967294, 0, (), "/")),
    ],
)
def test_a_user(user, expected):
    """As Docker resolves it."""
    assert resolve_user(user, PASSWD, GROUP) == expected


@pytest.mark.parametrize(
    "user", ["nobody", "u:nogroup", "nobody:u", "4294967295", "-1", "1.0", "٣", "0x10", " root", "root "]
)
def test_what_the_files_do_not_hold_is_unknown(user):
    with pytest.raises(UnknownAccount):
        resolve_user(user, PASSWD, GROUP)


def test_without_files_numbers_work():
    assert resolve_user("5:6", "", "") == (5, 6, (), "/")


def test_the_first_match_wins():
    assert resolve_user("u", "u:x:1:1::/a:\nu:x:2:2::/b:\n", "")[0] == 1


def test_a_home_that_is_no_path_is_none():
    assert resolve_user("u", "u:x:1:1::relative:\n", "")[3] == "/"


@pytest.mark.parametrize(
    "line",
    [
        "",
        ":",
        "u",
        "u:x",
        "u:x:1:1",
        "u:x:a:1::/:",
        "u:x:1:b::/:",
        "u:x:-1:1::/:",
        "u:x:4294967295:1::/:",
        "u:x:1:99999999999::/:",
        "#u:x:1:1::/:",
    ],
)
def test_a_malformed_line_is_skipped(line):
    assert resolve_user("u", f"{line}\nu:x:7:8::/home/u:\n", "")[:2] == (7, 8)


@pytest.mark.parametrize("mark", ["\v", "\f", "\x1c", "\x85", "\N{LINE SEPARATOR}", "\r"])
def test_only_a_newline_ends_a_line(mark):
    """A full name that a user chose (chfn) must not become an account."""
    passwd = f"u:x:1000:1000:{mark}evil:x:0:0::/:/bin/sh\n"
    with pytest.raises(UnknownAccount):
        resolve_user("evil", passwd, "")


def test_a_part_of_a_name_is_no_membership():
    assert resolve_user("u", PASSWD, GROUP)[2] == (1002, 1003)


@given(st.text(max_size=200), st.text(max_size=200), st.text(max_size=10))
def test_any_text_is_resolved_or_unknown(passwd, group, user):
    try:
        uid, gid, groups, home = resolve_user(user, passwd, group)
    except UnknownAccount:
        return
    assert all(0 <= number < 2**32 - 1 for number in (uid, gid, *groups))
    assert home.startswith("/")


@given(st.integers(0, 2**32 - 2), st.integers(0, 2**32 - 2))
def test_numbers_mean_themselves(uid, gid):
    assert resolve_user(f"{uid}:{gid}", "", "") == (uid, gid, (), "/")
