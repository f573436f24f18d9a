"""Steps that make the root file system out of mounts, and shut what is in it."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, ClassVar

import attrs

from pycontain.kernel import constants
from pycontain.sandbox.steps.step import (
    DEVICE_ATTRIBUTES,
    MISSING,
    MountFlags,
    Role,
    Step,
    flags_of,
    in_tree,
    quoted,
)

if TYPE_CHECKING:
    from pycontain.sandbox.paths import HostPath, RootPath


@attrs.frozen
class MountStage(Step):
    """mount(2) of the tmpfs on which what every container gets is built, before the root is known."""

    def __str__(self) -> str:
        return 'mount("tmpfs", STAGE, "tmpfs", MS_NOSUID|MS_NODEV|MS_NOEXEC, "mode=0755")'


@attrs.frozen
class MoveMount(Step):
    """move_mount(2) of a tree from the stage to the same place below the root."""

    path: RootPath

    def __str__(self) -> str:
        return f"move_mount(STAGE{self.path}, {in_tree(self.path)})"

    def explain(self, number: int, path: str) -> tuple[str, str] | None:
        """An image decides what lies there."""
        if number in {errno.ELOOP, errno.ENOTDIR}:
            return f"the image has something else than a directory at {self.path}", "use another image"
        return None


@attrs.frozen
class MountLayer(Step):
    """mount(2) of a tmpfs for the writable layer. It is seen by this container alone, and ends with it."""

    options: str

    def __str__(self) -> str:
        return f'mount("tmpfs", LAYER, "tmpfs", MS_NOSUID|MS_NODEV, {quoted(self.options)}); mkdir(LAYER/{{upper,work}}, 0o755)'


@attrs.frozen
class MountOverlay(Step):
    """mount(2) of an overlay: the layers below, this container's own writable layer on top.

    ``upperdir`` and ``workdir`` are in a folder of this container alone. *layers* says where in idmapped trees the lower
    directories are, by number and name, and *layer* is the tree of all writable layers; without, they are found by their
    paths. With *init* the lowest is an empty file or directory for each place that every container has something mounted
    on: Docker's init layer. So none of them is made in the writable one, which stays what the payload has written.
    """

    lowerdirs: tuple[HostPath, ...]
    options: tuple[str, ...] = ()
    layers: tuple[tuple[int, str], ...] = ()
    layer: int = -1
    init: bool = True

    def __str__(self) -> str:
        tree = "" if self.layer < 0 else f"TREE{self.layer}/"
        layers = [f"TREE{number}/{name}".rstrip("/") for number, name in self.layers] or self.lowerdirs
        lower = ":".join([*layers, *[f"{tree}INIT"] * self.init])
        upper = f"{tree}LAYER"
        options = ",".join(
            (f"lowerdir={lower}", f"upperdir={upper}/upper", f"workdir={upper}/work", *self.options)
        )
        return f'mount("overlay", ROOT, "overlay", MS_NODEV, {quoted(options)})'

    def explain(self, number: int, path: str) -> tuple[str, str] | None:
        """Overlay file systems are particular about what lies below them."""
        if number in MISSING:
            return "a layer of the image is gone", f"see whether these exist: {', '.join(self.lowerdirs)}"
        if number == errno.EINVAL:
            return (
                "the folder for writable layers lies on a file system that cannot hold them",
                "set PYCONTAIN_STATE to a folder on ext4, xfs, btrfs or tmpfs (an overlay cannot lie on an overlay)",
            )
        if number in {errno.ENOSPC, errno.EDQUOT}:
            return (
                "no space is left for the writable layer",
                "free some, or set PYCONTAIN_STATE to another disk",
            )
        return None


@attrs.frozen
class SetRootStatus(Step):
    """chown(2) and chmod(2) of the root: the writable layer's own owner and mode would hide those of the image."""

    mode: int
    uid: int
    gid: int

    def __str__(self) -> str:
        return f"chown(ROOT, {self.uid}, {self.gid}); chmod(ROOT, {self.mode:#o})"


