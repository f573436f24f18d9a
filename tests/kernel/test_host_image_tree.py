"""`host:` on real files: hostile ones planted in a fake machine, and the machine that runs the tests."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pycontain.errors import SandboxError
from pycontain.runtime import host_image
from pycontain.runtime.host_image import describe_host, write_skeleton

pytestmark = pytest.mark.kernel

CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\n"


def plant(path, text="", mode=0o644):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.fixture
def machine(tmp_path):
    """A bare machine: a merged /usr, an /etc, a home, a Python prefix in it."""
    tmp_path.chmod(0o755)
    for name in ("usr/bin", "usr/lib", "etc/ssl/certs", "people/u"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "bin").symlink_to("usr/bin")
    (tmp_path / "lib").symlink_to("usr/lib")
    plant(tmp_path / "people/u/python/bin/python3", mode=0o755)
    (tmp_path / "people/u/python/lib/python3.11/site-packages").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def site(machine):
    return machine / "people/u/python/lib/python3.11/site-packages"


def describe(machine, *, prefix=None, base_prefix=None, sys_path=None, executable=""):
    python = machine / "people/u/python"
    return describe_host(
        prefix=str(prefix or python),
        base_prefix=str(base_prefix or python),
        executable=str(executable),
        sys_path=sys_path if sys_path is not None else [str(python / "lib/python3.11/site-packages")],
        home=str(machine / "people/u"),
        user_base=str(machine / "people/u/.local"),
        root=str(machine),
        etc=str(machine / "etc"),
    )


def contents(tree):
    return {file.path: file.content for file in tree.files}


def bound(tree):
    return {inside for _, inside in tree.binds}


# --- the clean /etc -------------------------------------------------------------------------------------


def test_a_private_key_among_the_certificates_is_not_copied(machine):
    plant(machine / "etc/ssl/certs/server.pem", CERTIFICATE + KEY)
    tree = describe(machine)
    assert "/etc/ssl/certs/server.pem" not in contents(tree)
    assert (f"{machine}/etc/ssl/certs/server.pem", "it holds a private key") in tree.left_out


def test_a_private_key_in_any_other_file_is_not_copied(machine):
    plant(machine / "etc/profile", KEY)
    assert "/etc/profile" not in contents(describe(machine))


def test_a_binary_key_among_the_certificates_is_not_copied(machine):
    plant(machine / "etc/ssl/certs/server.p12", "\x30\x01")
    assert "/etc/ssl/certs/server.p12" not in contents(describe(machine))


def test_a_certificate_is_copied(machine):
    plant(machine / "etc/ssl/certs/root.pem", CERTIFICATE)
    assert contents(describe(machine))["/etc/ssl/certs/root.pem"] == CERTIFICATE.encode()


def test_names_that_are_not_on_the_list_are_not_copied(machine):
    for name in ("shadow", "gshadow", "sudoers", "environment", "ssh/ssh_host_rsa_key", "ssl/private/a.pem"):
        plant(machine / "etc" / name, CERTIFICATE)
    found = set(contents(describe(machine)))
    assert found == {f"/etc/{name}" for name in host_image.ETC_CONTENT}


def test_the_machines_users_do_not_appear(machine):
    plant(machine / "etc/passwd", "alice:x:1000:1000::/home/alice:/bin/bash\n")
    assert b"alice" not in contents(describe(machine))["/etc/passwd"]


def test_a_link_to_a_secret_is_dropped(machine):
    (machine / "etc/localtime").symlink_to("/root/secret")
    (machine / "etc/ssl/certs/x.pem").symlink_to("../../../root/secret")
    tree = describe(machine)
    assert not any("secret" in target for _, target in tree.symlinks)
    assert {path for path, _ in tree.left_out} == {
        f"{machine}/etc/localtime",
        f"{machine}/etc/ssl/certs/x.pem",
    }


def test_a_directory_that_is_a_link_is_not_entered(machine):
    plant(machine / "people/u/certs/mine.pem", CERTIFICATE)
    (machine / "etc/ssl/certs").rmdir()
    (machine / "etc/ssl/certs").symlink_to(machine / "people/u/certs")
    tree = describe(machine)
    assert not any(path.startswith("/etc/ssl") for path in contents(tree))


def test_a_parent_that_is_a_link_is_not_entered(machine):
    plant(machine / "people/u/tls/openssl.cnf", "mine")
    shutil.rmtree(machine / "etc/ssl")
    (machine / "etc/ssl").symlink_to(machine / "people/u/tls")
    assert "/etc/ssl/openssl.cnf" not in contents(describe(machine))


def test_links_into_usr_and_between_certificates_are_kept(machine):
    (machine / "etc/ssl/certs/a.pem").symlink_to("/usr/share/ca-certificates/a.crt")
    (machine / "etc/ssl/certs/0a0a0a0a.0").symlink_to("a.pem")
    (machine / "etc/os-release").symlink_to("../usr/lib/os-release")
    found = dict(describe(machine).symlinks)
    assert found["/etc/ssl/certs/0a0a0a0a.0"] == "a.pem"
    assert found["/etc/os-release"] == "../usr/lib/os-release"


def test_a_fifo_is_left_out_and_nobody_waits_for_it(machine):
    os.mkfifo(machine / "etc/services")
    assert (f"{machine}/etc/services", "it is no regular file") in describe(machine).left_out


def test_a_huge_file_is_left_out(machine):
    os.truncate(plant(machine / "etc/services"), 1 << 40)
    assert "/etc/services" not in contents(describe(machine))


def test_a_file_that_not_everybody_can_read_is_left_out(machine):
    plant(machine / "etc/services", "x", mode=0o640)
    assert (f"{machine}/etc/services", "not everybody can read it") in describe(machine).left_out


def test_a_directory_that_not_everybody_can_enter_is_left_out(machine):
    plant(machine / "etc/ssl/certs/root.pem", CERTIFICATE)
    (machine / "etc/ssl/certs").chmod(0o750)
    assert "/etc/ssl/certs/root.pem" not in contents(describe(machine))


# --- the system and the running Python ------------------------------------------------------------------


def test_a_merged_usr_is_one_bind_and_links(machine):
    tree = describe(machine)
    assert (f"{machine}/usr", "/usr") in tree.binds
    assert {("/bin", "usr/bin"), ("/lib", "usr/lib")} <= set(tree.symlinks)


def test_a_machine_without_a_merged_usr_has_a_bind_for_each(machine):
    (machine / "lib").unlink()
    (machine / "lib").mkdir()
    (machine / "lib64").symlink_to("lib")
    tree = describe(machine)
    assert (f"{machine}/lib", "/lib") in tree.binds
    assert ("/lib64", "lib") in tree.symlinks


def test_a_system_directory_that_leads_elsewhere_is_bound(machine):
    (machine / "elsewhere").mkdir()
    (machine / "lib64").symlink_to("elsewhere")
    assert (f"{machine}/lib64", "/lib64") in describe(machine).binds


def test_usr_local_etc_is_hidden(machine):
    (machine / "usr/local/etc").mkdir(parents=True)
    assert describe(machine).hidden == ("/usr/local/etc",)


def test_exactly_the_prefix_is_bound(machine):
    plant(machine / "people/u/.ssh/id_ed25519", KEY)
    assert bound(describe(machine)) == {"/usr", f"{machine}/people/u/python"}


def test_a_virtual_environment_in_a_project_shows_nothing_of_the_project(machine):
    plant(machine / "people/u/project/.env", "TOKEN=1")
    plant(machine / "people/u/project/.venv/pyvenv.cfg")
    tree = describe(machine, prefix=machine / "people/u/project/.venv")
    assert [path for path in bound(tree) if "project" in path] == [f"{machine}/people/u/project/.venv"]


def test_a_prefix_that_is_the_project_itself_shows_only_its_parts(machine):
    project = machine / "people/u/project"
    plant(project / ".git/config")
    plant(project / "bin/python3")
    plant(project / "pyvenv.cfg")
    tree = describe(machine, prefix=project)
    assert {path for path in bound(tree) if "project" in path} == {f"{project}/bin", f"{project}/pyvenv.cfg"}
    assert any(path == str(project) and ".git" in why for path, why in tree.left_out)


def test_a_prefix_that_is_the_home_shows_only_its_parts(machine):
    plant(machine / "people/u/bin/python3")
    tree = describe(machine, prefix=machine / "people/u", sys_path=[])
    assert f"{machine}/people/u" not in bound(tree)
    assert f"{machine}/people/u/bin" in bound(tree)


def test_the_root_as_prefix_needs_nothing_more(machine):
    tree = describe(machine, prefix="/", base_prefix="/", sys_path=[])
    assert bound(tree) == {"/usr"}
    assert tree.left_out == ()


def test_a_pip_conf_in_the_virtual_environment_is_hidden(machine):
    """It may name a private index with its password."""
    plant(machine / "people/u/python/pip.conf")
    assert describe(machine).hidden == (f"{machine}/people/u/python/pip.conf",)


def test_the_links_that_lead_to_the_interpreter_are_there(machine):
    """uv links ~/.local/bin/python3.11 to the interpreter, and the virtual environment to that link."""
    link = machine / "people/u/.local/bin/python3.11"
    link.parent.mkdir(parents=True)
    link.symlink_to("../../python/bin/python3")
    venv = machine / "people/u/venv/bin/python"
    venv.parent.mkdir(parents=True)
    venv.symlink_to(link)
    tree = describe(machine, prefix=machine / "people/u/venv", executable=venv)
    assert dict(tree.symlinks)[str(link)] == "../../python/bin/python3"
    assert str(venv) not in dict(tree.symlinks)


def test_a_prefix_reached_through_a_link_is_bound_where_it_really_is(machine):
    (machine / "opt").symlink_to("people/u")
    tree = describe(machine, prefix=machine / "opt/python", base_prefix=machine / "opt/python", sys_path=[])
    assert bound(tree) == {"/usr", f"{machine}/people/u/python"}
    assert dict(tree.symlinks)[f"{machine}/opt"] == "people/u"


def test_links_in_a_circle_are_left_out(machine):
    (machine / "people/u/loop").symlink_to("loop")
    tree = describe(machine, prefix=machine / "people/u/loop")
    assert f"{machine}/people/u/loop" not in bound(tree)


def test_a_user_site_is_bound_and_named(machine):
    user_site = machine / "people/u/.local/lib/python3.11/site-packages"
    user_site.mkdir(parents=True)
    tree = describe(machine, sys_path=[str(user_site)])
    assert str(user_site) in bound(tree)
    assert tree.environment == (("PYTHONUSERBASE", f"{machine}/people/u/.local"),)


def test_the_working_directory_and_the_scripts_own_are_not_bound(machine):
    plant(machine / "people/u/project/main.py")
    tree = describe(machine, sys_path=["", str(machine / "people/u/project")])
    assert not any("project" in path for path in bound(tree))


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read everything")
def test_a_prefix_that_this_user_cannot_read_is_left_out(machine):
    closed = machine / "closed"
    closed.mkdir(mode=0o000)
    tree = describe(machine, prefix=closed)
    assert str(closed) not in bound(tree)
    assert (str(closed), "this user cannot read it") in tree.left_out


# --- editable installs ----------------------------------------------------------------------------------


@pytest.fixture
def project(machine):
    project = machine / "people/u/project"
    for name in (
        ".git/config",
        ".env",
        "README.md",
        "setup.py",
        "docs/index.md",
        "pkg/__init__.py",
        "module.py",
    ):
        plant(project / name)
    return project


def test_an_editable_install_shows_only_what_can_be_imported(machine, site, project):
    plant(site / "project.pth", f"{project}\n")
    tree = describe(machine)
    assert {path for path in bound(tree) if "project" in path} == {f"{project}/pkg", f"{project}/module.py"}


def test_a_module_is_bound_over_a_file(machine, site, project):
    plant(site / "project.pth", f"{project}\n")
    assert contents(describe(machine))[f"{project}/module.py"] == b""


def test_secrets_in_an_editable_package_are_hidden(machine, site, project):
    plant(project / "pkg/.env", "TOKEN=1")
    plant(site / "project.pth", f"{project}\n")
    assert describe(machine).hidden == (f"{project}/pkg/.env",)


def test_a_finder_written_by_setuptools_shows_its_packages(machine, site, project):
    mapping = {"pkg": f"{project}/pkg", "module": f"{project}/module"}
    plant(site / "__editable___project_1_0_finder.py", f"MAPPING: dict[str, str] = {mapping}\n")
    tree = describe(machine)
    assert {path for path in bound(tree) if "project" in path} == {f"{project}/pkg", f"{project}/module.py"}


def test_a_package_linked_into_the_site_is_shown(machine, site, project):
    (site / "pkg").symlink_to(project / "pkg")
    assert f"{project}/pkg" in bound(describe(machine))


def test_a_pth_file_that_names_the_home_shows_nothing_of_it(machine, site):
    plant(machine / "people/u/diary/__init__.py")
    plant(site / "home.pth", f"{machine}/people/u\n")
    tree = describe(machine)
    assert not any("diary" in path for path in bound(tree))
    assert (f"{machine}/people/u", "it holds more than Python") in tree.left_out


# --- the skeleton ---------------------------------------------------------------------------------------


@pytest.fixture
def skeleton(tmp_path):
    """This machine's own tree, written down."""
    directory = tmp_path / "skeleton"
    directory.mkdir()
    tree = describe_host()
    write_skeleton(tree, str(directory))
    return tree, directory


