"""What a rank, and what the judge's process, does for an operation's case."""

from __future__ import annotations

import datetime
import itertools
import traceback
from typing import TYPE_CHECKING, Any

import torch

from distparity import operations
from distparity.core.assignment import Operating, Weighing
from distparity.operations import faults
from distparity.operations.base import Check, Operation, Request, Site
from distparity.operations.judge import Made, Where, judge
from distparity.torch_support import origin, private
from distparity.torch_support.version import installed
from distparity.training.trajectory import Tensors, Trajectory

if TYPE_CHECKING:
    from distparity.devices.context import RankContext

__all__ = ["operate", "weigh"]

Answer = tuple[dict[str, Any], list[bytes]]

#: All ranks of a world have the same tasks, and so the same numbers for them.
_NUMBERS = itertools.count()
#: How long the others may take to raise as well.
_PATIENCE = datetime.timedelta(seconds=2)


class OutOfStepError(Exception):
    """A check raised in some of the ranks that were in it together, and not in others."""


def operate(context: RankContext, args: dict[str, Any], blobs: list[bytes]) -> Answer:
    """Do every check of an operation, with a fault in it where one is named.

    Answers with what each check made here; one that raised has its exception instead, and the
    others go on. One that raised in some ranks only has left them out of step: that is raised.
    """
    case = Operating.from_json(args)
    operation, request = _asked(case)
    fault = None if case.mutant is None else faults.load()[case.mutant]
    site = Site(context, fault)
    context.kind.forget_peak()
    made: Tensors = {}
    raised: dict[str, str] = {}
    whose: dict[str, str] = {}
    number = next(_NUMBERS)
    for check in operation.checks(request):
        try:
            parts = check.run(site)
        except Exception as error:
            traceback.print_exc()
            lines = str(error).strip().splitlines() or [""]
            raised[check.name] = f"{type(error).__name__}: {lines[0]}"
            whose[check.name] = origin.of(error, context.kind.packages)
            if not _all_raised(site, check, number):
                raise OutOfStepError(
                    f"{check.name}: raised {raised[check.name]}; other ranks did not"
                ) from error
        else:
            made.update({f"{check.name}: {name}": tensor for name, tensor in parts.items()})
    context.kind.synchronize()
    answer = {"raised": raised, "whose": whose, "peak_memory": context.kind.peak_memory()}
    return answer, [Trajectory(made).to_bytes()]


def _all_raised(site: Site, check: Check, number: int) -> bool:
    """Whether all ranks that are in a check together raised; they ask one another.

    By way of the store: a collective is what may just have failed.
    """
    store: Any = private.default_store()
    keys = [f"distparity/{number}/{check.name}/{rank}" for rank in check.partners(site.rank)]
    store.set(f"distparity/{number}/{check.name}/{site.rank}", "raised")
    try:
        store.wait(keys, _PATIENCE)
    except RuntimeError:
        return False
    return True


def weigh(context: RankContext, args: dict[str, Any], blobs: list[bytes]) -> Answer:
    """Hold what the ranks made (``blobs``, ``raised``, in rank order) against plain arithmetic."""
    asked = Weighing.from_json(args)
    operation, request = _asked(asked.case)
    made = [
        Made(Trajectory.from_bytes(blob).initial, raised, whose)
        for blob, raised, whose in zip(blobs, asked.raised, asked.whose, strict=True)
    ]
    declared = asked.no_reductions, asked.refuses
    where = Where(installed(), asked.device_type, asked.case.dtype, *declared)
    found = judge(operation, list(operation.checks(request)), made, where)
    return found.conclude().to_json(), []


def _asked(case: Operating) -> tuple[Operation, Request]:
    request = Request(case.way, getattr(torch, case.dtype), case.ranks, case.seed)
    return operations.load()[case.operation], request
