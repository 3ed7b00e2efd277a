"""Run distparity with pytest's plug-ins of others, one by one: `nox -s plugins`.

Each row is a plug-in's words, and what the run says and ends with. A plug-in that is not refused must
leave the outcomes as they are: one case passes, one fails.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).parents[1] / "tests" / "included"
CASES = ("basic/ddp-ws2-float32", "basic/wrong_sum-ws2-float32")
RAN = "2 cases, 1 passed, 1 failed"
#: The same, in another order of the cases.
TURNED = "2 cases, 1 failed, 1 passed"
#: Of each plug-in: its words, the exit code, and what the output has.
ROWS = {
    "none": ([], 1, RAN),
    "xdist": (["-n", "2"], 4, "remove -n"),
    "rerunfailures": (["--reruns", "2"], 4, "use --retry-failed"),
    "timeout": (["--timeout", "1"], 4, "use --case-timeout"),
    "repeat": (["--count", "2"], 4, "run the command again"),
    "randomly": (["-p", "randomly"], 1, RAN),
    "split": (["--splits", "1", "--group", "1"], 1, RAN),
    "sugar": (["--force-sugar"], 1, RAN),
    "html": (["--html=page.html", "--self-contained-html"], 1, RAN),
    "json-report": (["--json-report"], 1, RAN),
    "allure": (["--alluredir=allure"], 1, RAN),
    "instafail": (["--instafail"], 1, RAN),
}


def main() -> int:
    """Run every row, or those named; returns the exit code."""
    wrong = 0
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    for name in sys.argv[1:] or ROWS:
        words, code, says = ROWS[name]
        command = [sys.executable, "-m", "distparity", "run", *CASES, "--device", "cpu"]
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [*command, "--include", "wrong_strategies", *words],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": path},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
        said = done.stdout.replace(TURNED, RAN)
        right = done.returncode == code and says in said
        print(f"{'right' if right else 'WRONG'}  {name}: {' '.join(words)}: {done.returncode}")
        if not right:
            wrong += 1
            print(done.stdout)
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
