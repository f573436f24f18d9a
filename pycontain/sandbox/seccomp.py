"""Seccomp profiles as values: what a profile says, and what it means for one container on one machine.

A *profile* is the document, in Docker's terms: rules that name system calls, with conditions on the arguments,
on the capabilities of the container, on the architecture and on the kernel. :func:`parse_profile` reads
Docker's JSON. A *policy* is what is left of it when those are known: for each call the cases in which it gets
an answer. :func:`resolve` goes from one to the other, and ``seccomp_filter`` from the policy to the program.

Where rules for one call contradict each other, nothing written says who wins; we do what Docker users get from
runc and libseccomp: a rule that repeats the default answer is as good as absent, a rule without conditions on
arguments wins over all that have some, and otherwise the first one that fits wins.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from enum import Enum
from errno import EPERM
from typing import TypeVar

import attrs

from pycontain.errors import HostUnsupported, InvalidSpec
from pycontain.kernel.syscall_tables import Abi


class Action(Enum):
    """What the kernel does with a call, the strictest first: ``SCMP_ACT_*``, as the return value in seccomp(2)."""

    KILL_PROCESS = 0x8000_0000
    KILL_THREAD = 0x0000_0000
    TRAP = 0x0003_0000
    ERRNO = 0x0005_0000
    TRACE = 0x7FF0_0000
    LOG = 0x7FFC_0000
    ALLOW = 0x7FFF_0000


class Op(Enum):
    """A comparison of an argument, unsigned: ``SCMP_CMP_*``."""

    NE = "!="
    LT = "<"
    LE = "<="
    EQ = "=="
    GE = ">="
    GT = ">"
    MASKED_EQ = "&"


@attrs.frozen
class Answer:
    """An action, and the errno that goes with ERRNO (or the number that a tracer sees with TRACE)."""

    action: Action
    errno: int = 0

    @property
    def returns(self) -> int:
        """What the filter returns to the kernel."""
        return self.action.value | self.errno


@attrs.frozen
class Arg:
    """A condition on the lower *bits* of argument *index*.

    For MASKED_EQ it is ``argument & value == value_two & value``, else *value_two* means nothing.
    """

    index: int
    op: Op
    value: int
    value_two: int = 0
    bits: int = 64


@attrs.frozen
class Where:
    """Containers and machines: Docker's ``includes`` and ``excludes``.

    An empty field says nothing. *caps* are names without ``CAP_``, as everywhere here; *arches* are Go's names
    of the machine (``amd64``, ``arm64``); *min_kernel* is the oldest kernel meant.
    """

    caps: frozenset[str] = frozenset()
    arches: frozenset[str] = frozenset()
    min_kernel: tuple[int, int] | None = None


@attrs.frozen
class Rule:
    """The calls *names* get *answer* when all of *args* hold, where *includes* and *excludes* let it be so."""

    names: tuple[str, ...]
    answer: Answer
    args: tuple[Arg, ...] = ()
    includes: Where = Where()
    excludes: Where = Where()


@attrs.frozen(unsafe_hash=True, cache_hash=True)
class Profile:
    """A whole profile. *abis* are the ones it speaks for; the machine's own is always among those in force.

    The hash is computed once: a profile is the key under which its compiled filter is kept.
    """

    default: Answer
    abis: tuple[Abi, ...]
    rules: tuple[Rule, ...]


@attrs.frozen
class Case:
    """The answer for a call when all of *args* hold."""

    args: tuple[Arg, ...]
    answer: Answer


@attrs.frozen(unsafe_hash=True, cache_hash=True)
class Policy:
    """What each system call gets: the first of its cases that holds, else the default.

    *calls* is sorted by name. A call without cases is one that the profile knows and leaves at the default.
    """

    abis: tuple[Abi, ...]
    default: Answer
    calls: tuple[tuple[str, tuple[Case, ...]], ...]


# --- from a profile to a policy -------------------------------------------------------------------------

# Machine as uname(2) prints it → (Go's name, all ABIs of that machine with its own first).
_MACHINES = {
    "x86_64": ("amd64", (Abi.X86_64, Abi.I386, Abi.X32)),
    "aarch64": ("arm64", (Abi.AARCH64, Abi.ARM)),
}


def resolve(
    profile: Profile, *, capabilities: frozenset[str], architecture: str, kernel: tuple[int, int]
) -> Policy:
    """What *profile* means for a container with *capabilities* in its bounding set.

    They are named as in :mod:`.capabilities`; *architecture* is the machine as uname(2) names it. Raises
    HostUnsupported for a machine without tables here.
    """
    if architecture not in _MACHINES:
        raise HostUnsupported("seccomp filters", needs=" or ".join(_MACHINES), found=architecture)
    go_name, family = _MACHINES[architecture]
    cases: dict[str, list[Case]] = {}
    for rule in profile.rules:
        if _applies(rule, capabilities, go_name, kernel):
            for name in rule.names:
                cases.setdefault(name, []).extend(_cases(rule, profile.default))
    return Policy(
        abis=(family[0], *(abi for abi in family[1:] if abi in profile.abis)),
        default=profile.default,
        calls=tuple((name, in_force(cases[name])) for name in sorted(cases)),
    )


def _applies(rule: Rule, capabilities: frozenset[str], arch: str, kernel: tuple[int, int]) -> bool:
    wanted, unwanted = rule.includes, rule.excludes
    return (
        wanted.caps <= capabilities
        and (not wanted.arches or arch in wanted.arches)
        and (wanted.min_kernel is None or kernel >= wanted.min_kernel)
        and not unwanted.caps & capabilities
        and arch not in unwanted.arches
        and (unwanted.min_kernel is None or kernel < unwanted.min_kernel)
    )


def _cases(rule: Rule, default: Answer) -> tuple[Case, ...]:
    if rule.answer == default:
        return ()
    # runc: conditions on different arguments must all hold, but if one argument has several, any of them
    # is enough; profiles from before libseccomp could say the former still rely on that.
    if len({arg.index for arg in rule.args}) < len(rule.args):
        return tuple(Case((arg,), rule.answer) for arg in rule.args)
    return (Case(rule.args, rule.answer),)


def in_force(cases: Iterable[Case]) -> tuple[Case, ...]:
    """What counts of *cases* for one call: the first without conditions, or all that have some, once each."""
    cases = tuple(cases)
    unconditional = [case for case in cases if not case.args]
    return tuple(unconditional[:1] or dict.fromkeys(cases))


# --- from JSON to a profile -----------------------------------------------------------------------------

_ABIS = {
    "SCMP_ARCH_X86_64": Abi.X86_64,
    "SCMP_ARCH_X86": Abi.I386,
    "SCMP_ARCH_X32": Abi.X32,
    "SCMP_ARCH_AARCH64": Abi.AARCH64,
    "SCMP_ARCH_ARM": Abi.ARM,
}
_ACTIONS = {f"SCMP_ACT_{action.name}": action for action in Action} | {"SCMP_ACT_KILL": Action.KILL_THREAD}
_OPS = {f"SCMP_CMP_{op.name}": op for op in Op}

# Keys that carry no decision. Podman writes each errno a second time as a name, for itself.
_REMARKS = frozenset({"comment", "comments", "defaultErrno", "errno"})

_MAX_ERRNO = 4095  # linux/err.h: the kernel cuts larger ones down to this
_MAX_ARGUMENT = (1 << 64) - 1

_T = TypeVar("_T")


def parse_profile(source: str | bytes | Mapping[str, object]) -> Profile:
    """Read a profile in Docker's JSON format, as text or already decoded.

    Names of calls that no kernel has are kept and mean nothing, as in Docker: profiles serve many machines.
    Everything else that is not understood raises InvalidSpec with the place of each problem.
    """
    document = source if isinstance(source, Mapping) else _json(source)
    fields = _fields(
        document, "profile", "defaultAction defaultErrnoRet architectures archMap syscalls flags listenerPath"
    )
    # SECCOMP_FILTER_FLAG_* change how the kernel logs and waits, not what a call gets; ours are chosen.
    _texts(fields, "flags", "profile")
    if fields.get("listenerPath"):
        raise InvalidSpec("seccomp listenerPath: there is no agent here that could answer for a call")
    return Profile(
        default=_answer(fields, "defaultAction", "defaultErrnoRet", "profile"),
        abis=_abis(fields),
        rules=_rules(fields),
    )


def _json(text: str | bytes) -> object:
    try:
        return json.loads(text)
    except ValueError as error:  # includes UnicodeDecodeError
        raise InvalidSpec(f"seccomp profile: not JSON ({error})") from error


def _rules(fields: Mapping[str, object]) -> tuple[Rule, ...]:
    rules: list[Rule] = []
    problems: list[str] = []
    for index, item in enumerate(_list(fields, "syscalls", "profile")):
        try:
            rules.append(_rule(item, f"syscalls[{index}]"))
        except InvalidSpec as error:
            problems += error.problems
    if problems:
        raise InvalidSpec(tuple(problems))
    return tuple(rules)


def _rule(item: object, place: str) -> Rule:
    fields = _fields(item, place, "name names action errnoRet args includes excludes")
    args = _list(fields, "args", place)
    return Rule(
        names=_names(fields, place),
        answer=_answer(fields, "action", "errnoRet", place),
        args=tuple(_arg(arg, f"{place}.args[{index}]") for index, arg in enumerate(args)),
        includes=_where(fields.get("includes"), f"{place}.includes"),
        excludes=_where(fields.get("excludes"), f"{place}.excludes"),
    )


def _names(fields: Mapping[str, object], place: str) -> tuple[str, ...]:
    names = _texts(fields, "names", place)
    single = fields.get("name") or ""
    if not isinstance(single, str) or bool(single) == bool(names):
        raise _problem(place, "needs either names, a list of system calls, or name, one of them")
    return names or (single,)


def _answer(fields: Mapping[str, object], action_key: str, errno_key: str, place: str) -> Answer:
    action = _choice(fields.get(action_key), f"{place}.{action_key}", _ACTIONS)
    errno = fields.get(errno_key)
    number = EPERM if errno is None else _integer(errno, f"{place}.{errno_key}", _MAX_ERRNO)
    return Answer(action, number if action in {Action.ERRNO, Action.TRACE} else 0)


def _arg(item: object, place: str) -> Arg:
    fields = _fields(item, place, "index value valueTwo op")
    return Arg(
        index=_integer(fields.get("index", 0), f"{place}.index", 5),
        op=_choice(fields.get("op"), f"{place}.op", _OPS),
        value=_integer(fields.get("value", 0), f"{place}.value", _MAX_ARGUMENT),
        value_two=_integer(fields.get("valueTwo", 0), f"{place}.valueTwo", _MAX_ARGUMENT),
    )


def _where(item: object, place: str) -> Where:
    fields = _fields({} if item is None else item, place, "caps arches minKernel")
    return Where(
        caps=frozenset(name.removeprefix("CAP_") for name in _texts(fields, "caps", place)),
        arches=frozenset(_texts(fields, "arches", place)),
        min_kernel=_kernel(fields.get("minKernel"), f"{place}.minKernel"),
    )


def _kernel(value: object, place: str) -> tuple[int, int] | None:
    if value is None or value == "":
        return None
    match = re.fullmatch(r"(\d+)\.(\d+)", value, re.ASCII) if isinstance(value, str) else None
    if match is None:
        raise _problem(place, f'{value!r} is not a kernel version such as "4.8"')
    return int(match[1]), int(match[2])


def _abis(fields: Mapping[str, object]) -> tuple[Abi, ...]:
    """The ABIs we know among ``architectures`` or in the ``archMap``; profiles name many machines."""
    names = _texts(fields, "architectures", "profile")
    entries = _list(fields, "archMap", "profile")
    if names and entries:
        raise _problem("profile", "has both architectures and archMap; one of them is enough")
    names += tuple(
        name for index, entry in enumerate(entries) for name in _family(entry, f"archMap[{index}]")
    )
    for name in names:
        if not name.startswith("SCMP_ARCH_"):
            raise _problem("profile", f"{name!r} is not an architecture such as SCMP_ARCH_X86_64")
    return tuple(dict.fromkeys(_ABIS[name] for name in names if name in _ABIS))


def _family(entry: object, place: str) -> tuple[str, ...]:
    fields = _fields(entry, place, "architecture subArchitectures")
    machine = fields.get("architecture")
    if not isinstance(machine, str):
        raise _problem(f"{place}.architecture", "is not a name")
    return machine, *_texts(fields, "subArchitectures", place)


def _fields(item: object, place: str, known: str) -> Mapping[str, object]:
    if not isinstance(item, Mapping):
        raise _problem(place, "is not an object")
    unknown = sorted(map(str, item.keys() - set(known.split()) - _REMARKS))
    if unknown:
        raise _problem(place, f"unknown key {', '.join(unknown)}; known are {known.replace(' ', ', ')}")
    return item


def _list(fields: Mapping[str, object], key: str, place: str) -> list[object]:
    value = fields.get(key)
    if value is None:  # Go writes an empty list as null
        return []
    if not isinstance(value, list):
        raise _problem(f"{place}.{key}", "is not a list")
    return value


def _texts(fields: Mapping[str, object], key: str, place: str) -> tuple[str, ...]:
    texts = tuple(item for item in _list(fields, key, place) if isinstance(item, str) and item)
    if len(texts) < len(_list(fields, key, place)):
        raise _problem(f"{place}.{key}", "is not a list of names")
    return texts


def _integer(value: object, place: str, highest: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= highest:
        raise _problem(place, f"{value!r} is not a number from 0 to {highest}")
    return value


def _choice(value: object, place: str, choices: Mapping[str, _T]) -> _T:
    if not isinstance(value, str) or value not in choices:
        raise _problem(place, f"{value!r} is none of {', '.join(choices)}")
    return choices[value]


def _problem(place: str, sentence: str) -> InvalidSpec:
    return InvalidSpec(f"seccomp {place}: {sentence}")
