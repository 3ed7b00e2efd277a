"""``distparity fuzz``: run trainings that are drawn from a grammar, and shrink what is red."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from distparity.core.bad_request import BadRequest
from distparity.session import arguments, fuzz, names
from distparity.session.run import Run


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "fuzz", help="run trainings drawn from a grammar, and shrink what is red"
    )
    shared = ("--device", "--device-plugin", "--case-timeout", "--report-dir", "--cell", "--worlds")
    arguments.declare(parser.add_argument, *shared)
    parser.add_argument("--minutes", type=float, default=5.0, help="(default %(default)s)")
    parser.add_argument("--draws", type=int, metavar="N", help="stop after N cases")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default %(default)s)")
    parser.add_argument(
        "--case", action="append", metavar="ID", default=[], help="only this drawn case"
    )
    parser.add_argument(
        "--corpus",
        type=Path,
        metavar="FILE",
        help="findings, which run first (default: fuzz.jsonl in the report folder)",
    )
    parser.add_argument("--mutant", help="inject this deliberate fault in every case")
    parser.add_argument(
        "--coverage", type=Path, metavar="FILE.md", help="write the table of pairs of features"
    )
    parser.set_defaults(act=_act)


def _act(given: argparse.Namespace) -> int:
    if given.minutes <= 0:
        raise BadRequest(f"--minutes {given.minutes:g}: it must be positive")
    names.check_mutants([given.mutant] if given.mutant else [])
    ids, given.case = given.case, []
    given.scenario = ["basic"]
    options = arguments.options(given)
    run = Run(options)
    run.start()
    try:
        run.ready()
        print("\n".join(run.header()), flush=True)
        corpus = given.corpus or options.report_dir / "fuzz.jsonl"
        campaign = fuzz.Campaign(
            run, given.seed, corpus, tell=lambda line: print(line, flush=True), mutant=given.mutant
        )
        try:
            campaign.replay(ids)
            if not ids:
                campaign.go(given.minutes * 60, given.draws)
        except KeyboardInterrupt:
            print("interrupted: the results so far")
        written = campaign.write()
    finally:
        run.close(reported=True)
    print("\n".join(fuzz.told(campaign)))
    if given.coverage is not None:
        given.coverage.write_text("\n".join(fuzz.covered(campaign.pairs)) + "\n", encoding="utf-8")
        written.append(given.coverage)
    for path in written:
        print(f"wrote {path}")
    return 1 if campaign.red else 0
