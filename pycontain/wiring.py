"""What one container has on the host beside itself: published ports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pycontain.ports import Ports

if TYPE_CHECKING:
    from pycontain.runtime.engine import Engine
    from pycontain.sandbox.network import Networking


class Wiring:
    """Made before the container starts, given its first process, and let go of after its end."""

    def __init__(self, ports: Ports) -> None:
        self.ports = ports

    @classmethod
    def prepare(cls, networking: Networking, engine: Engine, ident: str, name: str) -> Wiring:
        """Take what the container shall have; nothing stays taken when something cannot be had."""
        del ident
        ports = Ports(engine, name)
        ports.reserve(networking.published)
        return cls(ports)

    def enter(self, pidfd: int) -> None:
        """Join it to the container whose PID 1 is *pidfd*, which stays the caller's."""
        self.ports.enter(pidfd)

    def close(self) -> None:
        """Let go of all. Safe to repeat."""
        self.ports.close()
