"""What one more case costs: the seed case here, and under PyTorch's own harnesses.

The seed case is the scenario ``multiple_forward`` under FSDP with 2 ranks, on the CPU with gloo. The
cost of a further case is (wall time of N cases - wall time of 1) / (N - 1), of whole processes.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from _cases import SEED_CASE, VARIABLE, names
from _measure import HERE, Series, Table, arguments, environment, publish, rounds, wall


@dataclass(frozen=True)
class Harness:
    title: str
    command: Sequence[str]
    #: N: enough of them to stand out from the noise of one start.
    cases: int

    def seconds(self, count: int) -> float:
        return wall(self.command, environment(**{VARIABLE: names([SEED_CASE] * count)}))


def harnesses(few: int, many: int) -> list[Harness]:
    return [
        Harness("distparity", [str(HERE / "_under_distparity.py")], many),
        Harness(
            "distparity, one oracle per case", [str(HERE / "_under_distparity.py"), "--alone"], many
        ),
        Harness("MultiProcessTestCase", [str(HERE / "_under_multiprocess.py")], few),
        Harness("MultiProcContinuousTest", [str(HERE / "_under_continuous.py")], many),
        Harness("the floor: training alone, 1 process", [str(HERE / "_under_floor.py")], many),
    ]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--few", type=int, default=4, help="N under MultiProcessTestCase")
    parser.add_argument("--many", type=int, default=121, help="N elsewhere")
    given = parser.parse_args()
    every = harnesses(given.few, given.many)
    for harness in every:
        # Bytecode written and files read once, so that the first round is like the others.
        harness.seconds(1)
    plan = {
        f"{harness.title}, {count}": functools.partial(harness.seconds, count)
        for harness in every
        for count in (1, harness.cases)
    }
    found = rounds(plan, given.repeat)
    cost = {}
    for harness in every:
        one, more = (found[f"{harness.title}, {count}"] for count in (1, harness.cases))
        pairs = zip(one.values, more.values, strict=True)
        cost[harness.title] = Series([(n - a) / (harness.cases - 1) for a, n in pairs])
    table = Table("marginal_cost", ["harness", "N", "one more case, ms", "times distparity's"])
    for harness in every:
        own = cost[harness.title]
        ratio = own / cost["distparity"]
        table.add(harness.title, harness.cases, own.scaled(1000), ratio)
    table.notes = [
        f"Case: {SEED_CASE.id}. Median (smallest - largest) of {given.repeat} alternated rounds.",
        (
            "Every harness uses the same code to train and to judge, in its own ranks. The times "
            "include the verdict. In the first row the cases share one oracle, as strategies of one "
            "scenario do; so do those of MultiProcContinuousTest."
        ),
    ]
    publish(table, given.markdown)


if __name__ == "__main__":
    main()
