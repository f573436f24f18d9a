"""What a container may use, and the files of a control group that say so.

:class:`Limits` is what the user asked for. :func:`v1_writes` and :func:`v2_writes` are what has to be written, in order,
into the files of a new group: ``(controller, file, text)``. The two versions do not have the same limits, and a host
does not have every controller, so :func:`enforceable` says first what of it the host can keep. Nothing is ignored.

A limit that a running container has and shall have no more is written as well: :func:`difference` names it with the
value :data:`UNLIMITED`, which no container's own limits have.

The files are described in the kernel's Documentation/admin-guide/cgroup-v2.rst and admin-guide/cgroup-v1/.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

import attrs

from pycontain.errors import HostUnsupported, InvalidSpec
from pycontain.sandbox.size import parse_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Write: TypeAlias = tuple[str, str, str]
Rates: TypeAlias = Mapping[str, str | int]
Disks: TypeAlias = Mapping[str, str | int | Rates] | Literal["max"]
Pages: TypeAlias = Mapping[str | int, str | int] | Literal["max"]
Given = TypeVar("Given")
Value = TypeVar("Value")

MAX: Literal["max"] = "max"
"""What takes a limit away, as in the files of v2."""
UNLIMITED = -1
"""In a :func:`difference`: what was limited, and shall not be."""
EVERY_PROCESSOR = ""
"""The same of a list of processors, or of nodes of memory."""
_EVERYBODYS_WEIGHT = 100

LEAST_MEMORY = 6 << 20  # as in Docker; below it our own child could not build the container up
_PERIOD = 100_000  # µs, what a new group has: scheduler/sched-bwc.rst, "Management"
_LEAST_CPUS = 0.01  # the kernel takes no quota below 1 ms
_MOST_IO_WEIGHT = 1000  # BFQ_MAX_WEIGHT; io.weight would know ten times more
_MOST_PIDS = 1 << 22  # PID_MAX_LIMIT of proc_sys_kernel(5)
_DEVICE = re.compile(r"/[^\0]+|\d{1,4}:\d{1,7}", re.ASCII)
_CPUSET = re.compile(r"\d{1,5}(-\d{1,5})?(,\d{1,5}(-\d{1,5})?)*", re.ASCII)


@attrs.frozen
class IoLimit:
    """The most that goes from and to one disk in a second, in bytes (``bps``) and in operations (``iops``).

    *device* is a path or ``major:minor``; in the files it is the latter, of a whole disk.
    """

    device: str
    read_bps: int | None = None
    write_bps: int | None = None
    read_iops: int | None = None
    write_iops: int | None = None

    @property
    def rates(self) -> dict[str, int]:
        """Those that are limited, by name."""
        return {name: rate for name in IO_RATES if (rate := getattr(self, name)) is not None}

    @property
    def limits_writing(self) -> bool:
        """Whether it is not about reading alone."""
        return self.write_bps is not None or self.write_iops is not None


IO_RATES = ("read_bps", "write_bps", "read_iops", "write_iops")


@attrs.frozen(repr=False)
class Limits:
    """Limits on a container; None is no limit of its own.

    ``memory``, ``memory_high`` (slow down and reclaim from here on) and ``swap`` (beside the memory) are in bytes;
    ``cpus`` is a number of processors, ``cpu_weight`` the share in times of scarcity with 100 as everybody's,
    ``cpuset`` the processors by number as ``"0-3,7"``, ``cpuset_mems`` the memory nodes likewise, ``pids`` the number of
    processes and threads. ``io`` has one item for each disk, ``io_weight`` is as ``cpu_weight``, for disks; ``hugetlb``
    has pairs of a page size and the most, in bytes.
    """

    memory: int | None = None
    memory_high: int | None = None
    swap: int | None = None
    cpus: float | None = None
    cpu_weight: int | None = None
    cpuset: str | None = None
    cpuset_mems: str | None = None
    pids: int | None = None
    io: tuple[IoLimit, ...] | None = None
    io_weight: int | None = None
    hugetlb: tuple[tuple[int, int], ...] | None = None

    def __repr__(self) -> str:
        given = (f"{name}={getattr(self, name)!r}" for name in CONTROLLERS if name in set_limits(self))
        return f"Limits({', '.join(given)})"


NO_LIMITS = Limits()


@attrs.frozen
class Cgroup:
    """The control group of a container: its *controllers*, what is written into its files, and what was *left_out*.

    The last are the names of limits that the host cannot keep, and that were not required.
    """

    controllers: tuple[str, ...] = ()
    writes: tuple[Write, ...] = ()
    left_out: tuple[str, ...] = ()


NO_CGROUP = Cgroup()

CONTROLLERS = {
    "memory": "memory",
    "memory_high": "memory",
    "swap": "memory",
    "cpus": "cpu",
    "cpu_weight": "cpu",
    "cpuset": "cpuset",
    "cpuset_mems": "cpuset",
    "pids": "pids",
    "io": "io",
    "io_weight": "io",
    "hugetlb": "hugetlb",
}
"""Which controller keeps a limit, by its name in v2; the ``io`` of v1 is called blkio there."""

COUNTING = frozenset({"memory", "pids", "io"})
"""Controllers of v2 that a group has whatever is limited, so that it is known what was used: there they cost no group."""


def _needs_v2(limits: Limits, name: str) -> str:
    """Why v1 cannot keep this limit although it has the controller; nothing when it can."""
    if name == "memory_high":
        return "memory_high"  # soft_limit_in_bytes of v1 is only a wish
    if name == "io" and any(disk.limits_writing for disk in limits.io or ()):
        return "limits on writing"  # blkio-controller.rst: what is written through the page cache is nobody's
    return ""


# --- from what the user wrote ---------------------------------------------------------------------------


def parse_limits(
    before: Limits = NO_LIMITS,
    *,
    memory: str | int | None = None,
    memory_high: str | int | None = None,
    swap: str | int | None = None,
    cpus: float | Literal["max"] | None = None,
    cpu_weight: int | None = None,
    cpuset: str | None = None,
    cpuset_mems: str | None = None,
    pids: int | Literal["max"] | None = None,
    io: Disks | None = None,
    io_weight: int | None = None,
    hugetlb: Pages | None = None,
) -> Limits:
    """The limits that the arguments mean, and *before* for those that are None; "max" takes one away.

    :class:`InvalidSpec` names everything that is wrong with them.
    """
    problems: list[str] = []

    def read(name: str, given: object, parse: Callable[[object], object]) -> None:
        if given is None:
            return
        try:  # a weight has no end: everybody's is a number, too
            values[name] = None if given == MAX and not name.endswith("weight") else parse(given)
        except ValueError as error:
            problems.append(f"{name}: {error}")

    values: dict[str, Any] = {}
    read("memory", memory, _memory)
    read("memory_high", memory_high, _memory)
    read("swap", swap, _size)
    read("cpus", cpus, _cpus)
    read("cpu_weight", cpu_weight, lambda given: _whole(given, 1, 10_000))
    read("cpuset", cpuset, _cpuset)
    read("cpuset_mems", cpuset_mems, _cpuset)
    read("pids", pids, lambda given: _whole(given, 1, _MOST_PIDS))
    read("io", io, lambda given: _with_disks(before.io or (), _io(given)))
    read("io_weight", io_weight, lambda given: _whole(given, 1, _MOST_IO_WEIGHT))
    read("hugetlb", hugetlb, lambda given: _with_pages(before.hugetlb or (), _hugetlb(given)))
    limits = attrs.evolve(before, **values)
    if limits.swap is not None and limits.memory is None and (memory is None or memory == MAX):
        problems.append(
            'swap: it is counted beside the memory, so it needs memory= too; swap="max" takes it away'
        )
    if limits.memory is not None and limits.memory_high is not None and limits.memory_high > limits.memory:
        problems.append("memory_high: it lies above memory and would never be reached")
    if problems:
        raise InvalidSpec(tuple(problems))
    return limits


def _size(given: object) -> int:
    if isinstance(given, bool) or not isinstance(given, str | int):
        raise ValueError(f"{given!r} is no size; write 512k, 64M or 1.5G")  # noqa: TRY004 - a problem of the spec
    return parse_size(given)


def _memory(given: object) -> int:
    size = _size(given)
    if size < LEAST_MEMORY:
        raise ValueError(f"{given!r} is too little to start in; the least is {LEAST_MEMORY >> 20}M")
    return size


def _cpus(given: object) -> float:
    number = isinstance(given, int | float) and not isinstance(given, bool)
    if not number or not _LEAST_CPUS <= given < math.inf:  # type: ignore[operator]
        raise ValueError(f"{given!r} is no number of processors; the least is {_LEAST_CPUS}")
    return float(given)  # type: ignore[arg-type]


def _whole(given: object, least: int, most: int) -> int:
    if isinstance(given, bool) or not isinstance(given, int) or not least <= given <= most:
        raise ValueError(f"{given!r} is no whole number from {least} to {most}")
    return given


def _cpuset(given: object) -> str:
    if not isinstance(given, str) or not _CPUSET.fullmatch(given) or not all(map(_rises, given.split(","))):
        raise ValueError(f"{given!r} is no list of numbers; write 0-3 or 0,2")
    return given


def _rises(part: str) -> bool:
    first, _, last = part.partition("-")
    return int(first) <= int(last or first)


def _mapping(given: object, example: str) -> Mapping[object, object]:
    if not isinstance(given, Mapping) or not given:
        raise ValueError(f"{given!r} names nothing; write {example}")
    return given


def _io(given: object) -> tuple[IoLimit, ...]:
    disks = _mapping(given, '{"/dev/sda": "10M"}, or {"/dev/sda": {"read_bps": "10M", "write_iops": 100}}')
    return tuple(_disk(device, rates) for device, rates in disks.items())


def _disk(device: object, given: object) -> IoLimit:
    if not isinstance(device, str) or not _DEVICE.fullmatch(device):
        raise ValueError(f"{device!r} is no disk; write /dev/sda, 8:0, or the path of a file on it")
    if given == MAX:
        return IoLimit(device)
    if not isinstance(given, Mapping):
        rate = _rate(given)
        return IoLimit(device, read_bps=rate, write_bps=rate)
    unknown = [repr(name) for name in given if name not in IO_RATES]
    if unknown or not given:
        raise ValueError(f"{device} has {', '.join(IO_RATES)}, not {', '.join(unknown) or 'nothing'}")
    return IoLimit(device, **{name: _rate(rate) for name, rate in given.items()})


def _rate(given: object) -> int:
    rate = _size(given)
    if not 0 < rate < 1 << 63:
        raise ValueError(f"{given!r} is no rate; the least is 1 in a second")
    return rate


def _with_disks(before: tuple[IoLimit, ...], named: tuple[IoLimit, ...]) -> tuple[IoLimit, ...] | None:
    """A disk that is named again has the new rates; one without rates is limited no more."""
    known = {disk.device for disk in before}
    for disk in named:
        if not disk.rates and disk.device not in known:
            raise ValueError(f"{disk.device} has no limit that could be taken away")
    disks = {disk.device: disk for disk in (*before, *named)}
    return tuple(disk for disk in disks.values() if disk.rates) or None


def _hugetlb(given: object) -> dict[int, int | None]:
    sizes = _mapping(given, '{"2M": "64M"}')
    pages = {_size(page): None if most == MAX else _size(most) for page, most in sizes.items()}
    for page in pages:
        if page < 1 << 12 or page & (page - 1):
            raise ValueError(f"{page} is no size of a page; write 2M or 1G")
    return pages


def _with_pages(
    before: tuple[tuple[int, int], ...], named: dict[int, int | None]
) -> tuple[tuple[int, int], ...] | None:
    pages = {**dict(before), **named}
    return tuple((page, most) for page, most in pages.items() if most is not None) or None


# --- what a host can keep -------------------------------------------------------------------------------


def set_limits(limits: Limits) -> frozenset[str]:
    """The names of the limits that are set."""
    return frozenset(name for name in CONTROLLERS if getattr(limits, name) is not None)


def controllers_of(limits: Limits) -> frozenset[str]:
    """The controllers that *limits* need, by their names in cgroups(7)."""
    return frozenset(CONTROLLERS[name] for name in set_limits(limits))


def enforceable(
    limits: Limits, versions: Mapping[str, int], weighers: tuple[str, ...] = ()
) -> tuple[Limits, tuple[str, ...]]:
    """The part of *limits* that a host can keep, and the names of the others.

    *versions* are the controllers that can be used, each with the version of the hierarchy it is in, 1 or 2: on a
    hybrid host some are in either. *weighers* are the files for a weight of io that a disk here heeds.
    """
    left_out = tuple(
        name
        for name in sorted(set_limits(limits))
        if CONTROLLERS[name] not in versions
        or (versions[CONTROLLERS[name]] == 1 and _needs_v2(limits, name))
        or (name == "io_weight" and not weighers)
    )
    return attrs.evolve(limits, **dict.fromkeys(left_out)), left_out


def cgroup_of(limits: Limits, versions: Mapping[str, int], weighers: tuple[str, ...] = ()) -> Cgroup:
    """The group that keeps of *limits* what it can on such a host, see :func:`enforceable`."""
    kept, left_out = enforceable(limits, versions, weighers)
    controllers = controllers_of(kept)
    if any(versions[name] == 2 for name in controllers):
        controllers |= {name for name in COUNTING if versions.get(name) == 2}
    return Cgroup(tuple(sorted(controllers)), writes(kept, versions, weighers), left_out)


# --- from one to another --------------------------------------------------------------------------------

_TAKEN_AWAY = {
    "cpu_weight": _EVERYBODYS_WEIGHT,
    "io_weight": _EVERYBODYS_WEIGHT,
    "cpuset": EVERY_PROCESSOR,
    "cpuset_mems": EVERY_PROCESSOR,
}


def difference(before: Limits, after: Limits) -> Limits:
    """What has to be written to make a group that keeps *before* keep *after*, with :data:`UNLIMITED` for what it shall not."""
    values: dict[str, Any] = {}
    for name in CONTROLLERS:
        was, shall = getattr(before, name), getattr(after, name)
        if was != shall:
            values[name] = _TAKEN_AWAY.get(name, UNLIMITED) if shall is None else shall
    if "io" in values:
        values["io"] = tuple(_changed_disks(before.io or (), after.io or ()))
    if "hugetlb" in values:
        now = dict(after.hugetlb or ())
        gone = {page: UNLIMITED for page, _ in before.hugetlb or () if page not in now}
        values["hugetlb"] = tuple((now | gone).items())
    if values.keys() & {"memory", "swap"} and after.swap is not None and after.memory is not None:
        values |= {"memory": after.memory, "swap": after.swap}  # which v1 counts together
    return Limits(**values)


def _changed_disks(before: tuple[IoLimit, ...], after: tuple[IoLimit, ...]) -> Iterator[IoLimit]:
    was, shall = ({disk.device: disk.rates for disk in disks} for disks in (before, after))
    for device in {**shall, **was}:
        old, new = was.get(device, {}), shall.get(device, {})
        if old != new:
            yield IoLimit(device, **(dict.fromkeys(old, UNLIMITED) | new))


# --- the files ------------------------------------------------------------------------------------------


def writes(limits: Limits, versions: Mapping[str, int], weighers: tuple[str, ...] = ()) -> tuple[Write, ...]:
    """What to write, on a host with these *versions* of the controllers (see :func:`enforceable`), which has them all."""
    by_version = {1: v1_writes, 2: v2_writes}
    return tuple(
        write
        for version in sorted({versions[name] for name in controllers_of(limits)})
        for write in by_version[version](_part(limits, versions, version), weighers)
    )


def _part(limits: Limits, versions: Mapping[str, int], version: int) -> Limits:
    others = (name for name in set_limits(limits) if versions[CONTROLLERS[name]] != version)
    return attrs.evolve(limits, **dict.fromkeys(others))


def v2_writes(limits: Limits, weighers: tuple[str, ...] = ()) -> tuple[Write, ...]:
    """The files of cgroup-v2.rst, "Controllers"."""
    rows = (
        ("memory", "memory.high", _converted(limits.memory_high, _or_max)),
        ("memory", "memory.max", _converted(limits.memory, _or_max)),
        ("memory", "memory.swap.max", _converted(limits.swap, _or_max)),
        ("cpu", "cpu.max", _converted(limits.cpus, lambda cpus: f"{_or_max(_quota(cpus))} {_PERIOD}")),
        ("cpu", "cpu.weight", limits.cpu_weight),
        *_cpuset_rows(limits),
        ("pids", "pids.max", _converted(limits.pids, _or_max)),
    )
    disks = tuple(("io", "io.max", _io_max(disk)) for disk in limits.io or ())
    weights = _weights(limits, weighers)
    return (*_present(rows), *disks, *weights, *_hugetlb_writes(limits, "max", _or_max))


def _or_max(number: int) -> str:
    return MAX if number == UNLIMITED else str(number)


def _cpuset_rows(limits: Limits) -> tuple[tuple[str, str, str | None], ...]:
    # A write of nothing would not reach the kernel, and an empty line is the empty list.
    rows = (("cpuset.cpus", limits.cpuset), ("cpuset.mems", limits.cpuset_mems))
    return tuple(("cpuset", file, _converted(numbers, lambda text: text or "\n")) for file, numbers in rows)


def _io_max(disk: IoLimit) -> str:
    keys = dict(zip(IO_RATES, ("rbps", "wbps", "riops", "wiops"), strict=True))
    return " ".join((disk.device, *(f"{keys[name]}={_or_max(rate)}" for name, rate in disk.rates.items())))


def _weights(limits: Limits, weighers: tuple[str, ...]) -> tuple[Write, ...]:
    if limits.io_weight is None:
        return ()
    return tuple(("io", file, str(limits.io_weight)) for file in weighers)


def _hugetlb_writes(limits: Limits, file: str, said: Callable[[int], str]) -> Iterator[Write]:
    for page, most in limits.hugetlb or ():
        shift, unit = next(
            (shift, unit) for shift, unit in ((30, "GB"), (20, "MB"), (10, "KB")) if page >> shift
        )
        yield "hugetlb", f"hugetlb.{page >> shift}{unit}.{file}", said(most)


def v1_writes(limits: Limits, weighers: tuple[str, ...] = ()) -> tuple[Write, ...]:
    """The files of cgroup-v1/memory.rst, cpusets.rst, pids.rst and scheduler/sched-bwc.rst.

    A group's period is 100 ms from the beginning, so only the quota is written. Both files of cpuset are there before:
    who makes the group copies them from the one above, since no process may join while one is empty. To most of them
    -1 is no limit; to those of pids it is "max", and to those of disks 0.
    """
    for name in sorted(set_limits(limits)):
        feature = _needs_v2(limits, name)
        if feature:
            needs = f"cgroup v2 for the {CONTROLLERS[name]} controller"
            raise HostUnsupported(feature, needs=needs, found="cgroup v1")
    rows = (
        ("memory", "memory.limit_in_bytes", limits.memory),
        # memory.rst, 2.4: memory and swap together, and never below the limit on memory, which so comes first.
        (
            "memory",
            "memory.memsw.limit_in_bytes",
            _converted(limits.swap, lambda swap: swap if swap == UNLIMITED else swap + (limits.memory or 0)),
        ),
        ("cpu", "cpu.cfs_quota_us", _converted(limits.cpus, _quota)),
        ("cpu", "cpu.shares", _converted(limits.cpu_weight, _shares)),
        *_cpuset_rows(limits),
        ("pids", "pids.max", _converted(limits.pids, _or_max)),
    )
    disks = tuple(
        ("io", f"blkio.throttle.{name}_device", f"{disk.device} {0 if rate == UNLIMITED else rate}")
        for disk in limits.io or ()
        for name, rate in disk.rates.items()
    )
    weights = _weights(limits, weighers)
    return (*_present(rows), *disks, *weights, *_hugetlb_writes(limits, "limit_in_bytes", str))


def _present(rows: tuple[tuple[str, str, str | int | None], ...]) -> tuple[Write, ...]:
    return tuple((controller, file, str(value)) for controller, file, value in rows if value is not None)


def _converted(value: Given | None, convert: Callable[[Given], Value]) -> Value | None:
    return None if value is None else convert(value)


def _quota(cpus: float) -> int:
    return UNLIMITED if cpus == UNLIMITED else round(cpus * _PERIOD)


def _shares(weight: int) -> int:
    # The kernel's own conversion when it reads a cpu.weight: everybody's 100 is everybody's 1024, ratios stay.
    return round(weight * 1024 / 100)
