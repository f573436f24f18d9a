"""The options that describe a container, under the names that users of ``docker run`` know, read into a Container."""

from __future__ import annotations

import argparse
import os
from itertools import chain
from typing import TYPE_CHECKING, TypeVar

from pycontain.commands.given import read_secret, seconds, variables_of, with_mount, with_security
from pycontain.commands.parser import Parser, UsageError
from pycontain.container import Container
from pycontain.container.door import UNLIMITED
from pycontain.sandbox.limits import MAX
from pycontain.sandbox.size import parse_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pycontain.image import Image

Number = TypeVar("Number", int, float)

_RATES = {
    "read-bps": "bytes in a second that it may read from this disk",
    "write-bps": "and write to it",
    "read-iops": "operations in a second in which it may read",
    "write-iops": "and write",
}
_HEALTH_TIMES = {
    "interval": "between two looks; 30s",
    "timeout": "what one may take; 30s",
    "start-period": "how long failures do not count after the start; 0s",
    "start-interval": "between two looks until it is well for the first time; 1s",
}


def container_parser(verb: str, *, description: str) -> Parser:
    """A parser with every option of a container, whose options end at IMAGE: what follows is the payload's."""
    parser = Parser(verb, description=description, usage="[OPTION…] IMAGE [ARG…]")
    parser.add_argument(
        "words", nargs=argparse.REMAINDER, metavar="IMAGE [ARG…]", help="host:, rootfs:DIR, …"
    )
    what = parser.add_argument_group("what runs")
    what.add_argument(
        "--pull",
        choices=("always", "missing", "newer", "never"),
        default="missing",
        help="when to ask a registry",
    )
    what.add_argument("--platform", metavar="OS/ARCH[/VARIANT]", help="instead of this machine's")
    what.add_argument("--entrypoint", metavar="PROGRAM", help="instead of the image's; '' for none")
    what.add_argument(
        "-e", "--env", action="append", default=[], metavar="NAME[=VALUE]", help="without =VALUE: ours"
    )
    what.add_argument(
        "--env-file", action="append", default=[], metavar="FILE", help="NAME=VALUE in lines; # is a comment"
    )
    what.add_argument("-w", "--workdir", metavar="PATH", help="start in this directory")
    what.add_argument("-u", "--user", metavar="USER[:GROUP]", help="names or numbers")
    what.add_argument(
        "--init", action=argparse.BooleanOptionalAction, default=True, help="PID 1 is an init of ours"
    )
    what.add_argument("--restart", metavar="no|on-failure[:N]|always", help="whether it is started again")
    what.add_argument("--stop-signal", metavar="SIGNAL", help="what asks the payload to end")
    names = parser.add_argument_group("how it is called")
    names.add_argument("--name", help="a name, for people")
    names.add_argument("--hostname", metavar="NAME", help="instead of the container's id")
    names.add_argument(
        "-l", "--label", action="append", default=[], metavar="NAME[=VALUE]", help="attach a label"
    )
    sees = parser.add_argument_group("what it sees")
    sees.add_argument(
        "-v",
        "--volume",
        action="append",
        default=[],
        metavar="SRC:DST[:ro]",
        help="a path of the host, or the name of a volume",
    )
    sees.add_argument(
        "--mount",
        action="append",
        default=[],
        metavar="type=KIND,source=SRC,target=DST[,readonly]",
        help="the same in words; KIND is bind, volume or tmpfs",
    )
    sees.add_argument(
        "--secret",
        action="append",
        default=[],
        metavar="id=NAME,src=PATH|env=VARIABLE",
        help="in /run/secrets, and in no layer, plan or log",
    )
    sees.add_argument(
        "--tmpfs", action="append", default=[], metavar="DST[:size=SIZE]", help="an empty tree in memory"
    )
    sees.add_argument("--read-only", action="store_true", help="the root cannot be written")
    sees.add_argument(
        "--device", action="append", default=[], metavar="SRC[:DST[:rwm]]", help="a device node of the host"
    )
    reached = parser.add_argument_group("how it is reached, and what it reaches")
    reached.add_argument(
        "-p",
        "--publish",
        action="append",
        default=[],
        metavar="[[IP:][HOST]:]PORT[/udp]",
        help="a port of the host that leads inside; only this machine reaches it, unless IP says otherwise",
    )
    reached.add_argument(
        "--network", metavar="MODE", help="none, the default; private: the world; host: the host's own"
    )
    reached.add_argument("--dns", action="append", default=[], metavar="ADDRESS", help="a name server")
    reached.add_argument(
        "--add-host", action="append", default=[], metavar="NAME:ADDRESS", help="for /etc/hosts"
    )
    may = parser.add_argument_group("what it may")
    may.add_argument(
        "--untrusted", action="store_true", help="the strictest useful set; later options change it"
    )
    may.add_argument("--privileged", action="store_true", help="no walls between root inside and the kernel")
    may.add_argument(
        "--sysctl", action="append", default=[], metavar="NAME=VALUE", help="a setting of its own namespaces"
    )
    may.add_argument(
        "--cap-add", action="append", default=[], metavar="CAPABILITY", help="grant; ALL for all"
    )
    may.add_argument(
        "--cap-drop", action="append", default=[], metavar="CAPABILITY", help="take away; ALL for all"
    )
    may.add_argument(
        "--security-opt",
        action="append",
        default=[],
        metavar="seccomp=PROFILE",
        help="default, unconfined, or a file in docker's format",
    )
    may.add_argument("--userns", metavar="auto|private|host", help="whose ids those inside are")
    may.add_argument("--landlock", action="store_true", help="a second wall around its files")
    may.add_argument("--ulimit", action="append", default=[], metavar="NAME=SOFT[:HARD]", help="setrlimit(2)")
    _add_limits(parser.add_argument_group("what it may use as a whole"))
    _add_health(parser.add_argument_group("whether it is well"))
    return parser


