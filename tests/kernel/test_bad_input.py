"""What cannot work is refused with the cause and the next step, and leaves nothing behind."""

import json
import os
import pickle
import resource
import textwrap
from pathlib import Path

import pytest
from owners import run_owner

from pycontain import Container
from pycontain.errors import (
    CommandFailed,
    CommandNotExecutable,
    CommandNotFound,
    CommandTimeout,
    HostUnsupported,
    InvalidSpec,
    PycontainError,
    SandboxError,
    StepFailed,
)
from pycontain.runtime import probe

HOST = Container("host:")


def refused(kind, match, act, *arguments, **options):
    """The error, which has advice and survives pickling."""
    with pytest.raises(kind, match=match) as caught:
        act(*arguments, **options)
    error = caught.value
    assert isinstance(error, PycontainError)
    assert error.__notes__, "an error tells the next step"
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.__notes__) == (type(error), str(error), error.__notes__)
    assert {**vars(copy)} == {**vars(error)}
    return error


# --- the payload ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["run", "start"])
def test_a_missing_program(verb):
    error = refused(CommandNotFound, "nothing-here", getattr(HOST, verb), "nothing-here", "argument")
    assert isinstance(error, FileNotFoundError)
    assert error.command == "nothing-here"


@pytest.mark.parametrize("path", ["/nothing/here", "./nothing", "/etc/hosts/nothing"])
def test_a_missing_path(path):
    assert refused(CommandNotFound, path, HOST.run, path).command == path


def test_a_program_without_the_x_bit():
    error = refused(CommandNotExecutable, "/etc/hosts", HOST.run, "/etc/hosts")
    assert isinstance(error, PermissionError)
    assert "x bit" in error.__notes__[0]


def test_a_program_in_the_path_without_the_x_bit():
    container = HOST.file("/own/tool", "x").env(PATH="/own")
    refused(CommandNotExecutable, "tool", container.run, "tool")


def test_a_directory_is_no_program():
    refused(CommandNotExecutable, "/etc", HOST.run, "/etc")


@pytest.fixture
def program(tmp_path):
    """Mounts a program with a content at /program/it."""

    def make(content):
        (tmp_path / "it").write_bytes(content)
        (tmp_path / "it").chmod(0o755)
        return HOST.mount(tmp_path, "/program")

    return make


@pytest.mark.parametrize("verb", ["run", "start"])
def test_a_script_whose_interpreter_is_missing(program, verb):
    container = program(b"#!/nothing/here\n")
    error = refused(CommandNotFound, "interpreter", getattr(container, verb), "/program/it")
    assert error.command == "/program/it"


@pytest.mark.parametrize(
    "content",
    [b"plain text\n", b"\x7fELF\2\1\1" + b"\0" * 57, b"\xca\xfe\xba\xbe" * 20],
    ids=["text", "elf", "other"],
)
@pytest.mark.parametrize("init", [True, False])
def test_a_program_for_no_machine(program, content, init):
    error = refused(CommandNotExecutable, "no program", program(content).init(init).run, "/program/it")
    assert "architecture" in error.__notes__[0]


def test_an_empty_program(program):
    refused(CommandNotExecutable, "/program/it", program(b"").run, "/program/it")


def test_an_empty_name():
    refused(CommandNotFound, "''", HOST.run, "")


@pytest.mark.parametrize("length", [300, 5_000, 70_000, 120_000])
@pytest.mark.parametrize("prefix", ["", "/"])
def test_a_name_that_is_too_long(length, prefix):
    error = refused(SandboxError, "xxx", HOST.run, prefix + "x" * length)
    assert isinstance(error, CommandNotFound | CommandNotExecutable | InvalidSpec)


def test_a_name_longer_than_any_packet():
    refused(SandboxError, "xxx", HOST.run, "/" + "x" * 300_000)


def test_an_argument_that_is_too_long():
    """execve(2): one string may have 128 KiB."""
    error = refused(SandboxError, "too long", HOST.run, "true", "x" * 200_000)
    assert "x bit" not in error.__notes__[0]


def assert_runs_or_is_explained(container):
    """Kernels differ in what a program needs; but nobody is told of a defect of ours."""
    problems = []
    try:
        container.run("true")
    except PycontainError as error:
        problems = [error.__notes__ == [], "defect" in str(error)]
    assert not any(problems)


