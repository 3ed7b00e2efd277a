"""The options of a run, and which of them are invalid."""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from distparity.core import device_kinds
from distparity.core.bad_request import BadRequest
from distparity.core.near import unknown
from distparity.core.own_cases import Module, OwnScenario
from distparity.drawing.grammar import is_drawn
from distparity.session import names
from distparity.session.nodes import Nodes, placements
from distparity.session.rounds import Plan
from distparity.session.shares import Share

__all__ = ["Options"]


#: ``exact``: devices are told to be deterministic and to use no coarser format than they are asked for;
#: ``default``: they compute as torch does when nobody says anything.
ARITHMETICS = ("exact", "default")


@dataclass
class Options:
    """What the user requested. ``limit`` is the time limit of one case, in seconds."""

    devices: list[str] = field(default_factory=lambda: ["auto"])
    world_sizes: list[int] = field(default_factory=list)
    limit: float = 60.0
    report_dir: Path = Path("reports")
    #: The name of this torch in the reports; None for torch's version.
    cell: str | None = None
    #: The user chose only a part of the cases, by a name or an expression.
    part: bool = False
    cases: list[str] = field(default_factory=list)
    #: The largest message of the selection ``sizes``, in bytes on one rank; None for the default.
    largest: int | None = None
    #: How many of the cases: one of :data:`distparity.session.selection.SELECTIONS`.
    select: str = "default"
    #: Only these scenarios; None for all.
    scenarios: list[str] | None = None
    include: list[str] = field(default_factory=list)
    #: Scenarios of a project's test files, and the modules of its strategies.
    own_scenarios: list[OwnScenario] = field(default_factory=list)
    own_modules: list[Module] = field(default_factory=list)
    #: By case id: pytest's node id of a case in a project's test file.
    node_ids: dict[str, str] = field(default_factory=dict)
    #: Additional devices, as ``module:object``.
    plugins: list[str] = field(default_factory=list)
    room: int | None = None
    #: How several ranks share one device: a way, "auto" for the best one, None for not at all.
    sharing: str | None = None
    #: The backend for ``init_process_group`` in place of the device's own; None for that.
    backend: str | None = None
    #: Named properties of the vendor's by which this is another cell.
    axes: dict[str, str] = field(default_factory=dict)
    #: One of :data:`ARITHMETICS`.
    arithmetic: str = "exact"
    #: Keep a record of the collectives of each rank; without it, a hang is told with less.
    log: bool = True
    #: The seed of delays in ranks and on devices; None for no delays.
    perturb: int | None = None
    #: Run a failed case again, once, in a fresh world.
    retry_failed: bool = False
    #: A flaky case (it failed, and passed when it ran again) does not make the run fail.
    allow_flaky: bool = False
    #: Run only this share of the cases.
    shard: Share | None = None
    #: The seed of the order of the cases; None for the order of the selection.
    shuffle: int | None = None
    #: Run the cases in rounds.
    rounds: Plan | None = None
    #: Go on after the last result of an interrupted run with the same options.
    resume: bool = False
    #: Files of expectations.
    expectations: list[Path] = field(default_factory=list)
    #: Also expect the known defects of torch's releases.
    known_defects: bool = False
    #: The other nodes of the run; None for one machine.
    nodes: Nodes | None = None
    #: How worlds lie on the nodes: ``packed``, ``spread`` or ``both``; None for the default.
    placement: str | None = None
    #: Run each case on every pair of nodes.
    each_pair: bool = False
    command: list[str] = field(default_factory=lambda: list(sys.argv))

    @property
    def deciding(self) -> dict[str, str]:
        """The options on which an outcome can depend, as text; a run is resumed only with the same.

        An included module or plug-in stands there with a digest of its file.
        """
        plain = (
            "select",
            "largest",
            "limit",
            "sharing",
            "arithmetic",
            "log",
            "perturb",
            "retry_failed",
            "allow_flaky",
        )
        found = {name: str(getattr(self, name)) for name in (*plain, "known_defects")}
        if self.nodes is not None:
            found["placement"] = "each pair" if self.each_pair else ", ".join(self.placements)
        # What the modules say now, and not only what they are called.
        for name, modules in (("include", self.include), ("plugins", self.plugins)):
            said = [f"{one} ({names.digest(one.partition(':')[0])})" for one in modules]
            found[name] = ", ".join(said)
        return found

    @property
    def placements(self) -> tuple[str, ...]:
        """The placements that each case has, on several nodes."""
        return placements(self.placement, self.nodes)

    @property
    def drawn(self) -> list[str]:
        """The drawn scenarios among :attr:`cases`."""
        found = [case.partition("/")[0] for case in self.cases if is_drawn(case)]
        return list(dict.fromkeys(found))

    @property
    def named(self) -> list[str]:
        """The devices that the user named."""
        return [device for device in self.devices if device != "auto"]

    @property
    def marks(self) -> tuple[str, ...]:
        """What else is in the names of these cells, after the device: the backend and the axes."""
        axes = [f"{name}={value}" for name, value in self.axes.items()]
        return (*([] if self.backend is None else [self.backend]), *axes)

    def check(self) -> None:
        """Refuse what is wrong on any machine; raises :class:`BadRequest`."""
        self._check_names()
        alone = len(self.named) == len(self.devices) == 1 and self.sharing is None
        if self.backend is not None and not alone:
            raise BadRequest("--backend: it needs one named --device, and no --share-devices")
        for size in self.world_sizes:
            if size < 1:
                raise BadRequest(f"world size {size}: a world has at least 1 rank")
        if self.rounds is not None and (self.resume or self.retry_failed):
            raise BadRequest(
                "rounds (--repeat, --soak) go with neither --resume nor --retry-failed"
            )
        if self.each_pair and (self.nodes is None or self.placement is not None):
            raise BadRequest("--each-pair: it needs several nodes, and goes with no --placement")
        if self.each_pair and self.world_sizes not in ([], [2]):
            raise BadRequest("--each-pair: a pair has two ranks: no other --world-size")
        if self.placements and self.sharing is not None:
            raise BadRequest("--share-devices: not on several nodes")
        if self.limit <= 0:
            raise BadRequest(f"time limit {self.limit:g} s: it must be positive")

    def _check_names(self) -> None:
        # A plug-in or an included module may define names of its own.
        if not self.plugins:
            self.check_devices(device_kinds.kinds())
        if not (self.plugins or self.include or self.own_scenarios):
            names.check_cases(self.cases)
            names.check_scenarios(self.scenarios or [])
        for option, modules in (("--include", self.include), ("--device-plugin", self.plugins)):
            for module in modules:
                names.check_module(option, module.partition(":")[0])
        if self.sharing is not None and set(self.devices) == {"cpu"}:
            raise BadRequest("--share-devices: the ranks on cpu share it anyway: remove the option")

    def check_devices(self, known: Collection[str]) -> None:
        """Refuse unknown devices; raises :class:`BadRequest`."""
        for device in self.named:
            if device not in known:
                raise unknown("device", device, ["auto", *known])
