"""Kernel settings of a container alone."""

import pytest

from pycontain import Container
from pycontain.errors import StepFailed

HOST = Container("host:")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv4.ip_unprivileged_port_start", "80"),
        ("kernel.domainname", "example.org"),
    ],
)
def test_a_setting_holds_inside_and_nowhere_else(name, value):
    path = f"/proc/sys/{name.replace('.', '/')}"
    with open(path) as file:
        before = file.read()
    assert HOST.sysctl({name: value}).run("cat", path).check().stdout == f"{value}\n"
    with open(path) as file:
        assert file.read() == before


def test_the_next_container_does_not_have_it():
    """A spare child that has done the write serves only who wants the same."""
    path = "/proc/sys/net/ipv4/ip_forward"
    HOST.sysctl({"net.ipv4.ip_forward": 1}).run("true").check()
    assert [HOST.run("cat", path).stdout for _ in range(2)] == ["0\n", "0\n"]


def test_settings_cannot_be_changed_from_inside():
    done = HOST.sysctl({"net.ipv4.ip_forward": 1}).run("sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward")
    assert "Read-only" in done.stderr


def test_a_setting_that_the_kernel_does_not_have_is_named():
    with pytest.raises(StepFailed, match=r"net\.nonsense"):
        HOST.sysctl({"net.nonsense": "1"}).run("true")


def test_a_value_that_the_kernel_does_not_take_is_named():
    with pytest.raises(StepFailed, match="'nonsense' for net"):
        HOST.sysctl({"net.ipv4.ip_forward": "nonsense"}).run("true")
