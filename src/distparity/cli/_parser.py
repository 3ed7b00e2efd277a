"""The parser of a command: what it says of wrong usage, and its examples."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

__all__ = ["EXAMPLES", "USAGE", "Parser"]

#: The exit code for a request that is wrong, or that this machine cannot serve; pytest's too.
USAGE = 4
#: By command, what its help shows; those of ``distparity`` itself have no name.
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
