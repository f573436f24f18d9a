"""``RUN --mount``: what a RUN has beside the image, and nobody afterwards.

A cache is a folder of the store that outlives builds, and is in no layer and no key. A bind is a copy of what was there, so that
nothing changes below a RUN and what it writes there is thrown away. A secret is in memory for one user only; of it nothing
is written down but its id. Of an agent there is a socket of ours that leads to it: ssh-agent(1) talks to nobody but its own user,
whom the owner is, and who a RUN in a user namespace is not.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import socket
import stat
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import attrs

from pycontain.building import copy as copies
from pycontain.container import Container
from pycontain.dockerfile.instructions import check_mount
from pycontain.errors import DockerfileError
from pycontain.runtime.forward import forwarder
from pycontain.sandbox.host import IdRange
from pycontain.sandbox.paths import HostPath, RootPath
from pycontain.sandbox.size import parse_size
from pycontain.sandbox.spec import File, Secret
from pycontain.sandbox.spec import Mount as Bind
from pycontain.store.cache_mounts import CacheMounts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pycontain.building.stage import Site
    from pycontain.dockerfile import instructions as said
    from pycontain.errors import BuildError

_SECRETS = "/run/secrets"
_AGENT = "/run/buildkit/ssh_agent"
_KERNEL_TREES = ("/proc/", "/sys/")
_ALL_IDS = (IdRange(0, 0, 1 << 16),)  # of a user namespace of ours
_MODE = re.compile("[0-7]{1,4}")
_LONGEST_SOCKET = 107  # bytes of its path, unix(7)
_TARGET = ("target", "dst", "destination")
_SOURCE = ("source", "src")
_READ_ONLY = ("readonly", "ro")
_WRITABLE = ("readwrite", "rw")


@attrs.define(eq=False)
class Mounts:
    """What is to be added to a container; *key* is what of it the cache knows."""

    key: list[Any] = attrs.field(factory=list)
    env: dict[str, str] = attrs.field(factory=dict)
    adds: list[Callable[[Container], Container]] = attrs.field(factory=list)
    alone: set[str] = attrs.field(factory=set)  # caches that nobody else may use meanwhile

    def add_to(self, box: Container) -> Container:
        """*box* with all of it."""
        for add in self.adds:
            box = add(box)
        return box


@contextmanager
def mounts_of(site: Site, one: said.Run) -> Iterator[Mounts]:
    """The mounts of *one*, for the time of the block."""
    made = Mounts()
    with ExitStack() as stack:
        for mount in one.mounts:
            expanded = attrs.evolve(
                mount,
                kind=site.scope.text(one, mount.kind),
                options=tuple((name, site.scope.text(one, value)) for name, value in mount.options),
            )
            place = _Place(site, one, expanded, made, stack)
            try:
                check_mount(expanded)
                place.check()
                _KINDS[expanded.kind](place)
            except DockerfileError:
                raise
            except ValueError as error:
                raise place.refuse(str(error)) from None
        # In one order, so that no two wait for each other.
        for name in sorted(made.alone):
            stack.enter_context(CacheMounts(site.session.store.folder).alone(name))
        yield made


@attrs.frozen(eq=False)
class _Place:
    """One mount on its way into *made*."""

    site: Site
    one: said.Run
    mount: said.Mount
    made: Mounts
    stack: ExitStack

    @property
    def target(self) -> str:
        """Where it is in the container, absolute."""
        path = self.mount.get(*_TARGET)
        folder = self.site.state.said.working_dir or "/"
        return path if path.startswith("/") else f"{folder.rstrip('/')}/{path}"

    def check(self) -> None:
        """Raise :class:`ValueError` when nothing can be put at the target."""
        if self.mount.get(*_TARGET):
            path = RootPath.parse(self.target)
            if path == "/" or f"{path}/".startswith(_KERNEL_TREES):
                raise ValueError(f"nothing can be put at {path}: it is the container's own")

    def refuse(self, problem: str, hint: str | None = None) -> BuildError:
        """The error for what cannot be done."""
        return self.site.scope.document.error(f"RUN --mount: {problem}", self.one.lines, hint)

    def mode(self, default: int) -> int:
        """The option mode=."""
        text = self.mount.get("mode", default=f"{default:o}")
        if not _MODE.fullmatch(text):
            raise self.refuse(f"mode={text} is no octal number of at most 7777")
        return int(text, 8)

    def owner(self) -> tuple[int, int] | None:
        """The options uid= and gid=; None when there is neither."""
        texts = self.mount.get("uid"), self.mount.get("gid")
        if texts == ("", ""):
            return None
        if not all(text.isascii() and text.isdecimal() for text in texts if text):
            raise self.refuse("uid= and gid= are numbers")
        uid, gid = (int(text or "0") for text in texts)
        host = self.site.session.engine.facts
        if host.single_id and (uid, gid) != (0, 0):
            raise self.refuse(
                "uid= and gid= need subordinate ids, and this user has one id",
                "leave them out, or see pycontain.doctor() for how to get more",
            )
        for name, number, ranges in (("uid", uid, host.uid_map), ("gid", gid, host.gid_map)):
            if not any(each.inside <= number < each.inside + each.count for each in ranges or _ALL_IDS):
                raise self.refuse(f"{name}={number} is not among the ids of a container here")
        return uid, gid

    def give(self, folder: str, name: str, owner: tuple[int, int], mode: int) -> None:
        """Give *name* in the host's *folder*, or the folder itself, to an *owner* of the container."""
        self.site.session.unpacking.unpacker.give(folder, name, *owner, mode)

    def bind(self, source: str, *, read_only: bool) -> None:
        """Show the host's *source*."""
        target = RootPath.parse(self.target)
        mount = Bind(HostPath.parse(source), target, read_only)
        self.made.adds.append(lambda box: _with(box, mounts=(*box.spec.mounts, mount)))


