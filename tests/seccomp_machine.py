"""A BPF machine as the kernel has it for seccomp, in Python, and what a policy means, said a second time.

:class:`Machine` runs programs of any origin. :func:`meaning` is the policy read straight from its definition,
without ranges, searches or halves, for comparison with what the programs do.
"""

import struct
from errno import ENOSYS

from pycontain.kernel.syscall_tables import (
    I386_IPC,
    I386_SOCKETCALL,
    Abi,
    int_arguments,
    numbers_of,
)
from pycontain.sandbox.seccomp import Action, Answer, Op

MACHINES = {"x86_64": (Abi.X86_64, Abi.I386, Abi.X32), "aarch64": (Abi.AARCH64, Abi.ARM)}


def packet(abi: Abi, number: int, args=(0,) * 6) -> bytes:
    """struct seccomp_data"""
    return struct.pack("<IIQ6Q", number, abi.audit_arch, 0x1234, *args)


class Machine:
    def __init__(self, program: bytes):
        assert len(program) % 8 == 0
        assert 0 < len(program) // 8 <= 4096
        self.instructions = list(struct.iter_unpack("<HBBI", program))

    def run(self, data: bytes) -> int:
        """What the program returns for one call."""
        return self.trace(data)[0]

    def trace(self, data: bytes) -> tuple[int, int]:
        """What it returns, and after how many instructions."""
        accumulator = place = steps = 0
        while True:
            code, true, false, k = self.instructions[place]
            place += 1
            steps += 1
            match code:
                case 0x06:  # RET
                    return k, steps
                case 0x20:  # LD_ABS
                    assert k % 4 == 0
                    (accumulator,) = struct.unpack_from("<I", data, k)
                case 0x00:  # LD_IMM
                    accumulator = k
                case 0x54:  # AND
                    accumulator &= k
                case 0x05:  # JA
                    place += k
                case 0x15:  # JEQ
                    place += true if accumulator == k else false
                case 0x25:  # JGT
                    place += true if accumulator > k else false
                case 0x35:  # JGE
                    place += true if accumulator >= k else false
                case _:
                    raise AssertionError(f"instruction {code:#x}")

    def ask(self, abi: Abi, number: int, args=(0,) * 6) -> int:
        return self.run(packet(abi, number, args))


# --- the meaning of a policy ----------------------------------------------------------------------------


def holds(arg, args, *, bits: int) -> bool:
    value, wanted = args[arg.index], arg.value
    if bits == 32:
        value &= 0xFFFFFFFF
        if wanted >= 0xFFFFFFFF_00000000:
            wanted &= 0xFFFFFFFF
    match arg.op:
        case Op.NE:
            return value != wanted
        case Op.LT:
            return value < wanted
        case Op.LE:
            return value <= wanted
        case Op.EQ:
            return value == wanted
        case Op.GE:
            return value >= wanted
        case Op.GT:
            return value > wanted
        case Op.MASKED_EQ:
            mask = arg.value & (0xFFFFFFFF if bits == 32 else ~0)
            return value & mask == arg.value_two & mask


def bits_of(abi: Abi, name: str, index: int) -> int:
    return 32 if abi in (Abi.I386, Abi.ARM) or (name, index) in int_arguments() else 64


def names_by_number(abi: Abi) -> dict[int, str]:
    return {number: name for name, number in numbers_of(abi).items()}


def horizon_of(policy, abi: Abi) -> int:
    """The highest number that the policy names, Arm's private calls aside."""
    named = {name for name, _ in policy.calls}
    if abi is Abi.I386:
        members = {"socketcall": I386_SOCKETCALL, "ipc": I386_IPC}
        named |= {many for many, calls in members.items() if named & calls.keys()}
    numbers = [n for name, n in numbers_of(abi).items() if name in named and n - abi.first_number < 0xF0000]
    return max(numbers, default=abi.first_number - 1)


def meaning(policy, abi: Abi, number: int, args=(0,) * 6) -> int:
    """What *policy* wants for a call; without what i386 hides behind socketcall and ipc."""
    name = names_by_number(abi).get(number)
    calls = dict(policy.calls)
    for case in calls.get(name, ()):
        if all(holds(arg, args, bits=bits_of(abi, name, arg.index)) for arg in case.args):
            return case.answer.returns
    denies = policy.default.action not in {Action.ALLOW, Action.LOG, Action.TRACE}
    if name not in calls and denies and number > horizon_of(policy, abi):
        return Answer(Action.ERRNO, ENOSYS).returns
    return policy.default.returns
