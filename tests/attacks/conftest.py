"""Attacks, each a real attempt by a real payload. They run only where one that succeeds harms nobody: ``.ci/jail``.

A test of a wall that stands proves little when the payload could not have done it anyway. So most attacks are made
twice: against the container as it is, and against one whose wall was taken away, where they must succeed.
"""

import os
import sys
from pathlib import Path

import pytest

from pycontain import Container
from pycontain.runtime import engine as engines
from pycontain.sandbox import compile as passes

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "kernel"))  # images and owners are made as there


def pytest_collection_modifyitems(items):
    if "PYCONTAIN_JAIL" in os.environ:
        return
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(
                pytest.mark.skip(reason="attacks are made in a jail: .ci/jail, or a virtual machine")
            )


@pytest.fixture
def without(monkeypatch):
    """Take the passes of these names out of every plan: the walls that they would have put up are not there."""

    def take_away(*names):
        for name in names:
            monkeypatch.setattr(passes, name, lambda *_: iter(()))
        engines.engine().plans.clear()

    yield take_away
    monkeypatch.undo()
    engines.engine().plans.clear()


@pytest.fixture
def unwalled():
    """A container with every capability and no filter, whose root is root outside too if we are."""
    container = Container("host:").capabilities(add=["ALL"]).seccomp("unconfined")
    return container.userns("host") if hasattr(container, "userns") else container


@pytest.fixture
def unmasked(without, unwalled):
    """The same, and nothing of /proc is hidden or protected."""
    without("kernel_masks")
    return unwalled