@pytest.mark.parametrize("limits", [("as", 1 << 20), ("data", 4096), ("stack", 4096)])
def test_a_limit_that_leaves_no_room_for_the_program(limits):
    assert_runs_or_is_explained(HOST.rlimit(*limits))


@pytest.mark.parametrize("number", [0, 1, 3, 4, 5])
def test_a_limit_that_leaves_no_descriptors(number):
    assert_runs_or_is_explained(HOST.rlimit("nofile", number))


# --- the steps ------------------------------------------------------------------------------------------


def test_a_missing_mount_source():
    error = refused(StepFailed, "/nothing/here", HOST.mount("/nothing/here", "/x").run, "true")
    assert isinstance(error, OSError)
    assert 'open_tree("/nothing/here"' in error.step
    assert ".mount()" in error.because
    assert str(error.index) in error.__notes__[-1]


def test_a_mount_source_that_is_a_broken_link(tmp_path):
    (tmp_path / "link").symlink_to("nothing")
    refused(StepFailed, "link", HOST.mount(tmp_path / "link", "/x").run, "true")


def test_a_mount_source_that_is_out_of_reach(tmp_path, privilege):
    if privilege == "root":
        pytest.skip("root reaches everything")
    if os.access("/root", os.X_OK):
        pytest.skip("here /root is open to all")
    refused(StepFailed, "cannot be reached", HOST.mount("/root/x", "/x").run, "true")


def test_a_mount_target_below_a_file():
    error = refused(StepFailed, "/etc/hosts|/etc/passwd", HOST.mount("/usr", "/etc/passwd/x").run, "true")
    assert "source /usr does not exist" not in str(error)


def test_a_file_below_a_file():
    refused(StepFailed, "/etc/passwd/x", HOST.file("/etc/passwd/x", "").run, "true")


def test_a_directory_mounted_over_a_file():
    refused(StepFailed, "/etc/passwd", HOST.mount("/usr", "/etc/passwd").run, "true")


def test_a_file_over_a_directory():
    refused(StepFailed, "/etc", HOST.file("/etc", "x").run, "true")


def test_a_missing_working_directory():
    refused(StepFailed, "/nowhere", HOST.workdir("/nowhere").run, "true")


def test_a_working_directory_that_is_a_file():
    refused(StepFailed, "/etc/passwd", HOST.workdir("/etc/passwd").run, "true")


@pytest.mark.parametrize("user", ["nosuch", "root:nosuch", "nosuch:root", "4294967295", "99999999999"])
def test_an_unknown_user_or_group(user):
    refused(StepFailed, user.replace("root:", ""), HOST.user(user).run, "true")


def test_a_user_that_is_not_mapped():
    error = refused(StepFailed, "mapped", HOST.user("4000000000").run, "true")
    assert "subordinate" in error.__notes__[0]


@pytest.mark.parametrize("value", [-1, 1 << 40])
def test_a_limit_above_the_owners(value, privilege):
    if privilege == "root" and value > 0:
        pytest.skip("root may have it, when the kernel does")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        pytest.skip("the owner has no limit")
    refused(StepFailed, "nofile", HOST.rlimit("nofile", value).run, "true")


def may_raise():
    """capabilities(7): CAP_SYS_RESOURCE of the machine's own user namespace, as far as we can tell."""
    lines = Path("/proc/self/status").read_text().splitlines()
    effective = next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff"))
    return bool(effective >> 24 & 1) and probe.is_privileged()


@pytest.mark.parametrize("mode", ["auto", "host"])
def test_a_limit_above_the_owners_for_memory(mode, tmp_path):
    """Root who may raise it may do so for a container with a user namespace of its own, and for what is executed in it."""
    code = f"""
        import resource
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        from pycontain import Container
        from pycontain.errors import StepFailed
        box = Container("host:").userns({mode!r}).rlimit("core", 1024, 2048)
        show = ("sh", "-c", "echo $(ulimit -Sc) $(ulimit -Hc)")
        try:
            shown = [box.run(*show).stdout for _ in range(3)]
            with box.start("sleep", "600") as running:
                shown += [running.exec(*show).stdout for _ in range(3)]
            print(*set(shown), end="")
        except StepFailed as error:
            print(error, error.__notes__)
    """
    code, out, err = run_owner(code, state=tmp_path)
    assert (code, err) == (0, "")
    if may_raise():
        assert out == "2 4\n"  # in blocks of 512 bytes
    else:
        assert "the limit core cannot be raised to 2048 here" in out
        assert "raise the owner's own" in out


