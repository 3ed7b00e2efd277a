"""The command line of distparity: the suite, proof that it can fail, and its reports."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import NoReturn

from distparity import __version__, junit
from distparity.run import BadRequest, Options

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run one subcommand; returns the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    if words[:1] == ["run"]:
        # All that follows is pytest's and the plugin's to read, --help as well.
        _run(words[1:])
    parser = argparse.ArgumentParser(prog="distparity", description=__doc__)
    parser.add_argument("--version", action="version", version=f"distparity {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser(
        "run",
        help="run the suite with the torch that is installed; takes pytest's options and ours",
        add_help=False,
    )
    xml = commands.add_parser("junit", help="make the XML from side files that a run left behind")
    xml.add_argument("journal", nargs="+", type=Path, help="reports/junit-<torch>-<device>.jsonl")
    check = commands.add_parser("selfcheck", help="put deliberate faults in, and see them caught")
    _add_where(check)
    check.add_argument("--dtype", default="float32", help="of parameters and data")
    check.add_argument("--mutant", action="append", help="only this one; may be repeated")
    check.add_argument("--pairs", action="store_true", help="list what each pair sees")
    seeds = commands.add_parser("calibrate", help="the largest ratio of correct runs, over seeds")
    _add_where(seeds)
    seeds.set_defaults(world_size=[2, 4])
    seeds.add_argument("--seeds", type=int, default=200, help="(default %(default)s)")
    one = commands.add_parser("explain", help="one case, its whole trajectory")
    one.add_argument("case", help="its id: multiple_forward/fsdp2-ws2-float32")
    _add_where(one)
    one.set_defaults(world_size=[2, 4])
    one.add_argument("--mutant", help="put this deliberate fault in")
    one.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw it as well")
    report = commands.add_parser("report", help="make one page of the XML of any number of cells")
    report.add_argument("source", nargs="+", type=Path, help="XML files, or folders of them")
    report.add_argument(
        "-o", "--output", type=Path, default=Path("report"), help="folder (default: %(default)s)"
    )
    given = parser.parse_args(words)
    command = {
        "junit": _junit,
        "selfcheck": _selfcheck,
        "calibrate": _calibrate,
        "explain": _explain,
        "report": _report,
    }[given.command]
    try:
        return command(given)
    except BadRequest as error:
        print(f"distparity: {error}", file=sys.stderr)
        return 4


def _add_where(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="cpu", help="the kind of device (default %(default)s)")
    parser.add_argument("--world-size", type=int, nargs="+", default=[2], help="ranks")
    parser.add_argument("--case-timeout", type=float, default=60.0, help="seconds")
    parser.add_argument("--include", action="append", default=[], metavar="MODULE")
    parser.add_argument("--scenario", action="append", help="only this one; may be repeated")


def _options(given: argparse.Namespace) -> Options:
    return Options(
        devices=given.device.split(","),
        world_sizes=given.world_size,
        limit=given.case_timeout,
        include=given.include,
        scenarios=given.scenario,
    )


def _explain(given: argparse.Namespace) -> int:
    from distparity import explain

    options = _options(given)
    options.cases = [given.case]
    case, outcome = explain.explain(options, given.mutant)
    print("\n".join(explain.table(case, outcome)))
    if given.plot is not None:
        explain.plot(case, outcome, given.plot)
        print(f"wrote {given.plot}")
    return 1 if outcome.status.bad else 0


def _calibrate(given: argparse.Namespace) -> int:
    from distparity import calibration

    torch, buckets = calibration.calibrate(_options(given), given.seeds)
    print("\n".join(calibration.table(torch, buckets)))
    return 0 if buckets and all(bucket.passed for bucket in buckets) else 1


def _selfcheck(given: argparse.Namespace) -> int:
    from distparity import selfcheck

    found = selfcheck.selfcheck(_options(given), given.dtype, given.mutant)
    lines = selfcheck.table(found) + (selfcheck.pairs(found) if given.pairs else [])
    print("\n".join(lines))
    return 0 if found.passed else 1


def _run(words: list[str]) -> NoReturn:
    # A process of its own: pytest wants to see this package imported by nobody before itself.
    # By its path: beside a name that is no path, pytest loads what lies about in the current folder,
    # be it ``tests/conftest.py`` and what that needs, or a ``pytest.ini``.
    # Nor is the suite anybody's whose conftest lies beside a scenario that was included.
    suite = str(Path(__file__).parent)
    command = [sys.executable, "-m", "pytest", "--noconftest", suite, *words]
    sys.stdout.flush()
    os.execv(sys.executable, command)


def _junit(given: argparse.Namespace) -> int:
    code = 0
    for path in given.journal:
        try:
            print(f"wrote {junit.write_from_journal(path)}")
        except (OSError, ValueError) as error:
            print(f"distparity: {error}", file=sys.stderr)
            code = 1
    return code


def _report(given: argparse.Namespace) -> int:
    try:
        from distparity import report
    except ModuleNotFoundError as error:
        print(f"distparity: report needs {error.name}: install distparity[report]", file=sys.stderr)
        return 1
    try:
        found, written = report.write(given.source, given.output)
    except report.Refused as error:
        print(f"distparity: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"distparity: cannot write to {given.output}: {error}", file=sys.stderr)
        return 1
    for column in found.columns:
        counts = ", ".join(f"{number} {name}" for name, number in column.counts.items())
        print(f"{column.title}: {counts or 'no case'}")
    for path in written:
        print(f"wrote {path}")
    return 0
