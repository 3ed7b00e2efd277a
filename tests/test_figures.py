"""The table of what runs showed of each device."""

from __future__ import annotations

from pathlib import Path

import cells
import pytest

from distparity.report import figures

PASSED = {
    "one/ddp-ws2-float32": cells.PASSED,
    "one/fsdp2-ws2-float32": {**cells.PASSED, "ratio": "0.25"},
}
FAILED = {
    **PASSED,
    "two/ddp-ws2-float32": {"status": "failed", "ratio": "70", "message": "off"},
    "two/fsdp2-ws2-float32": {"status": "expected failure", "ratio": "inf", "message": "off"},
}


@pytest.mark.parametrize(
    ("device", "results", "facts", "row"),
    [
        pytest.param(
            "cuda", PASSED, {},
            "cuda: A device, 4 of them | 2.13 | gloo (unknown) | no | unknown, 2, 4 ranks | 2 "
            "| 2 passed "
            "| 0.25 (one/fsdp2-ws2-float32) | 12 s | 2026-11-20 | 0.1.0",
            id="all passed",
        ),
        pytest.param(
            "cuda-shared", FAILED, {"shared_devices": "yes, by gloo", "backend_version": "torch 2.13", "selection": "quick"},
            "cuda-shared: A device, 4 of them | 2.13 | gloo (torch 2.13) | yes, by gloo "
            "| quick, 2, 4 ranks | 4 "
            "| 1 failed, 1 expected failure, 2 passed | 70 (two/ddp-ws2-float32) | 12 s | 2026-11-20 | 0.1.0",
            id="shared, with a failure",
        ),
    ],
)  # fmt: skip
def test_a_cell_is_a_row_of_the_page(
    tmp_path: Path, device: str, results: cells.Results, facts: dict[str, str], row: str
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{figures.BEGIN}\nold\n{figures.END}\nafter\n")

    figures.into(page, figures.table([cells.write(tmp_path, "2.13", device, results, **facts)]))

    text = page.read_text()
    assert f"| {row} |" in text
    assert "old" not in text
    assert text.startswith("before\n") and text.endswith("after\n")


UPSTREAM = {"selection": "upstream", "torch": "2.15.0+cu132", "upstream_version": "2.12.1a0"}
NEEDS = {"status": "not supported", "message": "upstream says: Need at least 2 devices"}
ON_CPU = {
    "upstream.fsdp.test_a/TestACPU.test_one_cpu": NEEDS,
    "upstream.fsdp.test_a/TestACPU.test_two_cpu_float32": NEEDS,
    "upstream.fsdp.test_a/TestACPU.test_six_cpu": NEEDS,
    "upstream.fsdp.test_a/TestB.test_one": cells.PASSED,
    "upstream.test_c/collection": {"status": "not supported", "message": "no test for this device"},
}
ON_SIM = {
    "upstream.fsdp.test_a/TestASIM.test_one_sim": cells.PASSED,
    "upstream.fsdp.test_a/TestAPRIVATEUSE1.test_two_sim_float32": cells.PASSED,
    "upstream.fsdp.test_a/TestASIM.test_six_sim": {"status": "failed", "message": "a | b\n" * 99},
    "upstream.fsdp.test_a/TestB.test_one": cells.PASSED,
    "upstream.test_c/TestC.test_one": NEEDS,
    "upstream.test_c/TestC.test_two": cells.PASSED,
    "upstream.test_d/TestD.test_one": {
        **NEEDS,
        "message": "upstream says: Need at least 4 devices",
    },
    "upstream.test_d/TestD.test_ten": {
        "status": "failed",
        "message": "ValueError: no Traceback (most recent call last): File '/home/me/a.py'",
    },
    "upstream.test_d/TestD.test_two": {
        "status": "failed",
        "message": "ValueError: no To execute this test, run the following: python test.py",
    },
}
TABLES = f"""
| file | 2.15.0 on cpu | 2.15.0 on sim |
|---|---|---|
| files of torch | 2.12.1a0 | 2.12.1a0 |
| fsdp/test_a.py | 4: 3 not supported, 1 passed | 4: 1 failed, 3 passed |
| test_c.py | 1: 1 not supported | 2: 1 not supported, 1 passed |
| test_d.py | not in this run | 3: 2 failed, 1 not supported |
| all | 5: 4 not supported, 1 passed | 9: 3 failed, 2 not supported, 4 passed |

| outcome | message | 2.15.0 on cpu | 2.15.0 on sim |
|---|---|---|---|
| failed | ValueError: no |  | 2 |
| failed | {f"a {chr(0x2223)} b " * 26}a {chr(0x2223)} ... |  | 1 |
| not supported | Need at least N devices | 3 | 2 |
| not supported | no test for this device | 1 |  |

| cell | passed, and skipped on the CPU | the reason there |
|---|---|---|
| 2.15.0 on sim | upstream.fsdp.test_a/TestASIM.test_one_sim | Need at least 2 devices |
| 2.15.0 on sim | upstream.fsdp.test_a/TestAPRIVATEUSE1.test_two_sim_float32 | Need at least 2 devices |
| 2.15.0 on sim | upstream.test_c/TestC.test_two | no test for this device |
"""


def test_torchs_own_tests_have_tables_of_their_own(tmp_path: Path) -> None:
    cells.write(tmp_path, "2.15", "cpu+upstream", ON_CPU, **UPSTREAM)
    cells.write(tmp_path, "2.15", "sim+upstream", ON_SIM, **UPSTREAM)

    assert figures.table([tmp_path]) == TABLES.strip().split("\n")

    cells.write(tmp_path, "2.15", "cuda", PASSED)
    (head, line, row, *rest) = figures.table([tmp_path])
    assert (head, line) == figures._HEAD and row.startswith("| cuda: ")
    assert rest == ["", *TABLES.strip().split("\n")]


def test_a_page_without_a_place_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing\n")

    with pytest.raises(ValueError, match="has no place for figures"):
        figures.into(page, [])