@pytest.mark.parametrize("verb", ["run", "start", "plan"])
def test_what_is_wrong_with_an_image(verb):
    with pytest.raises(PycontainError):
        getattr(Container("rootfs:/nothing/here"), verb)("true")


def test_after_every_failure_the_next_start_works():
    """A failure costs the spare child, and nothing else."""
    for container, argv in (
        (HOST.workdir("/nowhere"), ("true",)),
        (HOST.mount("/nothing/here", "/x"), ("true",)),
        (HOST.user("nosuch"), ("true",)),
        (HOST, ("nothing-here",)),
    ) * 3:
        with pytest.raises(SandboxError):
            container.run(*argv)
        assert HOST.run("echo", "x").stdout == "x\n"


@pytest.mark.parametrize("word", ["\ud800", "a\udfff"])
def test_text_that_no_file_system_and_no_program_can_take(word):
    """A lone surrogate that os.fsdecode() never makes."""
    for act in (
        lambda: HOST.run("echo", word),
        lambda: HOST.env(A=word).run("true"),
        lambda: HOST.workdir(f"/{word}").run("true"),
        lambda: HOST.mount(f"/{word}", "/x").run("true"),
        lambda: HOST.mount("/usr", f"/{word}").run("true"),
        lambda: HOST.file("/x", word).run("true"),
        lambda: HOST.secret("x", word).run("true"),
        lambda: HOST.run("cat", input=word),
        lambda: HOST.user(word).run("true"),
    ):
        with pytest.raises(SandboxError) as caught:
            act()
        assert "defect" not in str(caught.value)


# --- the owner's own troubles ---------------------------------------------------------------------------

RUN_AND_TELL = textwrap.dedent("""
    import os, sys, json
    from pycontain import Container
    from pycontain.errors import PycontainError
    try:
        result = Container("host:").run("echo", "x")
    except PycontainError as error:
        print(json.dumps([type(error).__name__, str(error), getattr(error, "__notes__", [])]))
    else:
        print(json.dumps([result.stdout]))
""")


def tell(before="", **options):
    code, out, err = run_owner(textwrap.dedent(before) + RUN_AND_TELL, **options)
    assert (code, err) == (0, ""), out + err
    return json.loads(out)


def assert_names_the_state_folder(answer, folder):
    kind, message, notes = answer
    assert kind in {"SandboxError", "HostUnsupported", "StoreError"}
    assert str(folder) in message
    assert "namespaces" not in message
    assert "PYCONTAIN_STATE" in notes[0]


def test_a_state_folder_below_a_file(tmp_path):
    (tmp_path / "file").touch()
    assert_names_the_state_folder(tell(state=tmp_path / "file" / "state"), tmp_path / "file")


def test_a_state_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    assert_names_the_state_folder(tell(state=tmp_path / "file"), tmp_path / "file")


@pytest.mark.rootless
def test_a_state_folder_that_cannot_be_written():
    assert_names_the_state_folder(tell(state="/usr/pycontain-state"), "/usr/pycontain-state")


@pytest.mark.root
def test_a_state_folder_on_a_read_only_file_system(tmp_path):
    (tmp_path / "ro").mkdir()
    before = f"""
        from pycontain.kernel import syscalls
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE, None)
        syscalls.mount("tmpfs", {str(tmp_path / "ro")!r}, "tmpfs", syscalls.MS_RDONLY, "size=64k")
    """
    assert_names_the_state_folder(tell(before, state=tmp_path / "ro" / "state"), tmp_path / "ro")