@attrs.frozen
class BindMount(Step):
    """open_tree(2), mount_setattr(2), move_mount(2): a tree of the host at a place below the root."""

    source: HostPath
    target: RootPath
    read_only: bool = False
    nosuid: bool = True
    nodev: bool = True

    def attributes(self) -> int:
        """The mount attributes as mount_setattr(2) takes them."""
        return (
            constants.MOUNT_ATTR_RDONLY * self.read_only
            | constants.MOUNT_ATTR_NOSUID * self.nosuid
            | constants.MOUNT_ATTR_NODEV * self.nodev
        )

    def __str__(self) -> str:
        attributes = _attributes(self.attributes())
        return (
            f"tree = open_tree({quoted(self.source)}, OPEN_TREE_CLONE|AT_RECURSIVE); "
            f"mount_setattr(tree, AT_RECURSIVE, {{attr_set={attributes}, propagation=MS_PRIVATE}}); "
            f"move_mount(tree, {in_tree(self.target)})"
        )

    def explain(self, number: int, path: str) -> tuple[str, str] | None:
        """Nearly always the source is missing or the user may not look at it."""
        if path != self.source:
            return target_problem(self.target, number)
        return _source_problem(self.source, number)


@attrs.frozen
class CloneTree(Step):
    """open_tree(2) and mount_setattr(2) by the zygote, which may: a tree of the host, given to the child as number *number*.

    Idmapped, an owner on disk is the same number inside, and nothing is chowned. *source* None is the folder of the
    writable layers. With *fallback* a tree of a file system that cannot be idmapped is given as it is: its owners are
    nobody inside.
    """

    number: int
    source: HostPath | None
    attributes: int = 0
    recursive: bool = False
    idmapped: bool = True
    fallback: bool = False

    role: ClassVar[Role] = Role.ZYGOTE

    def __str__(self) -> str:
        source = "LAYERS" if self.source is None else quoted(self.source)
        recursive = "|AT_RECURSIVE" * self.recursive
        flags = "AT_RECURSIVE, " * self.recursive
        attributes = _attributes(self.attributes | constants.MOUNT_ATTR_IDMAP * self.idmapped)
        users = ", userns_fd=USERS" * self.idmapped
        fallback = "; EINVAL: the same without MOUNT_ATTR_IDMAP" * (self.idmapped and self.fallback)
        return (
            f"TREE{self.number} = open_tree({source}, OPEN_TREE_CLONE{recursive}); "
            f"mount_setattr(TREE{self.number}, {flags}{{attr_set={attributes}, propagation=MS_PRIVATE{users}}}){fallback}"
        )

    def explain(self, number: int, path: str) -> tuple[str, str] | None:
        """Layers were tried before the plan was made; a mount source is the user's."""
        del path
        if self.source is None:
            return None
        if number == errno.EINVAL:
            return (
                f"the file system of {self.source} cannot be idmapped",
                'use .userns("host"), or an image on ext4, xfs, btrfs or tmpfs',
            )
        return _source_problem(self.source, number)


@attrs.frozen
class AttachTree(Step):
    """move_mount(2) of a tree that the zygote gave, to a place below the root."""

    tree: int
    target: RootPath

    def __str__(self) -> str:
        return f"move_mount(TREE{self.tree}, {in_tree(self.target)})"

    def explain(self, number: int, path: str) -> tuple[str, str] | None:
        """The source was there, so it is the place."""
        del path
        return target_problem(self.target, number)


_ATTRIBUTES = ("MOUNT_ATTR_RDONLY", "MOUNT_ATTR_NOSUID", "MOUNT_ATTR_NODEV", "MOUNT_ATTR_IDMAP")


def _attributes(value: int) -> str:
    return "|".join(name for name in _ATTRIBUTES if value & getattr(constants, name)) or "0"


def _source_problem(source: HostPath, number: int) -> tuple[str, str] | None:
    """Why a tree of the host could not be opened."""
    if number in MISSING:
        return f"the mount source {source} does not exist", "create it, or correct the path"
    if number == errno.EACCES:
        return f"the mount source {source} cannot be reached by this user", "see the modes of its parents"
    return None


