"""What the user of a run asked for, and what cannot be done."""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from distparity.core import device_kinds
from distparity.core.bad_request import BadRequest

__all__ = ["Options"]


@dataclass
class Options:
    """What the user asked for."""

    devices: list[str] = field(default_factory=lambda: ["auto"])
    world_sizes: list[int] = field(default_factory=list)
    limit: float = 60.0
    report_dir: Path = Path("reports")
    #: The matrix row's name for this torch; torch's own version when there is none.
    cell: str | None = None
    #: Only a part of the cases was asked for, by a name or an expression.
    part: bool = False
    cases: list[str] = field(default_factory=list)
    #: How many of the cases: one of :data:`distparity.session.selection.SELECTIONS`.
    select: str = "default"
    #: Only these scenarios; all when None.
    scenarios: list[str] | None = None
    include: list[str] = field(default_factory=list)
    #: Devices by ``module:object``, besides those that are known by name.
    plugins: list[str] = field(default_factory=list)
    room: int | None = None
    #: Several ranks on one device: by which way, "auto" for the best that there is, None for not.
    sharing: str | None = None
    #: Run a failed case again, once, in a fresh world.
    retry_failed: bool = False
    #: A case that failed and then passed does not make the run fail.
    allow_flaky: bool = False
    #: Files of what is expected to fail.
    expectations: list[Path] = field(default_factory=list)
    #: Expect what torch's releases are known to get wrong as well.
    known_defects: bool = False
    command: list[str] = field(default_factory=lambda: list(sys.argv))

    @property
    def named(self) -> list[str]:
        """The devices that were asked for by name."""
        return [device for device in self.devices if device != "auto"]

    def check(self) -> None:
        """Refuse what is wrong whatever this machine is; raises :class:`BadRequest`."""
        if not self.plugins:
            self.check_devices(device_kinds.kinds())
        for size in self.world_sizes:
            if size < 1:
                raise BadRequest(f"world size {size}: a world has at least 1 rank")
        if self.limit <= 0:
            raise BadRequest(f"time limit {self.limit:g} s: it must be positive")

    def check_devices(self, known: Collection[str]) -> None:
        """Refuse devices that are not among the known ones; raises :class:`BadRequest`."""
        for device in self.named:
            if device not in known:
                raise BadRequest(f"unknown device {device!r}; known: auto, {', '.join(known)}")