def entries(directory):
    return [path for path in directory.rglob("*") if not path.is_symlink()]


def test_no_file_of_this_machine_that_is_secret_is_in_the_skeleton(skeleton):
    _, directory = skeleton
    names = {str(path.relative_to(directory)) for path in directory.rglob("*")}
    assert not [name for name in names if "shadow" in name or "private" in name or "ssh" in name]
    assert not [p for p in entries(directory) if p.is_file() and b"PRIVATE KEY" in p.read_bytes()]


def test_home_run_and_tmp_are_empty_but_for_the_running_python(skeleton):
    tree, directory = skeleton
    shown = {inside for _, inside in tree.binds} | {link for link, _ in tree.symlinks}
    for name in ("root", "home", "run", "tmp"):
        for path in (directory / name).rglob("*"):
            inside = f"/{path.relative_to(directory)}"
            assert any(f"{one}/".startswith(f"{inside}/") for one in shown)


def test_every_file_can_be_read_by_everybody_and_written_by_its_owner_only(skeleton):
    _, directory = skeleton
    modes = {stat.S_IMODE(path.stat().st_mode) for path in entries(directory) if path.is_file()}
    assert modes == {0o644}


def test_the_modes_are_those_of_a_root(skeleton):
    _, directory = skeleton
    found = {name: stat.S_IMODE((directory / name).stat().st_mode) for name in (".", "tmp", "var/tmp", "etc")}
    assert found == {".": 0o755, "tmp": 0o1777, "var/tmp": 0o1777, "etc": 0o755}


