"""The value that describes a container, and what becomes of it on this host."""

from pycontain.container.container import Container, Description
from pycontain.container.lowering import sandbox_spec
from pycontain.container.spec import ContainerSpec

__all__ = ["Container", "ContainerSpec", "Description", "sandbox_spec"]
