"""XML files of cells that nobody ran, as :mod:`distparity.results.junit_writer` would write them."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

FACTS = {
    "version": "0.1.0",
    "torch_git": "0123456789abcdef0123456789abcdef01234567",
    "device_name": "A device",
    "device_count": "4",
    "backend": "gloo",
    "world_sizes": "2, 4",
    "deselected": "0",
    "python": "3.11.7",
    "platform": "Linux",
    "command": "pytest --pyargs distparity",
    "ended": "finished",
}
TAGS = {
    **dict.fromkeys(("failed", "crash", "timeout", "unexpectedly fixed", "flaky"), "failure"),
    **dict.fromkeys(("error", "missing"), "error"),
    **dict.fromkeys(("not supported", "not available", "not run", "expected failure"), "skipped"),
}
PASSED = {"status": "passed", "ratio": "0.1"}

Results = Mapping[str, Mapping[str, Any]]


def document(torch: str, device: str, results: Results, /, **facts: str) -> ET.Element:
    """A cell with a result for each case id; ``message`` and ``detail`` are its texts."""
    suite = ET.Element(
        "testsuite",
        name=f"distparity torch {torch} {device}",
        tests=str(len(results)),
        time="12.5",
        timestamp="2026-11-20T08:00:00+00:00",
        hostname="host",
    )
    cell = {"cell": f"{torch}-{device}", "cell_torch": torch, "device": device, "torch": torch}
    known = {**cell, **FACTS, "declared": str(len(results)), **facts}
    properties(suite, {f"distparity.{name}": value for name, value in known.items()})
    for case, result in results.items():
        testcase(suite, case, dict(result))
    root = ET.Element("testsuites", name="distparity", tests=str(len(results)))
    root.append(suite)
    return root


def testcase(suite: ET.Element, case: str, result: dict[str, Any]) -> None:
    scenario, _, name = case.partition("/")
    element = ET.SubElement(
        suite, "testcase", classname=f"distparity.{scenario}", name=name, time="0.05"
    )
    message, detail = result.pop("message", ""), result.pop("detail", "")
    rerun = f"distparity run --case {case}"
    properties(element, {"rerun": rerun, **result})
    status = result.get("status", "")
    if status in TAGS:
        line = f"{status}: {message}"
        child = ET.SubElement(element, TAGS[status], message=line)
        child.text = f"{line}\n{detail}" if detail else line


def properties(parent: ET.Element, values: Mapping[str, Any]) -> None:
    block = ET.SubElement(parent, "properties")
    for name, value in values.items():
        ET.SubElement(block, "property", name=name, value=str(value))


def write(folder: Path, torch: str, device: str, results: Results, /, **facts: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"junit-{torch}-{device}.xml"
    ET.ElementTree(document(torch, device, results, **facts)).write(path, encoding="utf-8")
    return path


def matrix(
    folder: Path, torches: list[str], devices: list[str], scenarios: int, strategies: int
) -> None:
    """A made-up matrix in which every outcome occurs; eight cases for each strategy."""
    names = [
        f"scenario_{n:03}/strategy{s:02}-ws{world}-{dtype}"
        for n in range(scenarios)
        for s in range(strategies)
        for world in (2, 4)
        for dtype in ("float32", "float64", "bfloat16", "float16")
    ]
    rng = random.Random(7)
    level = {name: 10 ** rng.uniform(-2.5, -0.2) for name in names}
    for device in devices:
        for torch in torches:
            results = {name: _made_up(rng, name, device, level[name]) for name in names}
            write(folder, torch, device, results)


def _made_up(rng: random.Random, name: str, device: str, level: float) -> dict[str, Any]:
    draw = rng.random()
    if device == "hpu" and "float64" in name:
        return {"status": "not supported", "message": "hpu has no float64"}
    if draw < 0.97:
        ratio = min(0.99, level * 10 ** rng.gauss(0, 0.05))
        return {"status": "passed", "ratio": f"{ratio:.6g}", "largest_error": "1e-7"}
    status = rng.choice(["failed", *TAGS])
    result = {"status": status, "message": f"step 1, gradient 'w', rank {rng.randrange(4)}"}
    if status == "failed":
        ratio = rng.choice([10 ** rng.uniform(0, 7), math.inf])
        result |= {"ratio": f"{ratio:.6g}", "detail": "first divergence\n" * 40}
    return result