@pytest.mark.root
@pytest.mark.parametrize("inodes", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14])
def test_a_state_folder_on_a_full_disk(tmp_path, inodes):
    """Whichever directory is the one that does not fit any more: the message says where there is no space."""
    (tmp_path / "full").mkdir()
    before = f"""
        from pycontain.kernel import syscalls
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE, None)
        syscalls.mount("tmpfs", {str(tmp_path / "full")!r}, "tmpfs", 0, "size=64k,nr_inodes={inodes}")
    """
    kind, *rest = tell(before, state=tmp_path / "full")
    if kind == "x\n":
        return
    message, notes = rest
    assert "space" in message
    assert "namespaces" not in message
    assert "PYCONTAIN_STATE" in notes[0]


def test_a_state_folder_with_strange_things_in_it(tmp_path):
    """Files of others, dangling links, and folders whose lock is no file are left alone."""
    (tmp_path / "notes.txt").touch()
    (tmp_path / "link").symlink_to("nothing")
    (tmp_path / "odd" / "lock").mkdir(parents=True)
    assert tell(state=tmp_path) == ["x\n"]
    assert {"notes.txt", "link", "odd"} <= set(os.listdir(tmp_path))


def test_a_state_folder_that_is_somebodys_home(tmp_path):
    """A folder that no zygote made is nobody's to sweep, whatever its name."""
    for name in ("documents", "0123456789ab"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "precious").write_text("x")
    assert tell(state=tmp_path) == ["x\n"]
    assert tell(state=tmp_path) == ["x\n"]
    assert (tmp_path / "documents" / "precious").exists()
    assert (tmp_path / "0123456789ab" / "precious").exists()


@pytest.mark.parametrize("name", ["with space", "with,comma", "with:colon", "with\\backslash", "häi"])
def test_a_state_folder_may_have_any_name(tmp_path, name):
    assert tell(state=tmp_path / name) == ["x\n"]


def test_a_relative_state_folder(tmp_path):
    before = f"import os; os.chdir({str(tmp_path)!r})"
    assert tell(before, state="here") == ["x\n"]


@pytest.mark.parametrize("value", ["", None])
def test_without_sys_executable_the_message_says_so(value):
    before = f"import sys; sys.executable = {value!r}; sys._base_executable = {value!r}"
    kind, message, notes = tell(before)
    assert kind == "HostUnsupported"
    assert "sys.executable" in message
    assert notes


def test_with_a_wrong_sys_executable_the_message_names_it():
    kind, message, notes = tell("import sys; sys.executable = '/nothing/here'")
    assert kind in {"HostUnsupported", "SandboxError"}
    assert "/nothing/here" in message
    assert notes


def test_with_a_sys_executable_that_is_no_python():
    kind, _message, notes = tell("import sys; sys.executable = '/bin/true'")
    assert kind in {"HostUnsupported", "SandboxError"}
    assert notes


def test_an_embedding_program_may_set_sys_executable_to_nothing():
    """``sys._base_executable`` is there in many of them."""
    assert tell("import sys; sys.executable = ''") == ["x\n"]


def test_without_a_descriptor_left_the_error_is_typed():
    code = """
        import os, resource
        from pycontain import Container
        from pycontain.errors import PycontainError
        c = Container("host:")
        c.run("true")
        held = []
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = max(map(int, os.listdir("/proc/self/fd")))
        for left in range(1, 12):
            resource.setrlimit(resource.RLIMIT_NOFILE, (used + left, hard))
            for act in (lambda: c.run("true"), lambda: c.start("true").close()):
                try:
                    act()
                except PycontainError as error:
                    assert error.__notes__, error
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        print(c.run("echo", "x").stdout, len(os.listdir("/proc/self/fd")) < used + 4, end="")
    """
    assert run_owner(code) == (0, "x\n True", "")


def test_when_the_zygote_has_no_descriptor_left_what_runs_goes_on():
    """The owner may have raised its own limit since."""
    code = """
        import os, resource
        from pycontain import Container, prewarm
        from pycontain.errors import PycontainError
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, hard))
        prewarm()
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        c = Container("host:")
        running, errors = [], []
        for _ in range(40):
            try:
                running.append(c.start("sleep", "100"))
            except PycontainError as error:
                errors.append(error)
        print({r.status for r in running}, running[0].exec("echo", "x").stdout if not errors else "x\\n", end="")
        assert all(error.__notes__ for error in errors)
        for r in running:
            r.close()
        print(c.run("echo", "y").stdout, end="")
    """
    assert run_owner(code) == (0, "{'running'} x\ny\n", "")


