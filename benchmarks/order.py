"""What a case costs on the asynchronous device, beside the synchronous one, without and with its checker.

Both are accelerators in host memory whose arithmetic is the CPU's, so that the difference is what
streams, queues and the checker cost. Milliseconds of CPU time of all ranks for the training, in warm
worlds; the three take turns, and a ratio is that of neighbours in time.
"""

from __future__ import annotations

import os
import statistics

from _cases import STRATEGIES
from _measure import Series, Table, arguments, publish
from world_sizes import Bench, measure

from distparity.core.case import Case

RANKS = 2
#: By column: the device, and its variables.
SIDES = {
    "sim": ("sim", {}),
    "asim": ("asim", {"ASIM_CHECK": "0"}),
    "asim, checker": ("asim", {"ASIM_CHECK": "1"}),
}
HEADINGS = ("strategy", *(f"{side}, ms" for side in SIDES), "asim / sim", "with the checker / sim")


def main() -> None:
    parser = arguments(__doc__, repeat=5)
    parser.add_argument("--strategy", nargs="+", default=[*STRATEGIES, "tp"])
    given = parser.parse_args()
    benches = {}
    for side, (_, variables) in SIDES.items():
        os.environ.update(variables)
        benches[side] = Bench()
    table = Table("order", HEADINGS)
    for strategy in given.strategy:
        found = {side: Series() for side in SIDES}
        for _ in range(given.repeat):
            for side, (device, _) in SIDES.items():
                case = Case("multiple_forward", strategy, RANKS, "float32", device)
                (least,) = measure(benches[side], case, 1)["least"].values
                found[side].values.append(least * min(RANKS, os.cpu_count() or 1))
        plain = found["sim"]
        middle = [f"{statistics.median(one.values) * 1000:.3g}" for one in found.values()]
        ratios = [found[side] / plain for side in list(SIDES)[1:]]
        table.add(strategy, *middle, *ratios)
        print(" ".join(table.rows[-1]), flush=True)
    # A launcher that closes ends what it takes for left behind: all but what was there before it.
    for bench in reversed(benches.values()):
        bench.close()
    mode = os.environ.get("ASIM_MODE", "eager")
    table.notes = [
        (
            f"The seed case in float32 on {RANKS} ranks, in mode `{mode}`; median of {given.repeat}, "
            "ratios with (smallest - largest)."
        ),
    ]
    publish(table, given.markdown)


if __name__ == "__main__":
    main()
