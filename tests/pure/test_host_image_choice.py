"""What of a machine `host:` may show, decided on plain values."""

from hypothesis import given
from hypothesis import strategies as st

from pycontain.runtime.host_image import (
    HostFile,
    HostTree,
    directories_in_pth,
    directories_of,
    environment_of,
    links_that_hold,
    mapping_of_finder,
    objection_to,
    path_directories,
    site_directories,
    without_nested,
)

paths = st.lists(st.sampled_from(["a", "b", "a-b", "a.b"]), min_size=1, max_size=4).map(
    lambda parts: "/" + "/".join(parts)
)


def tree(*, binds=(), symlinks=(), files=()):
    return HostTree(
        binds=tuple((path, path) for path in binds),
        symlinks=tuple(symlinks),
        files=tuple(HostFile(path, b"") for path in files),
        hidden=(),
        path=(),
        environment=(),
        left_out=(),
    )


@given(st.sets(paths))
def test_no_bind_lies_inside_another_and_each_path_stays_visible(found):
    kept = [inside for _, inside in without_nested({path: path for path in found})]
    assert not any(one.startswith(f"{other}/") for one in kept for other in kept)
    assert all(any(f"{path}/".startswith(f"{one}/") for one in kept) for path in found)


@given(st.sets(paths))
def test_the_parent_of_each_directory_comes_before_it(found):
    made = ["", *directories_of(tree(binds=found))]
    assert all(path.rpartition("/")[0] in made[:place] for place, path in enumerate(made) if path)


@given(st.dictionaries(paths, paths))
def test_a_link_is_kept_only_when_its_target_can_be_seen(links):
    kept = links_that_hold(links, places=["/a"], visible=("/b/",))
    for target in kept.values():
        assert (
            target == "/a" or target.startswith("/b/") or any(f"{target}/".startswith(f"{k}/") for k in kept)
        )


def test_a_link_is_followed_through_other_links():
    links = {"/etc/ssl/1.0": "one.pem", "/etc/ssl/one.pem": "/usr/share/one.crt", "/etc/ssl/2.0": "two.pem"}
    assert links_that_hold(links, places=(), visible=("/usr/",)).keys() == {
        "/etc/ssl/1.0",
        "/etc/ssl/one.pem",
    }


def test_a_link_cannot_leave_by_way_of_a_visible_directory():
    assert not links_that_hold({"/etc/x": "/usr/../root/key"}, places=(), visible=("/usr/",))


def test_a_link_to_a_whole_directory_that_is_bound_is_not_needed_to_be_below_it():
    assert links_that_hold({"/lib64": "lib"}, places=["/lib"], visible=("/lib/",)) == {"/lib64": "lib"}


def test_roots_home_is_closed_when_empty_and_passable_when_the_python_lies_in_it():
    assert directories_of(tree())["/root"] == 0o700
    modes = directories_of(tree(binds=["/root/.pyenv/versions/3.11.7"]))
    assert modes["/root"] == modes["/root/.pyenv/versions"] == 0o755


def test_a_bind_below_tmp_leaves_it_sticky():
    assert directories_of(tree(binds=["/tmp/venv"]))["/tmp"] == 0o1777


def test_the_mount_point_of_a_file_is_no_directory():
    assert "/srv/one.py" not in directories_of(tree(binds=["/srv/one.py"], files=["/srv/one.py"]))


def test_a_home_that_is_a_link_is_no_directory():
    assert "/home" not in directories_of(tree(symlinks=[("/home", "var/home")], binds=["/var/home/u/venv"]))


def test_directories_that_hold_more_than_python_are_refused_as_a_whole():
    for path in (
        "/",
        "/root",
        "/home",
        "/home/u",
        "/home/other",
        "/opt",
        "/tmp",
        "/var",
        "/srv/people",
        "/srv",
    ):
        assert objection_to(path, home="/srv/people/u"), path


def test_nothing_of_the_machines_etc_proc_sys_and_dev_is_bound():
    for path in ("/etc/venv", "/proc/1", "/sys/kernel", "/dev/shm/venv"):
        assert objection_to(path, home="/root"), path


def test_a_prefix_below_a_home_is_fine():
    assert objection_to("/root/.pyenv/versions/3.11.7", home="/root") is None
    assert objection_to("/home/u/project/.venv", home="/home/u") is None


def test_only_directories_that_installers_fill_are_sites():
    entries = [
        "",
        "/home/u/project",
        "/usr/lib/python311.zip",
        "/v/lib/python3.11/site-packages",
        "site-packages",
    ]
    assert site_directories(entries) == ("/v/lib/python3.11/site-packages",)


def test_the_virtual_environment_comes_first_in_path():
    found = path_directories("/v", "/opt/python")
    assert found[:3] == ("/v/bin", "/opt/python/bin", "/usr/local/sbin")
    assert found[-1] == "/bin"


def test_a_prefix_of_the_system_changes_nothing_in_path():
    assert path_directories("/usr", "/usr") == path_directories("/", "/")


def test_the_user_site_is_named_because_home_differs_inside():
    sites = ["/home/u/.local/lib/python3.11/site-packages"]
    assert environment_of("/usr", "/usr", "/home/u/.local", sites) == (("PYTHONUSERBASE", "/home/u/.local"),)
    assert environment_of("/usr", "/usr", "/home/u/.local", []) == ()


def test_a_virtual_environment_is_named():
    assert environment_of("/v", "/usr", "/home/u/.local", []) == (("VIRTUAL_ENV", "/v"),)


def test_a_pth_file_names_directories_and_its_imports_are_not_run():
    text = "# comment\nimport os; os._exit(1)\n/home/u/project/src\n\n../other\n"
    assert list(directories_in_pth(text, "/v/site-packages")) == ["/home/u/project/src", "/v/other"]


def test_the_finder_of_an_editable_install_names_packages():
    text = (
        "import sys\nMAPPING: dict[str, str] = {'pkg': '/p/src/pkg', 'odd': 3}\nNAMESPACES = {'n': ['/p']}\n"
    )
    assert mapping_of_finder(text) == ("/p/src/pkg",)


def test_a_finder_that_computes_its_mapping_is_not_run():
    assert mapping_of_finder("MAPPING = {'a': __import__('os').getcwd()}\n") == ()


def test_the_repr_of_a_file_tells_its_size_and_not_its_content():
    assert repr(HostFile("/etc/x", b"secret")) == "HostFile(path='/etc/x', content=<6 bytes>)"
