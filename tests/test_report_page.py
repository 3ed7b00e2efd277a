"""The report's page in a real Chromium: what a person and a keyboard can do with it."""

from __future__ import annotations

import base64
import itertools
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cells
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from distparity.core.statuses import STATUSES
from distparity.report import write

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
DRIVER = os.environ.get("CHROMEDRIVER") or shutil.which("chromedriver")
#: Set where a skip of these tests would hide something: then the absence is an error.
REQUIRED = "DISTPARITY_REQUIRE_BROWSER"

pytestmark = pytest.mark.browser

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    # Every visit is of a document of its own.
    "--disable-features=BackForwardCache,ProactivelySwapBrowsingInstance,RenderDocument",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,860",
)
VISITS = itertools.count()
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


class Page:
    """A report open in the browser; every visit begins with a fresh document."""

    def __init__(self, driver: webdriver.Chrome, path: Path) -> None:
        self.driver = driver
        self.path = path

    def visit(self, address: str = "") -> Page:
        # With the same address but for what follows "#", the document would stay.
        self.driver.get(f"{self.path.as_uri()}?{next(VISITS)}#{address}")
        return self

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def press(self, *keys: str) -> None:
        ActionChains(self.driver, duration=0).send_keys(*keys).perform()

    def js(self, script: str) -> Any:
        return self.driver.execute_script(f"return {script}")

    def settle(self) -> None:
        """Wait until what was scrolled to is drawn."""
        self.driver.execute_async_script(
            "requestAnimationFrame(() => requestAnimationFrame(arguments[0]))"
        )

    @property
    def hash(self) -> str:
        return str(self.js("location.hash"))

    @property
    def said(self) -> str:
        return self.one("#said").text

    @property
    def focused(self) -> str:
        """The words of what has the keyboard."""
        active = self.driver.switch_to.active_element
        return active.get_attribute("aria-label") or active.text

    def names(self) -> list[str]:
        """The rows in the document, by their names."""
        return [name.text for name in self.all("tbody [role=rowheader] .label")]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    if not (CHROMIUM and DRIVER):
        fact = f"chromium is {CHROMIUM or 'not on PATH'}, chromedriver {DRIVER or 'not on PATH'}"
        if os.environ.get(REQUIRED):
            pytest.fail(f"{REQUIRED} is set, and {fact}")
        pytest.skip(f"{fact}; CHROMIUM and CHROMEDRIVER may name them")
    options = Options()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, Service(DRIVER))
    yield driver
    driver.quit()


#: Opens a report, at an address if one is given; at None, it is opened by the test.
Opened = Callable[..., Page]


@pytest.fixture
def browse(driver: webdriver.Chrome) -> Iterator[Opened]:
    """Open a report; the test fails when anything was written to the console."""
    driver.get_log("browser")

    def opened(path: Path, address: str | None = "") -> Page:
        page = Page(driver, path)
        return page if address is None else page.visit(address)

    yield opened
    assert driver.get_log("browser") == []


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three torches on one device, and one on another; among them every kind of change."""
    folder = tmp_path_factory.mktemp("small")

    def results(**changes: dict[str, str]) -> dict[str, dict[str, str]]:
        names = ["ddp-ws2-float32", "ddp-ws4-float32", "fsdp2-ws2-float32", "fsdp2-ws4-float32"]
        plain = {f"{s}/{name}": dict(cells.PASSED) for s in ("alpha", "beta") for name in names}
        return {**plain, **{k.replace("__", "/").replace("_", "-"): v for k, v in changes.items()}}

    unsupported = {"status": "not supported", "message": "torch says no"}
    failed = {"status": "failed", "ratio": "5e5", "message": "step 0", "detail": "the growth"}
    old = results(alpha__fsdp2_ws2_float32=unsupported, alpha__ddp_ws2_float32=failed)
    new = results(
        alpha__fsdp2_ws2_float32={**failed, "message": f"step 1 {HOSTILE}"},
        alpha__ddp_ws4_float32={"status": "passed", "ratio": "0.45"},
        beta__ddp_ws2_float32={"status": "crash", "message": "rank 1 killed", "detail": "stacks"},
        beta__ddp_ws4_float32={"status": "missing", "message": "no result"},
    )
    cells.write(folder, "2.4", "cpu", old)
    cells.write(folder, "2.10", "cpu", results())
    cells.write(folder, "2.11", "cpu", new)
    del old["beta/ddp-ws2-float32"]
    cells.write(folder, "2.10", "xpu", old)
    write([folder], folder / "report")
    return folder / "report" / "index.html"


def test_columns_stand_in_the_order_of_versions(browse: Opened, small: Path) -> None:
    page = browse(small)

    assert [head.text for head in page.all("thead .outer")] == ["2.4", "2.10", "2.11"]
    assert [head.text for head in page.all("thead .inner")] == ["cpu", "cpu", "xpu", "cpu"]


def test_cell_of_a_branch_says_what_it_adds_up_to(browse: Opened, small: Path) -> None:
    label = browse(small).one("[data-row='0'] [data-column='3']").get_attribute("aria-label")

    expected = "torch 2.11 on cpu: 3 of 4 passed; 1 failed; worst ratio 5e5, fsdp2-ws2-float32"
    assert label == expected


def test_rows_open_level_by_level(browse: Opened, small: Path) -> None:
    page = browse(small, "open=")
    assert page.names() == ["alpha", "beta"]
    page.one("[data-row='0'] th").click()
    assert page.names() == ["alpha", "ddp", "fsdp2", "beta"]
    page.one("[data-row='2'] th").click()

    assert page.names()[2:5] == ["fsdp2", "2 ranks · float32", "4 ranks · float32"]
    levels = [row.get_attribute("aria-level") for row in page.all("tbody [role=row]")]
    assert levels == ["1", "2", "2", "3", "3", "1"]
    expanded = [row.get_attribute("aria-expanded") for row in page.all("tbody [role=row]")]
    assert expanded == ["true", "false", "true", None, None, "false"]


def test_a_column_has_each_pair_of_nodes_and_names_the_bad_one(
    browse: Opened, tmp_path: Path
) -> None:
    ran = {"pairs": "n1 n1; n1 n2; n2 n2", "nodes": "n1 n2", "devices": "cpu cpu"}
    wrong = {**ran, "status": "failed", "pairs_wrong": "n1 n2; n2 n2"}
    cells.write(tmp_path, "2.13", "cpu", {"a/ddp-ws2-float32": wrong})
    write([tmp_path], tmp_path / "report")

    page = browse(tmp_path / "report" / "index.html", "col=2.13-cpu")

    assert [cell.text for cell in page.all(".pairs td")] == ["0/1", "1/1", "1/1", "1/1"]
    assert len(page.all(".pairs .f-bad")) == 3
    assert page.one(".conclusion").text == "n2 is in every pair that was wrong"
    page.visit("case=a/ddp-ws2-float32&col=2.13-cpu")
    assert "n1 n2" in page.one(".account .facts").text


@pytest.fixture(scope="module")
def broad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two families of scenarios, strategies that are settings of others, and declared failures."""
    folder = tmp_path_factory.mktemp("broad")
    families = {"alpha": "calls", "beta": "calls", "gamma": "layers"}
    names = [f"{name}-ws2-float32" for name in ("ddp", "ddp_hook", "fsdp2", "tp")]
    right = {
        f"{scenario}/{name}": {**cells.PASSED, "family": family}
        for scenario, family in families.items()
        for name in names
    }
    declared = {
        "status": "expected failure",
        "family": "calls",
        "ratio": "1e6",
        "message": "known",
        "link": "https://example.org/1 https://example.org/2",
    }
    cells.write(folder, "2.4", "cpu", right)
    cells.write(folder, "2.5", "cpu", {**right, "beta/tp-ws2-float32": declared})
    fixed = {**declared, "status": "unexpectedly fixed", "ratio": "0.1"}
    cells.write(folder, "2.6", "cpu", {**right, "beta/tp-ws2-float32": fixed})
    write([folder], folder / "report")
    return folder / "report" / "index.html"


