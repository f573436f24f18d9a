"""From a seccomp policy to the BPF program that the kernel runs on every system call. Pure.

The program asks for the audit architecture first: an unknown one kills the process, because no number can be
trusted then. Below that stands one binary search per architecture, over ranges of numbers that get the same
outcome; i386 and x32 programs meet the same policy as native ones. A call that is decided by its number alone
passes about a dozen instructions, and the kernel (since 5.11) remembers at loading time which numbers are always
allowed, so those never run the program again. The leaves of the search hold the conditions on arguments.

Three decisions need words:

- *The horizon.* When the default denies, a number above all that the profile names gets ENOSYS in place of
  the default. The profile's author did not know the call, and a C library that tries it then falls back to an
  older one; EPERM would end the program. runc does the same.
- *Upper halves.* An argument that the kernel declares as an int is compared as 32 bits, since the kernel looks
  at no more: 0x1_0000_0026 as an address family is AF_ALG. libseccomp compares all 64 and is deceived.
- *Calls behind one number.* On i386, socketcall(2) and ipc(2) stand for many calls. A rule for ``bind``
  reaches ``socketcall(SYS_BIND, …)`` too, as with libseccomp. Its arguments lie in memory where no filter
  sees them, so of the cases with conditions only those go along that are stricter than the default, and
  without their conditions.
"""

from __future__ import annotations

import functools
from errno import ENOSYS
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, TypeAlias

import attrs

from pycontain.errors import InvalidSpec
from pycontain.kernel import bpf
from pycontain.kernel.syscall_tables import (
    ARM_PRIVATE,
    I386_IPC,
    I386_SOCKETCALL,
    Abi,
    int_arguments,
    numbers_of,
)
from pycontain.sandbox.seccomp import Action, Answer, Arg, Case, Op, Policy, Profile, in_force, resolve

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# struct seccomp_data (linux/seccomp.h), little-endian: int nr; u32 arch; u64 instruction_pointer; u64 args[6]
_NUMBER = 0
_ARCH = 4
_ARGS = 16

_LOWER = 0xFFFF_FFFF
_NOT_THERE = Answer(Action.ERRNO, ENOSYS)
_KILL = Answer(Action.KILL_PROCESS)

# What lets a call through, now or by way of a tracer: with such a default nothing is beyond the horizon.
_PERMISSIVE = frozenset({Action.ALLOW, Action.LOG, Action.TRACE})

_STRICTNESS = tuple(Action)
_REGISTERS_OF_32_BITS = frozenset({Abi.I386, Abi.ARM})


@functools.lru_cache(maxsize=64)
def compile_profile(
    profile: Profile, *, capabilities: frozenset[str], architecture: str, kernel: tuple[int, int]
) -> bytes:
    """The program for one container, made once for equal arguments; see :func:`~.seccomp.resolve`."""
    return compile_filter(
        resolve(profile, capabilities=capabilities, architecture=architecture, kernel=kernel)
    )


def compile_filter(policy: Policy) -> bytes:
    """The program for *policy*: an array of ``struct sock_filter``, ready for seccomp(2).

    Raises InvalidSpec when it would be longer than the kernel takes.
    """
    try:
        return bpf.assemble(tuple(_program(policy)))
    except ValueError as error:
        raise InvalidSpec(
            f"the seccomp profile is too large: {error}", hint="Use fewer conditions on arguments."
        ) from error


def _program(policy: Policy) -> Iterator[bpf.Item]:
    yield bpf.Statement(bpf.LD_ABS, _ARCH)
    # x32 shares the audit architecture of x86_64 and has higher numbers, so the two share one search.
    abis = sorted(policy.abis, key=lambda abi: (abi.audit_arch != policy.abis[0].audit_arch, abi.value))
    for audit_arch, sharing in groupby(abis, key=lambda abi: abi.audit_arch):
        other = bpf.Label()
        yield bpf.Jump(bpf.JEQ, audit_arch, false=other)
        yield bpf.Statement(bpf.LD_ABS, _NUMBER)
        yield from _search(_ranges(policy, tuple(sharing)))
        yield other
    yield _return(_KILL)


