"""What a pattern of wrong numbers is called; none is better than a wrong one."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from making import FLOAT32, oracle, right, tolerance

from distparity.training.reference import Oracle
from distparity.training.trajectory import Step, Trajectory
from distparity.verification.diagnosis import diagnose
from distparity.verification.findings import Divergence, Quantity, Verdict
from distparity.verification.verdict import judge

Gradient = Callable[[Oracle, int, int, str], torch.Tensor]


def called(gradient: Gradient | None = None, ranks: int = 4, **parameter: object) -> str | None:
    """The diagnosis where ``gradient`` of the oracle, step, rank and name is what a rank has."""
    exact = oracle(ranks)
    runs = right(exact)
    for rank, run in enumerate(runs):
        for step, name in itertools.product((1, 2), ("weight", "bias")):
            if gradient is not None:
                run.steps[step].gradient[name] = gradient(exact, step, rank, name).float()
    for change in parameter.values():
        change(exact, runs)
    found = judge(tolerance(exact), runs)
    assert not found.passed
    return diagnose(exact, runs, found, torch.float32, FLOAT32)


def mean(*ranks: int) -> Gradient:
    def of(exact: Oracle, step: int, rank: int, name: str) -> torch.Tensor:
        parts = [exact.parts[r].steps[step].gradient[name] for r in ranks]
        return torch.stack(parts).mean(0)

    return of


def whole(exact: Oracle, step: int, rank: int, name: str) -> torch.Tensor:
    return exact.trajectory.steps[step].gradient[name]


def own(exact: Oracle, step: int, rank: int, name: str) -> torch.Tensor:
    """Gathered from shards of one row each, of which every rank has its own gradient."""
    rows = [part.steps[step].gradient[name][number] for number, part in enumerate(exact.parts)]
    return torch.stack(rows)


PATTERNS = {
    "summed": (
        lambda *at: 4 * whole(*at),
        "gradients summed, not averaged: a constant factor of the world size, 4",
    ),
    "averaged twice": (
        lambda *at: whole(*at) / 4,
        "gradients averaged twice: a constant factor of 1/4",
    ),
    "summed in low precision": (
        lambda *at: 4.002 * whole(*at),
        "gradients summed, not averaged: a constant factor of the world size, 4",
    ),
    "scaled": (lambda *at: 1.5 * whole(*at), "gradients off by a constant factor of 1.5"),
    "not reduced": (
        own,
        "local gradients, not reduced at all: every element is one rank's own",
    ),
    "not exchanged, so that replicas differ too": (
        lambda exact, step, rank, name: exact.parts[rank].steps[step].gradient[name],
        "local gradients, not reduced at all: every element is one rank's own",
    ),
    "left out": (
        mean(0, 1, 3),
        "the mean over ranks [0, 1, 3] only: rank 2 left out of the mean",
    ),
    "missing from the sum": (
        lambda exact, step, rank, name: (
            whole(exact, step, rank, name) - exact.parts[2].steps[step].gradient[name] / 4
        ),
        "rank 2's contribution missing from the sum",
    ),
    "in place of another": (
        mean(0, 1, 2, 0),
        "rank 0's contribution in place of rank 3's",
    ),
    "in another place": (
        lambda *at: whole(*at).flip(0),
        "right values in the wrong places: a shard swapped, shifted or padded wrongly",
    ),
    "zero at the end": (
        lambda *at: torch.cat([whole(*at).flatten()[:-1], torch.zeros(1)]).reshape(
            whole(*at).shape
        ),
        "elements lost: zeros in place of values, as in a wrongly padded short shard",
    ),
    "rounded": (
        lambda *at: (whole(*at) * 0.7).bfloat16().double() / 0.7,
        "reduced precision: errors as large as those of rounding to float16 or bfloat16",
    ),
    "nothing that is known": (lambda *at: whole(*at).sin() + 0.125, None),
}


@pytest.mark.parametrize(("gradient", "name"), PATTERNS.values(), ids=list(PATTERNS))
def test_a_gradient_s_pattern(gradient: Gradient, name: str | None) -> None:
    assert called(gradient) == name


def test_a_replica_that_differs() -> None:
    def change(exact: Oracle, runs: list[Trajectory]) -> None:
        runs[2].steps[1].parameter["bias"] = runs[2].steps[1].parameter["bias"] * (1 + 2.0**-23)

    assert (
        called(parameter=change) == "replicas differ: the parameter of rank 2 is not that of rank 0"
    )


def test_another_initial_state() -> None:
    def change(exact: Oracle, runs: list[Trajectory]) -> None:
        runs[1].initial["bias"] = runs[1].initial["bias"] + 1

    assert called(parameter=change) == (
        "the initial state of rank 1 differs from the common initial state"
    )


def test_a_step_that_was_not_made() -> None:
    def change(exact: Oracle, runs: list[Trajectory]) -> None:
        for run in runs:
            run.steps[1].parameter = dict(run.steps[0].parameter)

    assert called(parameter=change) == (
        "stale parameters: elements that the optimizer's step did not move"
    )


def test_a_loss_of_stale_parameters() -> None:
    def change(exact: Oracle, runs: list[Trajectory]) -> None:
        for run in runs:
            run.steps[1].loss = {"loss": run.steps[1].loss["loss"] + 1}

    assert called(parameter=change) == (
        "stale parameters: this step's forward did not compute with what the optimizer left in "
        "the step before"
    )


def test_an_update_that_is_too_large() -> None:
    def change(exact: Oracle, runs: list[Trajectory]) -> None:
        before, after = exact.trajectory.steps[0].parameter, exact.trajectory.steps[1].parameter
        for run in runs:
            run.steps[1].parameter = {
                name: (2 * value - before[name]).float() for name, value in after.items()
            }

    found = called(parameter=change)

    # Of plain SGD, along the gradient is along the update.
    assert found == "optimizer state lost: the update is along this step's gradient alone"


# -- numbers made for one hypothesis ------------------------------------------------------------------

DOUBLE = torch.float64
#: What two equal gradients may differ by, of terms of size one.
EQUAL = 2.0**-17


def doubles(values: object) -> torch.Tensor:
    return torch.tensor(values, dtype=DOUBLE)


def judged(*quantities: tuple[int | None, str, str], what: str = "off by 1") -> Verdict:
    verdict = Verdict()
    for place in quantities:
        verdict.note(Divergence(Quantity(*place), 0, what, 2.0, (0,), 1.0, 2.0))
    return verdict


def gradients(
    parts: list[dict[str, object]], found: dict[str, object], *wrong: str, ranks: int | None = None
) -> str | None:
    """The diagnosis of one step, where every rank found this in place of the mean of the parts."""
    looks = [
        Trajectory(steps=[Step(gradient={n: doubles(value) for n, value in part.items()})])
        for part in parts
    ]
    mean = {
        name: sum(look.steps[0].gradient.get(name, 0 * doubles(like)) for look in looks)
        / len(looks)
        for name, like in parts[0].items()
    }
    mine = {**mean, **{name: doubles(value) for name, value in found.items()}}
    runs = [Trajectory(steps=[Step(gradient=mine)]) for _ in range(ranks or len(parts))]
    verdict = judged(*((0, "gradient", name) for name in wrong or found))
    exact = Oracle(Trajectory(steps=[Step(gradient=mean)]), looks)
    return diagnose(exact, runs, verdict, torch.float32, FLOAT32)


UNEVEN = "only parameters whose dim 0 is not divisible by the world size are wrong"
LOST = "elements lost: zeros in place of values, as in a wrongly padded short shard"
LOCAL = "local gradients, not reduced at all: every element is one rank's own"
REDUCED = "reduced precision: errors as large as those of rounding to {}"
PLACES = "right values in the wrong places: a shard swapped, shifted or padded wrongly"
#: Of four elements, two of them odd: a parameter of 2 rows, one of 3, and a scalar, of two ranks.
SHAPES = [
    {"even": [1.0, 2.0], "odd": [1.0, 2.0, 4.0], "one": 3.0},
    {"even": [3.0, -1.0], "odd": [0.5, 1.0, -2.0], "one": 5.0},
]
ODD = [0.9, 1.1, 1.4]
#: Four elements of two ranks, whose terms are as large as they are.
FOUR = [{"x": [1.0, 2.0, 4.0, 8.0]}, {"x": [1.0, 2.0, 4.0, 8.0]}]
#: Errors of different signs, in units of an element's size.
SIGNS = doubles([1.0, -1.0, -1.0, 1.0])


def off(*by: float) -> dict[str, object]:
    """The four elements, each off by so many times its size."""
    right = doubles(FOUR[0]["x"])
    return {"x": (right + right * SIGNS * doubles(by)).tolist()}


def apart(*elements: float) -> list[dict[str, object]]:
    """Two parts whose mean is one in all these elements, and which differ."""
    return [{"x": [1 + one for one in elements]}, {"x": [1 - one for one in elements]}]


U = 2.0**-8
#: What the four elements may differ by and be equal, and a scale that no rounding explains any more.
FOUR_EQUAL, CLEARLY = 8 * EQUAL, 2.0**-15
NUMBERS = {
    "uneven ones are wrong": (SHAPES, {"odd": ODD, "one": 2.5}, UNEVEN),
    "not all uneven ones are wrong": (SHAPES, {"odd": ODD}, None),
    "an even one is wrong as well": (SHAPES, {"odd": ODD, "one": 2.5, "even": [1.0, 2.0]}, None),
    "all are uneven": ([{"one": 3.0}, {"one": 5.0}], {"one": 2.75}, None),
    "one element lost per rank": (FOUR, {"x": [0.0, 2.0, 0.0, 8.0]}, LOST),
    "more than one lost per rank": (FOUR, {"x": [0.0, 0.0, 0.0, 8.0]}, None),
    "all lost, one per rank": ([{"x": [1.0, 2.0]}] * 2, {"x": [0.0, 0.0]}, LOST),
    "all lost": (FOUR, {"x": [0.0] * 4}, "gradients off by a constant factor of 0"),
    "an element that is not zero": (FOUR, {"x": [1.0, 2.0, 3.0, 8.0]}, None),
    "one element lost per rank, and one equal": (
        FOUR, {"x": [0.0, 2.0 + FOUR_EQUAL, 0.0, 8.0]}, LOST
    ),
    "nothing that differs clearly": (FOUR, off(*[EQUAL / 8] * 4), None),
    "all that is equal": (FOUR, {"x": [1.0 + FOUR_EQUAL, 2.0, 4.0, 8.0]}, None),
    "as bfloat16 rounds": (FOUR, off(U, U, U, U), REDUCED.format("bfloat16")),
    "as bfloat16 rounds at most": (FOUR, off(1.5 * U, U, U, U), REDUCED.format("bfloat16")),
    "beyond what bfloat16 rounds": (FOUR, off(1.6 * U, U, U, U), None),
    "as float16 rounds": (FOUR, off(*[U / 8] * 4), REDUCED.format("float16")),
    "as float16 rounds at most": (FOUR, off(*[1.5 * U / 8] * 4), REDUCED.format("float16")),
    "beyond what float16 rounds": (FOUR, off(*[3.1 * U / 8] * 4), REDUCED.format("bfloat16")),
    "as either rounds": (FOUR, off(*[1.6 * U / 8] * 4), REDUCED.format("float16 or bfloat16")),
    "as either rounds at most": (FOUR, off(*[3 * U / 8] * 4), REDUCED.format("float16 or bfloat16")),
    "as either rounds, and float16 holds": (
        FOUR,
        off(*[2 * U / 8] * 4),
        REDUCED.format("float16"),
    ),
    "as either rounds, and bfloat16 holds": (
        [off(*[0.3 * U] * 4)] * 2,
        {"x": [1.0, 2.0, 4.0, 8.0]},
        REDUCED.format("bfloat16"),
    ),
    "rounded in one element alone": (FOUR, off(0, U, 0, 0), None),
    "hardly rounded but in one": (FOUR, off(U, U / 32, U / 32, U / 32), None),
    "less than that but in one": (FOUR, off(U, *[U / 32.5] * 3), None),
    "more than that but in one": (FOUR, off(U, *[U / 31] * 3), REDUCED.format("bfloat16")),
    "rounded, and a number where none is": (
        [{"x": [1.0, 2.0, 4.0, 0.0]}, {"x": [1.0, 2.0, 4.0, 0.0]}],
        {"x": [1.0 + U, 2 - 2 * U, 4 - 4 * U, 1e-4]},
        None,
    ),
    "rounded, of terms that cancel": (
        [{"x": [65.0, 2.0, 4.0]}, {"x": [-63.0, 2.0, 4.0]}],
        {"x": [1 + 64 * U, 2 - 2 * U, 4 - 4 * U]},
        REDUCED.format("bfloat16"),
    ),
    "one element is a rank's own": (apart(0.25, 0.5, 1.0), {"x": [1.25, 1.0, 1.0]}, LOCAL),
    "one element is a rank's own, and one equal": (
        apart(0.25, 0.5, 1.0), {"x": [1.25, 1.0 + EQUAL, 1.0]}, LOCAL
    ),
    "one element equals a rank's own": (
        apart(0.25, 0.5, 1.0), {"x": [1.25 + EQUAL, 1.0, 1.0]}, LOCAL
    ),
    "all elements are rank 0's": (
        apart(0.25, 0.5, 1.0),
        {"x": [1.25, 1.5, 2.0]},
        "the mean over ranks [0] only: rank 1 left out of the mean",
    ),
    "all elements equal rank 0's": (
        apart(0.25, 0.5, 1.0),
        {"x": [1.25 + EQUAL, 1.5, 2.0]},
        "the mean over ranks [0] only: rank 1 left out of the mean",
    ),
    "all elements are rank 0's, which has the right ones in other places": (
        [{"x": [2.0, 1.0, 4.0]}, {"x": [0.0, 3.0, 4.0]}],
        {"x": [2.0, 1.0, 4.0]},
        "the mean over ranks [0] only: rank 1 left out of the mean",
    ),
    "left out, where another does not use it": (
        [{"x": [1.0, 2.0]}, {"x": [3.0, -1.0]}, {}],
        {"x": [0.5, 1.0]},
        "the mean over ranks [0, 2] only: rank 1 left out of the mean",
    ),
    "rank 1's contribution is lost": (
        apart(0.25, 0.5, 3.0),
        {"x": [0.625, 0.75, 2.0]},
        "rank 1's contribution missing from the sum",
    ),
    "sorted": (apart(0.25, 0.5, 1.0), {"x": [1.0, 1.0, 1.0]}, None),
    "shifted": (FOUR, {"x": [8.0, 1.0, 2.0, 4.0]}, PLACES),
    "shifted, and equal": (FOUR, {"x": [8.0, 1.0 + FOUR_EQUAL, 2.0, 4.0]}, PLACES),
    "doubled in one element": (FOUR, {"x": [1.0, 4.0, 4.0, 8.0]}, None),
    "scaled in its one element": ([{"x": [1.0]}, {"x": [3.0]}], {"x": [3.5]}, None),
    "scaled by the world size": (
        FOUR,
        {"x": [2.0, 4.0, 8.0, 16.0]},
        "gradients summed, not averaged: a constant factor of the world size, 2",
    ),
    "two elements scaled by the world size": (
        [{"x": [1.0, 2.0]}] * 2, {"x": [2.0, 4.0]},
        "gradients summed, not averaged: a constant factor of the world size, 2",
    ),
    "one element and zeros scaled": ([{"x": [3.0, 0.0, 0.0]}] * 2, {"x": [6.0, 0.0, 0.0]}, None),
    "one element and one that is too small scaled": (
        [{"x": [1.0, EQUAL]}] * 2, {"x": [2.0, 2 * EQUAL]}, None
    ),
    "scaled by the world size, of terms that cancel": (
        apart(1000.0, 1000.0, 1000.0), {"x": [2.004, 1.996, 2.0]},
        "gradients summed, not averaged: a constant factor of the world size, 2",
    ),
    "halved, but for one element": (
        FOUR, {"x": [0.5, 1.0, 2.0 + 1.5 * FOUR_EQUAL, 4.0]}, None
    ),
    "scaled by what is clear": (
        FOUR, {"x": [n * (1 + CLEARLY) for n in (1, 2, 4, 8)]},
        "gradients off by a constant factor of 1.00003",
    ),
    "scaled by less": (
        FOUR, {"x": [n * (1 + 0.9 * CLEARLY) for n in (1, 2, 4, 8)]}, REDUCED.format("float16")
    ),
    "scaled by nearly the world size": (
        FOUR,
        {"x": [2.01, 4.02, 8.04, 16.08]},
        "gradients off by a constant factor of 2.01",
    ),
    "scaled by nearly one over it": (
        FOUR,
        {"x": [0.505, 1.01, 2.02, 4.04]},
        "gradients off by a constant factor of 0.505",
    ),
    "of the other sign": (
        FOUR,
        {"x": [-1.0, -2.0, -4.0, -8.0]},
        "gradients off by a constant factor of -1",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("parts", "found", "name"), NUMBERS.values(), ids=list(NUMBERS))
def test_numbers_of_one_step(
    parts: list[dict[str, object]], found: dict[str, object], name: str | None
) -> None:
    assert gradients(parts, found) == name


@pytest.mark.parametrize(
    ("ranks", "of", "name"),
    [
        pytest.param(
            4, (0, 1), "the mean over ranks [0, 1] only: rank 2, 3 left out of the mean", id="two"
        ),
        pytest.param(
            6, (5,), "the mean over ranks [5] only: rank 0, 1, 2, 3, 4 left out of the mean", id="6"
        ),
        pytest.param(7, (5,), None, id="in too large a world to try all"),
    ],
)
def test_a_mean_over_some_ranks(ranks: int, of: tuple[int, ...], name: str | None) -> None:
    parts = [{"x": [1.0 + rank**2, 7.0 - rank**3, 0.5 * 3**rank]} for rank in range(ranks)]
    found = [sum(parts[r]["x"][n] for r in of) / len(of) for n in range(3)]

    assert gradients(parts, {"x": found}) == name


def test_means_over_different_ranks() -> None:
    parts = [{"x": [1.0 + rank**2, 7.0 - rank**3, 0.5 * 3**rank]} for rank in range(4)]
    halves = [(0, 1), (2, 3), (0, 1)]
    found = [sum(parts[r]["x"][n] for r in two) / 2 for n, two in enumerate(halves)]

    assert gradients(parts, {"x": found}) == "the mean over ranks of a part of the world: 2 of 4"


def test_without_the_parts_the_world_size_explains_nothing() -> None:
    """The parts of other numbers of ranks are not what a clipped gradient is made of."""
    found = gradients(FOUR, {"x": [4.0, 8.0, 16.0, 32.0]}, ranks=4)

    assert found == "gradients off by a constant factor of 4"


# -- what a step made of parameters ---------------------------------------------------------------------


def update(
    before: dict[str, object],
    right: dict[str, object],
    found: dict[str, object],
    gradient: dict[str, object],
    step: int = 1,
    kind: str = "parameter",
) -> str | None:
    """The diagnosis where parameters that were ``before`` became ``found`` and not ``right``."""

    def run(after: dict[str, object]) -> Trajectory:
        tensors = [{n: doubles(v) for n, v in one.items()} for one in (before, after, gradient)]
        made = Trajectory(tensors[0], [Step({}, tensors[2], tensors[1])])
        if step:
            made.steps.insert(0, Step({}, tensors[2], tensors[0]))
            # What there was in the beginning says nothing of a later step.
            made.initial = {name: 0 * tensor for name, tensor in tensors[0].items()}
        return made

    verdict = judged((step, kind, "x"))
    return diagnose(Oracle(run(right)), [run(found)], verdict, torch.float32, FLOAT32)


STALE = "stale parameters: elements that the optimizer's step did not move"
ALONE = "optimizer state lost: the update is along this step's gradient alone"
TWICE = "the update is a constant factor of 2 of what it should be"
#: Two updates may differ by 16 roundoffs of 3 and 2; of an error in the first element of twice the
#: update, the best factor leaves two fifths in the second.
STILL = 2.0**-24 * 16 * (3 + 2)
SLACK = STILL * 5 / 2
UPDATES = {
    "none": ([3.0, 3.0], 1, STALE),
    "none, in the first step": ([3.0, 3.0], 0, STALE),
    "none of one element": ([3.0, 2.0], 1, STALE),
    "next to none": ([3.0 + STILL, 3.0], 1, STALE),
    "none of one element, the other next to right": ([3.0, 2.0 + STILL], 1, STALE),
    "twice": ([-1.0, 1.0], 1, TWICE),
    "twice, in the first step": ([-1.0, 1.0], 0, TWICE),
    "along the gradient": ([2.0, 4.0], 1, ALONE),
    "along the gradient, in the first step": ([2.0, 4.0], 0, None),
    "another": ([2.0, 1.0], 1, None),
    "nearly twice": ([-1.0 + 0.95 * SLACK, 1.0], 1, TWICE),
    "not even nearly twice": ([-1.0 + 1.05 * SLACK, 1.0], 1, None),
}


@pytest.mark.parametrize(("found", "step", "name"), UPDATES.values(), ids=list(UPDATES))
def test_an_update(found: list[float], step: int, name: str | None) -> None:
    """From 3 to 1 and to 2, where the gradient is 1 and -1."""
    before, right, gradient = {"x": [3.0, 3.0]}, {"x": [1.0, 2.0]}, {"x": [1.0, -1.0]}

    assert update(before, right, {"x": found}, gradient, step) == name


@pytest.mark.parametrize(
    ("other", "gradient"),
    [
        pytest.param([9.0], {"x": [1.0, -1.0]}, id="without a gradient"),
        pytest.param([[9.0]], {"x": [1.0, -1.0], "y": [1.0]}, id="of another shape"),
        pytest.param(None, {"x": [1.0, -1.0], "y": [1.0]}, id="not recorded"),
    ],
)
def test_a_parameter_that_cannot_be_compared_does_not_matter(
    other: object, gradient: dict[str, object]
) -> None:
    before, right = {"y": [1.0], "x": [3.0, 3.0]}, {"y": [0.5], "x": [1.0, 2.0]}
    found = {"y": other, "x": [-1.0, 1.0]} if other else {"x": [-1.0, 1.0]}

    assert update(before, right, found, gradient) == TWICE


def test_parameters_say_nothing_of_a_buffer() -> None:
    before, right, gradient = {"x": [3.0, 3.0]}, {"x": [1.0, 2.0]}, {"x": [1.0, -1.0]}

    assert update(before, right, before, gradient, kind="buffer") is None


def test_parameters_of_which_none_can_be_compared() -> None:
    assert update({"x": [3.0]}, {"x": [1.0]}, {"x": [3.0]}, {}) is None


def test_parameters_that_should_stand_still() -> None:
    assert (
        update({"x": [3.0, 2.0]}, {"x": [3.0, 2.0]}, {"x": [1.0, 2.0]}, {"x": [0.0, 1.0]}) is None
    )


# -- which divergences are looked at ----------------------------------------------------------------------

WRONG = {"x": [2.0, 4.0, 8.0, 16.0]}
SUMMED = "gradients summed, not averaged: a constant factor of the world size, 2"


def looked(verdict: Verdict, coarsest: float) -> str | None:
    """The diagnosis of gradients that are summed, by what is said of them."""
    mean = {
        "x": doubles(FOUR[0]["x"]),
        "none": None,
        "lacking": doubles([1.0]),
        "shape": doubles([1.0] * 3),
    }
    mine = {
        "x": doubles(WRONG["x"]),
        "none": None,
        "more": doubles([1.0]),
        "shape": doubles([2.0] * 2),
    }
    exact, run, gone = (Trajectory(steps=[Step({}, found)]) for found in (mean, mine, {}))
    return diagnose(
        Oracle(exact, [exact, exact]), [run, gone, run], verdict, torch.float32, coarsest
    )


def both(one: Verdict, other: Verdict) -> Verdict:
    return Verdict(divergences=[*one.divergences, *other.divergences])


GRADIENT = (0, "gradient", "x")
LOOKS = {
    "as it is": (judged(GRADIENT), FLOAT32, SUMMED),
    "in a dtype that is fine enough": (judged(GRADIENT), 2.0**-14, SUMMED),
    "in a dtype that is too coarse": (judged(GRADIENT), 2.0**-13, None),
    "not finite": (judged(GRADIENT, what="not finite"), FLOAT32, None),
    "a loss, and the gradient as well": (judged((0, "loss", "loss"), GRADIENT), FLOAT32, SUMMED),
    "a loss alone": (judged((0, "loss", "loss")), FLOAT32, None),
    "a loss, and a gradient that only the oracle has": (
        judged((0, "loss", "loss"), (0, "gradient", "lacking")), FLOAT32, None
    ),
    "a loss, and a gradient that the oracle lacks": (
        judged((0, "loss", "loss"), (0, "gradient", "more")), FLOAT32, None
    ),
    "a loss, and a gradient of another shape": (
        judged((0, "loss", "loss"), (0, "gradient", "shape")), FLOAT32, None
    ),
    "a buffer": (judged((0, "buffer", "x")), FLOAT32, None),
    "a buffer of integers": (
        judged((0, "buffer", "x"), what="not equal bit for bit: 1, expected 2"), FLOAT32, None
    ),
    "an initial state that cannot be compared": (
        judged((None, "initial", "x"), what="shape [1], expected [2]"), FLOAT32, None
    ),
    "an initial state": (
        judged((None, "initial", "x"), what="not equal bit for bit: 1.0, expected 2.0"), FLOAT32,
        "the initial state of rank 0 differs from the common initial state",
    ),
    "the optimizer's state": (judged((None, "optimizer", "x")), FLOAT32, None),
    "a later step's does not matter": (
        both(judged(GRADIENT), judged((1, "gradient", "x"), what="not finite")), FLOAT32, SUMMED
    ),
    "another kind's does not matter": (
        both(judged(GRADIENT), judged((0, "parameter", "x"), what="not finite")), FLOAT32, SUMMED
    ),
    "one of the same kind does": (
        both(judged(GRADIENT), judged((0, "gradient", "y"), what="not finite")), FLOAT32, None
    ),
    "a replica as well": (
        both(judged(GRADIENT), judged((0, "gradient", "x"), what="another replica")), FLOAT32, SUMMED
    ),
    "replicas alone": (
        judged(GRADIENT, what="another replica"),
        FLOAT32,
        "replicas differ: the gradient of rank 0 is not that of rank 0",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("verdict", "coarsest", "name"), LOOKS.values(), ids=list(LOOKS))
def test_what_is_looked_at(verdict: Verdict, coarsest: float, name: str | None) -> None:
    assert looked(verdict, coarsest) == name
