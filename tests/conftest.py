"""Four rings, and what holds for them.

*pure* runs anywhere. *kernel*, *against* and *attacks* make real containers: no test of theirs may leave anything behind, and
none touches the user's state folder or, as root, the mounts of the machine.
"""

import os
import pwd
import shutil
import signal
import tempfile
from pathlib import Path

import hypothesis
import pytest
from leaks import no_leaks  # noqa: F401 - a fixture

import pycontain
from pycontain.kernel import syscalls
from pycontain.runtime.probe import is_privileged

hypothesis.settings.register_profile("noisy machine", deadline=None)  # no test asserts a time
hypothesis.settings.load_profile("noisy machine")

TESTS = Path(__file__).parent
RINGS_OF_CONTAINERS = {"kernel", "against", "attacks"}


def ring_of(item):
    return item.path.relative_to(TESTS).parts[0]


def pytest_configure():
    """A job in the background of a shell ignores SIGINT, and so would every program that a test interrupts."""
    for number in (signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def pytest_collection_modifyitems(items):
    wrong, reason = ("rootless", "an ordinary user") if is_privileged() else ("root", "root")
    for item in items:
        if ring_of(item) in RINGS_OF_CONTAINERS:
            item.add_marker(ring_of(item))
        if item.get_closest_marker(wrong):
            item.add_marker(pytest.mark.skip(reason=f"holds only for {reason}"))


@pytest.fixture(scope="session", autouse=True)
def own_state_folder(request):
    """Before the fixtures of modules, which start containers too."""
    if any(ring_of(item) in RINGS_OF_CONTAINERS for item in request.session.items):
        request.getfixturevalue("state_folder")


@pytest.fixture(autouse=True)
def clean_machine(request):
    """In the rings with containers: a state folder of its own, and nothing left behind. First in, last out."""
    if ring_of(request.node) in RINGS_OF_CONTAINERS:
        request.getfixturevalue("state_folder")
        request.getfixturevalue("no_leaks")


@pytest.fixture(scope="session")
def private_mounts():
    """As root, mounts of our own, so that no test can change those of the machine.

    They are shared within our namespace, as systemd has them: what escapes from the zygote shows here.
    """
    if is_privileged():
        syscalls.unshare(syscalls.CLONE_NEWNS)
        for propagation in (syscalls.MS_PRIVATE, syscalls.MS_SHARED):
            syscalls.mount(None, "/", None, syscalls.MS_REC | propagation, None)


@pytest.fixture(scope="session")
def state_folder(private_mounts):
    """The state folder of this session; when it ends, the zygote has left nothing in it.

    Below /var/tmp, because /tmp may be in memory, where Linux before 6.6 lets an ordinary user have no overlay.
    """
    folder = tempfile.mkdtemp(prefix="pycontain-tests-", dir="/var/tmp")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYCONTAIN_STATE", folder)
        patch.setenv("PYCONTAIN_VOLUMES", f"{folder}-volumes")
        yield folder
        pycontain.shutdown()
        if os.listdir(folder):  # a test may have killed a zygote: the next one sweeps its folder
            pycontain.prewarm()
            pycontain.shutdown()
    left = os.listdir(folder)
    shutil.rmtree(folder, ignore_errors=True)
    volumes = Path(f"{folder}-volumes")
    left += [path.name for path in volumes.glob("*") if path.name != ".locks"]
    shutil.rmtree(volumes, ignore_errors=True)
    assert left == [], f"the tests left {left} in the folders of state and volumes"


def _granted(path):
    """Whether subuid(5) names this user, by name or number."""
    names = {pwd.getpwuid(os.getuid()).pw_name, str(os.getuid())}
    file = Path(path)
    return file.exists() and any(line.split(":")[0] in names for line in file.read_text().splitlines())


@pytest.fixture(scope="session")
def privilege():
    """Who runs the tests: "root", "subids" (a user with subordinate ids) or "single" (one without)."""
    if is_privileged():
        return "root"
    subordinate = _granted("/etc/subuid") and _granted("/etc/subgid")
    return "subids" if subordinate and shutil.which("newuidmap") and shutil.which("newgidmap") else "single"
