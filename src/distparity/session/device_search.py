"""Find the kinds of device on this machine, and make their cells."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from distparity.core.bad_request import BadRequest
from distparity.core.torch_facts import DeviceFacts, Probed, TorchFacts
from distparity.session.cell import Cell
from distparity.session.options import Options
from distparity.worlds.device_pool import Pool
from distparity.worlds.scheduler import Job, Scheduler
from distparity.worlds.world import Answer, Failure, Spec, Task

__all__ = ["Found", "search"]

PROBE_LIMIT = 60.0


@dataclass
class Found:
    """The cells of a run, and the faults of devices that the user did not name."""

    cells: list[Cell] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


def search(
    scheduler: Scheduler, torch: TorchFacts, options: Options, cell_name: str, found: Found
) -> None:
    """Probe every requested kind, and add to ``found``; raises :class:`BadRequest`."""
    wanted = list(torch.devices) if "auto" in options.devices else []
    wanted += [device for device in options.named if device not in wanted]
    handles = {device: scheduler.start(_probe(device)) for device in wanted}
    for device, handle in handles.items():
        probed: Probed = scheduler.result(handle)
        if device in options.named or not _have(found, probed):
            for cell in _cells(device, probed, options, cell_name, found):
                found.cells.append(cell)
                _prepare(scheduler, cell)


def _probe(device: str) -> Job[Probed]:
    task = Task(Spec("", 1, group=False), "probe", {"device": device}, limit=PROBE_LIMIT, last=True)
    done: Answer | Failure = yield task
    if isinstance(done, Failure):
        return Probed(absent=f"the probe of {device} failed: {done.message}", broken=done.detail)
    return Probed.from_json(done.results[0])


def _have(found: Found, probed: Probed) -> bool:
    """Whether ``found`` has this device under another name (``accelerator`` can be any of them)."""
    types = {cell.found.type for cell in found.cells}
    return probed.found is not None and probed.found.type in types


def _cells(
    device: str, probed: Probed, options: Options, cell_name: str, found: Found
) -> Iterator[Cell]:
    """The cell of a kind of device, if the device is usable."""
    named = device in options.named
    if probed.found is not None:
        way = _sharing(device, probed.found, options, found)
        if way is not None:
            facts = probed.found.shared(way) if way else probed.found
            yield Cell(cell_name, device, facts, way, options.arithmetic)
    elif probed.broken:
        if named:
            raise BadRequest(probed.absent, probed.broken)
        found.broken.append(probed.absent)
    elif named:
        raise BadRequest(
            f"the device {device!r} was requested but is not available: {probed.absent}"
        )


def _sharing(device: str, facts: DeviceFacts, options: Options, found: Found) -> str | None:
    """How ranks share this device: "" for not at all, None if the device is left out."""
    wanted = options.sharing
    if wanted is None or device == "cpu":
        return ""
    ways = list(facts.sharing)
    if (ways and wanted == "auto") or wanted in ways:
        return ways[0] if wanted == "auto" else wanted
    known = f"only in these ways: {', '.join(ways)}" if ways else "no way is known"
    refusal = f"{device}: ranks cannot share a device as requested: {known}"
    if device in options.named:
        raise BadRequest(refusal)
    found.broken.append(refusal)
    return None


def _prepare(scheduler: Scheduler, cell: Cell) -> None:
    facts = cell.found
    scheduler.start_seconds[cell.device] = facts.start_seconds
    most = facts.most_ranks
    if cell.sharing or (most is not None and most <= facts.count):
        scheduler.pools[cell.device] = Pool(facts.count, facts.exclusive, cell.sharing)