DEPTHS = {
    "families": ["calls", "layers"],
    "scenarios": ["calls", "alpha", "beta", "layers", "gamma"],
    "strategies": ["calls", "alpha", "ddp", "ddp_hook", "fsdp2", "tp", "beta"],
    "cases": ["calls", "alpha", "ddp", "2 ranks · float32", "ddp_hook"],
}


@pytest.mark.parametrize(("depth", "names"), DEPTHS.items(), ids=DEPTHS)
def test_rows_are_open_as_far_as_is_asked(
    browse: Opened, broad: Path, depth: str, names: list[str]
) -> None:
    page = browse(broad)
    page.one(f"#depth [data-value={depth}]").click()

    assert page.names()[: len(names)] == names
    pressed = page.all("#depth [aria-pressed=true]")
    assert [one.text for one in pressed] == [depth]
    assert page.visit(page.hash.removeprefix("#")).names()[: len(names)] == names


def test_one_family_of_all_is_opened_and_shut(browse: Opened, broad: Path) -> None:
    page = browse(broad, "shut=*")
    page.one("[data-row='1'] th").click()
    assert page.names() == ["calls", "layers", "gamma"]
    assert page.hash == "#open=family.layers&shut=*"
    page.one("[data-row='1'] th").click()

    assert page.names() == ["calls", "layers"]


def test_strategies_are_chosen_one_by_one_or_with_their_settings(
    browse: Opened, broad: Path
) -> None:
    page = browse(broad)
    page.one("#strategy-menu summary").click()
    page.one("#strategies .whole").click()
    assert page.hash == "#str=ddp&str=ddp_hook"
    page.one("#strategies [data-value=tp]").click()

    assert page.one("#strategy-menu summary").text == "Strategies: 3 of 4"
    page.one("#said").click()
    assert not page.one("#strategies").is_displayed()


def test_declared_failure_is_beside_the_colour_and_not_in_it(browse: Opened, broad: Path) -> None:
    cell = browse(broad, "shut=*").one("[data-row='0'] [data-column='1']")

    assert cell.get_attribute("aria-label") == (
        "torch 2.5 on cpu: 7 of 8 passed; 1 expected failure; worst ratio 0.1, ddp-ws2-float32"
    )
    assert "known" in str(cell.get_attribute("class")).split()


CHANGED = {
    "declared": ("a=2.4-cpu&b=2.5-cpu", "regressed"),
    "declared, and right": ("a=2.5-cpu&b=2.6-cpu", "fixed"),
    "right in both": ("a=2.4-cpu&b=2.6-cpu", "other"),
}


@pytest.mark.parametrize(("pair", "section"), CHANGED.values(), ids=CHANGED)
def test_comparison_is_of_numbers_and_not_of_declarations(
    browse: Opened, broad: Path, pair: str, section: str
) -> None:
    page = browse(broad, f"view=compare&{pair}")

    changed = {
        name: [cell.text for cell in page.all(f"#change-{name} tbody tr:not(.cause) th")]
        for name in ("regressed", "fixed", "drifted", "other")
    }
    assert {name for name, found in changed.items() if found} == {section}


def test_every_link_of_an_expectation_leads_somewhere(browse: Opened, broad: Path) -> None:
    page = browse(broad, "case=beta/tp-ws2-float32&col=2.5-cpu")

    links = [link.get_attribute("href") for link in page.all("#panel .facts a")]
    assert links == ["https://example.org/1", "https://example.org/2"]


FILTERS = {
    "text": ("q=beta+ddp", "2 of 8 cases"),
    "message": ("q=killed", "1 of 8 cases"),
    "outcome": ("out=crash&out=not-supported", "2 of 8 cases"),
    "strategy": ("str=fsdp2", "4 of 8 cases"),
    "differ": ("diff=1", "4 of 8 cases"),
    "device": ("dev=xpu", "8 cases, 1 cell"),
    "together": ("str=ddp&diff=1&q=alpha", "1 of 8 cases"),
    "nothing": ("q=gamma", "0 of 8 cases"),
}


