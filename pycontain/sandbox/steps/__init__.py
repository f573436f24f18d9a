"""The closed set of acts that a plan is made of.

A step is a value. Its class is named after what it does, its fields follow the manual page, and its text reads
as strace(1) would print it. ``because`` says why the plan has it (shown, never compared); ``tolerate`` lists
the errno values that may be ignored, each with a reason where the step is made. The steps are performed by
:mod:`pycontain.runtime.perform`, in the process that :attr:`Step.role` names.

``ROOT/x`` in the text is the place *x* below the container's root, resolved with
``openat2(RESOLVE_IN_ROOT)``: links of the image lead to places inside the root, never to the host. ``STAGE/x`` is
the same for a tree that the child builds before it has a root.
"""

from pycontain.sandbox.steps.devices import (
    BindDevice,
    CloneDevice,
    MakeDevice,
    MakeHostDevices,
    MakeLink,
    OpenTerminal,
)
from pycontain.sandbox.steps.files import FILES, Content, InstallFile, MakeDirectory, MountFiles
from pycontain.sandbox.steps.mounts import (
    AttachTree,
    BindMount,
    CloneTree,
    MaskPath,
    MountFilesystem,
    MountLayer,
    MountOverlay,
    MountStage,
    MoveMount,
    PivotRoot,
    ReadOnlyPath,
    ReadOnlyRoot,
    SetRootStatus,
    WritablePath,
)
from pycontain.sandbox.steps.payload import (
    AllowLimit,
    ChangeDirectory,
    DropBoundingSet,
    Execute,
    ResolveUser,
    SetCapabilities,
    SetIdentity,
    SetLandlock,
    SetNoNewPrivs,
    SetResourceLimit,
    SetSeccomp,
)
from pycontain.sandbox.steps.processes import (
    Clone,
    Fork,
    GivePipes,
    JoinCgroup,
    JoinNamespaces,
    JoinSessionKeyring,
    MapIds,
    SetParentDeathSignal,
    SetTimeOffset,
    UnshareCgroup,
)
from pycontain.sandbox.steps.step import MountFlags, Namespaces, Role, Step
from pycontain.sandbox.steps.system import (
    AwaitNetwork,
    BindHosts,
    BindSysfs,
    BringLoopbackUp,
    SetDomainname,
    SetHostname,
    WriteSysctl,
)

__all__ = [
    "FILES",
    "AllowLimit",
    "AttachTree",
    "AwaitNetwork",
    "BindDevice",
    "BindHosts",
    "BindMount",
    "BindSysfs",
    "BringLoopbackUp",
    "ChangeDirectory",
    "Clone",
    "CloneDevice",
    "CloneTree",
    "Content",
    "DropBoundingSet",
    "Execute",
    "Fork",
    "GivePipes",
    "InstallFile",
    "JoinCgroup",
    "JoinNamespaces",
    "JoinSessionKeyring",
    "MakeDevice",
    "MakeDirectory",
    "MakeHostDevices",
    "MakeLink",
    "MapIds",
    "MaskPath",
    "MountFiles",
    "MountFilesystem",
    "MountFlags",
    "MountLayer",
    "MountOverlay",
    "MountStage",
    "MoveMount",
    "Namespaces",
    "OpenTerminal",
    "PivotRoot",
    "ReadOnlyPath",
    "ReadOnlyRoot",
    "ResolveUser",
    "Role",
    "SetCapabilities",
    "SetDomainname",
    "SetHostname",
    "SetIdentity",
    "SetLandlock",
    "SetNoNewPrivs",
    "SetParentDeathSignal",
    "SetResourceLimit",
    "SetRootStatus",
    "SetSeccomp",
    "SetTimeOffset",
    "Step",
    "UnshareCgroup",
    "WritablePath",
    "WriteSysctl",
]