def _return(answer: Answer) -> bpf.Item:
    return bpf.Statement(bpf.RET, answer.returns)


# --- what each number gets ------------------------------------------------------------------------------

# The cases of one number in their order; the last has no conditions.
_Outcome: TypeAlias = tuple[Case, ...]


@attrs.frozen
class _Range:
    """The numbers from *first* up to the next range, and what they all get."""

    first: int
    outcome: _Outcome

    @property
    def is_plain(self) -> bool:
        """Whether the number alone decides."""
        return len(self.outcome) == 1


def _ranges(policy: Policy, abis: tuple[Abi, ...]) -> list[_Range]:
    """Every number, in ascending order; *abis* share one audit architecture and ascend too."""
    starts: dict[int, _Outcome] = {}
    for abi in abis:
        starts |= _starts(policy, abi)
    if abis == (Abi.X86_64,):
        starts[Abi.X32.first_number] = (Case((), _NOT_THERE),)  # what a kernel without x32 says
    return [_Range(next(group)[0], outcome) for outcome, group in groupby(starts.items(), key=itemgetter(1))]


def _starts(policy: Policy, abi: Abi) -> dict[int, _Outcome]:
    outcomes = _outcomes(policy, abi)
    ordinary = [number for number in outcomes if number - abi.first_number < ARM_PRIVATE]
    horizon = max(ordinary, default=abi.first_number - 1) + 1

    def unnamed(number: int) -> _Outcome:
        beyond = number >= horizon and policy.default.action not in _PERMISSIVE
        return (Case((), _NOT_THERE if beyond else policy.default),)

    starts = {abi.first_number: unnamed(abi.first_number)}
    for number in sorted(outcomes):
        starts[number] = outcomes[number]
        starts[number + 1] = unnamed(number + 1)
    return starts


def _outcomes(policy: Policy, abi: Abi) -> dict[int, _Outcome]:
    """What each number gets that *policy* names."""
    numbers, calls = numbers_of(abi), dict(policy.calls)
    if abi is Abi.I386:
        calls = _with_multiplexed(calls, policy.default)
    return {
        numbers[name]: (
            *(_as_wide_as_used(case, name, abi) for case in cases),
            *_at_last(cases, policy.default),
        )
        for name, cases in calls.items()
        if name in numbers
    }


def _at_last(cases: tuple[Case, ...], default: Answer) -> tuple[Case, ...]:
    """What must follow *cases* so that one of them always holds."""
    return () if cases and not cases[-1].args else (Case((), default),)


def _as_wide_as_used(case: Case, name: str, abi: Abi) -> Case:
    """The case with each condition cut to the bits that the kernel looks at."""
    return attrs.evolve(
        case,
        args=tuple(
            attrs.evolve(arg, bits=32)
            if abi in _REGISTERS_OF_32_BITS or (name, arg.index) in int_arguments()
            else arg
            for arg in case.args
        ),
    )


def _with_multiplexed(calls: dict[str, tuple[Case, ...]], default: Answer) -> dict[str, tuple[Case, ...]]:
    """The calls of i386, with the rules for the many also in the two that stand for them."""
    added = {
        "socketcall": _carried(calls, I386_SOCKETCALL, _LOWER, default),
        "ipc": _carried(calls, I386_IPC, 0xFFFF, default),  # ipc(2) keeps a version in the upper 16 bits
    }
    return calls | {name: in_force((*calls.get(name, ()), *cases)) for name, cases in added.items() if cases}


def _carried(
    calls: Mapping[str, tuple[Case, ...]], members: Mapping[str, int], mask: int, default: Answer
) -> tuple[Case, ...]:
    return tuple(
        Case((Arg(0, Op.MASKED_EQ, mask, number),), case.answer)
        for name, number in members.items()
        for case in calls.get(name, ())
        if not case.args or _STRICTNESS.index(case.answer.action) < _STRICTNESS.index(default.action)
    )