@pytest.mark.parametrize(("address", "said"), FILTERS.values(), ids=FILTERS)
def test_filters_are_in_the_address(browse: Opened, small: Path, address: str, said: str) -> None:
    assert said in browse(small, address).said


def test_filters_are_set_by_hand_and_written_to_the_address(browse: Opened, small: Path) -> None:
    page = browse(small)
    page.press("/", *"beta")
    page.one("#outcomes [data-value=missing]").click()
    page.one("#strategy-menu summary").click()
    page.one("#strategies [data-value=ddp]").click()
    page.press(Keys.ESCAPE)
    page.one("#diff").click()

    assert page.hash == "#q=beta&diff=1&out=missing&str=ddp"
    assert page.said.startswith("1 of 8 cases")
    page.one("#reset").click()
    assert (page.hash, page.said) == ("", "8 cases, 4 cells")


def test_long_names_that_begin_alike_can_be_told_apart_beside_an_open_panel(
    browse: Opened, tmp_path: Path
) -> None:
    names = ["two_backwards_of_one_graph_in_order", "two_backwards_of_one_graph_reversed"]
    for torch in ("2.4", "2.8", "2.10", "2.11", "2.12", "2.13", "2.14", "2.15"):
        results = {f"{name}/ddp-ws2-float32": dict(cells.PASSED) for name in names}
        cells.write(tmp_path, torch, "cpu", results)
    write([tmp_path], tmp_path / "report")
    page = browse(tmp_path / "report" / "index.html", None)
    page.visit(f"open=&case={names[0]}/ddp-ws2-float32&col=2.4-cpu")

    assert page.names() == names
    labels = page.all("tbody [role=rowheader]")
    assert [label.accessible_name for label in labels] == [f"{name} 1" for name in names]
    for label in page.all("tbody .label"):
        begin = label.find_element(By.CSS_SELECTOR, ".begin")
        # What is cut is the middle, and the end is within the column of names.
        wide, shown = (
            int(str(begin.get_property(name))) for name in ("scrollWidth", "clientWidth")
        )
        assert wide > shown > 40
        column = label.find_element(By.XPATH, "..").rect
        end = page.driver.execute_script(
            "const r = document.createRange(); r.selectNode(arguments[0].lastChild);"
            "return r.getBoundingClientRect().right",
            label,
        )
        assert end < column["x"] + column["width"]


def test_address_that_names_what_is_not_there_is_answered(browse: Opened, small: Path) -> None:
    page = browse(small, "case=alpha/nothing&col=2.4-cpu&out=splendid")

    assert "alpha/nothing, splendid" in page.one("#notice").text


def test_case_has_its_outcomes_plot_texts_and_command(browse: Opened, small: Path) -> None:
    page = browse(small, "open=*")
    page.one("[data-row='5'] [data-column='3']").click()

    assert page.hash.endswith("case=alpha%2Ffsdp2-ws2-float32&col=2.11-cpu&open=*")
    outcomes = [row.text for row in page.all("#panel .outcomes tbody td:nth-child(2)")]
    assert outcomes == ["not supported", "passed", "not supported", "failed"]
    assert len(page.all("#panel .plot path.point[d]")) == 2 + len(["cpu", "xpu"])
    assert page.one("#panel .plot text.limit").text == "1"
    assert page.one("#panel .detail").text == "the growth"
    assert page.one("#panel code").text == "distparity run --case alpha/fsdp2-ws2-float32"


def test_plot_has_a_place_for_what_its_scale_has_none_for(browse: Opened, tmp_path: Path) -> None:
    ratios = {"2.4": "0", "2.5": "0.1", "2.6": "1e-9", "2.7": "inf"}
    for torch, ratio in ratios.items():
        status = "failed" if ratio == "inf" else "passed"
        result = {"alpha/ddp-ws2-float32": {"status": status, "ratio": ratio}}
        cells.write(tmp_path, torch, "cpu", result)
    write([tmp_path], tmp_path / "report")
    page = browse(tmp_path / "report" / "index.html", "case=alpha/ddp-ws2-float32")

    def heights(selector: str) -> list[float]:
        middle = "((box) => (box.top + box.bottom) / 2)(one.getBoundingClientRect())"
        found = page.js(f"[...document.querySelectorAll({selector!r})].map((one) => {middle})")
        return [float(one) for one in found]

    zero, usual, least, infinite = heights(".plot .point")[: len(ratios)]
    assert infinite < usual < least < zero - 10
    signs = page.js(
        "[...document.querySelectorAll('.plot text.beyond')].map((one) => one.textContent)"
    )
    assert dict(zip(signs, heights(".plot text.beyond"), strict=True)) == {
        "0": pytest.approx(zero, abs=3),
        "\u221e": pytest.approx(infinite, abs=3),
    }


def test_markup_in_a_message_is_shown_and_not_run(browse: Opened, small: Path) -> None:
    page = browse(small, "case=alpha/fsdp2-ws2-float32&col=2.11-cpu")

    assert HOSTILE in page.one("#panel p.message").text
    assert page.driver.title.startswith("distparity:")
    assert page.all("img") == []


def test_comparison_sorts_the_changes(browse: Opened, small: Path) -> None:
    page = browse(small, "view=compare&a=2.4-cpu&b=2.11-cpu")
    found = {
        name: [cell.text for cell in page.all(f"#change-{name} tbody tr:not(.cause) th")]
        for name in ("regressed", "fixed", "drifted", "other")
    }

    assert found == {
        "regressed": ["beta/ddp-ws2-float32"],
        "fixed": ["alpha/ddp-ws2-float32"],
        "drifted": ["alpha/ddp-ws4-float32"],
        "other": ["alpha/fsdp2-ws2-float32", "beta/ddp-ws4-float32"],
    }
    assert page.one("#change-drifted tbody td:last-child").text == "\u00d7 4.5"


