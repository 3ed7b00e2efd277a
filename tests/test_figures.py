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


def test_a_page_without_a_place_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing\n")

    with pytest.raises(ValueError, match="has no place for figures"):
        figures.into(page, [])
