"""The command line of distparity: one subcommand per file here, found by its name."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
from pathlib import Path
from typing import Any, NoReturn

__all__ = ["USAGE", "main", "parser"]

#: The exit code for a request that is wrong, or that this machine cannot serve; pytest's too.
USAGE = 4
#: By what they are for: the subcommands.
GROUPS = {
    "run": ("run", "join", "list", "doctor", "upstream", "fuzz"),
    "look at results": ("report", "explain", "bundle", "junit", "figures"),
    "find what changed": ("bisect", "expectations"),
    "check distparity itself": ("selfcheck", "calibrate"),
}
EXAMPLES = {
    "": ("doctor", "run --device cpu --select quick", "run 'basic/*'", "report -o report"),
    "run": (
        "run                                        # the default selection, on every device",
        "run --device cpu multiple_forward          # one scenario",
        "run basic/fsdp2-ws2-float32                # one case",
        "run --device cuda --world-size 2,4,8 -k fsdp2 -x",
    ),
    "join": ("join node1:29577 --token-file token",),
    "fuzz": (
        "fuzz --device cpu --minutes 30 --seed 1",
        "fuzz --device cpu --case drawn.linear.frozen/fsdp2-ws2-float32",
    ),
    "list": ("list 'basic/*'", "list --select full --json"),
    "doctor": ("doctor", "doctor --device cuda --json"),
    "upstream": ("upstream fsdp/test_fsdp_core.py --upstream ../pytorch --device xpu",),
    "report": ("report", "report reports-a reports-b -o page --strict 2.13-cpu"),
    "explain": (
        "explain multiple_forward/fsdp2-ws2-float32",
        "explain basic/ddp-ws2-float32 --mutant dropped_rank --plot plot.svg",
    ),
    "bundle": ("bundle reports -o bundle.zip", "bundle --verify bundle.zip"),
    "junit": ("junit reports/*.jsonl", "junit --join reports/*.shard-*.jsonl"),
    "figures": ("figures reports --into docs/devices.md",),
    "bisect": ("bisect --case basic/fsdp2-ws2-float32 --good 2.8 --bad 2.13",),
    "expectations": (
        "expectations check mine.toml",
        "expectations update reports --reason WHY --link URL -o mine.toml",
    ),
    "selfcheck": ("selfcheck", "selfcheck --mutant sum_not_mean --scenario basic"),
    "calibrate": ("calibrate --seeds 20 --world-size 2 --plot plot.svg",),
}


class Parser(argparse.ArgumentParser):
    """A parser with one exit code for wrong usage, near matches, and no abbreviations.

    An abbreviation would become ambiguous with a new option.
    """

    def __init__(self, **rest: Any) -> None:
        rest.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**{**rest, "allow_abbrev": False})
        own = self.prog.partition(" ")[2]
        lines = [f"  distparity {words}" for words in EXAMPLES.get(own, ())]
        self.epilog = "\n".join(["examples:", *lines]) if lines else None

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {message}\n{self.prog} --help has the usage\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        found, rest = super().parse_known_args(args, namespace)
        # Of the subcommand that was called, before its caller says only that it does not know them.
        for word in rest:
            if word.startswith("-"):
                from distparity.core.near import unknown

                known = [flag for flag in self._option_string_actions if flag.startswith("--")]
                name = word.partition("=")[0]
                self.error(str(unknown("option", name, known, listed=False)))
        return found, rest


def main(arguments: list[str] | None = None) -> int:
    """Run one subcommand; returns the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    # Imported late, so that ``run``, which replaces this process by pytest, starts faster.
    from distparity.core.bad_request import BadRequest

    try:
        if words[:1] == ["run"]:
            from distparity.cli import run

            # pytest and the plugin parse everything that follows.
            run.become_pytest(words[1:])
        made = parser()
        _check_command(*words[:1])
        given = made.parse_args(words)
        if given.command is None:
            made.print_help()
            return 0
        code: int = given.act(given)
    except BadRequest as error:
        print(f"distparity: {error}", file=sys.stderr)
        return USAGE
    return code


def _check_command(word: str = "-") -> None:
    from distparity.core.near import unknown

    known = [name for names in GROUPS.values() for name in names]
    if not word.startswith("-") and word not in known:
        raise unknown("command", word, known)


def parser() -> Parser:
    """The parser of all subcommands."""
    from distparity.core.version import __version__

    made = Parser(
        prog="distparity",
        usage="distparity COMMAND ...",
        description="Does distributed training compute what one process computes?",
    )
    made.add_argument("--version", action="version", version=f"distparity {__version__}")
    commands = made.add_subparsers(
        dest="command", prog="distparity", metavar="COMMAND", help=argparse.SUPPRESS
    )
    for info in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if not info.name.startswith("_"):
            importlib.import_module(f"{__name__}.{info.name}").add(commands)
    helps = {one.dest: one.help for one in commands._choices_actions}  # noqa: SLF001 - no public name
    lines = [made.description or ""]
    for title, names in GROUPS.items():
        lines += ["", f"{title}:", *(f"  {name:<14}{helps[name]}" for name in names)]
    made.description = "\n".join(
        [*lines, "", "`distparity COMMAND --help` has the options of a command."]
    )
    return made