def test_the_umask_does_not_matter(tmp_path, machine):
    (tmp_path / "skeleton").mkdir()
    before = os.umask(0o077)
    try:
        write_skeleton(describe(machine), str(tmp_path / "skeleton"))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "skeleton/etc/passwd").stat().st_mode) == 0o644
    assert stat.S_IMODE((tmp_path / "skeleton/usr").stat().st_mode) == 0o755


def test_every_bind_has_its_mount_point(skeleton):
    tree, directory = skeleton
    for source, inside in tree.binds:
        assert Path(source).is_dir() == (directory / inside[1:]).is_dir()
        assert (directory / inside[1:]).exists()


def test_a_directory_that_is_not_empty_is_not_written_over(tmp_path, machine):
    plant(tmp_path / "skeleton/etc", "mine")
    with pytest.raises(SandboxError, match="File exists"):
        write_skeleton(describe(machine), str(tmp_path / "skeleton"))
    assert (tmp_path / "skeleton/etc").read_text() == "mine"


def test_describing_changes_nothing_and_gives_equal_values():
    assert describe_host() == describe_host()


ASSEMBLE = """
root=$1; shift
while [ "$1" != -- ]; do mount --rbind "$1" "$root$2" || exit 99; shift 2; done; shift
exec chroot "$root" "$@"
"""


