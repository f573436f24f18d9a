"""From files to one document: they are read, interpolated, extended, merged and included, each relative to its own folder."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import attrs

from pycontain.compose import dotenv
from pycontain.compose.cursor import At
from pycontain.compose.interpolation import interpolate
from pycontain.compose.merging import absolute_path, merged, merged_service, settled, with_absolute_paths
from pycontain.compose.parsing import MOST_BYTES, parse
from pycontain.compose.reading import PROJECT, normal_name
from pycontain.compose.tree import Node, Notes, Rule
from pycontain.errors import ComposeError, InvalidProject

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

NAMES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
_STANDARD_INPUT = "-"
_MOST_FILES = 100
_MOST_BASES = 50  # of one service, each extending the next
_SHARED = ("services", "networks", "volumes", "secrets", "configs")


@attrs.frozen
class Loaded:
    """One document for a whole project, its paths absolute, with the environment that it was read with."""

    document: Node
    name: str
    folder: str
    variables: dict[str, str] = attrs.field(repr=False)


def load(
    paths: Sequence[str],
    notes: Notes,
    *,
    name: str | None,
    folder: str | None,
    env_files: Sequence[str] | None,
    environment: Mapping[str, str],
) -> Loaded:
    """Read *paths*, each merged over those before it; without any, those that there are here, or in a folder above."""
    files = tuple(paths) or found_files(os.getcwd())
    first = os.getcwd() if files[0] == _STANDARD_INPUT else os.path.dirname(os.path.abspath(files[0]))
    folder = os.path.abspath(folder) if folder is not None else first
    given = None if env_files is None else [os.path.abspath(path) for path in env_files]
    variables = _variables(folder, given, environment)
    loading = _Loading(notes)
    name = name or variables.get("COMPOSE_PROJECT_NAME") or loading.name(files, variables)
    name = name or normal_name(os.path.basename(folder))
    variables["COMPOSE_PROJECT_NAME"] = name
    document = settled(loading.files(files, folder, variables))
    document = with_files_of_variables(document, variables, notes)
    return Loaded(document, name, folder, variables)


def found_files(folder: str) -> tuple[str, ...]:
    """The compose file in *folder* or the nearest one above, with its override if there is one."""
    here = folder
    while True:
        for name in NAMES:
            path = os.path.join(here, name)
            if os.path.isfile(path):
                base, dot, ending = path.rpartition(".")
                override = f"{base}.override{dot}{ending}"
                return (path, override) if os.path.isfile(override) else (path,)
        above = os.path.dirname(here)
        if above == here:
            raise ComposeError(
                f"there is no {NAMES[0]} in {folder}, nor in a folder above",
                hint="write one, or name one: -f FILE",
            )
        here = above


def _variables(
    folder: str, env_files: Sequence[str] | None, environment: Mapping[str, str]
) -> dict[str, str]:
    """Those of the files, ``.env`` when none are named, and over them ours."""
    default = os.path.join(folder, ".env")
    files = env_files if env_files is not None else [default] if os.path.isfile(default) else []
    found: dict[str, str] = {}
    for path in files:
        found |= {
            name: value
            for name, value in _parsed(path, {**found, **environment}).items()
            if value is not None
        }
    return {**found, **environment}


def _parsed(path: str, variables: Mapping[str, str], *, raw: bool = False) -> dict[str, str | None]:
    try:
        return dotenv.parse(read_text(path), variables, raw=raw)
    except ValueError as error:
        if isinstance(error, InvalidProject):
            raise
        raise InvalidProject(f"{path}: {error}") from error


def read_text(path: str) -> str:
    """The text of a file; :class:`InvalidProject` when there is none."""
    try:
        return read_bytes(path).decode()
    except UnicodeDecodeError as error:
        raise InvalidProject(f"{path}: it is no UTF-8: {error.reason}") from error


def read_bytes(path: str) -> bytes:
    """The bytes of a file that is not too large for what it is."""
    try:
        if path == _STANDARD_INPUT:
            return sys.stdin.buffer.read(MOST_BYTES + 1)
        # A fifo could wait for ever, and opening a device could do something.
        if not os.path.isfile(path):
            raise InvalidProject(
                f"{path}: {'it is no file' if os.path.exists(path) else 'there is no such file'}"
            )
        with open(path, "rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise InvalidProject(f"{path}: it cannot be read: {error.strerror}") from error
    if len(content) > MOST_BYTES:
        raise InvalidProject(f"{path}: it is longer than {MOST_BYTES >> 20} MiB")
    return content


@attrs.define
class _Loading:
    """What is open, so that nothing includes or extends itself without an end."""

    notes: Notes
    _home: str = attrs.field(factory=lambda: os.path.expanduser("~"))
    _open: list[str] = attrs.field(factory=list)
    _read: dict[str, Node | None] = attrs.field(factory=dict)

    def name(self, paths: Iterable[str], variables: Mapping[str, str]) -> str:
        """What the files call the project; it is known before all else is read, for that may use it as a variable."""
        said = ""
        for path in paths:
            document = self._parsed(path)
            named = None if document is None else document.get("name")
            if named is not None:
                said = str(interpolate(named, variables, self.notes, "name").value or said)
        return said

    def files(self, paths: Iterable[str], folder: str, variables: Mapping[str, str]) -> Node:
        """Several files of one project, each over those before."""
        document = Node({})
        for path in paths:
            key = os.path.abspath(path)
            if key in self._open:
                raise InvalidProject(f"{path}: it includes itself: {' → '.join((*self._open, key))}")
            self._open.append(key)
            document = merged(document, self._file(path, folder, variables))
            document = self._with_included(document, folder, variables)
            self._open.pop()
        return document

    def _raw(self, path: str, variables: Mapping[str, str]) -> Node:
        document = self._parsed(path)
        if document is None or document.value is None:
            return Node({}, path)
        if not isinstance(document.value, dict):
            raise InvalidProject(f"{document.where}a compose file is a mapping")
        return interpolate(document, variables, self.notes)

    def _parsed(self, path: str) -> Node | None:
        if path not in self._read:
            if len(self._read) == _MOST_FILES:
                raise InvalidProject(f"{path}: a project has at most {_MOST_FILES} files")
            self._read[path] = parse(read_text(path), "stdin" if path == _STANDARD_INPUT else path)
        return self._read[path]

    def _file(self, path: str, folder: str, variables: Mapping[str, str]) -> Node:
        document = self._raw(path, variables)
        services = document.get("services")
        if services is not None and isinstance(services.value, dict):
            extended = {
                name: self._extended(name, document, folder, variables, (path,)) for name in services.value
            }
            document = document.with_part("services", services.like(extended))
        return with_absolute_paths(document, folder, self._home)

    # --- extends

    def _extended(
        self, name: str, document: Node, folder: str, variables: Mapping[str, str], way: tuple[str, ...]
    ) -> Node:
        """The service *name* with what it extends below it."""
        services = document.get("services")
        service = services.get(name) if services is not None else None
        assert service is not None
        extends = service.get("extends")
        if extends is None or extends.rule is Rule.RESET:
            return service
        at = At(extends, f"services.{name}.extends", self.notes)
        own = service.with_part("extends", None)
        base = self._base(at, document, folder, variables, (*way, name))
        return own if base is None else merged_service(base, own)

    def _base(
        self, at: At, document: Node, folder: str, variables: Mapping[str, str], way: tuple[str, ...]
    ) -> Node | None:
        if isinstance(at.node.value, dict):
            parts = at.parts(("service", "file"))
            if "service" not in parts:
                at.problem("it names no service")
                return None
            wanted = parts["service"].text()
            path = absolute_path(parts["file"].text(), folder, self._home) if "file" in parts else ""
        else:
            wanted, path = at.text(), ""
        here = path or way[0]
        if len(way) > 2 * _MOST_BASES:
            at.problem(f"it is the end of {_MOST_BASES} services that extend each other; that is too deep")
            return None
        if path:
            document, folder = self._raw(path, variables), os.path.dirname(path)
        if (here, wanted) in zip(way[::2], way[1::2], strict=False):
            at.problem(f"it extends itself: {' → '.join((*way[1::2], wanted))}")
            return None
        services = document.get("services")
        if services is None or services.get(wanted) is None:
            at.problem(f"there is no service {wanted!r}{f' in {path}' if path else ''} to extend")
            return None
        base = self._extended(wanted, document, folder, variables, (*way, here))
        if not path:
            return base
        alone = with_absolute_paths(Node({"services": Node({wanted: base})}), folder, self._home)
        found = alone.value["services"].value[wanted]
        assert isinstance(found, Node)
        return found

    # --- include

    def _with_included(self, document: Node, folder: str, variables: Mapping[str, str]) -> Node:
        include = document.get("include")
        if include is None:
            return document
        document = document.with_part("include", None)
        for item in At(include, "include", self.notes).sequence():
            document = self._included(document, item, folder, variables)
        return document

    def _included(self, document: Node, at: At, folder: str, variables: Mapping[str, str]) -> Node:
        parts = (
            at.parts(("path", "env_file", "project_directory"))
            if isinstance(at.node.value, dict)
            else {"path": at}
        )
        if "path" not in parts:
            at.problem("it names no path")
            return document
        paths = [absolute_path(path, folder, self._home) for path in parts["path"].texts()]
        if not paths:
            at.problem("it names no path")
            return document
        own = os.path.dirname(paths[0])
        if "project_directory" in parts:
            own = absolute_path(parts["project_directory"].text(), folder, self._home)
        env_files = None
        if "env_file" in parts:
            env_files = [absolute_path(path, folder, self._home) for path in parts["env_file"].texts()]
        other = self.files(paths, own, _variables(own, env_files, variables))
        At(other, "", self.notes).parts(PROJECT)  # which says what is no key
        for section in _SHARED:
            ours, theirs = document.get(section), other.get(section)
            if theirs is None or not isinstance(theirs.value, dict):
                continue
            mine = ours.value if ours is not None and isinstance(ours.value, dict) else {}
            for name in theirs.value.keys() & mine.keys():
                if theirs.value[name].plain() != mine[name].plain():
                    At(theirs.value[name], f"{section}.{name}", self.notes).problem(
                        f"it is included, and there is another one of this name, in {mine[name].where.rstrip(': ')}"
                    )
            document = document.with_part(section, theirs.like({**theirs.value, **mine}))
        return document


# --- files of variables ---------------------------------------------------------------------------------


def with_files_of_variables(document: Node, variables: Mapping[str, str], notes: Notes) -> Node:
    """The document with the files that ``env_file`` and ``label_file`` name read into what they stand for."""
    services = document.get("services")
    if services is None or not isinstance(services.value, dict):
        return document
    made = {
        name: _with_files(At(service, f"services.{name}", notes), variables)
        for name, service in services.value.items()
    }
    return document.with_part("services", services.like(made))


def _with_files(at: At, variables: Mapping[str, str]) -> Node:
    service = at.node
    for key, section in (("env_file", "environment"), ("label_file", "labels")):
        named = service.get(key)
        if named is None or not isinstance(service.value, dict):
            continue
        found: dict[str, Node] = {}
        for item in At(named, f"{at.path}.{key}", at.notes).items():
            found |= _file_of_variables(item, {**{n: str(v.value) for n, v in found.items()}, **variables})
        over = service.get(section) or Node({})
        below = Node({section: Node(found, named.file, named.line)})
        both = merged_service(below, Node({section: over}))
        service = service.with_part(section, both.value[section])
    return service


def _file_of_variables(at: At, variables: Mapping[str, str]) -> dict[str, Node]:
    required, raw, path = True, False, at
    if isinstance(at.node.value, dict):
        parts = at.parts(("path", "required", "format"))
        if "path" not in parts:
            at.problem("it names no path")
            return {}
        path = parts["path"]
        required = parts["required"].flag() if "required" in parts else True
        raw = "format" in parts and parts["format"].choice("raw") == "raw"
    name = path.text()
    if not required and not os.path.exists(name):
        return {}
    try:
        found = _parsed(name, variables, raw=raw)
    except InvalidProject as error:
        path.problem(str(error))
        return {}
    return {key: Node(value, name) for key, value in found.items()}
