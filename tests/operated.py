"""What the tests ask about operations: the checks in which a fault must be seen, and reductions."""

from __future__ import annotations

import torch

from distparity import operations
from distparity.core.refusal import TORCH
from distparity.operations import arithmetic, faults
from distparity.operations.base import Request
from distparity.operations.collectives.base import Exchange
from distparity.operations.judge import Made, Where, judge


def concerned(operation: str, way: str, dtype: str, ranks: int, fault: str) -> list[str]:
    """The names of the checks that must see the fault."""
    request = Request(way, getattr(torch, dtype), ranks, 0)
    found = faults.load()[fault]
    return [
        check.name
        for made in operations.load()[operation].checks(request)
        if isinstance(check := getattr(made, "inner", made), Exchange)
        and isinstance(found, faults.OfCollectives)
        and any(found.concerns(check, len(check.team(rank))) for rank in range(ranks))
        and len(check.team(ranks - 1)) > 1
    ]


def reduced(
    op: str, dtype: str, terms: list[list[float]]
) -> tuple[list[float], list[float] | None]:
    """The value of a reduction, and what it may be off by."""
    exact = arithmetic.reduce(
        op, [torch.tensor(term, dtype=getattr(torch, dtype)) for term in terms]
    )
    allowed = None if exact.allowed is None else exact.allowed.tolist()
    return exact.value.tolist(), allowed


def all_refused(refuses: dict[str, str]) -> tuple[list[str], list[str]]:
    """The checks refused and diverged of an all-reduce in which every sum raises."""
    operation = operations.load()["all_reduce"]
    checks = [
        check
        for check in operation.checks(Request("tensor", torch.float32, 2, 0))
        if check.name == "SUM"
    ]
    record = Made({}, {"SUM": "RuntimeError: no such reduction"}, {"SUM": TORCH})
    found = judge(operation, checks, [record] * 2, Where((2, 13), "sim", "float32", (), refuses))
    return list(found.refused), list(found.conclude().diverged)
