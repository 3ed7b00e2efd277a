"""Find the kinds of device on this machine, and make their cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from distparity.core import device_kinds
from distparity.core.bad_request import BadRequest
from distparity.core.device_kinds import ANY
from distparity.core.torch_facts import DeviceFacts, Probed, TorchFacts
from distparity.session.cell import Cell
from distparity.session.options import Options
from distparity.worlds.device_pool import Pool
from distparity.worlds.scheduler import Job, Scheduler
from distparity.worlds.world import Answer, Failure, Spec, Task

__all__ = ["BARE", "PROBE_LIMIT", "Found", "patience", "prepare", "search"]

#: Seconds for a probe, in addition to those that the device declares for its start.
PROBE_LIMIT = 120.0
BARE = Spec("", 1, group=False)


@dataclass
class Found:
    """The cells of a run, and why other devices that are installed here are not among them."""

    cells: list[Cell] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


def search(
    scheduler: Scheduler, torch: TorchFacts, options: Options, cell_name: str, found: Found
) -> None:
    """Probe every requested kind, and add to ``found``; raises :class:`BadRequest`."""
    off = device_kinds.autoload_off()
    found.broken += [off] if off else []
    wanted = list(torch.devices) if "auto" in options.devices else []
    wanted += [device for device in options.named if device not in wanted]
    nodes = list(scheduler.fleet.takers)
    handles = {
        device: [scheduler.start(_probe(device, node)) for node in nodes] for device in wanted
    }
    for device, every in handles.items():
        answers: list[Probed] = [scheduler.result(handle) for handle in every]
        probed, counts = _of_all(device, scheduler.fleet.names(nodes), answers)
        if device in options.named or not _have(found, probed):
            for cell in _cells(device, probed, options, cell_name, found):
                found.cells.append(cell)
                prepare(scheduler, cell, dict(zip(nodes, counts, strict=True)))


def patience(device: str, bare: Spec = BARE) -> Job[float]:
    """The seconds that a device asks for in addition, before anything of it is loaded."""
    done: Answer | Failure = yield Task(bare, "patience", {"device": device}, limit=PROBE_LIMIT)
    return 0.0 if isinstance(done, Failure) else float(done.results[0]["start_seconds"])


def _of_all(device: str, names: Sequence[str], every: list[Probed]) -> tuple[Probed, list[int]]:
    """What was found on all nodes together, and how many devices each has.

    Raises :class:`BadRequest` if not all have the same kind.
    """
    first = every[0]
    if len(every) == 1 or first.found is None:
        return first, [0 if one.found is None else one.found.count for one in every]
    for name, one in zip(names, every, strict=True):
        kinds = [
            # One CPU computes like another, or the case shows it.
            None if found is None else (found.type, found.name if device != "cpu" else "")
            for found in (first.found, one.found)
        ]
        if kinds[0] != kinds[1]:
            has = one.absent if one.found is None else f"{name} has {one.found.name}"
            raise BadRequest(
                f"{device}: {names[0]} has {first.found.name}, and the nodes must have the same: {has}"
            )
    facts = [one.found for one in every if one.found is not None]
    most = [one.most_ranks for one in facts if one.most_ranks is not None]
    total = replace(first.found, most_ranks=sum(most) if len(most) == len(facts) else None)
    return replace(first, found=total), [one.count for one in facts]


def _probe(device: str, node: int = 0) -> Job[Probed]:
    bare = replace(BARE, nodes=(node,)) if node else BARE
    limit = PROBE_LIMIT + (yield from patience(device, bare))
    done: Answer | Failure
    done = yield Task(bare, "probe", {"device": device}, limit=limit, last=True)
    if isinstance(done, Failure):
        slow = "; declare start_seconds if it takes that long to start" * (done.kind == "timeout")
        absent = f"the probe of {device} failed: {done.message}{slow}"
        return Probed(absent=absent, broken=done.detail)
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
            how = options.arithmetic, options.marks, options.axes
            yield Cell(cell_name, device, facts, way, *how)
    elif probed.broken:
        if named:
            raise BadRequest(probed.absent, probed.broken)
        found.broken.append(probed.absent)
    elif named:
        raise BadRequest(
            f"the device {device!r} was requested but is not available: {probed.absent}"
        )
    elif probed.installed and not (device == ANY and found.broken):
        # The last one may be any of the others under another name.
        why = probed.absent.removeprefix(f"{device}: ")
        found.broken.append(f"{device}: installed ({probed.installed}), but not usable: {why}")


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


def prepare(scheduler: Scheduler, cell: Cell, counts: Mapping[int, int] | None = None) -> None:
    """Tell the scheduler how long the cell's worlds take to start, and which devices they share.

    ``counts`` is how many devices each node has.
    """
    facts = cell.found
    scheduler.start_seconds[cell.device] = facts.start_seconds
    most = facts.most_ranks
    counts = counts or {0: facts.count}
    if cell.sharing or (most is not None and most <= sum(counts.values())):
        # A node that joins later has none, because nobody has probed it.
        count = facts.count if len(counts) == 1 else 0
        how = (facts.exclusive, cell.sharing, counts, facts.groups)
        scheduler.pools[cell.device] = Pool(count, *how)
