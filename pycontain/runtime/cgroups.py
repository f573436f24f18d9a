"""The control groups of one zygote and of its containers, from the first mkdir(2) to the sweep after a death.

::

    OWN/pycontain-<name>         of one zygote, named after its folder; made when a container first needs it
    OWN/pycontain-<name>/<n>     of one container, in each hierarchy that it needs
    …/<n>/exec-<m>               of one command in it that has a timeout
    OWN/pycontain-owner-<pid>    v2: where the owner moved to make room

OWN is as in :mod:`pycontain.runtime.delegation`. What is to be made is first noted in a journal, a file in the zygote's
folder: when owner and zygote were killed, :func:`sweep` removes by it what they had.

The zygote imports this module.
"""

from __future__ import annotations

import errno
import os

from pycontain.kernel import cgroupfs
from pycontain.runtime import delegation
from pycontain.runtime.delegation import IN_EVERY_GROUP, LEAF, Hierarchy
from pycontain.runtime.group import Group, Part

TYPE_CHECKING = False  # importing typing would cost the zygote 6 ms and 1 MB
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

PREFIX = "pycontain-"
_NOT_NOW = frozenset({errno.EBUSY, errno.EACCES, errno.EPERM, errno.EROFS})  # for the sweep: left for another


# --- the groups of one zygote ---------------------------------------------------------------------------


class Place:
    """The directory of one zygote in one hierarchy."""

    __slots__ = ("fd", "passed_on", "path")

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self.fd = fd
        self.passed_on: frozenset[str] = frozenset()


class Home:
    """The directories of one zygote. They are made when they are needed, and noted in the file *journal* before."""

    def __init__(self, name: str, journal: str) -> None:
        self.name = PREFIX + name
        self.journal = journal
        self.hierarchies: list[Hierarchy] = []
        self.known: set[str] = set()  # controllers for which they have been looked at
        self.places: dict[str, Place] = {}  # by the folder of the hierarchy
        self.noted: set[str] = set()
        self.made = 0

    def create(self, controllers: Iterable[str], writes: Iterable[tuple[str, str, str]] = ()) -> Group:
        """A new group with *controllers* and limits; when it cannot be had, :class:`HostUnsupported`, and it is not there.

        The owner has seen that they can be used, by :class:`delegation.Access`, and has made room.
        """
        group = Group()
        try:
            self.extend(group, controllers)
            group.update(writes)
        except BaseException:
            group.remove()
            raise
        return group

    def extend(self, group: Group, controllers: Iterable[str]) -> list[Part]:
        """Give *group* more controllers, in new parts, which are returned, or in those that it has."""
        added = []
        for hierarchy, names in self._by_hierarchy(frozenset(controllers) - group.controllers).items():
            try:
                place = self._place(hierarchy)
                self._pass_on(hierarchy, place, names - IN_EVERY_GROUP)
                old = next((part for part in group.parts if part.above == place.fd), None)
                if old is not None:
                    old.controllers |= names
                    continue
                added.append(Part.make(hierarchy.version, names, place.fd, str(self.made)))
                self.made += 1
                group.parts.insert(
                    0, added[-1]
                )  # it counts, if the zygote has moved and there is an older one
            except OSError as error:
                raise delegation.cannot_make_groups(hierarchy, error) from error
        return added

    def remove(self) -> bool:
        """Remove the directories, and kill what should still be in them; whether they are gone. The zygote is about to end."""
        for place in self.places.values():
            os.close(place.fd)
        paths = [place.path for place in self.places.values()]
        self.places.clear()
        return remove_all(*paths)

    def _by_hierarchy(self, wanted: frozenset[str]) -> dict[Hierarchy, frozenset[str]]:
        if not wanted <= self.known:
            # The owner may have made room for them since the last time, or had us moved.
            self.hierarchies = delegation.probe()
            self.known |= wanted
        shares: dict[Hierarchy, frozenset[str]] = {}
        for name in sorted(wanted):
            usable = [
                hierarchy
                for hierarchy in self.hierarchies
                if name in hierarchy.controllers and delegation.closed(hierarchy) is None
            ]
            if not usable:
                raise delegation.Access(self.hierarchies).refusal(name)
            hierarchy = max(usable, key=lambda hierarchy: hierarchy.version)
            shares[hierarchy] = shares.get(hierarchy, frozenset()) | {name}
        return shares

    def _place(self, hierarchy: Hierarchy) -> Place:
        place = self.places.get(hierarchy.folder)
        if place is None:
            path = f"{hierarchy.folder}/{self.name}"
            self._note(path)
            os.mkdir(path)
            place = self.places[hierarchy.folder] = Place(path, cgroupfs.open_group(path))
            if "cpuset" in hierarchy.controllers and hierarchy.version == 1:
                with delegation.locked(hierarchy.folder) as own:
                    cgroupfs.fill_cpuset(own, place.fd)
        return place

    def _note(self, path: str) -> None:
        if path and path not in self.noted:
            with open(self.journal, "a", encoding="utf-8", errors="surrogateescape") as file:
                file.write(f"{path}\n")
            self.noted.add(path)

    def _pass_on(self, hierarchy: Hierarchy, place: Place, names: frozenset[str]) -> None:
        """cgroup-v2.rst, "Enabling and Disabling": from the top down."""
        if hierarchy.version == 1 or names <= place.passed_on:
            return
        self._note(hierarchy.leaf)
        text = " ".join(f"+{name}" for name in sorted(names))
        with delegation.locked(hierarchy.folder) as own:
            cgroupfs.write(own, "cgroup.subtree_control", text)
        cgroupfs.write(place.fd, "cgroup.subtree_control", text)
        place.passed_on |= names