def run_inside(tree, directory, *argv):
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    if subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine gives no mount namespace")
    binds = [path for bind in tree.binds for path in bind]
    environment = {"PATH": ":".join(tree.path), **dict(tree.environment)}
    command = [*unshare, "sh", "-c", ASSEMBLE, "sh", str(directory), *binds, "--", *argv]
    return subprocess.run(
        command, env=environment | {"HOME": "/root"}, check=False, capture_output=True, text=True
    )


def test_the_owners_packages_can_be_imported_inside(skeleton):
    done = run_inside(
        *skeleton, sys.executable, "-c", "import attrs, hypothesis, pycontain, ssl; print(attrs.__file__)"
    )
    assert (done.stdout, done.stderr) == (f"{__import__('attrs').__file__}\n", "")


def test_the_machines_tools_run_inside(skeleton):
    done = run_inside(*skeleton, "sh", "-c", "id -un && awk 'BEGIN {print 6 * 7}'")
    assert done.stdout == "root\n42\n"


def test_the_machines_certificates_are_trusted_inside(skeleton):
    count = "import ssl; print(ssl.create_default_context().cert_store_stats()['x509_ca'])"
    inside = run_inside(*skeleton, sys.executable, "-c", count)
    outside = subprocess.run(
        [sys.executable, "-c", count], env={}, check=True, capture_output=True, text=True
    )
    assert inside.stdout == outside.stdout