#: What an outcome says of the numbers: that they are right, that they are wrong, or nothing.
SAYS = {
    "passed": "right",
    "unexpectedly fixed": "right",
    "failed": "wrong",
    "crash": "wrong",
    "timeout": "wrong",
    "flaky": "wrong",
    "expected failure": "wrong",
    "error": "",
    "missing": "",
    "not run": "",
    "not available": "",
    "not supported": "",
    "absent": "",
}
SECTIONS = {("right", "wrong"): "regressed", ("wrong", "right"): "fixed"}


def test_comparison_has_every_pair_of_outcomes_in_its_place(browse: Opened, tmp_path: Path) -> None:
    def case(pair: tuple[str, str]) -> str:
        return f"{pair[0]}/{pair[1]}-ws2-float32".replace(" ", "_")

    pairs = list(itertools.product(SAYS, SAYS))
    for side, torch in enumerate(("2.4", "2.5")):
        results = {case(pair): {"status": pair[side], "message": "said"} for pair in pairs}
        present = {name: one for name, one in results.items() if one["status"] != "absent"}
        cells.write(tmp_path, torch, "cpu", present)
    write([tmp_path], tmp_path / "report")
    page = browse(tmp_path / "report" / "index.html", "view=compare")
    script = "[...document.querySelectorAll('#change-{} tbody tr:not(.cause) th')].map((one) => one.textContent)"

    found = {name: page.js(script.format(name)) for name in ("regressed", "fixed", "other")}
    expected: dict[str, list[str]] = {name: [] for name in found}
    for was, now in pairs:
        if was != now:
            section = SECTIONS.get((SAYS[was], SAYS[now]), "other")
            expected[section].append(case((was, now)))
    assert set(SAYS) == {one.name for one in STATUSES} | {"absent"}
    assert {name: sorted(rows) for name, rows in found.items()} == {
        name: sorted(rows) for name, rows in expected.items()
    }


COMPARED = {
    "differ": ("diff=1&a=2.4-cpu&b=2.10-cpu", "2 of 8 cases, 2 cells"),
    "outcome of a third cell": ("out=crash&a=2.4-cpu&b=2.10-cpu", "0 of 8 cases, 2 cells"),
    "outcome of one of them": ("out=crash&a=2.4-cpu&b=2.11-cpu", "1 of 8 cases, 2 cells"),
    "message of a third cell": ("q=killed&a=2.4-cpu&b=2.10-cpu", "0 of 8 cases, 2 cells"),
    "message of one of them": ("q=killed&a=2.4-cpu&b=2.11-cpu", "1 of 8 cases, 2 cells"),
    "another device": ("dev=xpu&a=2.4-cpu&b=2.10-cpu", "8 cases, 2 cells"),
}


@pytest.mark.parametrize(("address", "said"), COMPARED.values(), ids=COMPARED)
def test_filters_of_a_comparison_are_about_the_two(
    browse: Opened, small: Path, address: str, said: str
) -> None:
    page = browse(small, f"view=compare&{address}")

    assert page.said == said
    if "b=2.10-cpu" in address:
        assert page.one("#outcomes [data-value=passed] b").text == "14"


def test_case_of_a_comparison_has_its_row_whatever_devices_are_chosen(
    browse: Opened, small: Path
) -> None:
    page = browse(small, "view=compare&dev=xpu&a=2.4-cpu&b=2.11-cpu")
    page.one("#change-regressed button").click()

    assert page.one("#panel .chosen th").text == "2.11 cpu"


@pytest.mark.parametrize("width", [1400, 1000, 840])
def test_texts_of_a_comparison_stay_in_their_cells(browse: Opened, large: Path, width: int) -> None:
    page = browse(large, None)
    sized = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    try:
        page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", sized)
        page.visit("view=compare&case=scenario_000/strategy00-ws2-float32")
        cut = page.js(
            "[...document.querySelectorAll('.change :is(th, td)')].filter((cell) => {"
            "const words = document.createRange(); words.selectNodeContents(cell);"
            "return words.getBoundingClientRect().right > cell.getBoundingClientRect().right; })"
            ".map((cell) => cell.textContent)"
        )
        words = page.one(".compare").text
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    assert cut == []
    assert "expected failure" in words
    assert "unexpectedly fixed" in words


def test_comparison_is_chosen_by_hand(browse: Opened, small: Path) -> None:
    page = browse(small)
    page.one("#to-compare").click()
    page.one("#choose-a option[value='2.4-cpu']").click()

    assert page.hash == "#view=compare&a=2.4-cpu"
    page.driver.back()
    assert page.all("[role=treegrid]")


def test_runs_show_the_facts_side_by_side(browse: Opened, small: Path) -> None:
    page = browse(small, "view=runs")
    rows = {row.find_element(By.TAG_NAME, "th").text: row for row in page.all(".runs tbody tr")}

    facts = [cell.text for cell in rows["torch"].find_elements(By.TAG_NAME, "td")]
    assert facts == ["2.4", "2.10", "2.10", "2.11"]
    assert "differ" in str(rows["device"].get_attribute("class"))
    assert "differ" not in str(rows["python"].get_attribute("class"))


def test_keyboard_alone_is_enough(browse: Opened, small: Path) -> None:
    page = browse(small, "open=")
    page.js("document.querySelector('[data-row=\"0\"] th').focus()")
    page.press(Keys.ARROW_RIGHT)
    assert page.names() == ["alpha", "ddp", "fsdp2", "beta"]
    page.press(Keys.ARROW_DOWN, Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.END)
    assert page.focused.startswith("torch 2.11 on cpu: passed")
    page.press(Keys.ARROW_LEFT, Keys.ARROW_UP, Keys.ARROW_UP, Keys.HOME, Keys.ARROW_LEFT)
    assert page.names() == ["alpha", "beta"]
    page.press(Keys.ARROW_DOWN, Keys.END, Keys.ENTER)
    assert page.hash.startswith("#group=beta&col=2.11-cpu")
    assert page.driver.switch_to.active_element == page.one("#panel")
    page.press(Keys.ESCAPE)
    assert not page.one("#panel").is_displayed()
    assert page.focused.startswith("torch 2.11 on cpu: 2 of 4 passed")
    page.press(Keys.ARROW_UP, Keys.ARROW_UP)
    assert page.focused.startswith("torch 2.11 on cpu: facts of the run")


