"""A finding as an issue for torch: a program, what it prints, and what it printed with other releases.

Its headings are those of PyTorch's form for bugs: "Describe the bug" and "Versions".
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from packaging.version import Version

from distparity.bisection import Bisection, Environments, Observation, between
from distparity.bisection.observation import FAILS, PASSES, Question
from distparity.core.outcome import Outcome
from distparity.core.redact import Redactor

__all__ = ["ran", "since", "text", "versions"]

#: The longest time that a program may take, in seconds: it starts ranks, which wait for each other.
_MOST_SECONDS = 300
#: What a program of ranks on the CPU has in it.
_ON_CPU = 'init_process_group("gloo"'
#: What a program's last line begins with, and the exit code that goes with it.
_CODES = {"right": 0, "defect": 1}
#: What that is of a release.
_SAYS = {"defect": "failed", "right": "passed"}


def ran(python: Path | str, program: Path) -> tuple[str, str]:
    """Run a program; returns ``"defect"``, ``"right"`` or an empty string, and its last line."""
    # On the CPU, packages that announce a device to torch have no part in it.
    on_cpu = {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0"} if _ON_CPU in program.read_text("utf-8") else {}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [python, program],
        stdout=pipe,
        stderr=pipe,
        text=True,
        start_new_session=True,
        env={**os.environ, **on_cpu},
    ) as done:
        try:
            found = done.communicate(timeout=_MOST_SECONDS)
        except subprocess.TimeoutExpired:
            return "", f"no answer in {_MOST_SECONDS} s"
        finally:
            # Its ranks as well: one that hangs may do so for ever, and at full speed.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(done.pid, signal.SIGKILL)
    lines = [line for text in found for line in text.split("\n")]
    for word, code in _CODES.items():
        line = next((line for line in reversed(lines) if line.startswith(f"{word}: ")), None)
        # A program that broke exits with 1 as well: its word counts, and the code beside it.
        if line is not None and done.returncode == code:
            return word, line
    return "", next(filter(None, reversed(lines)), f"exit code {done.returncode}")


def since(program: Path, good: str, bad: str, say: Callable[[str], None] = print) -> list[str]:
    """Find the release between ``good`` and ``bad`` since which a program shows a defect.

    Returns lines in words. Raises :class:`distparity.core.bad_request.BadRequest` if one of them is not
    what its name says, or if no environment can be made.
    """

    def observe(python: Path, _suite: Path, _question: Question, _runs: int) -> Observation:
        word, said = ran(python, program)
        version = re.search(r"torch (2\.\S+?):", said)
        return Observation(_SAYS.get(word, ""), said, torch=version[1] if version else "")

    question = Question(program.name)
    work = Bisection(between(good, bad), question, say=say, observe=observe)
    made = Environments()
    try:
        work.run(made)
    finally:
        made.close()
    words = {PASSES: "right", FAILS: "wrong"}
    told = [
        f"- {words.get(seen.kind or '', 'not known')} with {name}: `{seen.message}`"
        for name, seen in sorted(work.seen.items(), key=lambda one: Version(one[0]))
    ]
    return [*(f"{line[:1].upper()}{line[1:]}." for line in work.lines()[-1:]), "", *told]


def versions() -> str:
    """What ``torch.utils.collect_env`` says of this machine; of Python alone where it says nothing."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "torch.utils.collect_env"],
            capture_output=True,
            text=True,
            timeout=_MOST_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"Python {sys.version}"
    return done.stdout.strip() or f"Python {sys.version}"


def text(
    case: str, outcome: Outcome, program: str, said: str, about: str, changed: Sequence[str] = ()
) -> str:
    """The issue, in Markdown.

    ``program`` is a program that needs torch alone, and ``said`` its last line. ``about`` is what
    :func:`versions` returns, and ``changed`` what :func:`since` does.
    """
    diagnosis = outcome.facts.get("diagnosis")
    lines = [
        f"# {_title(program)}",
        "",
        "### 🐛 Describe the bug",
        "",
        "The program below trains, or calls an operation, in several processes and in one. The results differ.",
        "",
        *([f"It looks like: {diagnosis}.", ""] if diagnosis else []),
        "```python",
        program.rstrip(),
        "```",
        "",
        "It prints:",
        "",
        "```",
        said,
        "```",
        "",
        "Expected: a line that begins with `right:`.",
        "",
    ]
    if changed:
        lines += ["### Other releases", "", *changed, ""]
    lines += [
        f"Found by distparity as `{case}`: {outcome.message.splitlines()[0]}",
        "",
        "### Versions",
        "",
        "```",
        about,
        "```",
    ]
    return Redactor(os.environ).text("\n".join(lines) + "\n")


def _title(program: str) -> str:
    """The first line of a program's docstring."""
    return program.strip().removeprefix('"""').splitlines()[0].strip().rstrip(".")
