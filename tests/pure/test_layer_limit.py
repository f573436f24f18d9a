"""On which hosts the writable layer can have a size."""

import attrs
import pytest

from pycontain import Container
from pycontain.container.lowering import layer_limit
from pycontain.errors import HostUnsupported, InvalidSpec
from pycontain.sandbox.host import HostFacts

SPEC = Container("host:").limits(disk="1G").spec
OLD = HostFacts(kernel=(6, 1), rootless=True)


@pytest.mark.parametrize("host", [HostFacts(kernel=(6, 1)), HostFacts(kernel=(6, 6), rootless=True)])
def test_it_can(host):
    assert layer_limit(SPEC, host) == (1 << 30, ())


def test_an_old_kernel_cannot_in_a_user_namespace():
    with pytest.raises(HostUnsupported, match=r"Linux 6\.6"):
        layer_limit(SPEC, OLD)


def test_unless_required_it_is_left_out_and_said():
    assert layer_limit(attrs.evolve(SPEC, limits_required=False), OLD) == (None, ("disk",))


@pytest.mark.parametrize("size", ["1k", 0, -1, "x", 1 << 70, True])
def test_a_wrong_size_is_refused_at_once(size):
    with pytest.raises(InvalidSpec):
        Container("host:").limits(disk=size)


def test_a_later_call_of_limits_leaves_it():
    assert Container("host:").limits(disk="1G").limits(pids=3).spec.disk == 1 << 30
