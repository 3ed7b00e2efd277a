"""Skip lists of others: what they name, and what becomes of it with results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cells
import pytest

from distparity import cli
from distparity.core.case import Case
from distparity.expectations.file import parse
from distparity.expectations.skip_lists import FORMS, Skipped, read, write

LINK = "https://example.org/issues/7"
XPU = """
skip_dict = {
    "resume.py": (
        # https://example.org/issues/7
        # it loses a shard
        "ddp-ws2-float32",
        "ddp-ws4-float32",
        # another
        "fsdp2-ws2-float32",
    ),
    "basic.py": None,
    # "never.py": ("gone",),
    "ties.py": ("fsdp1-ws2-float32", "fsdp1-ws4-float32"),  # why not
}
"""
JSON = '{"ddp-ws2-float32 (__main__.resume)": ["https://example.org/issues/7", [""]], "bare": ["x", []]}'
LINES = """
# it loses a shard: https://example.org/issues/7
tests/resume.py::ddp-ws2-float32
--deselect='tests/resume.py::Group::ddp-ws4-float32'

tests/ties.py::fsdp1  # why not
"""
WHY = "it loses a shard"
FOUND = {
    "torch-xpu-ops": (
        XPU,
        [
            Skipped("ddp-ws2-float32", WHY, LINK),
            Skipped("ddp-ws4-float32", WHY, LINK),
            Skipped("fsdp2-ws2-float32", "another"),
            Skipped("fsdp1-ws2-float32", "why not"),
            Skipped("fsdp1-ws4-float32", "why not"),
        ],
    ),
    "ascend-json": (
        JSON,
        [Skipped("__main__.resume::ddp-ws2-float32", "", LINK), Skipped("bare", "x")],
    ),
    "pytest-deselect": (
        LINES,
        [
            Skipped("tests/resume.py::ddp-ws2-float32", WHY, LINK),
            Skipped("tests/resume.py::Group::ddp-ws4-float32", WHY, LINK),
            Skipped("tests/ties.py::fsdp1", "why not"),
        ],
    ),
}


@pytest.mark.parametrize(("form", "found"), FOUND.items(), ids=FOUND)
def test_names_have_what_is_said_about_them(form: str, found: tuple[str, list[Skipped]]) -> None:
    text, expected = found

    assert read(form, text) == expected


THEIRS = Case("upstream.fsdp.test_core", "TestIt.test_a", 0, "", "xpu")
THEIR_NAMES = {
    "test/distributed/fsdp/test_core.py::TestIt::test_a": True,
    "../pytorch/test/distributed/fsdp/test_core.py::TestIt::test_a": True,
    "fsdp/test_core.py::TestIt::test_a": True,
    "__main__.TestIt::test_a": True,
    "test_a": True,
    "test/distributed/test_core.py::TestIt::test_a": False,
    "__main__.TestOther::test_a": False,
    "fsdp/test_core.py::TestIt::test_ab": False,
}


@pytest.mark.parametrize(("test", "named"), THEIR_NAMES.items(), ids=THEIR_NAMES)
def test_a_name_means_a_test_of_torchs_own_files(test: str, named: bool) -> None:
    assert Skipped(test).names(THEIRS) is named


@pytest.mark.parametrize("form", FORMS)
def test_a_written_list_names_tests_of_torchs_own_files(form: str) -> None:
    (found,) = read(form, write(form, {THEIRS: "why"}))

    assert found.names(THEIRS)
    assert "upstream" not in found.test


CASE = Case("resume", "ddp", 2, "float32", "xpu")
NAMED = {
    "resume/ddp-ws2-float32": True,
    "ddp-ws2": True,
    "a/b/resume.py::ddp-ws2-float32-xpu": True,
    "resume.py::Class::ddp": True,
    "__main__.resume::ddp-ws2-float32": True,
    "resume.py::fsdp2": False,
    "other.py::ddp-ws2-float32": False,
    "ddp-ws4": False,
}


@pytest.mark.parametrize(("test", "named"), NAMED.items(), ids=NAMED)
def test_which_cases_a_name_names(test: str, named: bool) -> None:
    assert Skipped(test).names(CASE) is named


@pytest.mark.parametrize("form", FORMS)
def test_what_is_written_is_read_again(form: str) -> None:
    other = Case("ties", "fsdp2_hsdp", 4, "bfloat16", "xpu")

    found = read(form, write(form, {CASE: f"{WHY}: {LINK}", other: "another"}))

    assert [(one.reason, one.link) for one in found] == [(WHY, LINK), ("another", "")]
    assert [[one.names(case) for case in (CASE, other)] for one in found] == [
        [True, False],
        [False, True],
    ]


BAD = {
    "torch-xpu-ops": ("skip_dict = {", "line 1"),
    "no dictionary": ("x = 1", "it assigns no dictionary"),
    "ascend-json": ("[]", "it is not an object"),
}


@pytest.mark.parametrize(("name", "bad"), BAD.items(), ids=BAD)
def test_another_form_is_refused(name: str, bad: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match=bad[1]):
        read(name if name in FORMS else "torch-xpu-ops", bad[0])


RESULTS: dict[str, dict[str, Any]] = {
    "resume/ddp-ws2-float32": {
        "status": "failed", "message": "it raised Boom", "failure": "raised", "strategy": "ddp",
        "world_size": 2, "dtype": "float32",
    },
    "resume/ddp-ws4-float32": {"status": "passed"},
    "basic/ddp-ws2-float32": {"status": "unexpectedly fixed", "message": "fixed: remove this entry"},
    "ties/fsdp1-ws2-float32": {"status": "expected failure", "message": f"{WHY}: {LINK}"},
}  # fmt: skip


@pytest.fixture
def results(tmp_path: Path) -> str:
    return str(cells.write(tmp_path, "2.13", "xpu", RESULTS))


def test_a_list_and_results_make_entries(
    tmp_path: Path, results: str, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = tmp_path / "skips.txt"
    listed.write_text(LINES)

    code = cli.main(["expectations", "import", "--from", "array-api", str(listed), results])

    told = capsys.readouterr()
    (entry,) = parse(told.out, "told")
    assert (code, entry.cases, entry.reason, entry.link) == (
        0,
        ("resume/ddp-ws2-float32",),
        WHY,
        LINK,
    )
    assert told.err.splitlines() == [
        "tests/resume.py::Group::ddp-ws4-float32: it names no case that failed",
        "tests/ties.py::fsdp1: it names no case that failed",
    ]


def test_expected_failures_make_a_list(results: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["expectations", "export", "--to", "array-api", results]) == 0

    assert "ties.py::fsdp1-ws2-float32\n" in capsys.readouterr().out


def test_what_passes_again_is_listed_for_an_issue(
    results: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["expectations", "passing", results]) == 0

    head, _, line = capsys.readouterr().out.splitlines()
    assert head.endswith("on xpu: 1 no longer fail")
    assert line.startswith("- [ ] `basic/ddp-ws2-float32`: fixed: remove this entry")
