"""How long until the first verdict: ``distparity run`` against a bare import of torch.

Bytecode is compiled before anything is measured.
"""

from __future__ import annotations

import compileall
import contextlib
import io
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from _measure import Table, arguments, bare_import, environment, publish, rounds, wall

BARE = "python -c 'import torch, torch.distributed.fsdp'"
BARE_DYNAMO = "the same, and torch._dynamo, which the first step of an optimizer imports"
FIRST = "distparity run, to the first verdict"
WHOLE = "distparity run with one case, to its exit"


def compile_bytecode() -> None:
    """As installers do that are told to; where packages may not be written, Python's own serves."""
    for name in ("torch", "_pytest", "distparity"):
        spec = find_spec(name)
        assert spec is not None and spec.origin is not None
        with contextlib.redirect_stdout(io.StringIO()):
            compileall.compile_dir(Path(spec.origin).parent, quiet=2, workers=0)


def run(folder: str) -> tuple[float, float]:
    """Seconds to the first verdict and to the exit of a suite of one case."""
    command = [sys.executable, "-m", "distparity", "run", "-v", "--device=cpu", "--world-size=2"]
    command += ["--case=multiple_forward/ddp-ws2-float32", "-c/dev/null", f"--report-dir={folder}"]
    started = time.perf_counter()
    first = None
    with subprocess.Popen(
        command, env=environment(PYTHONUNBUFFERED="1"), cwd=folder, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if first is None and b"PASSED" in line:
                first = time.perf_counter() - started
    if process.returncode != 0 or first is None:
        raise SystemExit(f"{' '.join(command)} failed with exit code {process.returncode}")
    return first, time.perf_counter() - started


def main() -> None:
    given = arguments(__doc__, repeat=5).parse_args()
    compile_bytecode()
    ends: list[float] = []

    def ours() -> float:
        with tempfile.TemporaryDirectory(prefix="startup-") as folder:
            first, end = run(folder)
        ends.append(end)
        return first

    both = "import torch, torch.distributed.fsdp, torch._dynamo"
    plan = {
        BARE: lambda: bare_import(environment()),
        BARE_DYNAMO: lambda: wall(["-c", both], environment()),
        FIRST: ours,
    }
    for warm in plan.values():
        warm()
    ends.clear()
    found = rounds(plan, given.repeat)
    found[WHOLE] = type(found[FIRST])(ends)
    table = Table("startup", ["program", "s", "times the bare import"])
    for program, series in found.items():
        table.add(program, series, series / found[BARE])
    table.notes = [f"Median (smallest - largest) of {given.repeat} alternated rounds."]
    publish(table, given.markdown)


if __name__ == "__main__":
    main()