#: What is shut, and where the keyboard is then.
SHUT = {
    "menu": (
        "",
        "#strategy-menu summary",
        (Keys.ENTER, Keys.TAB, Keys.ESCAPE),
        "#strategy-menu summary",
    ),
    "key": ("", "#key summary", (Keys.ENTER, Keys.ESCAPE), "#key summary"),
    "details in a comparison": (
        "view=compare&a=2.4-cpu&b=2.11-cpu",
        "#change-drifted button",
        (Keys.ENTER, Keys.TAB, Keys.ESCAPE),
        "#change-drifted button",
    ),
    "details by their button": (
        "view=compare&a=2.4-cpu&b=2.11-cpu",
        "#change-drifted button",
        (Keys.ENTER, Keys.TAB, Keys.ENTER),
        "#change-drifted button",
    ),
    "details of an address": (
        "view=compare&a=2.4-cpu&b=2.11-cpu&case=alpha/ddp-ws4-float32",
        "",
        (Keys.ESCAPE,),
        "#change-drifted button",
    ),
    "details of a case that is in no list": (
        "view=compare&a=2.4-cpu&b=2.11-cpu&case=beta/fsdp2-ws2-float32",
        "#panel",
        (Keys.ESCAPE,),
        "main",
    ),
    "details for a comparison": ("col=2.11-cpu", "#panel .plain", (Keys.ENTER,), "main"),
    "filters": ("q=alpha", "#reset", (Keys.ENTER,), "#q"),
}


@pytest.mark.parametrize(("address", "start", "keys", "end"), SHUT.values(), ids=SHUT)
def test_keyboard_is_never_lost(
    browse: Opened, small: Path, address: str, start: str, keys: tuple[str, ...], end: str
) -> None:
    page = browse(small, address)
    if start:
        page.js(f"document.querySelector({start!r}).focus()")
    page.press(*keys)

    assert page.driver.switch_to.active_element == page.one(end)


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five torches: one strategy is wrong in the middle, one at first, one is not judged at first."""
    folder = tmp_path_factory.mktemp("releases")
    summed = {"status": "failed", "ratio": "5e5", "message": "step 0, gradient 'w', rank 0: off"}
    for torch in ("2.8", "2.9", "2.10", "2.11", "2.12"):
        results = {
            f"a_long_name_of_a_scenario/{s}-ws{n}-f": dict(cells.PASSED)
            for s in "abcd"
            for n in (2, 4)
        }
        if torch in ("2.10", "2.11"):
            for n in (2, 4):
                says = f"gradients summed: a factor of the world size, {n}"
                results[f"a_long_name_of_a_scenario/a-ws{n}-f"] = {**summed, "diagnosis": says}
        if torch == "2.8":
            known = {"status": "expected failure", "reason": "a known bug", "ratio": "9.9e14"}
            results["a_long_name_of_a_scenario/b-ws2-f"] = known
            results["a_long_name_of_a_scenario/c-ws2-f"] = {
                "status": "not supported",
                "message": "no",
            }
        cells.write(folder, torch, "cpu", results)
    write([folder], folder / "report")
    return folder / "report" / "index.html"


TIMES = "\N{MULTIPLICATION SIGN}"
VERDICTS = {
    "a": "a on cpu: broken 2.10 to 2.11",
    "b": "b on cpu: right since 2.9",
    "c": "c on cpu: right in all of 2.9 to 2.12; not judged in 2.8",
    "d": "d on cpu: right in all of 2.8 to 2.12",
}


def test_rows_have_a_verdict_in_words(browse: Opened, releases: Path) -> None:
    page = browse(releases, None)
    for name, words in VERDICTS.items():
        page.visit(f"case=a_long_name_of_a_scenario/{name}-ws2-f")
        assert page.one("#panel .history").text == words

    page.visit("open=*")
    titles = [str(row.get_attribute("title")) for row in page.all("tbody [role=rowheader]")]
    assert "a_long_name_of_a_scenario/a\na on cpu: broken 2.10 to 2.11" in titles
    assert page.one("#answer").text == "4 of 40 results wrong, in 2 of 5 cells; 1 wrong as declared"


@pytest.fixture(scope="module")
def dated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs of a cell by date, the second of them wrong; sources that have an address."""
    folder = tmp_path_factory.mktemp("dated")
    for day, ratio in (("20", "0.1"), ("21", "5e5"), ("22", "0.2")):
        result = {"status": "passed" if float(ratio) < 1 else "failed", "ratio": ratio}
        result |= {"scenario_source": "scenarios/a.py", "strategy_source": "strategies/ddp.py"}
        address = "https://example.org/tree/v1"
        xml = cells.write(folder, "2.13", "cpu", {"a/ddp-ws2-f": result}, source=address)
        xml.write_text(xml.read_text().replace("2026-11-20T", f"2026-11-{day}T"))
        write([xml], folder / "report", folder / "runs.json")
    return folder / "report" / "index.html"


def test_case_has_the_runs_of_its_cell_by_date(browse: Opened, dated: Path) -> None:
    page = browse(dated, "case=a/ddp-ws2-f")
    rows = [row.text.split()[:4] for row in page.all("#panel .by-date tbody tr")]

    assert rows == [
        ["2026-11-22", "08:00", "passed", "0.2"],
        ["2026-11-21", "08:00", "failed", "5e5"],
        ["2026-11-20", "08:00", "passed", "0.1"],
    ]
    assert page.one("#panel .by-date .history").text == "broken 2026-11-21"


