"""Judge an operation: compare every rank's results with plain arithmetic."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import torch

from distparity.core.judgement import Judgement
from distparity.core.refusal import TORCH, fact_of
from distparity.operations.arithmetic import wide
from distparity.operations.base import REFUSED, Check, Exact, Operation
from distparity.verification.findings import Divergence, Quantity, Verdict, size_of

__all__ = ["Findings", "Made", "Where", "judge"]


#: The prefix of messages in torch's log: the rank, the time and the source line.
_STAMP = re.compile(r"\[rank\d+\]:\[[^]]*\] ")


@dataclass(frozen=True)
class Where:
    """The facts that decide whether a refusal is a declared one: release, device, dtype."""

    release: tuple[int, int]
    device: str
    dtype: str
    #: The device's declarations; see :class:`distparity.devices.Device`.
    no_reductions: Collection[str] = ()
    refuses: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Made:
    """A rank's results: tensors by check and name, and the checks that raised."""

    tensors: Mapping[str, torch.Tensor | None]
    #: By check: type and first line of the exception.
    raised: dict[str, str]
    #: By check: whose code raised it (:mod:`distparity.core.refusal`).
    whose: dict[str, str] = field(default_factory=dict)


@dataclass
class Findings(Verdict):
    """The verdict on an operation's checks."""

    checks: int = 0
    #: Checks that torch or the backend refused, with the declared fact and the refusal.
    refused: dict[str, str] = field(default_factory=dict)
    #: What ranks say of checks that they judged themselves, by check.
    told: dict[str, str] = field(default_factory=dict)
    #: The same in numbers, of the first of them: the largest right size, and bytes per second.
    largest: int | None = None
    bandwidth: float | None = None

    def conclude(self) -> Judgement:
        """The verdict as a record."""
        return replace(
            super().conclude(),
            checks=self.checks,
            refused=dict(self.refused),
            told=dict(self.told),
            largest=self.largest,
            bandwidth=self.bandwidth,
        )

    def samples(self) -> list[Divergence]:
        """The first divergence of each check, and of a check over sizes each rank's of each look."""
        first: dict[str, Divergence] = {}
        for one in self.divergences:
            check = one.quantity.kind
            first.setdefault(f"{one.quantity}, {one.rank}" if check in self.told else check, one)
        return list(first.values())


def judge(
    operation: Operation, checks: Collection[Check], records: list[Made], where: Where
) -> Findings:
    """Compare every rank's results with the expected results of each check."""
    found = Findings()
    for check in checks:
        if not check.is_defined():
            continue
        found.checks += 1
        raised = {
            r: rec.raised[check.name] for r, rec in enumerate(records) if check.name in rec.raised
        }
        torchs = all(records[rank].whose.get(check.name) == TORCH for rank in raised)
        known = torchs or operation.generated
        fact = _refusal(operation, check, raised, where) if known else None
        if fact is not None:
            found.refused[check.name] = fact
            continue
        for rank, text in raised.items():
            found.note(Divergence(Quantity(None, check.name, "the call"), rank, f"raised {text}"))
        if raised:
            continue
        every = [_of(check, record) for record in records]
        judged = check.judged(every)
        if judged is None:
            _results(found, check, every)
            continue
        for one in judged.wrong:
            found.note(one)
        if not found.told:
            # The first check has every size.
            found.largest, found.bandwidth = judged.right, judged.bandwidth
        found.told[check.name] = judged.told
    return found


def _refusal(
    operation: Operation, check: Check, raised: dict[int, str], where: Where
) -> str | None:
    """The declared limit that explains why a check raised, if all ranks that raised hit the same."""
    if not raised:
        return None
    if operation.generated:
        # Nobody promised that it works. Ranks say so only of what torch raised, on every rank.
        says = next(iter(raised.values())).partition(f"{REFUSED}: ")[2]
        return f"torch {torch.__version__} says {says}" if says else None
    place = (where.release, where.device, where.dtype, list(check.features), where.no_reductions)
    known = [(one.answer, one.fact) for one in operation.limits if one.applies(*place)]
    for answer in [*known, *where.refuses.items()]:
        facts = [fact_of([answer], text, TORCH) for text in raised.values()]
        if all(facts):
            says = _STAMP.sub("", next(iter(raised.values())))
            return f"{facts[0]}: torch {torch.__version__} says {says}"
    return None


