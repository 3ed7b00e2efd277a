"""A campaign of faults that nobody wrote: drawn by a seed, injected for real, invariants checked.

A round is one fault: what happens (a process is killed, stopped, slow, out of room; a descriptor is
closed; garbage or a forged frame is sent), at which moment (a case starts, trains or answers, its
ranks are idle, the run ends), to a rank, to the fork server, to the judge or to the controller.
Rounds share runs, beside cases that must keep their results; a fault that concerns all cases has a run
of its own. A violation prints the command that replays it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path[:0] = [
    str(Path(__file__).parents[1] / "tests"),
    str(Path(__file__).parents[1] / "tests" / "included"),
]

import drawn  # noqa: E402
import faulty_runs as tests  # noqa: E402

from distparity.core.outcome import Outcome, Status  # noqa: E402

#: Faults in one run, and their world sizes in turn. Idle ranks are those of a size of their own.
TOGETHER = 40
SIZES = (2, 3)
IDLE_SIZE = 4
#: In seconds: after its death, and beyond the limit, until a fault must be known.
AFTER_DEATH = 1.0
AFTER_LIMIT = 2.0
#: Seconds that a run of many faults may take: each of the fork server's costs an import of torch, and the
#: machine may be busy.
PATIENCE = 1800
#: What kills the rank in which it happens, at once.
DEADLY = ("kill", "segv", "exit")


@dataclass
class Ran:
    """A run in a folder that is gone by now."""

    found: dict[str, Outcome]
    xml: dict[str, str]
    left: list[str]
    code: int
    output: str
    #: By case, how long after the fault happened its result was written, in seconds.
    known: dict[str, float]
    #: What was noted of each fault; empty for one that never happened.
    notes: Mapping[str, dict[str, float]]


@dataclass
class Complaints:
    """What is wrong after a run, in words, by kind."""

    wrong: list[str] = field(default_factory=list)
    #: What took too long. A machine that is busy with other things may be to blame.
    late: list[str] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0, help="the number of the first round")
    parser.add_argument("--only", type=int, action="append", help="only the round of this number")
    given = parser.parse_args()
    numbers = given.only or range(given.start, given.start + given.rounds)
    faults = [f"{given.seed}-{number}" for number in numbers]
    quiet = run([]).found
    wrong = done = 0
    for here in batches(faults):
        for complaint in _twice(here, quiet):
            wrong += 1
            only = " ".join(f"--only {fault.partition('-')[2]}" for fault in here)
            print(
                f"VIOLATION: {complaint}\n"
                f"  replay: python benchmarks/campaign.py --seed {given.seed} {only}"
            )
        done += len(here)
        print(f"{done} of {len(faults)} rounds, {wrong} violations", flush=True)
    return 1 if wrong else 0


def batches(faults: Sequence[str]) -> Iterator[list[str]]:
    """The faults of one run after the other."""
    together = [fault for fault in faults if not drawn.draw(fault).alone]
    for start in range(0, len(together), TOGETHER):
        yield together[start : start + TOGETHER]
    yield from ([fault] for fault in faults if drawn.draw(fault).alone)


def _twice(faults: list[str], quiet: dict[str, Outcome]) -> list[str]:
    """The violations of a run with these faults; what was late counts if it is late again."""
    found = check(faults, run(faults), quiet)
    if found.late and not found.wrong:
        print(f"  late, so again: {found.late}", flush=True)
        found = check(faults, run(faults), quiet)
    return [*found.wrong, *found.late]


def case_of(fault: str) -> str:
    size = SIZES[int(fault.rpartition("-")[2]) % len(SIZES)]
    size = IDLE_SIZE if drawn.draw(fault).moment == "idle" else size
    return tests.cases(f"fault-{fault}", sizes=[size])[0]


def run(faults: Sequence[str]) -> Ran:
    """Run these faults for real, beside and before other cases."""
    others = tests.cases(*tests.OTHERS, sizes=[2])
    names = [*others[:1], *map(case_of, faults), *others[1:]]
    words = [*tests.listed(names), "--include", "drawn", "--worlds", "12", "--world-size", "2,3,4"]
    words += ["--case-timeout", str(tests.LIMIT)]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "notes")
        folder.mkdir()
        environment = {"CAMPAIGN": ",".join(faults), "CAMPAIGN_NOTES": str(folder)}
        suite = tests.Suite(Path(place) / "run", words, environment)
        process = suite.start()
        ended = threading.Event()
        outside = threading.Thread(
            target=_outside, args=(suite, folder, process.pid, faults, len(names), ended)
        )
        outside.start()
        suite.output = process.communicate(timeout=PATIENCE)[0]
        suite.code = process.returncode
        ended.set()
        outside.join()
        suite.await_end()
        notes = {fault: drawn.notes(folder, fault) for fault in faults}
        written = {line["case"]: line["at"] for line in _results(suite)}
        known = {
            case_of(fault): written[case_of(fault)] - seen["when"]
            for fault, seen in notes.items()
            if "when" in seen and case_of(fault) in written
        }
        xml = {}
        with contextlib.suppress(FileNotFoundError):
            xml = suite.xml()
        return Ran(suite.journal(), xml, suite.leftovers(), suite.code, suite.output, known, notes)


def _results(suite: tests.Suite) -> list[dict[str, Any]]:
    """The results in the side file so far."""
    found = []
    with contextlib.suppress(OSError):
        path = suite.folder / "reports" / "junit-x-cpu.jsonl"
        for line in path.read_text(encoding="utf-8").splitlines():
            # The last line may be half written.
            with contextlib.suppress(ValueError):
                read = json.loads(line)
                found += [read] if "case" in read else []
    return found


def _outside(
    suite: tests.Suite,
    folder: Path,
    controller: int,
    faults: Sequence[str],
    cases: int,
    ended: threading.Event,
) -> None:
    """Do what happens after a case, or after all of them."""
    todo = {fault: drawn.draw(fault) for fault in faults}
    todo = {fault: one for fault, one in todo.items() if one.moment in ("idle", "ending")}
    while todo and not ended.wait(0.005):
        results = {line["case"] for line in _results(suite)}
        for fault, one in list(todo.items()):
            due = len(results) == cases if one.moment == "ending" else case_of(fault) in results
            if due:
                del todo[fault]
                pids = {**drawn.notes(folder, fault), "controller": controller}
                # The process may have ended by itself.
                with contextlib.suppress(ProcessLookupError):
                    drawn.OUTSIDE[one.action](int(pids[one.who.replace(" ", "_")]))


def check(faults: Sequence[str], ran: Ran, quiet: Mapping[str, Outcome]) -> Complaints:
    """The invariants after a run with these faults."""
    found, said = ran.found, Complaints([f"left: {thing}" for thing in ran.left])
    draws = [drawn.draw(fault) for fault in faults]
    for fault, one in zip(faults, draws, strict=True):
        outcome = found.get(case_of(fault), Outcome(Status.MISSING))
        what = f"{case_of(fault)} ({one})"
        print(f"  {what}: {outcome.status.value}: {outcome.message[:100]}", flush=True)
        if outcome.status.value not in one.allowed:
            said.wrong.append(f"{what} is {outcome.status.value}: {outcome.message}")
        after = float(outcome.facts.get("known_after", 0.0))
        if outcome.status is Status.TIMEOUT and after > tests.LIMIT + AFTER_LIMIT:
            said.late.append(f"{what} was known {after} s after its start")
        known = ran.known.get(case_of(fault), 0.0)
        if one.who == "rank" and one.action in DEADLY and known > AFTER_DEATH:
            said.late.append(f"{what} was known after {known:.2f} s")
    # A run that its controller does not survive, or cannot write, has the results so far.
    cut = any(one.ends_run for one in draws)
    poor = any(one.action == "no-descriptors" for one in draws)
    for case, outcome in quiet.items():
        now = found.get(case, Outcome(Status.MISSING))
        kept = (outcome.status, outcome.message) == (now.status, now.message)
        gone = (cut and now.status is Status.MISSING) or (poor and now.status is Status.ERROR)
        if not kept and not gone:
            said.wrong.append(f"{case} is {now.status.value}: {now.message}")
    if ran.xml != {case: outcome.status.value for case, outcome in found.items()}:
        said.wrong.append("the XML and the side file disagree")
    # Every case may have its result before the controller is killed.
    ended = any(one.who == "controller" and one.moment in ("idle", "ending") for one in draws)
    bad = any(outcome.status.bad for outcome in found.values())
    if not (ended or poor) and (ran.code != 0) != bad:
        said.wrong.append(f"exit code {ran.code}")
    if "internal error in distparity" in ran.output and not poor:
        at = ran.output.index("internal error in distparity")
        said.wrong.append(ran.output[at:][:300])
    return said


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    raise SystemExit(main())
