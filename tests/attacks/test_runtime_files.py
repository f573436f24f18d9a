"""What of the runtime itself can be reached from inside: its descriptors, its program, its modules."""

import json
import os
import sys
import sysconfig
from pathlib import Path

import pytest
from busybox_images import busybox_layer, image, root, write_layout
from busybox_images import store as store  # noqa: PLC0414 - a fixture
from layer_tree import Symlink
from trees import busybox_tree

from pycontain import Container
from pycontain.errors import PycontainError, StepFailed

HOST = Container("host:")


# --- CVE-2024-21626: leaked descriptors -------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1, 2, *range(3, 12), 64, 65, 66])
@pytest.mark.parametrize("init", [True, False])
def test_workdir_proc_self_fd_cve_2024_21626(number, init):
    """A descriptor of the host would make the host's tree the working directory, and ".." leads on."""
    with pytest.raises(StepFailed, match="chdir"):
        HOST.init(init).workdir(f"/proc/self/fd/{number}").run("true")


@pytest.mark.parametrize("number", [2, 5, 7, 64])
def test_an_images_workdir_proc_self_fd_cve_2024_21626(store, tmp_path, number):
    """WORKDIR of an image is made when it is missing, and a link in the image may lead there too."""
    link = root(Symlink("link", to="/proc/self/fd"))
    for place in ("/proc/self/fd", "/link"):
        made = image(busybox_layer(tmp_path, link), working_dir=f"{place}/{number}")
        write_layout(tmp_path / "layout", it=made)
        with pytest.raises(StepFailed, match=r"chdir|mkdir"):
            Container(f"oci:{tmp_path}/layout:it").run("pwd")


@pytest.mark.parametrize("number", [*range(12), 64, 65, 66])
def test_exec_workdir_proc_self_fd_cve_2024_21626(number):
    with HOST.start("sleep", "100") as running, pytest.raises(StepFailed, match="chdir"):
        running.exec("true", workdir=f"/proc/self/fd/{number}")


@pytest.mark.parametrize("init", [True, False])
@pytest.mark.parametrize("given", [None, b"input"])
def test_leaked_descriptors(init, given):
    """The payload has 0, 1 and 2; the one that lists the folder is its own."""
    script = "import os; print(sorted(map(int, os.listdir('/proc/self/fd'))))"
    assert HOST.init(init).run("python3", "-I", "-c", script, input=given).stdout == "[0, 1, 2, 3]\n"


def test_leaked_descriptors_of_an_exec():
    script = "import os; print(sorted(map(int, os.listdir('/proc/self/fd'))))"
    with HOST.start("sleep", "100") as running:
        assert running.exec("python3", "-I", "-c", script).stdout == "[0, 1, 2, 3]\n"


def test_the_descriptors_of_the_init_cannot_be_opened():
    script = "for name in fd/3 cwd/etc root/etc exe mem; do head -c 1 /proc/1/$name && echo $name; done"
    assert HOST.run("sh", "-c", script).stdout == ""


# --- CVE-2019-5736: the runtime's own program ---------------------------------------------------------------

OVERWRITE = """
import json, os
found = {}
def attempt(name, act):
    try:
        act()
    except OSError as error:
        found[name] = error.strerror
    else:
        found[name] = "done"
exe = os.open("/proc/self/exe", os.O_PATH)
path = f"/proc/self/fd/{exe}"
status = os.stat(path)
found["program"] = [status.st_ino, status.st_size]
attempt("chmod", lambda: os.chmod(path, status.st_mode & 0o7777))
attempt("utime", lambda: os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns)))
attempt("setxattr", lambda: os.setxattr(path, "user.pycontain", b""))
if not os.access(path, os.W_OK):
    found["open"] = "refused"
elif os.fork() == 0:
    os.execv("/bin/true", ["true"])  # a program that is executed cannot be written, execve(2): ETXTBSY
else:
    os.wait()
    attempt("open", lambda: os.close(os.open(path, os.O_WRONLY)))
print(json.dumps(found))
"""


def through_proc_self_exe(container):
    """Have the init execute what it is itself, so that the payload is the program of the host."""
    done = container.run("/proc/self/exe", "-I", "-S", "-c", OVERWRITE)
    assert done.ok, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("user", ["0:0", "1000:1000"])
def test_overwriting_the_runtime_through_proc_self_exe_cve_2019_5736(user, privilege):
    if privilege == "single" and user != "0:0":
        pytest.skip("there is but one id")
    status = os.stat(sys.executable)
    found = through_proc_self_exe(HOST.user(user))
    assert found["program"] == [status.st_ino, status.st_size]  # else this would not be the attack
    assert {found[name] for name in ("chmod", "utime", "setxattr")} == {"Read-only file system"}
    assert found["open"] == "refused"