# --- after a death --------------------------------------------------------------------------------------


def sweep(journal: str) -> bool:
    """Kill and remove what the journal of a dead zygote names; whether nothing of it is left.

    What is in a leaf is an owner, maybe alive: a leaf is removed when it is empty, and nobody in it is touched.
    """
    try:
        ours = _ours(journal)
    except FileNotFoundError:
        return True
    leaves = [path for path in ours if os.path.basename(path).startswith(LEAF)]
    gone = remove_all(*(path for path in ours if path not in leaves))
    for leaf in leaves:
        _remove_leaf(leaf)
    return gone


def let_die(journal: str) -> None:
    """Thaw what v1 has frozen in the groups of a zygote that was killed: it cannot end before its containers do."""
    for path in _ours(journal):
        if not os.path.basename(path).startswith(LEAF):
            for group in (path, *_below_group(path)):
                _with_group(group, cgroupfs.let_die)


def _ours(journal: str) -> list[str]:
    """What a journal names, the last line not if it is torn."""
    with open(journal, encoding="utf-8", errors="surrogateescape") as file:
        lines = [line[:-1] for line in file if line.endswith("\n")]
    return [path for path in lines if os.path.basename(path).startswith(PREFIX)]


def remove_all(*paths: str) -> bool:
    """Kill what is in the groups at *paths* and below, remove all of them; whether they are gone.

    A process may be out of reach, in v1 one of another PID namespace; then it waits a while for its end.
    """
    groups = [group for path in paths for group in (path, *_below_group(path))]
    # First all the one, since a process is in several of the groups.
    for act in (cgroupfs.let_die, cgroupfs.kill):
        for group in groups:
            _with_group(group, act)
    gone = [_removed(group) for group in reversed(groups)]
    return all(gone)


def _with_group(path: str, act: Callable[[int], None]) -> None:
    try:
        group = cgroupfs.open_group(path)
    except FileNotFoundError:
        return
    try:
        act(group)
    finally:
        os.close(group)


def _removed(path: str) -> bool:
    try:
        cgroupfs.remove(path)
    except OSError as error:
        if error.errno not in _NOT_NOW:
            raise
        return False
    return True


def _below_group(path: str) -> Iterator[str]:
    """The groups below, parents first."""
    for folder, names, _ in os.walk(path):
        yield from (f"{folder}/{name}" for name in names)


def _remove_leaf(path: str) -> None:
    """Remove it if it is empty, and let the group above have processes again if there is nothing else in it."""
    folder = os.path.dirname(path)
    try:
        with delegation.locked(folder):
            cgroupfs.remove(path, patience=0)
            if not delegation.groups_in(folder):
                delegation.pass_on_nothing(folder)
    except OSError as error:
        if error.errno not in _NOT_NOW | {errno.ENOENT}:
            raise