def _add_limits(group: argparse._ArgumentGroup) -> None:
    group.add_argument("-m", "--memory", metavar="SIZE", help="the most, as 256M")
    group.add_argument("--memory-swap", metavar="SIZE", help="memory and swap together; -1 for no limit")
    group.add_argument("--cpus", metavar="N", help="processors, as 0.5")
    group.add_argument("-c", "--cpu-shares", metavar="N", help="when they are scarce; everybody's is 1024")
    group.add_argument("--cpuset-cpus", metavar="LIST", help="which processors, as 0-3")
    group.add_argument("--cpuset-mems", metavar="LIST", help="which nodes of memory")
    group.add_argument(
        "--pids-limit", metavar="N", help="processes and threads, our init is one; -1 for no limit"
    )
    group.add_argument("--blkio-weight", metavar="N", help="the share of busy disks; everybody's is 100")
    for option, what in _RATES.items():
        group.add_argument(f"--device-{option}", action="append", default=[], metavar="PATH:N", help=what)


def _add_health(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--health-cmd", metavar="COMMAND", help="what finds it out, for the shell")
    for name, what in _HEALTH_TIMES.items():
        group.add_argument(f"--health-{name}", metavar="TIME", help=what)
    group.add_argument("--health-retries", metavar="N", help="failures in a row until it is not; 3")
    group.add_argument("--no-healthcheck", action="store_true", help="not even the one of the image")


def _with_health(container: Container, options: argparse.Namespace) -> Container:
    times = {
        name: seconds(f"health-{name}", getattr(options, f"health_{name.replace('-', '_')}"))
        for name in _HEALTH_TIMES
    }
    retries = _number(options, "health_retries", int)
    if options.no_healthcheck:
        if options.health_cmd is not None:
            raise UsageError("--no-healthcheck and --health-cmd exclude each other")
        return container.health()
    if options.health_cmd is not None:
        return container.health(
            options.health_cmd,
            interval=times["interval"],
            timeout=times["timeout"],
            retries=retries,
            start_period=times["start-period"],
            start_interval=times["start-interval"],
        )
    if retries is not None or any(value is not None for value in times.values()):
        raise UsageError("--health-interval and its kin go with --health-cmd")
    return container


def read_container(
    options: argparse.Namespace, images: Mapping[str, Image] | None = None
) -> tuple[Container, tuple[str, ...]]:
    """The container that the options describe, and the payload's command line; some words may stand for *images*."""
    words = options.words[1:] if options.words[:1] == ["--"] else options.words
    if not words:
        raise UsageError(
            "there is no image", hint="name one: host: is this machine, rootfs:DIR a tree on disk"
        )
    image, *argv = words
    base = Container((images or {}).get(image, image))
    base = base.untrusted() if options.untrusted else base
    base = base.privileged() if options.privileged else base
    container = (
        base.env(dict(read_variables([*chain(*map(variables_of, options.env_file)), *options.env])))
        .label(dict(_pair(text) for text in options.label))
        .capabilities(add=options.cap_add, drop=options.cap_drop)
        .read_only(options.read_only or base.spec.read_only)
        .init(options.init)
        .pull(options.pull)
    )
    for name in ("workdir", "user", "hostname", "name", "stop_signal", "restart", "platform", "userns"):
        value = getattr(options, name)
        if value is not None:
            container = getattr(container, name)(value)
    if options.entrypoint is not None:
        container = container.entrypoint(*filter(None, (options.entrypoint,)))
    container = _with_walls(_with_sights(container, options), options)
    return _with_limits(_networked(_with_health(container, options), options), options), tuple(argv)


def _with_sights(container: Container, options: argparse.Namespace) -> Container:
    for text in options.volume:
        container = _mounted(container, text)
    for text in options.mount:
        container = with_mount(container, text)
    for name, secret in map(read_secret, options.secret):
        container = container.secret(name, secret)
    for text in options.tmpfs:
        container = _with_tmpfs(container, text)
    for text in options.device:
        container = _with_device(container, text)
    return container


def _with_walls(container: Container, options: argparse.Namespace) -> Container:
    for text in options.security_opt:
        container = with_security(container, text)
    if options.landlock:
        container = container.landlock()
    if options.sysctl:
        container = container.sysctl(dict(_pair(text) for text in options.sysctl))
    for text in options.ulimit:
        container = _limited(container, text)
    return container


def _networked(container: Container, options: argparse.Namespace) -> Container:
    for text in options.publish:
        container = _published(container, text)
    if options.network is not None:
        container = container.network(options.network)
    if options.dns:
        container = container.dns(*options.dns)
    for text in options.add_host:
        name, colon, address = text.partition(":")
        if not colon:
            raise UsageError(f"--add-host {text}: it is NAME:ADDRESS")
        container = container.hosts({name: address.strip("[]")})
    return container


def _with_limits(container: Container, options: argparse.Namespace) -> Container:
    io: dict[str, dict[str, str | int]] = {}
    for option in _RATES:
        name = option.replace("-", "_")
        for text in getattr(options, f"device_{name}"):
            path, _, rate = text.rpartition(":")
            io.setdefault(path, {})[name] = rate
    shares = _number(options, "cpu_shares", int)
    pids = _number(options, "pids_limit", int)
    return container.limits(
        memory=options.memory,
        swap=_swap(options.memory, options.memory_swap),
        cpus=_number(options, "cpus", float),
        cpu_weight=None if shares is None else min(max(1, round(shares * 100 / 1024)), 10_000),
        cpuset=options.cpuset_cpus,
        cpuset_mems=options.cpuset_mems,
        pids=MAX if pids == UNLIMITED else pids,
        io=io or None,
        io_weight=_number(options, "blkio_weight", int),
    )


def _number(options: argparse.Namespace, name: str, kind: type[Number]) -> Number | None:
    text = getattr(options, name)
    try:
        return None if text is None else kind(text)
    except ValueError:
        raise UsageError(f"--{name.replace('_', '-')} {text}: it is a number") from None


def _swap(memory: str | None, together: str | None) -> int | str | None:
    """Docker counts memory and swap together, and -1 is no limit."""
    if together in {None, "-1"}:
        return together and MAX
    try:
        least, most = parse_size(memory or 0), parse_size(together or 0)
    except ValueError as error:
        raise UsageError(f"--memory-swap: {error}") from None
    if memory is None or most < least:
        raise UsageError(
            f"--memory-swap {together}: it is memory and swap together, so not less than --memory"
        )
    return most - least


def read_variables(texts: list[str]) -> Iterator[tuple[str, str]]:
    """Names and values of ``--env``."""
    for text in texts:
        name, equals, value = text.partition("=")
        if equals:
            yield name, value
        elif name in os.environ:  # as docker run: a variable that we lack is not set
            yield name, os.environ[name]


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


def _mounted(container: Container, text: str) -> Container:
    source, colon, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    if not colon or mode not in {"", "ro", "rw"}:
        raise UsageError(f"-v {text}: it is SRC:DST, SRC:DST:ro or SRC:DST:rw")
    if "/" not in source and source not in {".", ".."}:
        return container.volume(source, target, read_only=mode == "ro")
    return container.mount(source, target, read_only=mode == "ro")


def _with_tmpfs(container: Container, text: str) -> Container:
    target, _, settings = text.partition(":")
    size, mode = None, 0o1777
    for setting in filter(None, settings.split(",")):
        match setting.partition("="):
            case "size", "=", value:
                size = value
            case "mode", "=", value if value.isdigit() and not set(value) & set("89"):
                mode = int(value, 8)
            case _:
                raise UsageError(f"--tmpfs {text}: it takes size=SIZE and mode=OCTAL, not {setting!r}")
    return container.tmpfs(target, size=size, mode=mode)


def _published(container: Container, text: str) -> Container:
    """As docker run: the last number is the container's; an address of IPv6 is in brackets."""
    front, _, protocol = text.partition("/")
    front, _, inside = front.rpartition(":")
    address, _, host_port = front.rpartition(":")
    numbers = inside, host_port or "0"
    if not all(number.isdigit() for number in numbers):
        raise UsageError(f"-p {text}: it is PORT, HOST:PORT or IP:HOST:PORT, with numbers, and /udp after it")
    return container.publish(
        int(inside),
        int(host_port) if host_port else None,
        host_ip=address.strip("[]") or "127.0.0.1",
        protocol=protocol or "tcp",
    )


def _with_device(container: Container, text: str) -> Container:
    """As docker run: of two parts the second is a path or, without a slash, the access."""
    source, _, rest = text.partition(":")
    target, _, access = rest.partition(":")
    if "/" not in target and not access:
        target, access = "", target
    return container.device(source, target or None, access or "rwm")


def _limited(container: Container, text: str) -> Container:
    name, _, values = text.partition("=")
    try:
        limits = [UNLIMITED if value == "unlimited" else int(value) for value in values.split(":")]
    except ValueError:
        limits = []
    if len(limits) not in {1, 2}:
        raise UsageError(f"--ulimit {text}: it is NAME=SOFT or NAME=SOFT:HARD, with numbers or unlimited")
    return container.rlimit(name, *limits)
