"""A campaign of faults that nobody wrote: drawn by a seed, injected for real, invariants checked.

A round is one fault: what happens (a process is killed, stopped, slow, out of room; a descriptor is
closed; garbage or a forged frame is sent), at which moment of a case, to a rank or to the process
that forks ranks. Rounds share runs, beside cases that must keep their results. A violation prints
the command that replays it alone.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path[:0] = [
    str(Path(__file__).parents[1] / "tests"),
    str(Path(__file__).parents[1] / "tests" / "included"),
]

import drawn  # noqa: E402
import faulty_runs as tests  # noqa: E402

from distparity.core.outcome import Outcome, Status  # noqa: E402

#: Faults in one run.
TOGETHER = 10
SIZES = (2, 3)
#: Beyond the limit, until a hang is known; and until a death is, in seconds.
AFTER_LIMIT = 2.0


@dataclass
class Ran:
    """A run in a folder that is gone by now."""

    found: dict[str, Outcome]
    xml: dict[str, str]
    left: list[str]
    code: int
    output: str


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, action="append", help="only the round of this number")
    given = parser.parse_args()
    numbers = given.only or range(given.rounds)
    faults = [f"{given.seed}-{number}" for number in numbers]
    quiet = _run([]).found
    wrong = 0
    for start in range(0, len(faults), TOGETHER):
        here = faults[start : start + TOGETHER]
        complaints = _check(here, quiet)
        for complaint in complaints:
            wrong += 1
            only = " ".join(f"--only {fault.partition('-')[2]}" for fault in here)
            print(
                f"{complaint}\n  replay: python benchmarks/campaign.py --seed {given.seed} {only}"
            )
        print(f"{start + len(here)} of {len(faults)} rounds, {wrong} violations", flush=True)
    return 1 if wrong else 0


def _case(fault: str) -> str:
    size = SIZES[int(fault.rpartition("-")[2]) % len(SIZES)]
    return tests.cases(f"fault-{fault}", sizes=[size])[0]


def _run(faults: Sequence[str]) -> Ran:
    others = tests.cases(*tests.OTHERS, sizes=[2])
    names = [*others[:1], *map(_case, faults), *others[1:]]
    words = [*tests.listed(names), "--include", "drawn", "--worlds", "8", "--world-size", "3"]
    words += ["--case-timeout", str(tests.LIMIT)]
    with tempfile.TemporaryDirectory() as folder:
        suite = tests.Suite(Path(folder) / "run", words, {"CAMPAIGN": ",".join(faults)}).run()
        return Ran(suite.journal(), suite.xml(), suite.leftovers(), suite.code, suite.output)


def _check(faults: Sequence[str], quiet: dict[str, Outcome]) -> list[str]:
    """What is wrong after a run with these faults, in words."""
    ran = _run(faults)
    found = ran.found
    complaints = [f"left: {thing}" for thing in ran.left]
    for fault in faults:
        moment, action, every = drawn.draw(fault)
        outcome = found.get(_case(fault), Outcome(Status.MISSING))
        what = (
            f"{_case(fault)} ({action} at {moment}, {'every rank' if every else 'the last rank'})"
        )
        print(f"  {what}: {outcome.status.value}: {outcome.message[:100]}", flush=True)
        if outcome.status.value not in drawn.ACTIONS[action][1]:
            complaints.append(f"{what} is {outcome.status.value}: {outcome.message}")
        after = float(outcome.facts.get("known_after", 0.0))
        if outcome.status is Status.TIMEOUT and after > tests.LIMIT + AFTER_LIMIT:
            complaints.append(f"{what} was known after {after} s")
    for case, outcome in quiet.items():
        if (outcome.status, outcome.message) != (found[case].status, found[case].message):
            complaints.append(f"{case} is {found[case].status.value}: {found[case].message}")
    if ran.xml != {case: outcome.status.value for case, outcome in found.items()}:
        complaints.append("the XML and the side file disagree")
    if (ran.code != 0) != any(outcome.status.bad for outcome in found.values()):
        complaints.append(f"exit code {ran.code}")
    if "internal error in distparity" in ran.output:
        complaints.append(ran.output[ran.output.index("internal error in distparity") :][:300])
    return complaints


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    raise SystemExit(main())
