"""A project while it runs: its services started in the order of what they wait for, and ended together.

Each service is brought up in a thread of its own as soon as those that it waits for are as they should be; a circle was refused
before. The first failure ends every container, and with them whatever others were waiting for, so all threads come to an end.
"""

from __future__ import annotations

import os
import queue
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

import attrs

from pycontain.compose import loading
from pycontain.compose.lowering import Surroundings, container_of, image_name
from pycontain.container import Container
from pycontain.errors import (
    CommandFailed,
    ComposeError,
    InvalidProject,
    InvalidSpec,
    NotReady,
    PycontainError,
    ServiceFailed,
)
from pycontain.network import Network
from pycontain.process.completed import how_it_ended
from pycontain.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from pycontain.compose.values import Build, Dependency, Hook, ProjectSpec, Service
    from pycontain.process import Completed, Running
    from pycontain.process.logs import LogLine, Moment

_EVER = 1e9  # seconds, about thirty years
_QUEUED = 1_000  # lines that were read and that nobody has asked for yet
_GLANCE = 0.2
_A_SIGNAL = 0.5
"""Seconds after which a wait begins anew: Python handles a signal that comes just before it waits for a lock when that wait ends."""


@attrs.frozen
class ServiceLine:
    """A line that a container of a project has printed; ``str()`` of it has the container's label in front."""

    label: str
    line: LogLine

    @property
    def text(self) -> str:
        """The line itself."""
        return self.line.text

    def __str__(self) -> str:
        return f"{self.label} | {self.line.text}"


@attrs.define(eq=False)
class _Place:
    """One service: what it does now, for a sentence, and its containers in order."""

    service: Service
    doing: str = "has not begun"
    started: bool = False
    done: bool = False
    containers: list[Running] = attrs.field(factory=list)

    def label(self, number: int) -> str:
        """The name of the service, with a number when there are several containers."""
        return self.service.name if self.service.scale == 1 else f"{self.service.name}-{number}"