def test_with_few_processes_allowed_the_error_is_typed():
    if os.getuid() == 0:
        pytest.skip("RLIMIT_NPROC does not hold for root")
    code = """
        import resource
        from pycontain import Container, prewarm
        from pycontain.errors import PycontainError
        prewarm()
        zygote_limit = (1, 1)
        from pycontain.runtime import engine
        pid = next(int(l.split()[1]) for l in open(f"/proc/self/fdinfo/{engine._engine.pidfd}") if l.startswith("Pid"))
        resource.prlimit(pid, resource.RLIMIT_NPROC, zygote_limit)
        try:
            Container("host:").run("true")
            print("ran")
        except PycontainError as error:
            print("limit on processes" in str(error), bool(error.__notes__))
    """
    code, out, err = run_owner(code, python=())
    assert (code, out, err) in {(0, "True True\n", ""), (0, "ran\n", "")}


def test_a_program_that_reaps_all_children_itself():
    """signal(7): with SIGCHLD ignored no child can be waited for."""
    assert tell("import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)") == ["x\n"]


def test_a_program_that_waits_for_any_child():
    before = """
        import os, threading
        def reap():
            while True:
                try:
                    os.waitpid(-1, 0)
                except ChildProcessError:
                    pass
        threading.Thread(target=reap, daemon=True).start()
    """
    assert tell(before) == ["x\n"]


@pytest.mark.parametrize("closed", ["0", "0, 1", "0, 1, 2"])
def test_a_program_without_standard_streams(closed, tmp_path):
    """A daemon closes them; their numbers are taken by whatever is opened next."""
    code = f"""
        import os
        out = os.open({str(tmp_path / "out")!r}, os.O_WRONLY | os.O_CREAT)
        os.dup2(out, 50)
        os.close(out)
        for fd in ({closed},):
            os.close(fd)
        from pycontain import Container
        result = Container("host:").run("cat", input="x")
        with Container("host:").start("sleep", "100") as running:
            inner = running.exec("sh", "-c", "echo y; ls /proc/self/fd").stdout
        os.write(50, repr((result.stdout, inner)).encode())
        import pycontain
        pycontain.shutdown()
        os._exit(0)
    """
    code, _out, _err = run_owner(code, python=())
    assert (code, (tmp_path / "out").read_text()) == (0, repr(("x", "y\n0\n1\n2\n3\n")))


# --- the host's refusal, told from plain values ---------------------------------------------------------


@pytest.fixture
def settings(monkeypatch):
    """The host's switches as a test wants them."""
    values = {}
    read = probe.read_setting
    monkeypatch.setattr(probe, "read_setting", lambda path: values.get(path, read(path)))
    return values


@pytest.mark.parametrize(
    ("path", "value", "fix"),
    [
        ("/proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces"),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0", "unprivileged_userns_clone=1"),
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "apparmor_restrict_unprivileged_userns=0",
        ),
    ],
)
def test_a_switch_that_forbids_user_namespaces_is_named_with_its_fix(settings, path, value, fix):
    settings[path] = value
    error = probe.refusal(28, rootless=True)
    assert isinstance(error, HostUnsupported)
    assert error.found
    assert fix in error.__notes__[0]


@pytest.mark.parametrize("number", [1, 13, 22, 28, 12])
@pytest.mark.parametrize("rootless", [True, False])
def test_every_refusal_has_a_next_step(number, rootless):
    error = probe.refusal(number, rootless=rootless)
    assert error.__notes__
    assert error.needs
    assert error.found


# --- errors ---------------------------------------------------------------------------------------------


def test_a_timeout_survives_pickling_with_its_result():
    error = refused(CommandTimeout, "0.1 s", HOST.run, "sh", "-c", "echo x; sleep 100", timeout=0.1)
    assert pickle.loads(pickle.dumps(error)).result == error.result


def test_a_failed_check_survives_pickling_with_its_result():
    error = refused(CommandFailed, "exit code 3", HOST.run, "sh", "-c", "echo x; exit 3", check=True)
    assert pickle.loads(pickle.dumps(error)).result == error.result


def test_a_result_survives_pickling():
    result = HOST.run("echo", "x")
    assert pickle.loads(pickle.dumps(result)) == result
