"""What a payload finds: the environment that an OCI image expects, and nothing of the host."""

import os
import re
import signal
import sys
from pathlib import Path

import pytest
from owners import run_owner

from pycontain import Container
from pycontain.sandbox import capabilities
from pycontain.sandbox.spec import MASKED_PATHS, READ_ONLY_PATHS

HOST = Container("host:")
USER = "1000:1001"


def sh(script, container=HOST):
    return container.run("sh", "-c", script)


def python(script, container=HOST):
    return container.run(sys.executable, "-c", script)


def status_field(name, container=HOST):
    text = container.run("cat", "/proc/self/status").stdout
    return next(line.partition(":")[2].strip() for line in text.splitlines() if line.startswith(f"{name}:"))


@pytest.fixture
def other_user(privilege):
    """Somebody else than root; with one mapped id there is nobody else."""
    if privilege == "single":
        pytest.skip("one id is mapped")
    return USER


# --- file systems ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "kind", "flags"),
    [
        ("/", "overlay", {"rw"}),
        ("/proc", "proc", {"rw", "nosuid", "nodev", "noexec"}),
        ("/sys", "sysfs", {"ro", "nosuid", "nodev", "noexec"}),
        ("/dev", "tmpfs", {"rw", "nosuid"}),
        ("/dev/pts", "devpts", {"rw", "nosuid", "noexec"}),
        ("/dev/shm", "tmpfs", {"rw", "nosuid", "nodev", "noexec"}),
        ("/dev/mqueue", "mqueue", {"rw", "nosuid", "nodev", "noexec"}),
    ],
)
def test_a_file_system_of_the_kernel_is_mounted(place, kind, flags):
    lines = [line.split() for line in HOST.run("cat", "/proc/self/mounts").stdout.splitlines()]
    found = [(fields[2], set(fields[3].split(","))) for fields in lines if fields[1] == place]
    assert [(name, flags <= options) for name, options in found] == [(kind, True)]


def test_the_root_of_the_host_is_mounted_nowhere():
    """The old root was detached: what is mounted at the top is our overlay alone."""
    lines = HOST.run("cat", "/proc/self/mountinfo").stdout.splitlines()
    tops = [line for line in lines if line.split()[4] == "/"]
    assert len(tops) == 1
    assert " - overlay " in tops[0]


@pytest.mark.parametrize("path", ["/", "/tmp", "/etc", "/var/tmp"])
def test_the_root_can_be_written(path):
    assert sh(f"echo x > {path}/made && cat {path}/made").stdout == "x\n"


def test_a_read_only_root_cannot_be_written_and_memory_can():
    container = HOST.read_only().tmpfs("/scratch")
    assert "Read-only" in sh("echo x > /made", container).stderr
    assert sh("echo x > /scratch/made && echo x > /dev/shm/made", container).ok


@pytest.mark.parametrize("path", [str(path) for path in MASKED_PATHS if os.path.exists(path)])
def test_a_masked_path_shows_nothing(path):
    result = sh(f"if [ -d {path} ]; then ls -A {path}; else head -c 100 {path}; fi")
    assert (result.stdout, result.stderr) == ("", "")


@pytest.mark.parametrize("path", [str(path) for path in MASKED_PATHS if os.path.isdir(path)])
def test_a_masked_directory_cannot_be_written(path):
    assert not sh(f"mkdir {path}/x").ok


@pytest.mark.parametrize("path", [str(path) for path in MASKED_PATHS if os.path.isfile(path)])
def test_a_mask_is_no_way_to_the_hosts_dev_null(path):
    """What hides a file is a node of the host: its mode, owner and times are not the container's to change."""
    result = HOST.run("chmod", "666", path)  # the mode that it has
    assert (result.ok, "Read-only" in result.stderr or "not permitted" in result.stderr) == (False, True)


@pytest.mark.parametrize("path", [str(path) for path in READ_ONLY_PATHS if os.path.exists(path)])
def test_a_read_only_path_is_read_only(path):
    flags = python(f"import os; print(os.statvfs({path!r}).f_flag & os.ST_RDONLY)").stdout
    assert flags == f"{os.ST_RDONLY}\n"


def test_no_setting_of_the_kernel_can_be_opened_for_writing():
    found = sh("for f in /proc/sys/kernel/*; do [ -f $f ] && (: >> $f) 2>/dev/null && echo $f; done").stdout
    assert found == ""


def test_only_the_loopback_interface_is_there_and_it_is_up():
    assert os.path.basename(sh("ls -d /sys/class/net/*").stdout.strip()) == "lo"
    script = (
        "import socket; s = socket.create_server(('127.0.0.1', 0)); "
        "c = socket.create_connection(s.getsockname()); print('met')"
    )
    assert python(script).stdout == "met\n"


