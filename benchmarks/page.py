"""How fast the report's page is, with 40 cells of 2,000 cases, in a headless Chromium without a GPU.

It needs selenium, Chromium and its driver (``$CHROMIUM``, ``$CHROMEDRIVER``, or on PATH).
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from _measure import HERE, Series, Table, arguments, publish
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from distparity.report import write

sys.path.insert(0, str(HERE.parent / "tests"))
import cells

FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1600,1000")
#: What is done, one after the other, as the script that does it.
TYPED = (
    "const q = document.getElementById('q'); q.value = {!r}; q.dispatchEvent(new Event('input'))"
)
DONE = {
    "filter by `f`, the first": TYPED.format("f"),
    "by `fail`": TYPED.format("fail"),
    "by nothing again": TYPED.format(""),
    "open a scenario": "document.querySelector('tr.scenario th').click()",
    "open all to the last case": "document.querySelector('#depth [data-value=cases]').click()",
    "scroll through it": "document.querySelector('.scroller').scrollTop += 30000",
    "rows that differ": "document.getElementById('diff').click()",
    "open a case": "document.querySelector('tr.leaf td').click()",
    "compare two cells": "document.getElementById('to-compare').click()",
    "back to the matrix": "document.getElementById('to-matrix').click()",
}
#: Calls back when what was done is on the screen.
UNTIL_PAINTED = """
const done = arguments[0];
const began = performance.now();
{}
requestAnimationFrame(() => setTimeout(() => done(performance.now() - began)));
"""
OPEN = "open it from disk"


def browser(profile: str) -> webdriver.Chrome:
    options = Options()
    options.binary_location = os.environ.get("CHROMIUM") or shutil.which("chromium") or ""
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    driver = os.environ.get("CHROMEDRIVER") or shutil.which("chromedriver")
    return webdriver.Chrome(options, Service(driver))


def visit(driver: webdriver.Chrome, page: Path, found: dict[str, Series]) -> None:
    """One visit with a fresh document, from opening it to the last of what is done."""
    driver.get("about:blank")
    began = time.perf_counter()
    driver.get(page.as_uri())
    found[OPEN].values.append(1000 * (time.perf_counter() - began))
    for name, script in DONE.items():
        taken = driver.execute_async_script(UNTIL_PAINTED.format(script))
        found[name].values.append(float(taken))


def main() -> None:
    given = arguments(__doc__, repeat=5).parse_args()
    found = {name: Series() for name in (OPEN, *DONE)}
    with tempfile.TemporaryDirectory(prefix="page-") as name:
        folder = Path(name)
        cells.matrix(folder, [f"2.{n}" for n in range(4, 24)], ["cpu", "hpu"], 25, 10)
        write([folder], folder / "report")
        page = folder / "report" / "index.html"
        driver = browser(str(folder / "profile"))
        try:
            for _ in range(given.repeat):
                visit(driver, page, found)
        finally:
            driver.quit()
        size = page.stat().st_size
    table = Table("page", ["what is done", "ms, until it is on the screen"])
    for what, series in found.items():
        table.add(what, series)
    table.notes = [
        f"40 cells of 2,000 cases, a file of {size / 2**20:.1f} MiB; every outcome occurs.",
        f"Median (smallest - largest) of {given.repeat} visits; software draws the page.",
    ]
    publish(table, given.markdown)


if __name__ == "__main__":
    main()