def test_a_script_of_proc_self_exe_cve_2019_5736():
    """The kernel itself looks the interpreter of a script up, and nobody can check the path before."""
    done = HOST.file("/script", "#!/proc/self/exe\n" + OVERWRITE, mode=0o755).run("/script")
    assert done.ok, done.stderr
    assert json.loads(done.stdout)["open"] == "refused"


WATCH = """
import json, os, time
opened = []
end = time.monotonic() + 30
while not os.path.exists("/stop") and time.monotonic() < end:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) == os.getpid():
            continue
        for name in ("exe", "mem", "root/etc/hostname", "cwd/etc/hostname", "fd/0", "fd/3"):
            try:
                fd = os.open(f"/proc/{pid}/{name}", os.O_RDWR)
            except OSError:
                continue
            try:
                opened.append([name, os.readlink(f"/proc/self/fd/{fd}")])
            except OSError as error:
                opened.append([name, str(error)])
            os.close(fd)
print(json.dumps(opened))
"""


def test_whoever_comes_for_an_exec_cannot_be_caught():
    """The payload lies in wait for what the runtime sends into the container, which is not confined yet."""
    with HOST.start("python3", "-I", "-c", WATCH) as running:
        for _ in range(30):
            running.exec("true")
        running.exec("touch", "/stop")
        done = running.wait(60)
    assert done.ok, done.stderr
    places = {place for name, place in json.loads(done.stdout)}
    assert {place for place in places if "python" in place or "socket" in place} == set()


# --- modules of a hostile image ------------------------------------------------------------------------------


@pytest.fixture
def hostile(tmp_path):
    """A root whose Python, at the very places of ours, leaves a trace in a mount when anything of it is imported."""
    tree = busybox_tree(tmp_path / "tree")
    loot = tmp_path / "loot"
    loot.mkdir(mode=0o777)
    loot.chmod(0o777)
    program = "open('/loot/' + __name__, 'w').close()"
    checkout = Path(__file__).parents[2]
    for folder in {sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), str(checkout)}:
        place = tree / folder[1:]
        names = [name for name in os.listdir(folder) if name.endswith(".py")]
        packages = [name for name in os.listdir(folder) if (Path(folder) / name / "__init__.py").exists()]
        place.mkdir(parents=True, exist_ok=True)
        for name in (*names, "sitecustomize.py", "usercustomize.py"):
            (place / name).write_text(program)
        for name in packages:
            (place / name).mkdir()
            (place / name / "__init__.py").write_text(program)
    return Container(f"rootfs:{tree}").mount(loot, "/loot"), loot


def trial(container, *argv, **options):
    try:
        container.run(*argv, **options)
    except PycontainError:
        pass  # what matters is what was done on the way


def test_modules_of_the_image_are_not_imported(hostile):
    """After the pivot a late import of ours would find the image's file, and run it with all rights."""
    container, loot = hostile
    for init in (True, False):
        box = container.init(init)
        trial(box, "true")
        trial(box, "true", input="x")
        trial(box, "no-such-program")
        trial(box, "/etc")
        trial(box.user("nobody-here"), "true")
        trial(box.workdir("/nowhere"), "true")
        trial(box.workdir("/proc/self/fd/9"), "true")
        trial(box.user("12:no-such-group"), "true")
        trial(box.rlimit("nofile", 1 << 40), "true")
        trial(box.file("/bin/true/x", ""), "true")
        trial(box, "sleep", "100", timeout=0.05)
    with container.start("sleep", "100") as running:
        running.exec("true")
        for options in ({"user": "nobody-here"}, {"workdir": "/nowhere"}):
            with pytest.raises(PycontainError):
                running.exec("true", **options)
        with pytest.raises(PycontainError):
            running.exec("no-such-program")
        with pytest.raises(PycontainError):
            running.exec("sleep", "100", timeout=0.05)
        running.kill("TERM")
    assert os.listdir(loot) == []


def test_ld_so_preload_of_the_image(tmp_path, privilege):
    """It is for what the payload executes; nothing of ours is executed inside, so nothing of ours is touched."""
    tree = busybox_tree(tmp_path / "tree")
    (tree / "etc").mkdir()
    (tree / "lib").mkdir()
    (tree / "etc/ld.so.preload").write_text("/lib/evil.so\n")
    (tree / "lib/evil.so").write_bytes((tree / "bin/busybox").read_bytes())
    with Container(f"rootfs:{tree}").start("sleep", "100") as running:
        assert running.exec("cat", "/etc/ld.so.preload").stdout == "/lib/evil.so\n"
        if privilege == "root":  # nobody else may look at our init
            assert "evil" not in Path(f"/proc/{running.pid}/maps").read_text()
