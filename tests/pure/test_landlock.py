"""What Landlock denies, for a spec and a version, and on which hosts it can be asked for."""

import attrs
import pytest

from pycontain import Container
from pycontain.container.lowering import landlock_on
from pycontain.errors import HostUnsupported
from pycontain.sandbox.host import HostFacts
from pycontain.sandbox.landlock import handled, mask_of, rules, scopes
from pycontain.sandbox.paths import HostPath, RootPath
from pycontain.sandbox.spec import File, Mount, Rootfs, SandboxSpec, Secret, Tmpfs

PLAIN = SandboxSpec(Rootfs((HostPath("/layer"),)))
STRICT = attrs.evolve(
    PLAIN,
    read_only=True,
    tmpfs=(Tmpfs(RootPath("/tmp")),),
    mounts=(Mount(HostPath("/a"), RootPath("/a")), Mount(HostPath("/b"), RootPath("/b"), read_only=True)),
    files=(File(RootPath("/etc/x"), b""), File(RootPath("/run/secrets/y"), Secret(b""))),
)


@pytest.mark.parametrize("version", [2, 3, 5, 6, 7, 99])
def test_nothing_that_only_reads_is_denied(version):
    assert handled(version) & {"EXECUTE", "READ_FILE", "READ_DIR"} == set()


def test_a_version_knows_what_came_until_then():
    assert {"TRUNCATE", "IOCTL_DEV"} & handled(2) == set()
    assert {"TRUNCATE", "IOCTL_DEV"} & handled(3) == {"TRUNCATE"}
    assert (scopes(5), scopes(6)) == (frozenset(), {"ABSTRACT_UNIX_SOCKET", "SIGNAL"})


def test_the_bits_are_the_kernels():
    """linux/landlock.h: LANDLOCK_ACCESS_FS_REFER is 1 << 13."""
    assert mask_of(frozenset({"REFER", "WRITE_FILE"})) == 1 << 13 | 1 << 1


def test_a_writable_root_can_be_written_but_no_node_be_made():
    allowed = dict(rules(PLAIN, 7))
    assert set(allowed) == {"/", "/dev"}
    assert handled(7) - allowed[RootPath("/")] == {"MAKE_CHAR", "MAKE_BLOCK", "IOCTL_DEV"}


def test_a_read_only_root_can_be_written_where_it_is_meant():
    assert set(dict(rules(STRICT, 7))) == {"/dev", "/tmp", "/a", "/etc/x"}


def test_who_may_make_nodes_still_may():
    allowed = dict(rules(attrs.evolve(PLAIN, capabilities=frozenset({"MKNOD"})), 7))
    assert "MAKE_CHAR" in allowed[RootPath("/")]


@pytest.mark.parametrize("version", [0, 1])
def test_a_host_without_it_refuses_or_leaves_it_out(version):
    spec, host = Container("host:").landlock().spec, HostFacts(landlock=version)
    with pytest.raises(HostUnsupported, match="Landlock"):
        landlock_on(spec, host)
    assert landlock_on(attrs.evolve(spec, limits_required=False), host) == (False, ("landlock",))


def test_it_can_be_taken_back():
    assert Container("host:").landlock().landlock(False) == Container("host:")
