"""A real systemd gives the zygote a group where the owner has none of its own: a manager and a bus that the test starts."""

import contextlib
import os
import shutil
import subprocess

import control_groups
import pytest
from owners import comes_true, run_owner

from pycontain.runtime import delegation
from pycontain.testing.leaks import own_groups

SYSTEMD = "/lib/systemd/systemd"
ALONE = "[Unit]\nDefaultDependencies=no\n"
UNITS = {
    "basic.target": ALONE,
    "shutdown.target": ALONE,
    "exit.target": ALONE,
    "default.target": ALONE + "Wants=dbus.service\n",
    "dbus.socket": ALONE + "[Socket]\nListenStream=%t/bus\n",
    "dbus.service": ALONE
    + "Requires=dbus.socket\n[Service]\nType=notify\n"
    + "ExecStart=/usr/bin/dbus-daemon --session --address=systemd: --nofork --nopidfile --systemd-activation\n",
}
# systemd --user starts only where sd_booted(3) finds this folder.
BOOTED = 'mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system && exec "$@"'
ASKED = (
    "org.freedesktop.systemd1",
    "/org/freedesktop/systemd1",
    "org.freedesktop.systemd1.Manager",
    "ControlGroup",
)


pytestmark = pytest.mark.root  # the namespace in which systemd starts is root's


@pytest.fixture
def folder():
    """A group of v2 with controllers, and nobody in it, below which the test can make its own."""
    missing = [name for name in ("busctl", "dbus-daemon", SYSTEMD) if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    if control_groups.limitable().get("memory") != 2:
        pytest.skip("no v2 group of our own with the memory controller")
    access = delegation.Access.probe(zygote=control_groups.zygote())
    leaf = delegation.make_room(access)
    top = next(group for group in own_groups() if control_groups.is_v2(group))
    with open(f"{top}/cgroup.subtree_control", "w") as file:
        file.write("+memory +pids +cpu")
    yield top
    if leaf:
        delegation.give_room_back(leaf)


@contextlib.contextmanager
def started(argv, group, env):
    """A process that begins its life in *group*; what is below the group is ended with it."""
    os.makedirs(group, exist_ok=True)
    join = ("sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', group, *argv)
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(join, env=env, **streams) as process:
        try:
            yield process
        finally:
            remove(group)


def remove(group):
    """Kill what is in a group and below, and remove all of it."""
    with open(f"{group}/cgroup.kill", "w") as file:
        file.write("1")

    def rmdir():
        for path, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(path)
        return not os.path.exists(group)

    assert comes_true(rmdir)


@pytest.fixture
def manager(folder, tmp_path):
    """The environment in which busctl(1) finds a systemd that has a group of its own."""
    units, runtime = tmp_path / "units", tmp_path / "run"
    for path in (units, runtime):
        path.mkdir(mode=0o700)
    for name, text in UNITS.items():
        (units / name).write_text(text)
    env = {
        **os.environ,
        "XDG_RUNTIME_DIR": str(runtime),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "SYSTEMD_UNIT_PATH": str(units),
        "SYSTEMD_GENERATOR_PATH": str(units),
        "SYSTEMD_ENVIRONMENT_GENERATOR_PATH": str(units),
        "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={runtime}/bus",
    }
    systemd = ("unshare", "-m", "sh", "-c", BOOTED, "-", SYSTEMD, "--user", "--log-target=null")

    def answers():
        asked = ("busctl", "--system", "--timeout=5", "get-property", *ASKED)
        return subprocess.run(asked, env=env, capture_output=True, check=False).returncode == 0

    with started(systemd, f"{folder}/pycontain-test-manager", env):
        assert comes_true(lambda: os.path.exists(runtime / "bus"), 60)
        assert comes_true(answers, 60)
        yield env


@pytest.fixture
def crowd(folder):
    """A group in which somebody else is, so that an owner there can pass nothing on."""
    group = f"{folder}/pycontain-test-crowd"
    with started(["sleep", "6000"], group, os.environ):
        yield group


OWNER = """
    import os
    with open("{crowd}/cgroup.procs", "w") as file:
        file.write("0")
    from pycontain import Container
    from pycontain.errors import HostUnsupported
    from pycontain.kernel.descriptors import pid_of
    def group_of(pid):
        with open(f"/proc/{{pid}}/cgroup") as file:
            return file.read().strip().rpartition(":")[2]
    {act}
"""


def owner(crowd, act, **env):
    return run_owner(OWNER.format(crowd=crowd, act=act.strip()), timeout=300, python=(), **env)


def bus_of(env):
    return {name: value for name, value in env.items() if name.startswith("DBUS_")}


def test_limits_hold_in_a_scope(manager, crowd, state_folder):
    act = """
    box = Container("host:").limits(memory="48M", pids=20)
    print(box.run("python3", "-c", "bytearray(256 << 20)").oom_killed, box.run("true").exit_code)
    running = box.start("sleep", "600")
    print("pycontain-test-manager" in group_of(running.pid), ".scope/" in group_of(running.pid))
    print(group_of("self").endswith("pycontain-test-crowd"))
    running.pause(); print(running.status)
    running.update(memory="64M"); print(running.stats().memory_limit)
    """
    done = owner(crowd, act, state=state_folder, **bus_of(manager))
    assert done == (0, "True 0\nTrue True\nTrue\npaused\n67108864\n", "")


def test_a_plan_starts_no_scope(manager, crowd, state_folder):
    act = """
    print("memory.max" in str(Container("host:").limits(memory="48M").plan("true")))
    from pycontain.runtime import engine
    print(group_of(pid_of(engine.engine().pidfd)).endswith("pycontain-test-crowd"))
    """
    assert owner(crowd, act, state=state_folder, **bus_of(manager)) == (0, "True\nTrue\n", "")


def test_what_ran_before_moves_too(manager, crowd, state_folder):
    act = """
    first = Container("host:").start("sleep", "600")
    Container("host:").limits(pids=20).run("true").check()
    print(".scope/" in group_of(first.pid))
    first.update(pids=2); print(first.stats().pids_limit)
    """
    assert owner(crowd, act, state=state_folder, **bus_of(manager)) == (0, "True\n2\n", "")


def test_without_a_manager_it_is_said_what_to_do(folder, crowd, state_folder, tmp_path):
    act = """
    try:
        Container("host:").limits(memory="48M").run("true")
    except HostUnsupported as error:
        print("own" in error.needs, bool(error.__notes__))
    """
    nobody = {"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={tmp_path}/none"}
    assert owner(crowd, act, state=state_folder, **nobody) == (0, "True True\n", "")
