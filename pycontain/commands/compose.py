"""``pycontain compose``: the services of a compose file, in the foreground, as long as this command runs.

Docker's verbs that talk to what another command has started (``down``, ``ps``, ``logs``, ``exec``, ``stop``, ``start`` and their kin)
have nobody to talk to here: there is no daemon. What runs belongs to ``up``, shows what it prints there, and ends with it.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, Self

import attrs

from pycontain.commands.parser import Parser, UsageError
from pycontain.commands.run import status_of
from pycontain.compose.project import Project
from pycontain.errors import ComposeError, InvalidProject
from pycontain.process.attached import run_attached
from pycontain.process.completed import how_it_ended

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import FrameType

    from pycontain.compose.running import RunningProject
    from pycontain.compose.values import Service
    from pycontain.process import Completed, Running

_SIGNALLED = 128  # as in pycontain.commands.run
_STOPPING = "stopping"
_NO_DAEMON = {
    "down": "leaving up, by Ctrl-C, is down",
    "stop": "Ctrl-C in up stops all in order",
    "kill": "a second Ctrl-C in up kills all",
    "rm": "containers are gone when up has ended",
    "ps": "up says what starts and ends",
    "ls": "there are no projects beside those that run in the foreground",
    "logs": "up prints them",
    "exec": "write run SERVICE for a container beside, or use Project.up() in Python, whose exec() runs inside",
    "start": "use up",
    "restart": "end up and start it again",
    "create": "use up",
    "pause": "use Project.up() in Python, and Running.pause()",
    "unpause": "use Project.up() in Python, and Running.resume()",
    "top": "use Project.up() in Python, and Running.top()",
    "port": "use Project.up() in Python, and Running.address()",
    "events": "up says what starts and ends",
    "watch": "nobody watches files here",
    "attach": "up shows what is printed",
    "cp": "use Project.up() in Python, and Running.files",
    "push": "push the images by their names: pycontain push",
}


def parser() -> Parser:
    """What it takes: a verb of its own with options of its own, after those for all of them."""
    made = Parser(
        "compose",
        usage="[-f FILE…] [-p NAME] [--profile P…] config | up | run | build | pull …",
        description="Run the services of a compose file together, in the foreground. There is no daemon: what runs ends with this command.",
    )
    made.add_argument(
        "-f",
        "--file",
        action="append",
        default=[],
        metavar="FILE",
        help="each over those before; - is standard input",
    )
    made.add_argument(
        "-p", "--project-name", metavar="NAME", help="instead of that of the file or its folder"
    )
    made.add_argument(
        "--profile",
        action="append",
        default=[],
        metavar="NAME",
        help="choose services that have it; * for all",
    )
    made.add_argument("--env-file", action="append", default=[], metavar="FILE", help="instead of .env")
    made.add_argument("--project-directory", metavar="DIR", help="what paths are relative to")
    made.add_argument(
        "words", nargs=argparse.REMAINDER, metavar="VERB …", help="compose VERB --help says what it takes"
    )
    return made


def act(options: argparse.Namespace) -> int:
    """Do what the verb says."""
    verb, *rest = options.words or [""]
    if verb not in _VERBS:
        raise _no_verb(verb)
    describe, do = _VERBS[verb]
    chosen = describe().parse_args(rest)
    chosen.debug = options.debug = options.debug or chosen.debug
    try:
        project = _project(options)
    except InvalidProject as error:
        if len(error.problems) == 1:
            raise
        several = f"the project is wrong in {len(error.problems)} places"
        raise ComposeError(several, hint="\n".join(error.problems)) from error
    for warning in project.warnings:
        sys.stderr.write(f"pycontain: {warning}\n")
    sys.stderr.flush()
    return do(project, chosen)


def _no_verb(verb: str) -> UsageError:
    if verb in _NO_DAEMON:
        return UsageError(
            f"there is no compose {verb} without a daemon: what runs belongs to the up that started it",
            hint=_NO_DAEMON[verb],
        )
    there = f"there are {', '.join(_VERBS)}"
    return UsageError(f"{verb!r} is no verb of compose" if verb else "compose needs a verb", hint=there)


def _project(options: argparse.Namespace) -> Project:
    """As Docker does, what no option says comes from COMPOSE_FILE and COMPOSE_PROFILES."""
    environment = dict(os.environ)
    separator = environment.get("COMPOSE_PATH_SEPARATOR", os.pathsep)
    files = options.file or [path for path in environment.get("COMPOSE_FILE", "").split(separator) if path]
    profiles = [*options.profile, *filter(None, environment.get("COMPOSE_PROFILES", "").split(","))]
    return Project.from_file(
        files or None,
        name=options.project_name,
        profiles=profiles,
        env_file=options.env_file or None,
        folder=options.project_directory,
        environment=environment,
    )


# --- config ---------------------------------------------------------------------------------------------


def _config_parser() -> Parser:
    made = Parser("compose config", description="Print the project: merged, interpolated, in the long forms.")
    made.add_argument("--format", choices=("yaml", "json"), default="yaml")
    made.add_argument("-q", "--quiet", action="store_true", help="print nothing: only say what is wrong")
    only = made.add_mutually_exclusive_group()
    for what in ("services", "images", "volumes", "networks", "profiles"):
        only.add_argument(f"--{what}", action="store_true", help=f"only the {what}, a line each")
    return made


def _config(project: Project, options: argparse.Namespace) -> int:
    for what, names in (
        ("services", lambda: [each.name for each in project.spec.active()]),
        ("images", lambda: sorted({project.image(each.name) for each in project.spec.active()})),
        ("volumes", lambda: [each.key for each in project.spec.volumes]),
        ("networks", lambda: list(project.config().get("networks", {}))),
        ("profiles", lambda: sorted({name for each in project.spec.services for name in each.profiles})),
    ):
        if getattr(options, what):
            sys.stdout.writelines(f"{name}\n" for name in names())
            return 0
    if options.quiet:
        return 0
    if options.format == "json":
        sys.stdout.write(f"{json.dumps(project.config(), indent=2)}\n")
        return 0
    import yaml  # noqa: PLC0415 - the file was read with it

    sys.stdout.write(yaml.safe_dump(project.config(), sort_keys=False, allow_unicode=True))
    return 0


# --- build and pull -------------------------------------------------------------------------------------


def _build_parser() -> Parser:
    made = Parser(
        "compose build",
        description="Build the images of the services that have a build, and print their ids.",
    )
    made.add_argument("services", nargs="*", metavar="SERVICE")
    made.add_argument("--no-cache", action="store_true", help="do every step again")
    made.add_argument("-q", "--quiet", action="store_true", help="print nothing but the ids")
    return made


def _build(project: Project, options: argparse.Namespace) -> int:
    images = project.build(*options.services, no_cache=options.no_cache, progress=not options.quiet)
    sys.stdout.writelines(f"{name} {image.id}\n" for name, image in images.items())
    return 0


def _pull_parser() -> Parser:
    made = Parser("compose pull", description="Bring the images of the services from their registries.")
    made.add_argument("services", nargs="*", metavar="SERVICE")
    made.add_argument(
        "--policy", choices=("always", "missing", "newer"), default="always", help="when to ask"
    )
    made.add_argument("-q", "--quiet", action="store_true", help="no progress")
    return made


def _pull(project: Project, options: argparse.Namespace) -> int:
    images = project.pull(*options.services, policy=options.policy, progress=not options.quiet)
    sys.stdout.writelines(f"{name} {image.digest}\n" for name, image in images.items())
    return 0


# --- run ------------------------------------------------------------------------------------------------


def _run_parser() -> Parser:
    made = Parser(
        "compose run",
        usage="[OPTION…] SERVICE [ARG…]",
        description="Run a command in a container of a service, after what it waits for; exit as it does. Its ports are not published.",
    )
    made.add_argument(
        "words", nargs=argparse.REMAINDER, metavar="SERVICE [ARG…]", help="without ARG its own command"
    )
    made.add_argument("--no-deps", action="store_true", help="do not start what it waits for")
    made.add_argument("--no-build", action="store_true", help="use the images that are there")
    made.add_argument(
        "-e", "--env", action="append", default=[], metavar="NAME[=VALUE]", help="without =VALUE: ours"
    )
    made.add_argument("-u", "--user", metavar="USER[:GROUP]")
    made.add_argument("-w", "--workdir", metavar="PATH")
    made.add_argument("--entrypoint", metavar="PROGRAM", help="instead of the service's; '' for none")
    made.add_argument("-T", "--no-tty", action="store_true", help="no terminal, also when ours is one")
    made.add_argument("--service-ports", action="store_true", help="publish the ports of the service")
    made.add_argument("--rm", action="store_true", help="always so; for the fingers of docker's users")
    return made


def _run(project: Project, options: argparse.Namespace) -> int:
    if not options.words:
        raise UsageError("run needs a service", hint=f"there are {', '.join(project.services)}")
    name, *argv = options.words
    with (
        _Ctrl() as keys,
        project.up_for(
            name, dependencies=not options.no_deps, build=not options.no_build, progress=True
        ) as running,
    ):
        keys.let_go()  # from now on what is sent to us is for the command
        container = running.container(name, ports=options.service_ports)
        for text in options.env:
            variable, equals, value = text.partition("=")
            if equals or variable in os.environ:
                container = container.env({variable: value if equals else os.environ[variable]})
        if options.user is not None:
            container = container.user(options.user)
        if options.workdir is not None:
            container = container.workdir(options.workdir)
        if options.entrypoint is not None:
            container = container.entrypoint(*filter(None, (options.entrypoint,)))
        terminal = not options.no_tty and all(map(os.isatty, (0, 1)))
        container = container.tty(terminal, **(_window() if terminal else {}))
        command = argv or (() if options.entrypoint is not None else project.services[name].command or ())
        return status_of(run_attached(container, *command, stdin=True))


def _window() -> dict[str, int]:
    from pycontain.process.console import window  # noqa: PLC0415 - for who has a terminal

    columns, rows = window()
    return {"columns": columns, "rows": rows}


# --- up -------------------------------------------------------------------------------------------------


def _up_parser() -> Parser:
    made = Parser(
        "compose up",
        description="Start the services and show what they print, until all have ended. Ctrl-C stops them in order, a second one kills them.",
    )
    made.add_argument(
        "services", nargs="*", metavar="SERVICE", help="these and what they wait for; without any, all"
    )
    made.add_argument("--no-build", action="store_true", help="use the images that are there")
    made.add_argument("--build", action="store_true", help="always so; for the fingers of docker's users")
    made.add_argument("--no-deps", action="store_true", help="do not start what they wait for")
    made.add_argument(
        "--scale", action="append", default=[], metavar="SERVICE=N", help="so many containers of it"
    )
    made.add_argument(
        "--abort-on-container-exit",
        action="store_true",
        help="stop all when one has ended, and exit as it did",
    )
    made.add_argument(
        "--abort-on-container-failure", action="store_true", help="the same, when one has ended badly"
    )
    made.add_argument(
        "--exit-code-from", metavar="SERVICE", help="stop all when it has ended, and exit as it did"
    )
    made.add_argument(
        "-t", "--timeout", type=float, metavar="SECONDS", help="to stop in, instead of stop_grace_period"
    )
    made.add_argument(
        "--attach", action="append", default=[], metavar="SERVICE", help="show only what these print"
    )
    made.add_argument(
        "--no-attach", action="append", default=[], metavar="SERVICE", help="do not show what these print"
    )
    made.add_argument("--no-log-prefix", action="store_true", help="print lines without names")
    made.add_argument("-d", "--detach", action="store_true", help=argparse.SUPPRESS)
    return made


def _up(project: Project, options: argparse.Namespace) -> int:
    if options.detach:
        raise UsageError(
            "there is no daemon that would keep what runs in the background: it ends with this command",
            hint="leave -d out; in a shell, write & behind the command",
        )
    project = project.scale(dict(map(_scale, options.scale)))
    if options.exit_code_from is not None:
        project.container(options.exit_code_from)  # which says so when there is no such service
    attached = _attached(project, options)
    show = _Show(attached, prefix=not options.no_log_prefix, width=max(map(len, _labels(project)), default=0))
    ends: queue.SimpleQueue[_End] = queue.SimpleQueue()

    def started(label: str, running: Running) -> None:
        show.follow(label, running)
        threading.Thread(target=_tell_end, args=(label, running, ends), daemon=True).start()

    with _Ctrl() as keys:
        try:
            running = project.up(
                *options.services,
                wait=False,
                build=not options.no_build,
                dependencies=not options.no_deps,
                progress=True,
                started=started,
            )
        except KeyboardInterrupt:
            show.finish_all()
            return _SIGNALLED + keys.number
        except BaseException:
            show.finish_all()
            raise
        with running:
            return _until_over(running, options, ends, keys, show)


def _scale(text: str) -> tuple[str, int]:
    name, equals, count = text.partition("=")
    if not equals or not count.isdecimal():
        raise UsageError(f"--scale {text}: it is SERVICE=N")
    return name, int(count)


def _labels(project: Project) -> Iterator[str]:
    for service in project.spec.services:
        yield service.name if service.scale == 1 else f"{service.name}-{service.scale}"


def _attached(project: Project, options: argparse.Namespace) -> frozenset[str]:
    def wanted(service: Service) -> bool:
        if options.attach:
            return service.name in options.attach
        return service.attach and service.name not in options.no_attach

    return frozenset(filter(lambda name: wanted(project.services[name]), project.services))


@attrs.frozen
class _End:
    """A container has ended, or was interrupted by our user."""

    label: str
    done: Completed[str] | None = None


def _tell_end(label: str, running: Running, ends: queue.SimpleQueue[_End]) -> None:
    ends.put(_End(label, running.wait()))


def _next(ends: queue.SimpleQueue[_End]) -> _End:
    """The next end. Now and then Python is given a chance to see a signal that came just before it waited."""
    while True:
        try:
            return ends.get(timeout=0.5)
        except queue.Empty:
            continue


def _until_over(
    running: RunningProject,
    options: argparse.Namespace,
    ends: queue.SimpleQueue[_End],
    keys: _Ctrl,
    show: _Show,
) -> int:
    """Wait until all have ended, or one whose end is that of all; the status to exit with."""
    keys.tell(lambda: ends.put(_End("")))
    left = set(running.containers)
    status = 0
    while left:
        end = _next(ends)
        if end.done is None:
            status = _SIGNALLED + keys.number
            break
        left.discard(end.label)
        show.finish(end.label)
        show.say(f"{end.label} ended with {how_it_ended(end.done)}")
        if _is_last(end, options):
            status = status_of(end.done)
            if left:
                show.say(_STOPPING)
            break
    if left:
        keys.tell(running.kill)  # the next time
        running.stop(options.timeout)
    show.finish_all()
    return status


def _is_last(end: _End, options: argparse.Namespace) -> bool:
    assert end.done is not None
    service: str | None = options.exit_code_from
    if service is not None:
        return service in {end.label, end.label.rpartition("-")[0]}
    return bool(options.abort_on_container_exit or (options.abort_on_container_failure and not end.done.ok))


class _Show:
    """What containers print, each line at once and as a whole, with the container's label in front."""

    def __init__(self, services: Iterable[str], *, prefix: bool, width: int) -> None:
        self._services = frozenset(services)
        self._prefix = prefix
        self._width = width
        self._lock = threading.Lock()
        self._threads: dict[str, threading.Thread] = {}
        self._over = False  # nobody reads

    def follow(self, label: str, running: Running) -> None:
        """Print the lines of *running* from now on."""
        if label in self._services or label.rpartition("-")[0] in self._services:
            thread = threading.Thread(target=self._print, args=(label, running), daemon=True)
            self._threads[label] = thread
            thread.start()

    def _print(self, label: str, running: Running) -> None:
        front = f"{label:<{self._width}} | " if self._prefix else ""
        for line in running.lines():
            stream = sys.stdout if line.stream == "stdout" else sys.stderr
            if line.missed:
                self.say(f"{label} prints faster than it is read: {line.missed} bytes are not shown")
            with self._lock:
                if self._over:
                    return
                try:
                    stream.write(f"{front}{line.text}\n")
                    stream.flush()
                except BrokenPipeError:  # whoever read it has left: then what runs has no reason to go on
                    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
                    self._over = True
                    os.kill(os.getpid(), signal.SIGTERM)

    def say(self, text: str) -> None:
        """Print something of ours."""
        with self._lock:
            sys.stderr.write(f"pycontain: {text}\n")
            sys.stderr.flush()

    def finish(self, label: str) -> None:
        """Return when all lines of a container that has ended are printed."""
        thread = self._threads.pop(label, None)
        if thread is not None:
            thread.join()

    def finish_all(self) -> None:
        """Return when all is printed: a thread that still writes when Python ends would break that end."""
        for label in list(self._threads):
            self.finish(label)


class _Ctrl:
    """What Ctrl-C and SIGTERM do: at first they end :meth:`Project.up`, later what :meth:`tell` says."""

    def __init__(self) -> None:
        self.number = 0
        self._act: Any = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) is not signal.SIG_IGN:  # nohup(1)
                    self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go()

    def let_go(self) -> None:
        """Let signals do what they did before."""
        before, self._before = self._before, {}
        for number, handler in before.items():
            signal.signal(number, handler)

    def tell(self, act: Any) -> None:
        """Call *act* at the next signal."""
        self._act = act

    def _receive(self, number: int, _: FrameType | None) -> None:
        if not self.number:  # what is being written may hold its lock, so this goes past it
            os.write(2, f"pycontain: {_STOPPING}\n".encode())
            self.number = number
        if self._act is None:
            raise KeyboardInterrupt
        self._act()


_VERBS = {
    "config": (_config_parser, _config),
    "up": (_up_parser, _up),
    "run": (_run_parser, _run),
    "build": (_build_parser, _build),
    "pull": (_pull_parser, _pull),
}