def target_problem(target: RootPath, number: int) -> tuple[str, str] | None:
    """Why a place below the root could not be opened or made."""
    match number:
        case errno.ENOTDIR:
            return (
                f"{target} in the container cannot be a mount point: a directory meets something that is none",
                "mount a directory on a directory and a file on a file, below directories",
            )
        case errno.ELOOP:
            return (
                f"{target} in the container leads into a tree of the kernel, or through too many links",
                "choose a target that the image does not link elsewhere",
            )
        case errno.ENOENT:
            return (
                f"{target} cannot be made in the container",
                "see whether it lies on something special of the image",
            )
        case errno.EROFS:
            return (
                f"{target} does not exist in a part of the image that is read-only",
                "choose another target",
            )
        case errno.ENAMETOOLONG:
            return f"a name in the path {target} is too long", "choose a shorter one"
        case errno.ENOSPC:
            return (
                "no space is left for the writable layer",
                "free some, or set PYCONTAIN_STATE to another disk",
            )
    return None


@attrs.frozen
class MountFilesystem(Step):
    """mount(2) of a file system of the kernel at a place below the root."""

    fstype: str
    target: RootPath
    flags: MountFlags
    options: str | None = None
    follow: bool = False  # whether links of the image may lead to the target

    def __str__(self) -> str:
        return (
            f"mount({quoted(self.fstype)}, {in_tree(self.target)}, {quoted(self.fstype)}, "
            f"{flags_of(self.flags)}, {quoted(self.options)})"
        )

    def explain(self, number: int, path: str) -> tuple[str, str] | None:
        """The two ways in which a host or an image forbids these."""
        if number == errno.EPERM and self.fstype in {"proc", "sysfs"}:
            return (
                f"this host does not let a user namespace mount {self.fstype}",
                "it is so inside another container that masks parts of it: run that one with unmasked /proc",
            )
        if self.follow:
            return target_problem(self.target, number)
        if number in {errno.ELOOP, errno.ENOTDIR}:
            return f"the image has something else than a directory at {self.target}", "use another image"
        return None


@attrs.frozen
class MaskPath(Step):
    """Hide what is at a path: an empty read-only tmpfs over a directory, /dev/null over anything else.

    One step with its own doer, because binding /dev/null over a directory fails with ENOTDIR, and tolerating
    that would leave the directory readable. A path that is not there needs no mask.
    """

    path: RootPath

    def __str__(self) -> str:
        return f'is_dir({in_tree(self.path)}) ? mount("tmpfs", {in_tree(self.path)}, "tmpfs", MS_RDONLY, "nr_inodes=1") : bind("/dev/null", {DEVICE_ATTRIBUTES})'


@attrs.frozen
class ReadOnlyPath(Step):
    """A path bound over itself, read-only."""

    path: RootPath

    def __str__(self) -> str:
        return (
            f"tree = open_tree({in_tree(self.path)}, OPEN_TREE_CLONE|AT_RECURSIVE); "
            f"mount_setattr(tree, AT_RECURSIVE, {{attr_set=MOUNT_ATTR_RDONLY}}); move_mount(tree, {in_tree(self.path)})"
        )


@attrs.frozen
class WritablePath(Step):
    """A directory, made when it is missing, bound over itself: it stays writable when the root no longer is."""

    path: RootPath

    def __str__(self) -> str:
        return (
            f"mkdir({in_tree(self.path)}, 0o755); tree = open_tree({in_tree(self.path)}, OPEN_TREE_CLONE|AT_RECURSIVE); "
            f"move_mount(tree, {in_tree(self.path)})"
        )

    def explain(self, number: int, path: str) -> tuple[str, str] | None:
        """An image decides what lies there."""
        del path
        return target_problem(self.path, number)


@attrs.frozen
class ReadOnlyRoot(Step):
    """mount_setattr(2) of the root alone: what is mounted below stays writable."""

    def __str__(self) -> str:
        return "mount_setattr(ROOT, {attr_set=MOUNT_ATTR_RDONLY})"


@attrs.frozen
class PivotRoot(Step):
    """pivot_root(2), and the host's tree is gone."""

    def __str__(self) -> str:
        return 'fchdir(ROOT); pivot_root(".", "."); umount2(".", MNT_DETACH); chdir("/")'