# --- devices --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("null", "1:3"),
        ("zero", "1:5"),
        ("full", "1:7"),
        ("random", "1:8"),
        ("urandom", "1:9"),
        ("tty", "5:0"),
    ],
)
def test_a_device_is_there_for_everybody(name, number):
    assert HOST.run("stat", "-c", "%F %t:%T %a", f"/dev/{name}").stdout == (
        f"character special file {number} 666\n"
    )


def test_nothing_else_is_in_dev():
    expected = "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
    assert " ".join(HOST.run("ls", "/dev").stdout.split()) == expected


def test_devices_work():
    script = "echo x > /dev/null; head -c 3 /dev/zero | od -An -tx1; head -c 5 /dev/urandom | wc -c; cat /bin/sh > /dev/full"
    result = sh(script)
    assert result.stdout == " 00 00 00\n5\n"
    assert "No space" in result.stderr


@pytest.mark.rootless
def test_a_device_of_the_host_cannot_be_changed():
    """Rootless devices are the host's own nodes."""
    assert not HOST.run("chmod", "666", "/dev/null").ok


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ],
)
def test_a_link_is_in_dev(link, target):
    assert HOST.run("readlink", f"/dev/{link}").stdout == f"{target}\n"


OPEN_TERMINAL = "import os; a, b = os.openpty(); os.write(a, b'x\\n'); print(os.ttyname(b), os.read(b, 9).decode(), end='')"


def test_pseudo_terminals_are_the_containers_own():
    assert python(OPEN_TERMINAL).stdout == "/dev/pts/0 x\n"


def test_pseudo_terminals_work_for_other_users(other_user):
    assert python(OPEN_TERMINAL, HOST.user(other_user)).stdout == "/dev/pts/0 x\n"


def test_shared_memory_works():
    script = (
        "from multiprocessing.shared_memory import SharedMemory as S; a = S(create=True, size=9); a.buf[0] = 7; "
        "b = S(a.name); print(b.buf[0]); a.unlink()"
    )
    assert python(script).stdout == "7\n"


def test_shared_memory_has_64_mib():
    assert sh("df -k /dev/shm | tail -1 | awk '{print $2}'").stdout == "65536\n"


# --- names ----------------------------------------------------------------------------------------------


def test_the_host_name_is_the_beginning_of_the_id():
    with HOST.start("sleep", "100") as running:
        assert running.exec("hostname").stdout == f"{running.id[:12]}\n"


def test_the_host_name_is_what_was_asked_for_everywhere():
    assert sh("hostname; cat /etc/hostname; echo $HOSTNAME", HOST.hostname("box")).stdout == "box\n" * 3


@pytest.mark.parametrize("name", ["localhost", "box"])
def test_a_name_resolves(name):
    script = f"import socket; print(socket.gethostbyname({name!r}).startswith('127.'))"
    assert python(script, HOST.hostname("box")).stdout == "True\n"


def test_the_host_keeps_its_name():
    before = os.uname().nodename
    HOST.hostname("box").run("true")
    assert os.uname().nodename == before


# --- environment variables ------------------------------------------------------------------------------


def test_the_owners_variables_stay_outside(monkeypatch):
    monkeypatch.setenv("OWNERS_VARIABLE", "x")
    names = {line.partition("=")[0] for line in HOST.run("env").stdout.splitlines()}
    assert "OWNERS_VARIABLE" not in names
    assert {"PATH", "HOME", "HOSTNAME"} <= names


@pytest.mark.parametrize("value", ["", "a b", "häi", "=", "\udcff", "a\nb"])
def test_a_variable_arrives_as_it_is(value):
    result = HOST.env(NAME=value).run("sh", "-c", 'printf %s "$NAME"', text=False)
    assert result.stdout == value.encode("utf-8", "surrogateescape")


def test_a_later_variable_wins():
    assert sh("echo $A $B", HOST.env(A="1", B="1").env({"A": "2"})).stdout == "2 1\n"


def test_home_may_be_chosen():
    assert sh("echo $HOME", HOST.env(HOME="/here")).stdout == "/here\n"


# --- who the payload is ---------------------------------------------------------------------------------


def with_accounts():
    passwd = "root:x:0:0::/root:/bin/sh\nu:x:1000:1001::/home/u:/bin/sh\nalone:x:1003:1003::/:/bin/sh\n"
    group = "root:x:0:\nu:x:1001:\none:x:1002:x,u\ntwo:x:1004:u\n"
    return HOST.file("/etc/passwd", passwd).file("/etc/group", group)


def test_the_payload_is_root_unless_told():
    assert sh("id -u; id -g; id -G").stdout == "0\n0\n0\n"


