"""The tasks of an operation's case, in a rank and in the judge's process."""

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
from distparity.operations.generated.program import write
from distparity.operations.judge import Made, Where, judge
from distparity.torch_support import origin, private
from distparity.torch_support.version import installed
from distparity.training.trajectory import Tensors, Trajectory

if TYPE_CHECKING:
    from distparity.devices.context import RankContext

__all__ = ["operate", "spell", "weigh"]

Answer = tuple[dict[str, Any], list[bytes]]

#: The number of the task; all ranks of a world have the same tasks, so their numbers are equal.
_NUMBERS = itertools.count()
#: The time in which the other ranks must raise too.
_PATIENCE = datetime.timedelta(seconds=2)


class OutOfStepError(Exception):
    """A check raised in some of its ranks but not in others."""


def operate(context: RankContext, args: dict[str, Any], blobs: list[bytes]) -> Answer:
    """Run every check of an operation, with a fault if one is named.

    Answers with each check's results on this rank. A check that raised has its exception instead, and
    the next checks run. Raises :class:`OutOfStepError` if a check raised only in some of its ranks,
    which are then out of step.
    """
    case = Operating.from_json(args)
    operation, request = _asked(case)
    fault = None if case.mutant is None else faults.load()[case.mutant]
    site = Site(context, fault)
    context.kind.forget_peak()
    made: Tensors = {}
    raised: dict[str, str] = {}
    whose: dict[str, str] = {}
    traces: dict[str, str] = {}
    number = next(_NUMBERS)
    for check in _checks(operation, request, case):
        try:
            parts = check.run(site)
        except Exception as error:
            traces[check.name] = traceback.format_exc()
            raised[check.name] = origin.words(error)
            whose[check.name] = origin.of(error, context.kind.packages)
            if not _all_raised(site, check, number):
                raise OutOfStepError(
                    f"{check.name}: raised {raised[check.name]}; other ranks did not"
                ) from error
        else:
            made.update({f"{check.name}: {name}": tensor for name, tensor in parts.items()})
    context.kind.synchronize()
    answer: dict[str, Any] = {"raised": raised, "whose": whose, "traces": traces}
    answer |= {"peak_memory": context.kind.peak_memory()}
    return answer, [Trajectory(made).to_bytes()]


def _all_raised(site: Site, check: Check, number: int) -> bool:
    """Whether all ranks of a check raised.

    The ranks exchange this through the store, because a collective may just have failed.
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
    """Compare the ranks' results (``blobs``, ``raised``, in rank order) with plain arithmetic."""
    asked = Weighing.from_json(args)
    operation, request = _asked(asked.case)
    made = [
        Made(Trajectory.from_bytes(blob).initial, raised, whose)
        for blob, raised, whose in zip(blobs, asked.raised, asked.whose, strict=True)
    ]
    declared = asked.no_reductions, asked.refuses
    where = Where(installed(), asked.device_type, asked.case.dtype, *declared)
    found = judge(operation, _checks(operation, request, asked.case), made, where)
    return found.conclude().to_json(), []


def spell(context: RankContext, args: dict[str, Any], blobs: list[bytes]) -> Answer:
    """Write the only check that is asked for as a program that needs torch alone; none for some checks."""
    case = Operating.from_json(args)
    operation, request = _asked(case)
    checks = _checks(operation, request, case)
    return {"program": write(checks[0]) if len(checks) == 1 else None}, []


def _checks(operation: Operation, request: Request, case: Operating) -> list[Check]:
    every = operation.checks(request)
    return [check for check in every if not case.checks or check.name in case.checks]


def _asked(case: Operating) -> tuple[Operation, Request]:
    dtype = getattr(torch, case.dtype)
    request = Request(case.way, dtype, case.ranks, case.seed, case.largest)
    return operations.load()[case.operation], request
