"""The BPF assembler: what is written with labels runs as written, however far the jumps go."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seccomp_machine import Machine

from pycontain.kernel import bpf
from pycontain.kernel.bpf import Jump, Label, Statement, assemble


def returns(value: int) -> Statement:
    return Statement(bpf.RET, value)


def test_an_instruction_is_eight_little_endian_bytes():
    assert assemble([Statement(bpf.RET, 0x7FFF0000)]) == bytes.fromhex("0600 00 00 0000ff7f")


def test_a_jump_counts_from_the_next_instruction():
    there = Label()
    program = assemble([Jump(bpf.JEQ, 7, true=there), returns(1), there, returns(2)])
    assert program[:8] == bytes.fromhex("1500 01 00 07000000")


@pytest.mark.parametrize(("distance", "length"), [(255, 257), (256, 260)])
def test_a_jump_takes_more_room_only_beyond_255_instructions(distance, length):
    there = Label()
    program = assemble([Jump(bpf.JEQ, 0, true=there), *[returns(1)] * distance, there, returns(2)])
    assert len(program) // 8 == length
    assert Machine(program).run(bytes(64)) == 2


def test_a_jump_back_is_refused():
    back = Label()
    with pytest.raises(ValueError, match="forward"):
        assemble([back, returns(0), Jump(bpf.JEQ, 0, true=back), returns(0)])


def test_a_program_of_4097_instructions_is_refused():
    assemble([returns(0)] * 4096)
    with pytest.raises(ValueError, match="4097"):
        assemble([returns(0)] * 4097)


def follow(items, number: int) -> int:
    """Run the items themselves."""
    place = {item: index for index, item in enumerate(items) if isinstance(item, Label)}
    accumulator = index = 0
    while True:
        item = items[index]
        index += 1
        match item:
            case Statement(bpf.LD_ABS, _):
                accumulator = number
            case Statement(bpf.RET, value):
                return value
            case Jump(bpf.JGE, k, true, false):
                target = true if accumulator >= k else false
                index = index if target is None else place[target]


@st.composite
def programs(draw):
    """Blocks of padding with jumps between them, so that every mix of near and far targets turns up."""
    sizes = draw(st.lists(st.sampled_from([0, 1, 100, 253, 254, 255, 300]), min_size=2, max_size=8))
    labels = [Label() for _ in sizes]
    items = [Statement(bpf.LD_ABS, 0)]
    for block, (size, label) in enumerate(zip(sizes, labels, strict=True)):
        later = st.sampled_from([None, *labels[block:]])
        items += [Jump(bpf.JGE, draw(st.integers(0, 8)), draw(later), draw(later))]
        items += [returns(1000 * block + place) for place in range(size)]
        items += [label]
    return [*items, returns(77)]


@given(programs(), st.integers(0, 9))
def test_the_bytes_do_what_the_items_say(items, number):
    program = assemble(items)
    assert Machine(program).run(number.to_bytes(4, "little") + bytes(60)) == follow(items, number)
