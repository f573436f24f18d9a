"""The capability sets that a container asks for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycontain.sandbox.capabilities import DEFAULT, NAMES, bits, granted, parse_capability

sets = st.frozensets(st.sampled_from(NAMES))


def test_the_numbers_are_those_of_the_kernel():
    """<linux/capability.h>"""
    known = {
        "CHOWN": 0,
        "SETUID": 7,
        "NET_ADMIN": 12,
        "SYS_ADMIN": 21,
        "SETFCAP": 31,
        "BPF": 39,
        "CHECKPOINT_RESTORE": 40,
    }
    assert {name: NAMES.index(name) for name in known} == known


def test_the_default_is_podmans():
    """containers-common, containers.conf(5), default_capabilities."""
    expected = (
        "CHOWN DAC_OVERRIDE FOWNER FSETID KILL NET_BIND_SERVICE SETFCAP SETGID SETPCAP SETUID SYS_CHROOT"
    )
    assert " ".join(sorted(DEFAULT)) == expected


@pytest.mark.parametrize("text", ["NET_RAW", "net_raw", "CAP_NET_RAW", "cap_net_raw"])
def test_a_name_is_read_as_people_write_it(text):
    assert parse_capability(text) == "NET_RAW"


@pytest.mark.parametrize("text", ["", "CAP_", "NET-RAW", "CAP_CAP_NET_RAW", "NET_RAW ", "0", "ROOT"])
def test_what_is_no_capability(text):
    with pytest.raises(ValueError, match="capabilit"):
        parse_capability(text)


@given(sets, sets)
def test_dropped_goes_and_added_stays(add, drop):
    assert granted(DEFAULT, add, drop) == (DEFAULT - drop) | add


@given(sets)
def test_drop_all_leaves_what_is_added(add):
    assert granted(DEFAULT, add, {"ALL"}) == add


@given(sets)
def test_add_all_leaves_out_what_is_dropped(drop):
    assert granted(DEFAULT, {"ALL"}, drop) == frozenset(NAMES) - drop


@given(sets)
def test_a_mask_has_one_bit_for_each(names):
    mask = bits(names)
    assert mask.bit_count() == len(names)
    assert all(mask >> NAMES.index(name) & 1 for name in names)


def test_a_second_change_builds_on_the_first():
    """``.capabilities(drop=["ALL"]).capabilities(add=["KILL"])`` is one capability, not the default and one."""
    assert granted(granted(DEFAULT, (), {"ALL"}), {"KILL"}, ()) == {"KILL"}