# --- the program ----------------------------------------------------------------------------------------


def _search(ranges: Sequence[_Range]) -> Iterator[bpf.Item]:
    """Find the range of the number in A, and return what it gets."""
    # Most ranges need no more than a return, and share it: the kernel's work at loading grows with the length.
    returns = {item.outcome[0].answer: bpf.Label() for item in ranges if item.is_plain}
    yield from _halve(ranges, returns)
    for answer, label in returns.items():
        yield label
        yield _return(answer)


def _halve(ranges: Sequence[_Range], returns: Mapping[Answer, bpf.Label]) -> Iterator[bpf.Item]:
    if len(ranges) == 1:
        yield from _decide(ranges[0].outcome)
        return
    middle = len(ranges) // 2
    lower, upper = ranges[:middle], ranges[middle:]
    below, above = _entry(lower, returns), _entry(upper, returns)
    yield bpf.Jump(bpf.JGE, upper[0].first, true=above, false=below)
    for label, half in ((below, lower), (above, upper)):
        if label not in returns.values():
            yield label
            yield from _halve(half, returns)


def _entry(ranges: Sequence[_Range], returns: Mapping[Answer, bpf.Label]) -> bpf.Label:
    """Where the search goes on with *ranges*."""
    if len(ranges) == 1 and ranges[0].is_plain:
        return returns[ranges[0].outcome[0].answer]
    return bpf.Label()


def _decide(outcome: _Outcome) -> Iterator[bpf.Item]:
    for case in outcome:
        miss = bpf.Label()
        for arg in case.args:
            yield from _check(arg, miss)
        yield _return(case.answer)
        yield miss


def _check(arg: Arg, miss: bpf.Label) -> Iterator[bpf.Item]:
    """Go on with the next item when *arg* holds, else at *miss*."""
    if arg.op is Op.MASKED_EQ:
        yield from _check_mask(arg, miss)
        return
    code, wanted = _COMPARISONS[arg.op]
    hit = bpf.Label()
    decided, unequal = (hit, miss) if wanted else (miss, hit)
    low, high = _halves(arg)
    if arg.bits == 64 or high:
        yield _load(arg, upper=True)
        if arg.op not in {Op.EQ, Op.NE}:
            yield bpf.Jump(bpf.JGT, high, true=decided)
        yield bpf.Jump(bpf.JEQ, high, false=unequal)
    yield _load(arg, upper=False)
    yield bpf.Jump(code, low, false=miss) if wanted else bpf.Jump(code, low, true=miss)
    yield hit


# BPF can ask for =, > and >=; the others are one of these that must not hold.
_COMPARISONS = {
    Op.EQ: (bpf.JEQ, True),
    Op.NE: (bpf.JEQ, False),
    Op.GT: (bpf.JGT, True),
    Op.LE: (bpf.JGT, False),
    Op.GE: (bpf.JGE, True),
    Op.LT: (bpf.JGE, False),
}


def _halves(arg: Arg) -> tuple[int, int]:
    """The lower and upper 32 bits to compare with; a negative int may be written as 64 bits."""
    low, high = arg.value & _LOWER, arg.value >> 32
    return low, 0 if arg.bits == 32 and high == _LOWER else high


def _load(arg: Arg, *, upper: bool) -> bpf.Item:
    if upper and arg.bits == 32:
        return bpf.Statement(bpf.LD_IMM, 0)
    return bpf.Statement(bpf.LD_ABS, _ARGS + 8 * arg.index + 4 * upper)


def _check_mask(arg: Arg, miss: bpf.Label) -> Iterator[bpf.Item]:
    for upper in range(arg.bits // 32):
        mask = arg.value >> 32 * upper & _LOWER
        if mask:
            yield _load(arg, upper=bool(upper))
            yield bpf.Statement(bpf.AND, mask)
            yield bpf.Jump(bpf.JEQ, arg.value_two >> 32 * upper & mask, false=miss)
