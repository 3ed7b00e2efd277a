"""What a run says of itself: facts for the XML, lines for the terminal, a command to paste."""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Mapping
from typing import Any

from distparity.core.case import Case
from distparity.core.redact import Redactor
from distparity.core.torch_facts import TorchFacts
from distparity.session.case_list import DEFAULT_WORLD_SIZES
from distparity.session.cell import Cell
from distparity.session.options import Options

__all__ = ["cell_facts", "header", "rerun", "surroundings"]


def cell_facts(torch: TorchFacts, cell: Cell) -> dict[str, Any]:
    """What the cell is, whatever of it is run."""
    return {
        "torch": torch.torch,
        "torch_git": torch.git,
        "torch_cuda": torch.cuda or "none",
        "torch_hip": torch.hip or "none",
        "device": cell.name,
        "shared_devices": f"yes, by {cell.sharing}" if cell.sharing else "no",
        "device_name": cell.found.name,
        "device_count": cell.found.count,
        "backend": cell.found.backend,
        "backend_version": cell.found.backend_version,
        **{f"numerics_{name}": fact for name, fact in cell.found.numerics.items()},
    }


def surroundings(command: list[str], redactor: Redactor) -> dict[str, Any]:
    """Where and how the run was started."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "command": redactor.command(shlex.join(command)),
    }


def header(
    torch: TorchFacts, cells: list[Cell], broken: list[str], redactor: Redactor
) -> list[str]:
    """What a reader of the terminal should know before the first result."""
    lines = [f"distparity: torch {torch.torch} (git {torch.git or 'unknown'})"]
    for cell in cells:
        found = cell.found
        lines.append(
            f"  {cell.name}: {found.name}, {found.count} device(s), "
            f"{found.backend} ({found.backend_version})"
        )
        if cell.sharing:
            lines.append("    all ranks of a world share one device: no evidence for several")
        lines += [f"    {line}" for line in _arithmetic(found.numerics)]
    lines += [f"  {line}" for line in broken]
    own = sorted(key for key in os.environ if key.startswith("DISTPARITY_"))
    return lines + [redactor.text(f"  {key}={os.environ[key]}") for key in own]


def _arithmetic(numerics: dict[str, Any]) -> list[str]:
    """A device's arithmetic, in one process: where it is not what the dtype promises, or that it is."""
    lines = []
    for dtype, bits in (("float32", 23), ("float64", 52)):
        kept = numerics.get(f"matmul_{dtype}_bits", bits)
        if kept != bits:
            lines.append(f"its {dtype} matrix products keep {kept} of {bits} bits of mantissa")
    if numerics["denormals"] != "kept":
        lines.append(f"float32 denormals are {numerics['denormals']}")
    if numerics["repeatable"] != "yes":
        lines.append("the same sum or product comes out different from run to run")
    promised = "products in full precision, denormals kept, the same every time"
    return lines or [f"its arithmetic: {promised}"]


def rerun(case: Case, options: Options, replay: Mapping[str, str]) -> str:
    """The command that runs one case again, with the variables that its device is replayed by."""
    words = [f"{name}={value}" for name, value in replay.items()]
    words += ["distparity", "run", "--device", case.device, "--case", case.id]
    if case.world_size not in DEFAULT_WORLD_SIZES:
        words += ["--world-size", str(case.world_size)]
    for name in options.include:
        words += ["--include", name]
    for name in options.plugins:
        words += ["--device-plugin", name]
    if options.sharing is not None and case.device != "cpu":
        words += [f"--share-devices={options.sharing}"]
    for path in options.expectations:
        words += ["--expectations", str(path)]
    if not options.known_defects:
        words.append("--no-known-defects")
    return shlex.join(words)
