"""Names of kernel settings: which are a container's own, and how they are written."""

import pytest

from pycontain import Container
from pycontain.errors import InvalidSpec
from pycontain.sandbox.sysctl import NAMESPACED, parse_sysctl, swapped

HOST = Container("host:")


@pytest.mark.parametrize(
    "name",
    ["net.ipv4.ip_forward", "fs.mqueue.msg_max", "kernel.shmmax", "kernel.sem", "kernel.domainname"],
)
def test_a_setting_of_a_namespace_is_taken(name):
    assert HOST.sysctl({name: 1}).spec.sysctls == ((name, "1"),)


@pytest.mark.parametrize(
    "name",
    [
        "kernel.panic",
        "vm.swappiness",
        "fs.file-max",
        "kernel.shm",
        "kernel.core_pattern",
        "user.max_user_namespaces",
    ],
)
def test_a_setting_of_the_machine_is_refused_with_the_list_of_the_others(name):
    with pytest.raises(InvalidSpec) as caught:
        HOST.sysctl({name: "1"})
    assert all(known in str(caught.value) for known in NAMESPACED)


@pytest.mark.parametrize(
    "name", ["", "net", "net.", "net..x", "net/../kernel/panic", "net.ipv4/../x", "net.x\n", 7, None]
)
def test_what_is_no_name_is_refused(name):
    with pytest.raises(InvalidSpec, match="no name of a kernel setting"):
        HOST.sysctl({name: "1"})


@pytest.mark.parametrize("value", ["", "a\nb", "\0", "ä", True, None, 1.5])
def test_what_is_no_value_is_refused(value):
    with pytest.raises(InvalidSpec, match="no value"):
        HOST.sysctl({"kernel.sem": value})


def test_all_problems_are_named_at_once():
    with pytest.raises(InvalidSpec) as caught:
        HOST.sysctl({"kernel.panic": "1", "kernel.sem": ""})
    assert len(caught.value.problems) == 2


def test_the_host_name_has_a_method_of_its_own():
    with pytest.raises(InvalidSpec, match=r"\.hostname\(\)"):
        HOST.sysctl({"kernel.hostname": "x"})


def test_both_forms_of_a_name_are_one_setting():
    """sysctl.d(5): an interface may have a dot in its name, which is a slash in the dotted form."""
    assert parse_sysctl("net/ipv4/conf/eth0.1/forwarding") == "net.ipv4.conf.eth0/1.forwarding"
    assert swapped("net.ipv4.conf.eth0/1.forwarding") == "net/ipv4/conf/eth0.1/forwarding"


def test_a_later_value_wins_and_keywords_work_too():
    twice = HOST.sysctl({"kernel.sem": "1"}).sysctl(**{"kernel.sem": "2"})
    assert twice.spec.sysctls == (("kernel.sem", "2"),)
