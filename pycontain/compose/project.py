"""``Project``: several services as a value, from a compose file or from Python, and the verbs that make it happen."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from pycontain.compose.document import document_of
from pycontain.compose.loading import load, with_files_of_variables
from pycontain.compose.lowering import Surroundings, container_of, image_name
from pycontain.compose.merging import with_absolute_paths
from pycontain.compose.reading import normal_name, parse_name, project_of
from pycontain.compose.running import RunningProject, built
from pycontain.compose.tree import Node, Notes, node_of
from pycontain.container import Container
from pycontain.errors import InvalidProject, InvalidSpec
from pycontain.oci.source import RegistrySource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Self

    from pycontain.compose.loading import Loaded
    from pycontain.compose.values import ProjectSpec, Service
    from pycontain.image import Image
    from pycontain.process import Completed, Running

Described = Mapping[str, Any]


class Project:
    r"""Several services that belong together, as a value: what a compose file describes, or Python in the same words.

    *services* are mappings with the keys of the compose-spec, or a ``Container`` each, which may also be the ``image`` of one;
    *networks*, *volumes*, *secrets* and *configs* are those of the file. Paths are relative to *folder* (now's directory), and
    ``environment`` takes what has no value from *environment* (this process's). Everything that is wrong is in one :class:`InvalidProject`.

    >>> from pycontain import Project
    >>> project = Project(
    ...     {
    ...         "setup": {"image": "host:", "command": "true", "network_mode": "none"},
    ...         "work": {
    ...             "image": "host:",
    ...             "command": ["sh", "-c", "echo $GREETING"],
    ...             "environment": {"GREETING": "hello"},
    ...             "network_mode": "none",
    ...             "depends_on": {"setup": {"condition": "service_completed_successfully"}},
    ...         },
    ...     },
    ...     name="example",
    ... )
    >>> with project.up() as running:
    ...     print(*running.lines())
    work | hello
    """

    spec: ProjectSpec

    def __init__(
        self,
        services: Mapping[str, Described | Container],
        *,
        name: str | None = None,
        networks: Mapping[str, Described | None] | None = None,
        volumes: Mapping[str, Described | None] | None = None,
        secrets: Mapping[str, Described] | None = None,
        configs: Mapping[str, Described] | None = None,
        profiles: Iterable[str] = (),
        folder: str | os.PathLike[str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        if not isinstance(services, Mapping):
            raise InvalidSpec(
                f"{services!r} is no mapping of services", hint='Project({"web": {"image": "host:"}})'
            )
        described = {
            key: {"image": each} if isinstance(each, Container) else each for key, each in services.items()
        }
        given = {
            "services": described,
            "networks": networks,
            "volumes": volumes,
            "secrets": secrets,
            "configs": configs,
        }
        place = os.path.abspath(folder if folder is not None else os.getcwd())
        variables = dict(os.environ if environment is None else environment)
        notes = Notes()
        try:
            document = node_of({key: value for key, value in given.items() if value is not None})
        except ValueError as error:
            raise InvalidProject(str(error)) from None
        _refuse_extends(document, notes)
        document = with_absolute_paths(document, place, os.path.expanduser("~"))
        document = with_files_of_variables(document, variables, notes)
        self._read(document, notes, name or normal_name(os.path.basename(place)), place, variables, profiles)

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | None = None,
        *,
        name: str | None = None,
        profiles: Iterable[str] = (),
        env_file: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | None = None,
        folder: str | os.PathLike[str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Self:
        """The project of a compose file, or of several, each merged over those before.

        Without *path* it is ``compose.yaml`` here or in the nearest folder above, with ``compose.override.yaml`` over it. Variables
        are those of *environment* (this process's), over those of *env_file* (``.env`` beside the first file, if there is one).
        *folder* is what paths are relative to: that of the first file. *name*, if not given, is COMPOSE_PROJECT_NAME, else the file's
        ``name``, else that of the folder. Needs PyYAML: ``pip install 'pycontain[compose]'``.

        :class:`InvalidProject` with all that is wrong; what is left out without harm is in ``warnings``.
        """
        notes = Notes()
        loaded = load(
            _paths(path),
            notes,
            name=name,
            folder=None if folder is None else os.fspath(folder),
            env_files=None if env_file is None else _paths(env_file),
            environment=dict(os.environ if environment is None else environment),
        )
        return cls._of(loaded, notes, profiles)

    @classmethod
    def _of(cls, loaded: Loaded, notes: Notes, profiles: Iterable[str]) -> Self:
        made = cls.__new__(cls)
        made._read(  # noqa: SLF001 - the other way to make one
            loaded.document, notes, loaded.name, loaded.folder, loaded.variables, profiles
        )
        return made

    def _read(
        self,
        document: Node,
        notes: Notes,
        name: str,
        folder: str,
        variables: dict[str, str],
        profiles: Iterable[str],
    ) -> None:
        try:
            parse_name(name)
        except ValueError as error:
            notes.problems.append(str(error))
        chosen = (profiles,) if isinstance(profiles, str) else tuple(profiles)
        self._variables = variables
        self.spec = project_of(
            document,
            notes,
            name=name,
            folder=folder,
            home=os.path.expanduser("~"),
            variables=variables,
            profiles=chosen,
        )
        if not notes.problems:
            around = Surroundings(self.spec)
            for service in self.spec.services:
                found: list[str] = []
                container_of(service, around, problems=found)
                notes.problems += [_placed(document, problem) for problem in found]
        if notes.problems:
            raise InvalidProject(tuple(notes.problems))

    def __repr__(self) -> str:
        return f"<Project {self.name} {' '.join(self.services)}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Project) and self.spec == other.spec

    def __hash__(self) -> int:
        return hash((self.spec.name, self.spec.folder, tuple(self.services)))

    @property
    def name(self) -> str:
        """What it is called; containers, networks and volumes are called after it."""
        return self.spec.name

    @property
    def services(self) -> dict[str, Service]:
        """All of its services by name, as values."""
        return {service.name: service for service in self.spec.services}

    @property
    def warnings(self) -> tuple[str, ...]:
        """What of the file was left out, because nothing depends on it, and variables that are not set."""
        return self.spec.warnings

    def config(self) -> dict[str, Any]:
        """The project as a document of the compose-spec: merged, interpolated, and in the long forms."""
        return document_of(self.spec)

    def container(self, service: str) -> Container:
        """The container that a service means, but for its command, which is given to ``start`` or ``run``, and for networks of the project."""
        return container_of(self._service(service), Surroundings(self.spec))

    def image(self, service: str) -> str:
        """What the image of a service is called; that of one with a ``build`` is named by it."""
        wanted = self._service(service)
        return (
            image_name(wanted, self.spec)
            if wanted.build is not None
            else str(self.container(service).spec.image)
        )

    def scale(self, counts: Mapping[str, int] | None = None, /, **more: int) -> Project:
        """The project with so many containers of a service: ``project.scale(web=3)``."""
        wanted = {**(counts or {}), **more}
        for name, count in wanted.items():
            self._service(name)
            if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= 1000:
                raise InvalidSpec(f"{count!r} is no number of containers for {name}")
        services = tuple(
            attrs.evolve(each, scale=wanted.get(each.name, each.scale)) for each in self.spec.services
        )
        for service in services:
            if service.name in wanted and service.scale > 1:
                _refuse_what_is_one(service)
        made = Project.__new__(Project)
        made.spec = attrs.evolve(self.spec, services=services)
        made._variables = self._variables  # noqa: SLF001 - it is one of us
        return made

    def _profiles(self) -> set[str]:
        return {profile for service in self.spec.services for profile in service.profiles}

    def _service(self, name: str) -> Service:
        found = self.spec.service(name)
        if found is None:
            raise InvalidSpec(
                f"there is no service {name!r} in {self.name}", hint=f"there are {', '.join(self.services)}"
            )
        return found

    # --- doing ----------------------------------------------------------------------------------------

    def up(
        self,
        *services: str,
        wait: bool = True,
        timeout: float | None = None,
        build: bool = True,
        dependencies: bool = True,
        progress: bool = False,
        started: Callable[[str, Running], object] | None = None,
    ) -> RunningProject:
        """Start the services, each when those that it waits for are as it asks, and return what runs: a context manager.

        Of all services that the profiles choose, or of those named and what they wait for, unless *dependencies* is false. With *wait*
        it returns when all that have a health check are healthy. Images of ``build`` are built, whose layers are cached; without *build*
        those that are there are used. *progress* shows how builds go. *started* is called with the label and the ``Running`` of each
        container as soon as it runs, in the thread that started it.

        :class:`ServiceFailed` with what the service has printed when one does not start, or does not become what another one waits
        for; :class:`NotReady` after *timeout* seconds. Then nothing is left running.
        """
        chosen = self._chosen(services, dependencies=dependencies)
        if not chosen:
            raise InvalidProject(
                f"no service of {self.name} is chosen: all of them have profiles, {', '.join(sorted(self._profiles()))}",
                hint="choose one, or name a service",
            )
        return RunningProject(self.spec, self._variables).begin(
            chosen, wait=wait, timeout=timeout, build=build, progress=progress, started=started
        )

    def run(
        self,
        service: str,
        *argv: str,
        input: str | bytes | None = None,  # noqa: A002 - as in Container.run
        timeout: float | None = None,
        check: bool = False,
        env: Mapping[str, str] | None = None,
        dependencies: bool = True,
    ) -> Completed[str]:
        """Run a command in a container of *service*, with what it waits for started before and ended afterwards."""
        with self.up_for(service, dependencies=dependencies) as running:
            return running.run(service, *argv, input=input, timeout=timeout, check=check, env=env)

    def up_for(
        self,
        service: str,
        *,
        dependencies: bool = True,
        build: bool = True,
        progress: bool = False,
    ) -> RunningProject:
        """Bring up what *service* waits for, as it asks, and not the service itself: for a ``RunningProject.container`` of it."""
        wanted = self._service(service)
        chosen = self._chosen((service,), dependencies=True) if dependencies else ()
        others = tuple(each for each in chosen if each.name != service)
        stand_in = attrs.evolve(wanted, scale=0, build=None, post_start=())
        return RunningProject(self.spec, self._variables).begin(
            (*others, stand_in), wait=False, timeout=None, build=build, progress=progress, started=None
        )

    def build(self, *services: str, no_cache: bool = False, progress: bool = False) -> dict[str, Image]:
        """Build the images of the services that have a ``build``, or of those named; by service."""
        chosen = [self._service(name) for name in services] or list(self.spec.active())
        images = {}
        for service in chosen:
            if service.build is not None:
                how = attrs.evolve(service.build, no_cache=no_cache or service.build.no_cache)
                name = image_name(service, self.spec)
                images[service.name] = built(how, name, self.spec, self._variables, progress=progress)
        return images

    def pull(self, *services: str, policy: str = "always", progress: bool = False) -> dict[str, Image]:
        """Bring the images of the services, or of those named, from their registries; by service. What is built or on disk is not."""
        from pycontain.image import Image  # noqa: PLC0415 - loads what only registries need

        chosen = [self._service(name) for name in services] or list(self.spec.active())
        images = {}
        for service in chosen:
            source = self.container(service.name).spec.image if service.build is None else None
            if isinstance(source, RegistrySource):
                images[service.name] = Image.pull(
                    str(source.reference), platform=service.platform, policy=policy, progress=progress
                )
        return images

    def _chosen(self, names: tuple[str, ...], *, dependencies: bool) -> tuple[Service, ...]:
        """The services to start, in the order of the file."""
        active = {service.name for service in self.spec.active()}
        begin = tuple(self._service(name).name for name in names) or tuple(active)
        wanted, left = set(begin), list(begin)
        while left and dependencies:
            service = self._service(left.pop())
            for needed in service.depends_on:
                other = self.spec.service(needed.service)
                if other is None or needed.service in wanted:
                    continue
                if needed.service not in active:
                    if not needed.required:
                        continue
                    raise InvalidProject(
                        f"services.{service.name}: it depends on {other.name}, whose profiles are not chosen: {', '.join(other.profiles)}",
                        hint=f"choose one: profiles=[{other.profiles[0]!r}]",
                    )
                wanted.add(other.name)
                left.append(other.name)
        return tuple(service for service in self.spec.services if service.name in wanted)


def _paths(given: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | None) -> tuple[str, ...]:
    if given is None:
        return ()
    if isinstance(given, str | os.PathLike):
        return (os.fspath(given),)
    return tuple(os.fspath(path) for path in given)


def _refuse_extends(document: Node, notes: Notes) -> None:
    services = document.get("services")
    for name, service in services.value.items() if services is not None else ():
        extends = service.get("extends")
        if extends is not None:
            notes.problem(extends, f"services.{name}.extends", "in Python, merge the mappings: {**base, …}")


def _refuse_what_is_one(service: Service) -> None:
    if service.container_name:
        raise InvalidSpec(f"container_name of {service.name} is one name, for one container")
    fixed = [port.published for port in service.ports if port.published]
    if fixed:
        raise InvalidSpec(
            f"{service.scale} containers of {service.name} cannot all have port {fixed[0]} of the host",
            hint="leave it out in ports, then any free one is taken",
        )


def _placed(document: Node, problem: str) -> str:
    """*problem*, which begins with a path, with the place in the file where that is, as far as it is written."""
    path = problem.partition(": ")[0]
    node, where = document, ""
    for name in path.replace("[", ".[").split("."):
        if name.startswith("[") and isinstance(node.value, list):
            number = int(name[1:-1])
            below = node.value[number] if number < len(node.value) else None
        else:
            below = node.get(name)
        if below is None:
            break
        node, where = below, below.where
    return f"{where}{problem}"