def _with(box: Container, **changes: Any) -> Container:
    return Container(attrs.evolve(box.spec, **changes))


def _tmpfs(place: _Place) -> None:
    size = place.mount.get("size")
    try:
        limit = parse_size(size) if size else None
    except ValueError as error:
        raise place.refuse(str(error)) from None
    place.made.key.append(["tmpfs", place.target, limit])
    place.made.adds.append(lambda box: box.tmpfs(place.target, size=limit))


def _secret(place: _Place) -> None:
    mount = place.mount
    ident = mount.get("id") or os.path.basename(mount.get(*_TARGET)) or mount.get("env")
    if not ident:
        raise place.refuse("a secret has neither id nor target", "write --mount=type=secret,id=NAME")
    name, target = mount.get("env"), mount.get(*_TARGET)
    owner, mode = place.owner(), place.mode(0o400)
    place.made.key.append(["secret", ident, target, name, owner, mode])
    value = place.site.session.secret(ident)
    if value is None:
        if mount.is_set("required"):
            raise place.refuse(
                f"the secret {ident} was not given",
                f"build(…, secrets={{{ident!r}: …}}), or --secret id={ident},src=PATH",
            )
        return
    if name:
        # It is not in made.env, which the key of the cache sees.
        text = value.decode("utf-8", "surrogateescape")
        place.made.adds.append(lambda box: box.env({name: text}))
    if target or not name:
        path = RootPath.parse(place.target if target else f"{_SECRETS}/{ident}")
        file = File(path, Secret(value), mode, owner)
        place.made.adds.append(lambda box: _with(box, files=(*box.spec.files, file)))


