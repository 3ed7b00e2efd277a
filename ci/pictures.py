"""Make the pictures of the documentation from real runs.

    python ci/pictures.py page REPORTS report-matrix.png report-case.png
    python ci/pictures.py page REPORTS report-race.png  # of --select order, without known defects
    python ci/pictures.py terminal docs/run.svg distparity run ...

`page` needs Chromium and its driver; `terminal` runs the command in a terminal and draws what it shows,
with its pauses shortened. Needs the dependency group `pictures`.
"""

from __future__ import annotations

import argparse
import os
import pty
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from html import escape
from pathlib import Path
from select import select
from tempfile import TemporaryDirectory

import pyte
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from distparity import report

ROOT = Path(__file__).parents[1]
#: By picture: the address of what it shows.
PAGES = {
    "report-matrix.png": "theme=light",
    "report-case.png": "theme=dark&case=multiple_forward/fsdp2-ws2-float32&col=2.8-cpu",
    "report-race.png": (
        "theme=light&case=accumulation_sync/fsdp2_all_reduce_hook-ws2-float32&col=2.13.0%2Bcu130-asim"
    ),
}
COLUMNS, ROWS = 110, 60
#: Seconds: between two pictures, the longest pause, and how long the prompt is shown alone.
BETWEEN, PAUSE, BEFORE = 0.25, 0.8, 0.8
LINE, LETTER = 17, 8.4
COLORS = {"red": "#ff7b72", "green": "#7ee787", "brown": "#d29922", "blue": "#79c0ff"}
Line = tuple[tuple[str, str, bool], ...]


def page(reports: Path, names: list[str]) -> None:
    """Write these screenshots of the report of ``reports``."""
    options = Options()
    options.binary_location = shutil.which("chromium") or "chromium"
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "window-size=1400,947"):
        options.add_argument(f"--{flag}")
    driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
    try:
        with TemporaryDirectory() as folder:
            report.write([reports], Path(folder))
            driver.execute_cdp_cmd(
                "Emulation.setDeviceMetricsOverride",
                {"width": 1400, "height": 860, "deviceScaleFactor": 1, "mobile": False},
            )
            for name in names:
                driver.get("about:blank")
                driver.get(f"{(Path(folder) / 'index.html').as_uri()}#{PAGES[name]}")
                driver.save_screenshot(str(ROOT / "docs" / name))
    finally:
        driver.quit()


def terminal(target: Path, command: list[str]) -> None:
    """Run ``command`` in a terminal, and draw what it shows over time."""
    frames = list(_frames(command))
    target.write_text(drawn(frames, shlex.join(command)), encoding="utf-8")


def _frames(command: list[str]) -> Iterator[tuple[float, list[Line]]]:
    """What the terminal shows, and from which second on."""
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    stream.feed(f"\x1b[1m$ {shlex.join(command)}\x1b[0m\r\n".encode())
    leader, follower = pty.openpty()
    size = {"COLUMNS": str(COLUMNS), "LINES": str(ROWS), "TERM": "xterm-256color"}
    process = subprocess.Popen(
        command, stdin=follower, stdout=follower, stderr=follower, env={**os.environ, **size}
    )
    os.close(follower)
    shown, now, last = _lines(screen), 0.0, time.monotonic()
    yield now, shown
    now, ended = BEFORE, False
    while not ended:
        until = time.monotonic() + BETWEEN
        while (left := until - time.monotonic()) > 0 and not ended:
            if select([leader], [], [], left)[0]:
                ended = not _feed(leader, stream)
        if (lines := _lines(screen)) != shown:
            shown = lines
            yield now, shown
            now += min(PAUSE, time.monotonic() - last)
            last = time.monotonic()
    process.wait()


def _feed(leader: int, stream: pyte.ByteStream) -> bool:
    try:
        part = os.read(leader, 65536)
    except OSError:
        return False  # the other end is closed
    stream.feed(part)
    return bool(part)


def _lines(screen: pyte.Screen) -> list[Line]:
    """The rows as pieces of one style: text, colour, and whether it is bold."""
    found = []
    for row in range(ROWS):
        pieces: list[tuple[str, str, bool]] = []
        cells = [screen.buffer[row][column] for column in range(COLUMNS)]
        while cells and cells[-1].data == " ":
            cells.pop()
        for cell in cells:
            style = cell.fg, cell.bold
            if pieces and pieces[-1][1:] == style:
                pieces[-1] = (pieces[-1][0] + cell.data, *style)
            else:
                pieces.append((cell.data, *style))
        found.append(tuple(pieces))
    return found


def drawn(frames: list[tuple[float, list[Line]]], title: str) -> str:
    """An SVG that shows the frames one after the other, and the last one where nothing moves."""
    rows = max((n for _, lines in frames for n, line in enumerate(lines) if line), default=0) + 1
    width, height = COLUMNS * LETTER + 24, rows * LINE + 24
    spans: dict[tuple[int, Line], list[list[float]]] = {}
    for number, (start, lines) in enumerate(frames):
        end = frames[number + 1][0] if number + 1 < len(frames) else float("inf")
        for row, line in enumerate(lines):
            times = spans.setdefault((row, line), []) if line else []
            if times and times[-1][1] == start:
                times[-1][1] = end
            else:
                times.append([start, end])
    texts = [_text(row, line, times) for (row, line), times in spans.items()]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}"',
            f' width="{width:.0f}" font-family="monospace" font-size="14" fill="#e6edf3">',
            f"<title>{escape(title)}</title>",
            f'<rect width="{width:.0f}" height="{height:.0f}" rx="8" fill="#161b22"/>',
            *texts,
            "</svg>\n",
        ]
    )


def _text(row: int, line: Line, times: list[list[float]]) -> str:
    place, words = 0, []
    for text, color, bold in line:
        if text.strip():
            style = f' fill="{COLORS[color]}"' if color in COLORS else ""
            style += ' font-weight="bold"' if bold else ""
            # Each piece has its own place: no font is as wide as another.
            wide = f'x="{12 + place * LETTER:.1f}" textLength="{len(text) * LETTER:.1f}"'
            words.append(f"<tspan {wide}{style}>{escape(text)}</tspan>")
        place += len(text)
    final = times[-1][1] == float("inf")
    moves = [
        f'<set attributeName="visibility" to="visible" begin="{start:.2f}s" dur="{end - start:.2f}s"/>'
        for start, end in times
        if end != float("inf")
    ]
    if final and times[-1][0] > 0 and len(times) == 1:
        moves = [
            f'<set attributeName="visibility" to="hidden" begin="0s" dur="{times[0][0]:.2f}s"/>'
        ]
    hidden = "" if final else ' visibility="hidden"'
    return (
        f'<text y="{24 + row * LINE}" xml:space="preserve"{hidden}>{"".join(words + moves)}</text>'
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    kinds = parser.add_subparsers(dest="kind", required=True)
    pages = kinds.add_parser("page")
    pages.add_argument("reports", type=Path)
    pages.add_argument("names", nargs="+", choices=list(PAGES))
    shown = kinds.add_parser("terminal")
    shown.add_argument("target", type=Path)
    shown.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    if given.kind == "page":
        page(given.reports, given.names)
    else:
        terminal(given.target, given.command)
    return 0


if __name__ == "__main__":
    sys.exit(main())