@pytest.mark.parametrize(
    ("user", "uid", "gid", "groups"),
    [
        ("u", 1000, 1001, {1001, 1002, 1004}),
        ("1000", 1000, 1001, {1001, 1002, 1004}),
        ("alone", 1003, 1003, {1003}),
        ("u:one", 1000, 1002, {1002}),
        ("u:7", 1000, 7, {7}),
        ("77", 77, 0, {0}),
        ("77:88", 77, 88, {88}),
        (1000, 1000, 1001, {1001, 1002, 1004}),
    ],
)
def test_a_user_is_looked_up_in_the_containers_own_files(user, uid, gid, groups, other_user):
    lines = sh("id -u; id -g; id -G", with_accounts().user(user)).stdout.splitlines()
    assert (int(lines[0]), int(lines[1]), set(map(int, lines[2].split()))) == (uid, gid, groups)


def test_real_effective_and_saved_ids_are_the_users(other_user):
    assert status_field("Uid", HOST.user(other_user)).split() == ["1000"] * 4
    assert status_field("Gid", HOST.user(other_user)).split() == ["1001"] * 4


def test_home_is_the_users(other_user):
    assert sh("echo $HOME", with_accounts().user("u")).stdout == "/home/u\n"


def test_root_by_name_works_whatever_ids_are_mapped():
    assert sh("id -u", HOST.user("root")).stdout == "0\n"


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_stream_can_be_opened_again(stream):
    assert getattr(sh(f"echo x > /dev/{stream}"), stream) == "x\n"


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_stream_can_be_opened_again_by_another_user(stream, other_user):
    assert getattr(sh(f"echo x > /dev/{stream}", HOST.user(other_user)), stream) == "x\n"


def test_stdin_can_be_opened_again_by_another_user(other_user):
    assert HOST.user(other_user).run("cat", "/dev/stdin", input="x").stdout == "x"


# --- walls ----------------------------------------------------------------------------------------------


def mask(names):
    return f"{capabilities.bits(names):016x}"


@pytest.mark.parametrize("field", ["CapPrm", "CapEff", "CapBnd"])
def test_root_has_podmans_capabilities(field):
    assert status_field(field) == mask(capabilities.DEFAULT)


@pytest.mark.parametrize("field", ["CapInh", "CapAmb"])
def test_nothing_is_inherited(field):
    assert int(status_field(field), 16) == 0


@pytest.mark.parametrize("field", ["CapPrm", "CapEff", "CapInh", "CapAmb"])
def test_another_user_has_none(field, other_user):
    assert int(status_field(field, HOST.user(other_user)), 16) == 0


def test_another_user_cannot_gain_more_than_the_set(other_user):
    assert status_field("CapBnd", HOST.user(other_user)) == mask(capabilities.DEFAULT)


@pytest.mark.parametrize("field", ["CapPrm", "CapEff", "CapBnd"])
def test_all_capabilities_can_be_dropped_and_one_kept(field):
    container = HOST.capabilities(drop=["ALL"], add=["CAP_NET_RAW"])
    assert status_field(field, container) == mask({"NET_RAW"})


def test_no_new_privs_is_set():
    assert status_field("NoNewPrivs") == "1"


@pytest.mark.parametrize("field", ["SigBlk", "SigIgn", "SigPnd", "ShdPnd"])
@pytest.mark.parametrize("init", [True, False])
def test_every_signal_is_at_its_default(field, init):
    """But for 32 and 33, which belong to the C library."""
    found = int(status_field(field, HOST.init(init)), 16)
    assert [number for number in signal.valid_signals() if found >> (number - 1) & 1] == []


def test_a_limit_is_what_was_asked_for():
    container = HOST.rlimit("nofile", 60, 70).rlimit("core", 0)
    assert sh("ulimit -Sn; ulimit -Hn; ulimit -c", container).stdout == "60\n70\n0\n"


def test_a_later_limit_wins():
    assert sh("ulimit -n", HOST.rlimit("nofile", 60).rlimit("nofile", 50)).stdout == "50\n"


def test_the_umask_is_022_whatever_the_owner_has():
    before = os.umask(0o077)
    try:
        assert sh("umask").stdout == "0022\n"
    finally:
        os.umask(before)


def test_the_payload_starts_at_the_top_or_where_it_is_told():
    assert HOST.run("pwd").stdout == "/\n"
    assert HOST.workdir("/usr//bin/").run("pwd").stdout == "/usr/bin\n"