def test_bound_that_is_always_reached_is_not_the_darkest(browse: Opened, tmp_path: Path) -> None:
    reached = {"status": "passed", "ratio": "0.9998", "checks": "11"}
    results = {"all_reduce/tensor-ws2-f": reached, "a/ddp-ws2-f": cells.PASSED}
    cells.write(tmp_path, "2.13", "cpu", results)
    write([tmp_path], tmp_path / "report")
    page = browse(tmp_path / "report" / "index.html", "open=*")

    drawn = [str(cell.get_attribute("class")).split() for cell in page.all("tbody [role=gridcell]")]
    assert not any("p4" in classes for classes in drawn)
    page.visit("col=2.13-cpu")
    assert "a/ddp-ws2-f" in page.one("#panel").text.partition("Worst ratio")[2].splitlines()[0]


def test_case_leads_to_its_sources(browse: Opened, dated: Path) -> None:
    links = browse(dated, "case=a/ddp-ws2-f").all("#panel .sources a")

    base = "https://example.org/tree/v1/src/distparity"
    assert [(link.text, link.get_attribute("href")) for link in links] == [
        ("scenarios/a.py", f"{base}/scenarios/a.py"),
        ("strategies/ddp.py", f"{base}/strategies/ddp.py"),
    ]


def test_comparison_groups_by_cause(browse: Opened, releases: Path) -> None:
    page = browse(releases, "view=compare&a=2.8-cpu&b=2.10-cpu")

    causes = {
        name: [row.text for row in page.all(f"#change-{name} .cause")]
        for name in ("regressed", "fixed", "other")
    }
    assert causes == {
        "regressed": [f"2 {TIMES} gradients summed: a factor of the world size, N"],
        "fixed": [f"1 {TIMES} a known bug"],
        "other": [f"1 {TIMES} no"],
    }
    assert page.one(".sentence").text.startswith("2 cases regressed, for 1 cause; 1 fixed, ")


def test_narrow_screen_leaves_the_height_to_the_matrix(browse: Opened, releases: Path) -> None:
    page = browse(releases, None)
    phone = {"width": 390, "height": 850, "deviceScaleFactor": 1, "mobile": False}
    try:
        page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
        page.visit()
        above = page.js("document.querySelector('main').getBoundingClientRect().top")
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    assert above < 120


def test_keyboard_is_not_lost_by_going_back(browse: Opened, small: Path) -> None:
    page = browse(small, "view=compare&a=2.4-cpu&b=2.11-cpu")
    page.one("#change-drifted button").click()
    page.driver.back()

    assert page.driver.switch_to.active_element == page.one("#change-drifted button")


def test_columns_are_counted_in_the_header_as_in_the_rows(browse: Opened, small: Path) -> None:
    page = browse(small)

    def places(selector: str) -> list[str | None]:
        return [cell.get_attribute("aria-colindex") for cell in page.all(selector)]

    assert places("thead tr:first-child [role=columnheader]") == ["1", "2", "3", "5"]
    assert places("thead tr:last-child [role=columnheader]") == ["2", "3", "4", "5"]
    assert places("[data-row='0'] > [role]") == ["1", "2", "3", "4", "5"]


def test_one_place_of_the_matrix_is_in_the_order_of_tabs(browse: Opened, small: Path) -> None:
    page = browse(small, "open=*")
    page.one("[data-row='3'] [data-column='1']").click()

    stops = page.all("[role=treegrid] [tabindex='0']")
    assert [stop.get_attribute("data-column") for stop in stops] == ["1"]


def colours(page: Page, *selectors: str) -> list[str]:
    return [
        str(page.js(f"getComputedStyle(document.querySelector({one!r})).backgroundColor"))
        for one in selectors
    ]


@pytest.mark.parametrize("wanted", ["light", "dark"])
def test_colours_follow_the_system_until_chosen(browse: Opened, small: Path, wanted: str) -> None:
    page = browse(small)
    features = [{"name": "prefers-color-scheme", "value": wanted}]
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    followed = colours(page.visit(), "body")
    chosen = {name: colours(page.visit(f"theme={name}"), "body") for name in ("light", "dark")}
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})

    assert followed == chosen[wanted]
    assert chosen["light"] != chosen["dark"]