def _of(check: Check, record: Made) -> dict[str, torch.Tensor | None]:
    """A rank's results of one check."""
    prefix = f"{check.name}: "
    return {k.removeprefix(prefix): v for k, v in record.tensors.items() if k.startswith(prefix)}


def _results(found: Findings, check: Check, every: list[dict[str, torch.Tensor | None]]) -> None:
    """Compare all ranks' results of a check in which no rank raised."""
    refused = [check.refused_part(own) for own in every]
    first = refused[0]
    for rank, other in enumerate(refused):
        if (other is None) is not (first is None):
            part, says = other or first or ("", "")
            where = Quantity(None, check.name, part)
            found.note(Divergence(where, rank, f"refused on some ranks only: {says}"))
            return
    if first is not None:
        found.checks += 1
        found.refused[f"{check.name}: {first[0]}"] = first[1]
    for rank, own in enumerate(every):
        _one(found, check, rank, own, None if first is None else first[0])


def _one(
    found: Findings,
    check: Check,
    rank: int,
    own: Mapping[str, torch.Tensor | None],
    without: str | None,
) -> None:
    """Compare one rank's results; without those whose names begin with ``without``, unless None."""
    expected = check.expected(rank)
    if without is not None:
        expected = {name: exact for name, exact in expected.items() if not name.startswith(without)}
        own = {name: tensor for name, tensor in own.items() if not name.startswith(without)}
    for name in sorted(own.keys() - expected.keys()):
        found.note(Divergence(Quantity(None, check.name, name), rank, "unexpected result"))
    for name, exact in expected.items():
        quantity = Quantity(None, check.name, name)
        wrong = _unlike(exact, own.get(name))
        if wrong is not None:
            found.note(Divergence(quantity, rank, wrong))
            continue
        tensor = own[name]
        assert tensor is not None
        _compare(found, quantity, rank, exact, tensor)


def _unlike(exact: Exact, found: torch.Tensor | None) -> str | None:
    if found is None:
        return "missing"
    if found.shape != exact.value.shape:
        return f"shape {list(found.shape)}, expected {list(exact.value.shape)}"
    if found.dtype != exact.dtype:
        return f"dtype {found.dtype}, expected {exact.dtype}"
    return None


def _compare(
    found: Findings, quantity: Quantity, rank: int, exact: Exact, tensor: torch.Tensor
) -> None:
    """Note the worst element of a tensor if its error is larger than allowed."""
    if not tensor.numel():
        return
    if tensor.dtype is torch.bool:
        tensor, value = tensor.long(), exact.value.long()
    else:
        tensor, value = wide(tensor), exact.value
    ratios = _ratios(value, tensor, exact)
    at = int(ratios.flatten().argmax())
    ratio = float(ratios.flatten()[at])
    found.ratio = max(found.ratio, ratio)
    scale = float(value.double().abs().max())
    error = (tensor - value).double().abs()
    if scale and error.isfinite().all():
        found.error = max(found.error, float(error.max()) / scale)
    if ratio > 1:
        index = tuple(int(i) for i in torch.unravel_index(torch.tensor(at), tensor.shape))
        off, places = float(error.flatten()[at]), int((ratios > 1).sum())
        bound = "nothing" if exact.allowed is None else f"{float(_spread(exact, value)[at]):.3g}"
        what = f"off by {off:.3g}, allowed {bound}, in {places} of {tensor.numel()} elements, worst"
        values = float(value.flatten()[at]), float(tensor.flatten()[at])
        size = size_of(value, tensor)
        found.note(Divergence(quantity, rank, what, ratio, index, *values, size))


def _ratios(value: torch.Tensor, tensor: torch.Tensor, exact: Exact) -> torch.Tensor:
    """Error over allowed error of every element; infinite for any error where none is allowed."""
    error = (tensor - value).double().abs()
    if exact.allowed is None:
        same = (tensor == value) | (tensor != tensor) & (value != value)  # noqa: PLR0124  NaN
        return torch.where(same, 0.0, math.inf)
    allowed = _spread(exact, value).reshape(value.shape)
    # Where the exact result is NaN, NaN is right; an infinity less itself is none.
    right = (tensor == value) | tensor.isnan() & value.isnan()
    ratios = torch.where(right, torch.zeros_like(error), error / allowed)
    return torch.where(ratios.isfinite(), ratios, torch.full_like(ratios, math.inf))


def _spread(exact: Exact, value: torch.Tensor) -> torch.Tensor:
    assert exact.allowed is not None
    return exact.allowed.double().expand(value.shape).flatten()
