"""Steps for the files and directories that a container is given."""

from __future__ import annotations

import enum
import errno
from typing import TYPE_CHECKING

import attrs

from pycontain.sandbox.steps.mounts import target_problem
from pycontain.sandbox.steps.step import Step, in_tree, quoted

if TYPE_CHECKING:
    from pycontain.sandbox.paths import RootPath


@attrs.frozen
class MakeDirectory(Step):
    """mkdir(2) below the root, of missing parents too; what exists is left as it is."""

    path: RootPath
    mode: int = 0o755

    def __str__(self) -> str:
        return f"mkdir({in_tree(self.path)}, {self.mode:#o})"


FILES = "files"  # how the doer names the file system of installed files in an error


class Content(enum.Enum):
    """Where an installed file has its bytes from."""

    GIVEN = "given"
    HOSTNAME = "hostname"
    HOSTS = "hosts"
    RESOLVER = "resolver"
    APT = "apt"


@attrs.frozen
class InstallFile(Step):
    """A file that is not in the image, on a tmpfs of its own, bound to a place below the root.

    The bytes travel beside the plan, at *place* in a list: a plan that is printed shows no content.
    """

    path: RootPath
    size: int
    place: int = -1
    mode: int = 0o644
    content: Content = Content.GIVEN
    read_only: bool = False
    secret: bool = False  # it will belong to the payload's user
    parents: bool = True  # are made when they are missing
    owner: tuple[int, int] | tuple[()] = ()  # uid and gid, when it is not root's

    def __str__(self) -> str:
        what = f"{self.size} bytes" if self.content is Content.GIVEN else self.content.value
        source = f"write(open(FILES/{{n}}, O_CREAT|O_EXCL, {self.mode:#o}), {what})"
        if self.owner:
            source += f"; fchown(FILES/{{n}}, {self.owner[0]}, {self.owner[1]})"
        attributes = "{attr_set=MOUNT_ATTR_RDONLY|MOUNT_ATTR_NOEXEC}" if self.read_only else ""
        suffix = f"; mount_setattr(tree, {attributes})" if attributes else ""
        return f"{source}; tree = open_tree(FILES/{{n}}, OPEN_TREE_CLONE){suffix}; move_mount(tree, {in_tree(self.path)})"

    def explain(self, number: int, path: str) -> tuple[str, str] | None:
        """It is the place that an image or a mount can spoil, or the memory that holds the content."""
        if path == FILES and number in {errno.ENOSPC, errno.ENOMEM}:
            return (
                f"no memory is left for the content of {self.path}",
                "files and secrets are in memory: give fewer or smaller ones, or mount a directory",
            )
        return target_problem(self.path, number)


@attrs.frozen
class MountFiles(Step):
    """mount(2) of the tmpfs that holds the installed files; it is outside of the root."""

    options: str = "mode=0700"

    def __str__(self) -> str:
        return f'mount("tmpfs", FILES, "tmpfs", MS_NOSUID|MS_NODEV, {quoted(self.options)})'