def test_switch_goes_through_the_themes(browse: Opened, small: Path) -> None:
    page = browse(small)
    seen = []
    for _ in range(3):
        page.one("#theme").click()
        seen.append(page.js("document.documentElement.dataset.theme"))

    assert seen == ["light", "dark", "auto"]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_two_outcomes_look_alike(browse: Opened, small: Path, theme: str) -> None:
    page = browse(small, f"theme={theme}")
    page.one("#key summary").click()
    looks = page.js(
        "[...document.querySelectorAll('.key:first-child td.cell')].map((cell) => {"
        "const style = getComputedStyle(cell);"
        "return [cell.querySelector('use')?.getAttribute('href'), style.backgroundImage,"
        "style.backgroundColor, style.outlineStyle, style.boxShadow].join(' '); })"
    )
    pictures = page.js(
        "[...document.querySelectorAll('symbol')].map((one) => one.innerHTML.trim())"
    )

    # One more than there are outcomes: a case that a cell does not have.
    assert len(looks) == len(STATUSES) + 1
    assert len(set(looks)) == len(looks)
    assert len(set(pictures)) == len(pictures)
    passed = page.all(".key tr")[len(STATUSES) - 1].find_element(By.CSS_SELECTOR, "td.cell")
    assert "s-passed" in str(passed.get_attribute("class"))


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it, of ``rgb(...)``."""
    channels = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_step_of_the_scale_can_be_read(browse: Opened, small: Path, theme: str) -> None:
    steps = browse(small, f"theme={theme}").js(
        "[...document.querySelectorAll('.scale .step')].map((step) => {"
        "const { color, backgroundColor } = getComputedStyle(step);"
        "return [step.textContent, color, backgroundColor]; })"
    )
    contrasts = {}
    for name, ink, paper in steps:
        dark, light = sorted((luminance(ink), luminance(paper)))
        contrasts[name] = (light + 0.05) / (dark + 0.05)

    assert len(contrasts) == 8
    assert {name: value for name, value in contrasts.items() if value < 4.5} == {}


def contrast(ink: str, paper: str) -> float:
    dark, light = sorted((luminance(ink), luminance(paper)))
    return (light + 0.05) / (dark + 0.05)


#: Of every cell of a branch that is in sight: what it says, its text's two colours, its look.
BRANCHES = """[...document.querySelectorAll('main td.branch')].map((cell) => {
    const words = cell.querySelector('.judged');
    if (!words) return null;
    const grounds = [words, cell].map((one) => getComputedStyle(one).backgroundColor);
    return {
        label: cell.getAttribute('aria-label'),
        title: cell.title,
        text: words.textContent,
        ink: getComputedStyle(words).color,
        paper: grounds.find((one) => one !== 'rgba(0, 0, 0, 0)'),
        ground: grounds[0],
        partly: cell.classList.contains('partly'),
        marks: cell.querySelectorAll('.count').length,
        edge: getComputedStyle(cell).outlineStyle,
    };
}).filter(Boolean)"""


@pytest.mark.parametrize("theme", ["light", "dark", "forced"])
def test_worst_ratio_of_a_row_can_be_read(browse: Opened, large: Path, theme: str) -> None:
    page = browse(large, None)
    forced = [{"name": "forced-colors", "value": "active"}] if theme == "forced" else []
    try:
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": forced})
        page.visit("" if forced else f"theme={theme}")
        page.settle()
        found = page.js(BRANCHES)
        steps = page.js(
            "[...document.querySelectorAll('.scale .step')].map((step) => {"
            "const { color, backgroundColor, borderStyle } = getComputedStyle(step);"
            "return [color, backgroundColor, borderStyle]; })"
        )
    finally:
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})

    assert sum(one["marks"] > 0 for one in found) > 20
    for one in found:
        said = re.fullmatch(r"[^:]*: (\d+) of (\d+) passed;.* worst ratio (\S+), .*", one["label"])
        assert said is not None
        assert one["text"] == "{}/{}{}".format(*said.groups())
        assert one["title"] == one["label"]
        assert contrast(one["ink"], one["paper"]) >= 4.5
        # Below the text of a cell with a hatch is a ground, not the hatch.
        assert not one["partly"] or one["ground"] == one["paper"]
    assert {step[2] for step in steps} == {"solid" if forced else "none"}
    assert all(contrast(ink, paper) >= 4.5 for ink, paper, _ in steps)
    if forced:
        assert {one["edge"] for one in found} == {"none", "solid", "dashed"}


#: The share of an element's picture that has the colour of its background.
COLOURED = """
const [cell, picture, done] = arguments;
const image = new Image();
image.onload = () => {
    const { width, height } = image;
    const canvas = Object.assign(document.createElement('canvas'), { width, height });
    const on = canvas.getContext('2d');
    on.drawImage(image, 0, 0);
    const { data } = on.getImageData(0, 0, width, height);
    const hue = getComputedStyle(cell).backgroundColor.match(/\\d+/g).map(Number);
    let found = 0;
    for (let at = 0; at < data.length; at += 4) {
        found += [0, 1, 2].every((part) => Math.abs(data[at + part] - hue[part]) <= 2);
    }
    done(found / (width * height));
};
image.src = `data:image/png;base64,${picture}`;
"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colour_of_a_cell_is_as_wide_as_what_was_judged(
    browse: Opened, tmp_path: Path, theme: str
) -> None:
    silent = {"status": "not supported", "message": "no"}
    names = [f"ddp-ws{size}-float32" for size in range(2, 11)]
    results = {
        f"{scenario}/{name}": silent if place >= passed else cells.PASSED
        for scenario, passed in {"one": 1, "five": 5, "nine": 9}.items()
        for place, name in enumerate(names)
    }
    cells.write(tmp_path, "2.4", "cpu", results)
    write([tmp_path], tmp_path / "report")
    page = browse(tmp_path / "report" / "index.html", f"open=&theme={theme}")
    shares = {}
    for name, cell in zip(page.names(), page.all("main td.branch"), strict=True):
        picture = cell.screenshot_as_base64
        shares[name] = page.driver.execute_async_script(COLOURED, cell, picture)

    assert shares["one"] < 0.4 < shares["five"] < 0.75 < shares["nine"]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 cells of 1,000 cases, every outcome among them."""
    folder = tmp_path_factory.mktemp("large")
    cells.matrix(folder, [f"2.{n}" for n in range(4, 24)], ["cpu", "hpu"], 25, 5)
    write([folder], folder / "report")
    return folder / "report" / "index.html"


def test_large_matrix_keeps_only_what_is_in_sight(browse: Opened, large: Path) -> None:
    page = browse(large, "open=*")
    rows = int(page.one("[role=treegrid]").get_attribute("aria-rowcount") or 0)
    assert page.said == "1,000 cases, 40 cells"
    assert rows == 2 + 25 + 125 + 1000
    assert len(page.all("tbody [role=row]")) < 100

    page.js("document.querySelector('[data-row=\"0\"] th').focus()")
    ActionChains(page.driver).key_down(Keys.CONTROL).send_keys(Keys.END).key_up(
        Keys.CONTROL
    ).perform()
    last = page.all("tbody [role=row]")[-1]
    assert last.get_attribute("aria-rowindex") == str(rows)
    page.press(Keys.ARROW_RIGHT)
    assert page.focused.startswith("torch 2.4 on cpu")
    assert len(page.all("tbody tr:last-child [data-column]")) < 30
    page.press(Keys.END)
    assert page.focused.startswith("torch 2.23 on hpu")
    assert page.driver.switch_to.active_element.get_attribute("aria-colindex") == "41"


def test_header_and_names_stay_in_sight(browse: Opened, large: Path) -> None:
    page = browse(large, "open=*")
    before = page.js(
        "['thead', '.corner'].map((one) => document.querySelector(one).getBoundingClientRect())"
    )
    page.js("document.querySelector('.scroller').scrollTo(900, 30000)")
    page.settle()
    after = page.js(
        "['thead', '.corner'].map((one) => document.querySelector(one).getBoundingClientRect())"
    )

    assert after[0]["top"] == before[0]["top"]
    assert after[1]["left"] == before[1]["left"]
    names = [name.rect["x"] for name in page.all("tbody [role=rowheader]")]
    assert names
    assert len(set(names)) == 1


def test_details_lie_over_nothing_on_paper(browse: Opened, small: Path) -> None:
    page = browse(small, None)
    narrow = {"width": 700, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    positions = {}
    try:
        page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", narrow)
        page.visit("case=alpha/fsdp2-ws2-float32")
        for media in ("screen", "print"):
            page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media})
            positions[media] = page.js(
                "getComputedStyle(document.getElementById('panel')).position"
            )
    finally:
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    # On a telephone they cover the matrix; a page of paper is no wider.
    assert positions == {"screen": "fixed", "print": "static"}


def test_paper_has_all_rows(browse: Opened, small: Path) -> None:
    page = browse(small, "open=*")
    page.js("dispatchEvent(new Event('beforeprint'))")
    whole = len(page.all("tbody [role=row]"))
    page.js("dispatchEvent(new Event('afterprint'))")

    assert whole == 2 + 4 + 8


@pytest.fixture
def on_paper(browse: Opened) -> Iterator[Callable[[Path, str], Page]]:
    """A page as it is printed: A4, landscape, between its margins."""
    pages = []

    def lay(path: Path, address: str) -> Page:
        page = browse(path, None)
        pages.append(page)
        page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", SHEET)
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
        page.visit(address)
        page.js("dispatchEvent(new Event('beforeprint'))")
        return page

    yield lay
    for page in pages:
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


SHEET = {"width": 1032, "height": 703, "deviceScaleFactor": 1, "mobile": False}
#: Texts that are smaller than 6 pt, and elements that are cut or wider than the page.
SMALL = """[...document.querySelectorAll('.paper *, .top *, #outcomes *')].filter((one) =>
    [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim())
    && 0.75 * (one.closest('table')?.style.zoom || 1) * parseFloat(getComputedStyle(one).fontSize) < 6
).map((one) => one.textContent)"""
CUT = """[...document.querySelectorAll('.paper :is(th, td, button)')].filter((one) =>
    one.scrollWidth > one.clientWidth + 1 || one.getBoundingClientRect().right > innerWidth
).map((one) => one.textContent)"""
PAPERS = {
    "matrix": ("", ".paper .inner button", "aria-label", 25),
    "matrix, by device": ("by=device", ".paper .inner button", "aria-label", 25),
    "runs": ("view=runs", ".paper thead th:not(:first-child)", "textContent", 12),
}


@pytest.mark.parametrize(("address", "heads", "name", "rows"), PAPERS.values(), ids=PAPERS)
def test_paper_has_all_columns_and_they_can_be_read(
    on_paper: Callable[[Path, str], Page],
    large: Path,
    address: str,
    heads: str,
    name: str,
    rows: int,
) -> None:
    page = on_paper(large, address)
    columns = [(f"2.{n}", device) for n in range(4, 24) for device in ("cpu", "hpu")]
    if "by=device" in address:
        columns.sort(key=lambda column: column[1])

    titles = [str(head.get_attribute(name)) for head in page.all(heads)]
    assert [title.partition(":")[0] for title in titles] == [
        f"torch {torch} on {device}" for torch, device in columns
    ]
    tables = page.all(".paper table")
    assert len(tables) > 1
    assert all(len(table.find_elements(By.CSS_SELECTOR, "tbody tr")) >= rows for table in tables)
    assert page.js(SMALL) == []
    assert page.js(CUT) == []
    assert page.js("document.documentElement.scrollWidth") <= SHEET["width"]


def test_names_on_paper_are_whole(on_paper: Callable[[Path, str], Page], tmp_path: Path) -> None:
    torch, device = "2.12.0.dev20261120+rocm7.2", "a_device_with_quite_a_long_name"
    case = f"{'a_scenario_with_a_long_name_' * 2}/{'strategy_of_many_words_' * 3}-ws2-float32"
    cells.write(tmp_path, torch, device, {case: cells.PASSED})
    cells.write(tmp_path, "2.4", "cpu", {case: cells.PASSED})
    write([tmp_path], tmp_path / "report")
    report = tmp_path / "report" / "index.html"

    for address in ("open=*", "view=runs"):
        page = on_paper(report, address)
        assert page.js(CUT) == []
        words = page.one(".paper").text
        assert torch in words.replace("\n", "")
        assert device in words.replace("\n", "")


def test_screen_is_as_it_was_before_it_was_printed(browse: Opened, large: Path) -> None:
    opened = "&".join(f"open=scenario_{n:03}/strategy{s:02}" for n in range(2) for s in range(5))
    page = browse(large, f"open=scenario_000&open=scenario_001&{opened}")
    page.js("document.querySelector('.scroller').scrollTo(900, 2000)")
    page.settle()
    page.js("document.querySelector('tr:nth-child(12) [data-column=\"12\"]').focus()")
    page.settle()
    screen = (
        "(({ scrollTop, scrollLeft }) => [scrollTop, scrollLeft, document.querySelectorAll('tr').length,"
        "document.activeElement.getAttribute('aria-label')])(document.querySelector('.scroller'))"
    )
    before = page.js(screen)
    printed = page.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    page.settle()

    assert before[0] > 1500
    assert before[3].startswith("torch 2.10 on cpu")
    assert page.js(screen) == before
    assert page.all(".paper") == []
    # All 117 rows that are open, in four tables, at most 30 on a page.
    assert len(re.findall(rb"/Type /Page\b", base64.b64decode(printed["data"]))) > 117 * 4 / 30