class RunningProject:
    """The services of a project that were started: a context manager that kills and cleans when its block is left.

    A container is found by its *label*: the name of its service, followed by ``-1``, ``-2`` and so on where there are several.
    Thread-safe. See ``Project.up``.
    """

    def __init__(self, spec: ProjectSpec, variables: Mapping[str, str]) -> None:
        self.spec = spec
        self.networks: dict[str, Network] = {}
        self._variables = variables
        self._places: dict[str, _Place] = {}
        self._around = Surroundings(spec)
        self._changed = threading.Condition()
        self._failure: BaseException | None = None
        self._ending = False
        self._threads: list[threading.Thread] = []
        self._act = _Act()
        self._process = os.getpid()

    def __repr__(self) -> str:
        return f"<RunningProject {self.spec.name} {' '.join(self.containers)}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def name(self) -> str:
        """The project's name."""
        return self.spec.name

    @property
    def containers(self) -> dict[str, Running]:
        """Those that were started, by label, in the order of the project."""
        return {
            place.label(number): running
            for place in self._places.values()
            for number, running in enumerate(list(place.containers), 1)
        }

    def __getitem__(self, label: str) -> Running:
        containers = self.containers
        if label not in containers:
            raise InvalidSpec(
                f"there is no container {label!r} in {self.name}",
                hint=f"there are {', '.join(containers) or 'none'}",
            )
        return containers[label]

    def __iter__(self) -> Iterator[str]:
        return iter(self.containers)

    # --- starting -------------------------------------------------------------------------------------

    def begin(
        self,
        services: Iterable[Service],
        *,
        wait: bool,
        timeout: float | None,
        build: bool,
        progress: bool,
        started: Callable[[str, Running], object] | None,
    ) -> Self:
        """Bring *services* up, or end all and raise why not; for :meth:`Project.up`, not for others."""
        chosen = tuple(services)
        self._places = {service.name: _Place(service) for service in chosen}
        _refuse_shared_labels(self._places.values())
        try:
            self._around = attrs.evolve(self._around, contents=_contents(chosen, self.spec, self._variables))
            self._make_networks(chosen)
            _make_volumes(chosen, self.spec)
            _make_folders(chosen)
            act = self._act = _Act(wait, build, progress, started)
            self._threads = [
                threading.Thread(
                    target=self._bring_up,
                    args=(place, act),
                    name=f"pycontain-{place.service.name}",
                    daemon=True,
                )
                for place in self._places.values()
            ]
            for thread in self._threads:
                thread.start()
            self._wait_until_up(timeout)
        except KeyboardInterrupt:
            self._end_in_order()
            raise
        except BaseException:
            self.close()
            raise
        return self

    def _end_in_order(self) -> None:
        """Stop what has been started so far; a second interrupt kills it."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        try:
            self.stop()
        finally:
            self.close()

    def _wait_until_up(self, timeout: float | None) -> None:
        def is_over() -> bool:
            return self._failure is not None or all(place.done for place in self._places.values())

        deadline = time.monotonic() + (_EVER if timeout is None else timeout)
        in_time = False
        with self._changed:
            while not in_time and (left := deadline - time.monotonic()) > 0:
                in_time = self._changed.wait_for(is_over, min(left, _A_SIGNAL))
        if self._failure is not None:
            raise self._failure
        if not in_time:
            waiting = [f"{name} {place.doing}" for name, place in self._places.items() if not place.done]
            raise NotReady(
                f"the project {self.name} was not up within {timeout:g} s: {'; '.join(waiting)}",
                waited_for="up",
            )

    def _bring_up(self, place: _Place, act: _Act) -> None:
        try:
            for needed in place.service.depends_on:
                if needed.service in self._places:
                    self._wait_for(place, needed)
            self._start(place, act)
        except BaseException as error:  # noqa: BLE001 - it is raised by who waits for all threads
            self._fail(place, error)

    def _do(self, place: _Place, doing: str) -> None:
        """Note what a service does from now on; not when all is ending."""
        if self._ending or self._failure is not None:
            raise _Ending
        place.doing = doing

    def _wait_for(self, place: _Place, needed: Dependency) -> None:
        other = self._places[needed.service]
        self._do(place, f"waits for {needed.service} to start")
        with self._changed:
            self._changed.wait_for(lambda: other.started or self._failure is not None or self._ending)
        match needed.condition:
            case "service_healthy":
                self._do(place, f"waits for {needed.service} to be healthy")
                for running in other.containers:
                    running.wait_for(healthy=True, timeout=_EVER)
            case "service_completed_successfully":
                self._do(place, f"waits for {needed.service} to complete")
                for running in other.containers:
                    _require_success(needed.service, place.service.name, running.wait())

    def _start(self, place: _Place, act: _Act) -> None:
        service = place.service
        if service.build is not None:
            self._do(place, "is being built")
            self._build(service, act)
        self._do(place, "is being started")
        for number in range(1, service.scale + 1):
            container = container_of(service, self._around, number)
            stdin = -1 if service.stdin_open and not service.tty else None
            running = container.start(*(service.command or ()), stdin=stdin)
            with self._changed:
                place.containers.append(running)
                ending = self._ending
            if ending:
                running.close()
                raise _Ending
            if act.started is not None:
                act.started(place.label(number), running)
            for hook in service.post_start:
                self._do(place, f"executes {' '.join(hook.command)}")
                _execute(running, hook, check=True)
        with self._changed:
            place.started = True
            self._changed.notify_all()
        if act.wait:
            self._do(place, "is not healthy yet")
            for running in place.containers:
                _wait_until_well(running)
        place.doing = "is up"
        with self._changed:
            place.done = True
            self._changed.notify_all()

    def _build(self, service: Service, act: _Act) -> None:
        assert service.build is not None
        name = image_name(service, self.spec)
        if act.build or service.pull_policy == "build":
            image: Any = built(service.build, name, self.spec, self._variables, progress=act.progress)
        else:
            image = Container(name).pull("never")
        with self._changed:
            self._around = attrs.evolve(self._around, images={**self._around.images, service.name: image})

    def _fail(self, place: _Place, error: BaseException) -> None:
        with self._changed:
            if self._failure is None and not self._ending and not isinstance(error, _Ending):
                self._failure = _as_failure(place, error)
            self._changed.notify_all()
        if self._failure is not None:
            self._kill()

    def _make_networks(self, services: tuple[Service, ...]) -> None:
        wanted = {each.network for service in services for each in service.networks}
        for described in self.spec.networks:
            if described.key in wanted and described.key not in self.networks:
                self.networks[described.key] = Network(
                    described.name, subnet=described.subnet, internal=described.internal
                )
        self._around = attrs.evolve(self._around, networks=self.networks)

    # --- what it prints -------------------------------------------------------------------------------

    def lines(
        self, *labels: str, follow: bool = True, since: Moment | None = None, tail: int | None = None
    ) -> Iterator[ServiceLine]:
        """The lines of all containers as they come, until all have ended; of *labels* alone when some are named.

        Without *follow* those that are there, in order of time. *since* and *tail* as for ``Running.lines``, of each container.
        """
        wanted = self._named(labels)
        if not follow:
            return iter(self.logs(*labels, since=since, tail=tail))
        return _merged({label: running.lines(since=since, tail=tail) for label, running in wanted.items()})

    def logs(
        self, *labels: str, since: Moment | None = None, tail: int | None = None
    ) -> tuple[ServiceLine, ...]:
        """The lines that are there now, in order of time."""
        found = [
            ServiceLine(label, line)
            for label, running in self._named(labels).items()
            for line in running.logs(since=since, tail=tail)
        ]
        return tuple(sorted(found, key=lambda each: each.line.time))

    def _named(self, labels: tuple[str, ...]) -> dict[str, Running]:
        """Containers by label; the name of a service is all of its containers."""
        if not labels:
            return self.containers
        found: dict[str, Running] = {}
        for label in labels:
            place = self._places.get(label)
            if place is not None and place.service.scale != 1:
                found |= {place.label(number): each for number, each in enumerate(place.containers, 1)}
            else:
                found[label] = self[label]
        return found

    # --- doing ----------------------------------------------------------------------------------------

    def exec(
        self,
        label: str,
        *argv: str,
        input: str | bytes | None = None,  # noqa: A002 - as in Running.exec
        timeout: float | None = None,
        check: bool = False,
        env: Mapping[str, str] | None = None,
        user: str | int | None = None,
        workdir: str | None = None,
    ) -> Completed[str]:
        """Run one more command in a container, as ``Running.exec``."""
        return self[label].exec(
            *argv, input=input, timeout=timeout, check=check, env=env, user=user, workdir=workdir
        )

    def container(self, service: str, *, ports: bool = False) -> Container:
        """A container as those of *service*, on the same networks, to be run once: it is not started again.

        It publishes those of *ports* only when that is asked for, for the service itself may have them.
        """
        found = self.spec.service(service)
        if found is None:
            raise InvalidSpec(
                f"there is no service {service!r} in {self.name}",
                hint=f"there are {', '.join(each.name for each in self.spec.services)}",
            )
        missing = {each.network for each in found.networks} - self.networks.keys()
        if missing or (found.build is not None and service not in self._around.images):
            self._prepare_once(found)
        once = attrs.evolve(
            found,
            ports=found.ports if ports else (),
            restart=None,
            healthcheck=None,
            container_name=f"{self.name}-{service}-run-{os.urandom(4).hex()}",
            scale=1,
        )
        return container_of(once, self._around)

    def _prepare_once(self, service: Service) -> None:
        self._make_networks((service,))
        self._around = attrs.evolve(
            self._around,
            networks=self.networks,
            contents={**self._around.contents, **_contents((service,), self.spec, self._variables)},
        )
        _make_volumes((service,), self.spec)
        _make_folders((service,))
        if service.build is not None:
            self._build(service, self._act)

    def run(
        self,
        service: str,
        *argv: str,
        input: str | bytes | None = None,  # noqa: A002 - as in Container.run
        timeout: float | None = None,
        check: bool = False,
        env: Mapping[str, str] | None = None,
    ) -> Completed[str]:
        """Run a command to its end in one more container of *service*; without *argv*, the service's own command."""
        container = self.container(service)
        container = container if env is None else container.env(env)
        found = self.spec.service(service)
        command = argv or (found.command if found is not None else None) or ()
        return container.run(*command, input=input, timeout=timeout, check=check)

    def wait(self, *labels: str, timeout: float | None = None) -> dict[str, Completed[str]]:
        """Wait for the end of all containers, or of those named, and give what became of them by label.

        After *timeout* seconds :class:`CommandTimeout`, and they go on.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        ended = {}
        for label, running in self._named(labels).items():
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ended[label] = running.wait(left)
        return ended

    def stop(self, timeout: float | None = None) -> dict[str, Completed[str]]:
        """Stop every service after those that wait for it, at once where nothing does, and give what became of them by label.

        Each gets its stop signal, and SIGKILL after its grace period, or *timeout* seconds. A ``pre_stop`` before may take as long.
        """
        gone: set[str] = set()
        ends: dict[str, Completed[str] | PycontainError] = {}
        changed = threading.Condition()
        dependents = {
            name: {other for other, place in self._places.items() if name in place.service.waits_for()}
            for name in self._places
        }

        def end(name: str, place: _Place) -> None:
            with changed:
                changed.wait_for(lambda: dependents[name] <= gone)
            ended = _ended_together(place, timeout)
            with changed:
                ends.update(ended)
                gone.add(name)
                changed.notify_all()

        threads = [
            threading.Thread(target=end, args=item, name=f"pycontain-stop-{item[0]}", daemon=True)
            for item in self._places.items()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            _join(thread)
        for end_of_one in ends.values():
            if isinstance(end_of_one, PycontainError):
                raise end_of_one
        # One that was being started meanwhile has ended in the thread that started it.
        return {
            label: done
            for label in self.containers
            if not isinstance(done := ends.get(label), PycontainError | None)
        }

    def kill(self) -> None:
        """SIGKILL every container, all at once."""
        for running in self.containers.values():
            running.kill()

    def close(self) -> None:
        """Kill what still runs, and remove the containers and networks. Safe to repeat; results and logs stay readable."""
        if os.getpid() != self._process:
            return
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        self._kill()
        for thread in self._threads:
            if thread is not threading.current_thread() and thread.ident is not None:
                _join(thread)
        for running in reversed(self.containers.values()):
            running.close()
        for network in self.networks.values():
            network.close()

    def _kill(self) -> None:
        self.kill()


class _Ending(Exception):
    """All is ending, and a thread leaves."""


@attrs.frozen
class _Act:
    """How services are brought up."""

    wait: bool = False
    build: bool = True
    progress: bool = False
    started: Callable[[str, Running], object] | None = None


def _refuse_shared_labels(places: Iterable[_Place]) -> None:
    counts = Counter(place.label(number) for place in places for number in range(1, place.service.scale + 1))
    shared = [label for label, count in counts.items() if count > 1]
    if shared:
        raise InvalidProject(
            f"two containers would be called {shared[0]}: one of a service of that name, and one of several of another",
            hint="give the service another name",
        )


def _as_failure(place: _Place, error: BaseException) -> BaseException:
    if isinstance(error, ServiceFailed) or not isinstance(error, PycontainError):
        return error
    result = getattr(error, "result", None)
    failed = ServiceFailed(
        f"the service {place.service.name} {place.doing}, and failed: {error}",
        service=place.service.name,
        result=result,
    )
    for note in getattr(error, "__notes__", ()):
        failed.add_note(note)
    failed.__cause__ = error
    return failed


def _require_success(name: str, for_whom: str, done: Completed[str]) -> None:
    if done.ok:
        return
    tail = done.tail()
    raise ServiceFailed(
        f"the service {name} ended with {how_it_ended(done)}, and {for_whom} waits for its success",
        service=name,
        result=done,
        hint=f"it printed last:\n{tail}" if tail else "it printed nothing",
    )


def _wait_until_well(running: Running) -> None:
    """Until it is healthy, has no check, or has done its work."""
    if running.health.status == "none":
        return
    try:
        running.wait_for(healthy=True, timeout=_EVER)
    except CommandFailed as error:
        if not error.result.ok:
            raise


def _execute(running: Running, hook: Hook, *, check: bool, timeout: float | None = None) -> None:
    running.exec(
        *hook.command,
        check=check,
        timeout=timeout,
        user=hook.user,
        workdir=hook.working_dir,
        env=dict(hook.environment) or None,
    )


def _ended_together(place: _Place, timeout: float | None) -> dict[str, Completed[str] | PycontainError]:
    """Stop all containers of one service at once: what became of each, or why that cannot be told."""
    grace = place.service.stop_grace_period if timeout is None else timeout
    ends: dict[str, Completed[str] | PycontainError] = {}

    def end(label: str, running: Running) -> None:
        try:
            for hook in place.service.pre_stop:
                with suppress(
                    PycontainError
                ):  # it has ended by itself, or the hook takes too long: it is stopped all the same
                    _execute(running, hook, check=False, timeout=place.service.stop_grace_period)
            ends[label] = running.stop(grace)
        except PycontainError as error:
            ends[label] = error

    threads = [
        threading.Thread(target=end, args=(place.label(number), running), daemon=True)
        for number, running in enumerate(list(place.containers), 1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ends


def _join(thread: threading.Thread) -> None:
    """Wait for the end of *thread*, and hear of signals meanwhile."""
    while thread.is_alive():
        thread.join(_A_SIGNAL)


def _merged(sources: dict[str, Iterator[LogLine]]) -> Iterator[ServiceLine]:
    """The lines of all *sources* as they come: a thread reads each, and none of them ahead by more than a little."""
    lines: queue.Queue[ServiceLine | None] = queue.Queue(_QUEUED)
    left = threading.Event()

    def put(line: ServiceLine | None) -> None:
        while not left.is_set():
            try:
                lines.put(line, timeout=_GLANCE)
            except queue.Full:
                continue
            return

    def read(label: str, source: Iterator[LogLine]) -> None:
        try:
            for line in source:
                put(ServiceLine(label, line))
                if left.is_set():
                    return
        finally:
            put(None)

    for label, source in sources.items():
        threading.Thread(
            target=read, args=(label, source), name=f"pycontain-lines-{label}", daemon=True
        ).start()
    try:
        reading = len(sources)
        while reading:
            line = lines.get()
            if line is None:
                reading -= 1
            else:
                yield line
    finally:
        left.set()


# --- what is made before -------------------------------------------------------------------------------


def _contents(
    services: Iterable[Service], project: ProjectSpec, variables: Mapping[str, str]
) -> dict[tuple[str, str], bytes]:
    """The bytes of the secrets and configs that *services* are given; :class:`InvalidProject` with all that cannot be had."""
    wanted = {
        (kind, grant.source)
        for service in services
        for kind, grants in (
            ("secrets", (*service.secrets, *(service.build.secrets if service.build else ()))),
            ("configs", service.configs),
        )
        for grant in grants
    }
    found, problems = {}, []
    for kind, sources in (("secrets", project.secrets), ("configs", project.configs)):
        for source in sources:
            if (kind, source.key) not in wanted:
                continue
            try:
                found[kind, source.key] = _bytes_of(
                    source.file, source.environment, source.content, variables
                )
            except InvalidProject as error:
                problems.append(f"{kind}.{source.key}: {error}")
    if problems:
        raise InvalidProject(tuple(problems))
    return found


def _bytes_of(
    file: str | None, environment: str | None, content: str | None, variables: Mapping[str, str]
) -> bytes:
    if file is not None:
        return loading.read_bytes(file)
    if environment is not None:
        if environment not in variables:
            raise InvalidProject(f"the variable {environment} is not set")
        return variables[environment].encode("utf-8", "surrogateescape")
    return (content or "").encode()


def _make_volumes(services: tuple[Service, ...], project: ProjectSpec) -> None:
    wanted = {mount.source for service in services for mount in service.volumes if mount.type == "volume"}
    for volume in project.volumes:
        if volume.key not in wanted:
            continue
        if volume.external:
            Volume.find(volume.name)
        elif volume.labels:
            Volume(volume.name, labels=dict(volume.labels))


def _make_folders(services: tuple[Service, ...]) -> None:
    """Paths of the host that are mounted, and that there are not: as Docker does, they become folders."""
    for service in services:
        for mount in service.volumes:
            if mount.type == "bind" and mount.create_host_path and not os.path.lexists(mount.source):
                try:
                    os.makedirs(mount.source, exist_ok=True)
                except OSError as error:
                    raise ComposeError(
                        f"the folder {mount.source}, which {service.name} mounts, cannot be made: {error.strerror}"
                    ) from error


def built(
    build: Build, name: str, project: ProjectSpec, variables: Mapping[str, str], *, progress: bool
) -> Any:
    """The image that *build* describes, called *name*."""
    from pycontain.building.build import build as build_image  # noqa: PLC0415 - a build loads much

    secrets = {source.key: source for source in project.secrets}
    shown = {
        grant.target: _bytes_of(
            secrets[grant.source].file,
            secrets[grant.source].environment,
            secrets[grant.source].content,
            variables,
        )
        for grant in build.secrets
    }
    with tempfile.TemporaryDirectory(prefix="pycontain-compose-") as folder:
        dockerfile = build.dockerfile
        if build.dockerfile_inline is not None:
            dockerfile = os.path.join(folder, "Dockerfile")
            with open(dockerfile, "w", encoding="utf-8") as file:
                file.write(build.dockerfile_inline)
        return build_image(
            build.context,
            dockerfile=dockerfile,
            target=build.target,
            args=dict(build.args),
            secrets=shown,
            ssh=dict(build.ssh),
            tags=(name, *build.tags),
            platform=build.platform,
            cache_from=build.cache_from,
            no_cache=build.no_cache,
            network=build.network,
            pull="always" if build.pull else "missing",
            labels=dict(build.labels),
            progress=progress,
        )
