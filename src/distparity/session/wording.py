"""How a run describes itself: facts for the XML, lines for the terminal, a command to paste."""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from distparity.core import version
from distparity.core.case import Case
from distparity.core.redact import Redactor
from distparity.core.torch_facts import TorchFacts
from distparity.session.case_list import DEFAULT_WORLD_SIZES
from distparity.session.cell import Cell
from distparity.session.options import Options

__all__ = ["OWN_DEVICE", "cell_facts", "header", "rerun", "sources", "surroundings", "where"]

#: The device of a project's own cases that name none.
OWN_DEVICE = "DISTPARITY_DEVICE"
PACKAGE = Path(version.__file__).parents[1]


def cell_facts(torch: TorchFacts, cell: Cell) -> dict[str, Any]:
    """The facts of a cell, whichever of its cases run."""
    return {
        "torch": torch.torch,
        "torch_git": torch.git,
        "torch_cuda": torch.cuda or "none",
        "torch_hip": torch.hip or "none",
        "device": cell.name,
        "shared_devices": f"yes, by {cell.sharing}" if cell.sharing else "no",
        "arithmetic": cell.arithmetic,
        "device_name": cell.found.name,
        "device_count": cell.found.count,
        **_groups(cell.found.groups),
        "backend": cell.found.backend,
        "backend_version": cell.found.backend_version,
        **{f"axis_{name}": value for name, value in cell.axes.items()},
        **{f"numerics_{name}": fact for name, fact in cell.found.numerics.items()},
    }


def _groups(groups: Sequence[Sequence[int]]) -> dict[str, str]:
    """The fact of devices that do not all belong together."""
    if len(groups) < 2:
        return {}
    return {"device_groups": ", ".join(" ".join(map(str, group)) for group in groups)}


def surroundings(command: list[str], redactor: Redactor) -> dict[str, Any]:
    """The facts of where and how the run was started."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "command": redactor.command(shlex.join(command)),
    }


def sources(torch: TorchFacts, case: Case) -> dict[str, str]:
    """The files of a case's scenario and strategy, as far as they are in this package."""
    files = {"scenario_source": torch.files[case.scenario]}
    if case.scenario in torch.scenarios:
        files["strategy_source"] = torch.strategies[case.strategy].file
    return {
        name: Path(file).relative_to(PACKAGE).as_posix()
        for name, file in files.items()
        if PACKAGE in Path(file).parents
    }


def header(
    torch: TorchFacts, cells: list[Cell], broken: list[str], redactor: Redactor
) -> list[str]:
    """The lines that the terminal shows before the first result."""
    lines = [f"distparity: torch {torch.torch} (git {torch.git or 'unknown'})"]
    for cell in cells:
        found = cell.found
        lines.append(
            f"  {cell.name}: {found.name}, {found.count} device{'s' * (found.count != 1)}, "
            f"{found.backend} ({found.backend_version})"
        )
        if cell.sharing:
            lines.append(
                "    all ranks of a world share one device: this says nothing about several devices"
            )
        if cell.arithmetic != "exact":
            lines.append(f"    {cell.arithmetic} arithmetic: what torch does when nothing is set")
        lines += [f"    {line}" for line in _arithmetic(found.numerics)]
    lines += [f"  {line}" for line in broken]
    own = sorted(key for key in os.environ if key.startswith("DISTPARITY_"))
    return lines + [redactor.text(f"  {key}={os.environ[key]}") for key in own]


def _arithmetic(numerics: dict[str, Any]) -> list[str]:
    """Describe a device's arithmetic in one process: where it falls short of the dtype, if it does."""
    lines = []
    for dtype, bits in (("float32", 23), ("float64", 52)):
        for name, what in (("matmul", "matrix products"), ("convolution", "convolutions")):
            kept = numerics.get(f"{name}_{dtype}_bits", bits)
            if kept != bits:
                lines.append(f"its {dtype} {what} keep {kept} of {bits} bits of mantissa")
    if numerics["denormals"] != "kept":
        lines.append(f"float32 denormals are {numerics['denormals']}")
    if numerics["repeatable"] != "yes":
        lines.append("the same sum or product differs from run to run")
    return lines or ["arithmetic: products in full precision, denormals kept, deterministic"]


def where(device: str, options: Options) -> list[str]:
    """The words of a command that choose a device as these options do."""
    words = ["--device", device]
    for name in options.plugins:
        words += ["--device-plugin", name]
    if options.sharing is not None and device != "cpu":
        words += [f"--share-devices={options.sharing}"]
    if options.backend is not None:
        words += ["--backend", options.backend]
    for name, value in options.axes.items():
        words += ["--axis", f"{name}={value}"]
    if options.placement is not None:
        words += ["--placement", options.placement]
    if options.each_pair:
        words.append("--each-pair")
    return words


def rerun(cases: Sequence[Case], options: Options, replay: Mapping[str, str]) -> str:
    """The command that runs cases of one device again, with the variables that repeat its behaviour."""
    words = [f"{name}={value}" for name, value in replay.items()]
    if options.node_ids:
        chosen = [f"{name}={os.environ[name]}" for name in (OWN_DEVICE,) if name in os.environ]
        return shlex.join(
            [*chosen, *words, "pytest", *(options.node_ids[case.id] for case in cases)]
        )
    device, sizes = cases[0].device, sorted({case.world_size for case in cases})
    words += ["distparity", "run", *where(device, options)]
    for case in cases:
        words += ["--case", case.id]
    if not set(sizes) <= set(DEFAULT_WORLD_SIZES):
        words += ["--world-size", ",".join(map(str, sizes))]
    return shlex.join([*words, *_how(options)])


def _how(options: Options) -> Iterator[str]:
    """The words of a command that runs cases as these options do."""
    values: dict[str, Sequence[object]] = {
        "--include": options.include,
        "--largest": [] if options.largest is None else [options.largest],
        "--arithmetic": [] if options.arithmetic == "exact" else [options.arithmetic],
        "--perturb": [] if options.perturb is None else [options.perturb],
        "--expectations": options.expectations,
    }
    for name, given in values.items():
        for value in given:
            yield from (name, str(value))
    if not options.log:
        yield "--no-log"
    if not options.known_defects:
        yield "--no-known-defects"