def _ssh(place: _Place) -> None:
    ident = place.mount.get("id", default="default")
    path = place.site.session.ssh.get(ident)
    number = sum(1 for key in place.made.key if key[0] == "ssh")
    target = place.mount.get(*_TARGET) or f"{_AGENT}.{number}"
    owner, mode = place.owner() or (0, 0), place.mode(0o600)
    place.made.key.append(["ssh", ident, target, owner, mode])
    if path is None:
        if place.mount.is_set("required"):
            raise place.refuse(
                f"the agent {ident} was not given", f"build(…, ssh={{{ident!r}: SOCKET}}), or --ssh {ident}"
            )
        return
    path = os.path.abspath(path)
    if not stat.S_ISSOCK(os.stat(path).st_mode) or len(os.fsencode(path)) > _LONGEST_SOCKET:
        raise place.refuse(f"{path} is no socket of an agent")
    folder = _gate(place, path)
    place.give(folder, "agent", owner, mode)
    mount = Bind(HostPath.parse(f"{folder}/agent"), RootPath.parse(target), read_only=False)
    place.made.env["SSH_AUTH_SOCK"] = target
    place.made.adds.append(lambda box: _with(box, mounts=(*box.spec.mounts, mount)))


def _gate(place: _Place, path: str) -> str:
    """A folder with a socket ``agent`` that leads to the one at *path*, for the time of the RUN."""
    session = place.site.session
    folder = session.engine.new_tree()
    place.stack.callback(session.unpacking.unpacker.remove_tree, folder)
    bound = socket.socket(socket.AF_UNIX)
    near = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        bound.bind(f"/proc/self/fd/{near}/agent")  # the folder's own name may be longer than an address
        bound.listen()
    except BaseException:
        bound.close()
        raise
    finally:
        os.close(near)
    gate = forwarder().open(bound, lambda tries: None if tries else (socket.socket(socket.AF_UNIX), path))
    place.stack.callback(forwarder().close, gate)
    return folder


def _cache(place: _Place) -> None:
    mount, session = place.mount, place.site.session
    ident = mount.get("id", default=place.target)
    sharing = mount.get("sharing", default="shared")
    place.made.key.append(["cache", ident, place.target])
    if mount.get("from") or mount.get(*_SOURCE):
        raise place.refuse("a cache cannot begin with the content of something else here", "copy it in RUN")
    uid, gid = owner = place.owner() or (0, 0)
    mode = place.mode(0o755)
    name = hashlib.sha256(f"{session.unpacking.kind.value} {uid} {gid} {ident}".encode()).hexdigest()[:32]
    caches = CacheMounts(session.store.folder)
    if sharing == "locked":
        place.made.alone.add(name)
    elif sharing == "private":
        name = _free(caches, name, place.stack)

    def make(path: str) -> None:
        os.mkdir(path, 0o700)
        try:
            place.give(path, "", owner, mode)
        except BaseException:
            os.rmdir(path)
            raise

    path = place.stack.enter_context(caches.use(name, make))
    place.bind(path, read_only=mount.is_set(*_READ_ONLY))


def _free(caches: CacheMounts, name: str, stack: ExitStack) -> str:
    """The first of the folders of a cache that nobody else is using."""
    for number in itertools.count():
        lock = caches.try_alone(f"{name}-{number}")
        if lock:
            stack.callback(lock.release)
            break
    return f"{name}-{number}"


def _bind(place: _Place) -> None:
    mount, site = place.mount, place.site
    origin, keep = site.origin(mount.get("from"))
    if not keep and not origin.path:
        raise place.refuse("there is no build context to show")
    source = mount.get(*_SOURCE, default="/")
    order = site.order((copies.source_pattern(source),), destination=b"/shown", keep_owners=keep)
    if not keep:
        order = attrs.evolve(order, ignored=site.session.context.ignored)
    tree, found = copies.tree(site.session, order, origin, place.stack)
    writable = mount.is_set(*_WRITABLE) or mount.get(*_READ_ONLY) == "false"
    place.made.key.append(["bind", place.target, source, writable, found])
    place.bind(f"{tree}/shown", read_only=not writable)


_KINDS: dict[str, Callable[[_Place], None]] = {
    "bind": _bind,
    "cache": _cache,
    "secret": _secret,
    "ssh": _ssh,
    "tmpfs": _tmpfs,
}
