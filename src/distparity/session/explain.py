"""Explain one case: its whole trajectory, as a table and as a plot."""

from __future__ import annotations

import math
from pathlib import Path

from distparity.core.outcome import Outcome
from distparity.session.options import Options
from distparity.session.run import Run

__all__ = ["explain", "plot", "table", "wrong"]

#: Left, top, width and height of the plot's area, in pixels.
_LEFT, _TOP, _WIDTH, _HEIGHT = 70, 40, 520, 260
_STYLE = 'font-family="sans-serif" font-size="12" role="img"'
_COLOURS = {
    "loss": "#0072b2",
    "gradient": "#d55e00",
    "norm": "#56b4e9",
    "parameter": "#009e73",
    "buffer": "#cc79a7",
    "optimizer": "#e69f00",
}


def explain(
    options: Options,
    mutant: str | None = None,
    checks: tuple[str, ...] = (),
    program: Path | None = None,
) -> list[tuple[str, Outcome]]:
    """Run the cases that ``options`` names on each device; returns the id and outcome of each.

    ``checks`` are the names of the only checks of an operation to make; empty for all. The first that
    is wrong, or the training, is written to ``program`` as a program that needs torch alone. Raises
    :class:`distparity.core.bad_request.BadRequest`.
    """
    run = Run(options)
    run.start()
    try:
        run.ready()
        scheduler = run.scheduler
        assert scheduler is not None
        found = []
        for case in [case for cell in run.cells for case in cell.cases]:
            outcome = scheduler.run(run.course.job(case, mutant=mutant, checks=checks))
            found.append((case.id, outcome))
            if program is not None and wrong(outcome):
                text = scheduler.run(run.course.program(case, outcome))
                program.write_text(text, "utf-8")
        return found
    finally:
        run.close(reported=True)


def wrong(outcome: Outcome) -> bool:
    """Whether there is something that a program could show."""
    return bool(outcome.failure)


def table(case: str, outcome: Outcome) -> list[str]:
    """Tabulate the ratio of error to allowed error, for every kind of quantity at every step."""
    lines = [f"{case}: {outcome.status.value}: {outcome.message}"]
    if "diagnosis" in outcome.facts:
        lines.append(f"looks like: {outcome.facts['diagnosis']}")
    growth = outcome.facts.get("growth", [])
    if not growth:
        return [*lines, outcome.detail]
    kinds = list(growth[0])
    lines.append("step  " + "".join(f"{kind:>12}" for kind in kinds))
    for step, row in enumerate(growth):
        lines.append(f"{step:>4}  " + "".join(f"{_number(row[kind]):>12}" for kind in kinds))
    return [
        *lines,
        "(error over allowed error, the largest of all ranks and tensors; 1 is the limit)",
    ]


def plot(case: str, outcome: Outcome, path: Path) -> None:
    """Plot the ratios against the steps as an SVG file, on a logarithmic scale.

    The allowed range is shaded. Raises ``ValueError`` for an outcome without a trajectory.
    """
    growth = outcome.facts.get("growth", [])
    if not growth:
        raise ValueError(f"{case} has no trajectory to plot: {outcome.message}")
    values = [float(v) for row in growth for v in row.values()]
    finite = [v for v in values if math.isfinite(v) and v > 0]
    low = math.floor(math.log10(min([*finite, 0.01])))
    high = math.ceil(math.log10(max([*finite, 10.0])))
    path.write_text("\n".join(_svg(case, growth, low, high)) + "\n", encoding="utf-8")


def _svg(case: str, growth: list[dict[str, float | str]], low: int, high: int) -> list[str]:
    def y(ratio: float) -> float:
        place = high if ratio == math.inf else math.log10(max(ratio, 10.0**low))
        return _TOP + _HEIGHT * (high - min(place, high)) / (high - low)

    def x(step: int) -> float:
        return _LEFT + _WIDTH * (step + 0.5) / len(growth)

    band = f'y="{y(1):.1f}" height="{_TOP + _HEIGHT - y(1):.1f}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 620 350" {_STYLE}>',
        f"<title>Ratio of error to allowed error of {case}</title>",
        '<rect width="620" height="350" fill="#fff"/>',
        f'<text x="{_LEFT}" y="22" font-weight="bold">{case}</text>',
        f'<rect x="{_LEFT}" width="{_WIDTH}" {band} fill="#009e73" fill-opacity="0.12"/>',
    ]
    for power in range(low, high + 1):
        height = f"{y(10.0**power):.1f}"
        colour = "#333" if power == 0 else "#ddd"
        span = f'x1="{_LEFT}" x2="{_LEFT + _WIDTH}" y1="{height}" y2="{height}"'
        lines.append(f'<line {span} stroke="{colour}"/>')
        place = f'x="{_LEFT - 8}" y="{height}" dy="4" text-anchor="end"'
        lines.append(f"<text {place}>1e{power}</text>")
    lines += [
        f'<text x="{x(step):.1f}" y="318" text-anchor="middle">step {step}</text>'
        for step in range(len(growth))
    ]
    there = [(kind, colour) for kind, colour in _COLOURS.items() if kind in growth[0]]
    for number, (kind, colour) in enumerate(there):
        points = [(x(step), y(float(row[kind]))) for step, row in enumerate(growth)]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        lines += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="4" fill="{colour}"/>' for a, b in points]
        lines.append(f'<text x="{_LEFT + 105 * number}" y="342" fill="{colour}">● {kind}</text>')
    return [*lines, "</svg>"]


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.3g}"