@pytest.mark.parametrize("init", [True, False])
@pytest.mark.parametrize("given", [None, "x"])
def test_no_descriptor_leaks_in(init, given):
    """0, 1, 2, and the directory that ls reads."""
    assert HOST.init(init).run("ls", "/proc/self/fd", input=given).stdout.split() == ["0", "1", "2", "3"]


def test_inheritable_descriptors_of_the_owner_stay_outside(tmp_path):
    code = """
        import os
        for _ in range(20):
            os.set_inheritable(os.open("/etc/passwd", os.O_RDONLY), True)
        from pycontain import Container
        print(Container("host:").run("ls", "/proc/self/fd").stdout.split())
    """
    code, out, err = run_owner(code, python=(), state=tmp_path)
    assert (code, out, err) == (0, "['0', '1', '2', '3']\n", "")


def test_the_payload_has_a_session_without_a_terminal():
    sid, tty = sh("cut -d' ' -f6,7 /proc/$$/stat; echo $$").stdout.split()[:2]
    assert (sid, tty) != ("0", "0")
    assert tty == "0"


def test_only_the_containers_processes_are_seen():
    pids = [int(name) for name in HOST.run("ls", "/proc").stdout.split() if name.isdigit()]
    assert len(pids) == 2  # init and ls


def test_no_process_of_the_host_can_be_signalled():
    assert not sh(f"kill -0 {os.getpid()}").ok


def test_the_control_group_looks_like_the_top():
    assert {line.rpartition(":")[2] for line in HOST.run("cat", "/proc/self/cgroup").stdout.split()} == {"/"}


def test_queues_of_the_host_are_not_seen():
    assert len(HOST.run("cat", "/proc/sysvipc/shm").stdout.splitlines()) == 1


@pytest.mark.parametrize("kind", ["mnt", "pid", "net", "ipc", "uts", "cgroup"])
def test_a_namespace_is_the_containers_own(kind):
    assert HOST.run("readlink", f"/proc/self/ns/{kind}").stdout.strip() != os.readlink(
        f"/proc/self/ns/{kind}"
    )


def test_processes_are_tied_to_the_zygote():
    """prctl(2): the parent-death signal of PID 1 is SIGKILL, whatever credentials it took."""
    script = "import ctypes; n = ctypes.c_int(); ctypes.CDLL(None).prctl(2, ctypes.byref(n)); print(n.value)"
    assert python(script, HOST.init(False)).stdout == "9\n"


def test_processes_of_another_user_are_tied_too(other_user):
    script = "import ctypes; n = ctypes.c_int(); ctypes.CDLL(None).prctl(2, ctypes.byref(n)); print(n.value)"
    assert python(script, HOST.init(False).user(other_user)).stdout == "9\n"


# --- host: ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["/root", "/home"])
def test_a_folder_of_people_is_empty(folder):
    """But for the way to the Python that runs this, when it lies there."""
    found = HOST.run("find", folder, "-type", "f", "-not", "-path", f"{sys.prefix}/*").stdout.splitlines()
    found = [path for path in found if not path.startswith((sys.base_prefix, *sys.path[1:]))]
    assert found == []


def test_no_socket_of_the_host_is_in_run():
    assert HOST.run("find", "/run", "/var/run/", "-type", "s").stdout == ""


def test_no_secret_of_the_host_is_in_etc():
    found = HOST.run(
        "find", "/etc/", "-name", "*shadow*", "-o", "-name", "*.key", "-o", "-name", "ssh_host*"
    ).stdout
    assert found == ""


def test_no_private_key_is_in_etc():
    assert HOST.run("grep", "-rl", "PRIVATE KEY", "/etc/").stdout == ""


def test_installed_packages_can_be_imported():
    import attrs

    assert python("import attrs; print(attrs.__file__)").stdout == f"{attrs.__file__}\n"


def test_the_interpreter_is_the_owners():
    result = HOST.run("python3", "-c", "import sys; print(sys.prefix)")
    assert result.stdout == f"{sys.prefix}\n"


def test_usr_is_read_only():
    assert not sh("echo x > /usr/bin/made").ok
    assert not Path("/usr/bin/made").exists()


def test_set_user_id_programs_gain_nothing(other_user):
    """no_new_privs and nosuid: su as another user is not root."""
    found = sh("find /usr/bin -perm -4000 | head -1").stdout.strip()
    if not found:
        pytest.skip("this host has no set-user-ID program")
    options = sh("cat /proc/self/mounts | grep ' /usr '").stdout
    assert re.search(r"\bnosuid\b", options)


def test_a_tmpfs_may_be_named_through_a_link_of_the_image():
    """As a mount may: /var/run is a link to /run in most images."""
    done = Container("host:").tmpfs("/var/run/app").run("sh", "-c", "touch /run/app/file; ls /var/run/app")
    assert done.stdout == "file\n"
