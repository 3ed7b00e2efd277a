"""The table of outcomes, which every view reads, against what each outcome means."""

from __future__ import annotations

import pytest

from distparity.core.outcome import Status
from distparity.core.statuses import BY_NAME, STATUSES, counted

#: By outcome: whether the run fails, whether nothing was judged, what JUnit's consumers see.
MEANING = {
    Status.PASSED: (False, False, None),
    Status.FAILED: (True, False, "failure"),
    Status.CRASH: (True, False, "failure"),
    Status.TIMEOUT: (True, False, "failure"),
    Status.FLAKY: (True, False, "failure"),
    Status.FIXED: (True, False, "failure"),
    Status.ERROR: (True, False, "error"),
    Status.MISSING: (True, False, "error"),
    Status.EXPECTED: (False, False, "skipped"),
    Status.NOT_RUN: (False, True, "skipped"),
    Status.NOT_SUPPORTED: (False, True, "skipped"),
    Status.NOT_AVAILABLE: (False, True, "skipped"),
}


@pytest.mark.parametrize("status", Status, ids=lambda status: str(status.value))
def test_outcome_means_the_same_in_every_view(status: Status) -> None:
    assert (status.bad, status.skipped, BY_NAME[status.value].element) == MEANING[status]


def test_table_has_each_outcome_once() -> None:
    assert sorted(one.name for one in STATUSES) == sorted(status.value for status in Status)


COUNTS = {
    "none": ({}, ""),
    "one": ({"crash": 1}, "1 crash"),
    "several": ({"passed": 2, "crash": 2, "not run": 3}, "2 passed, 2 crashes, 3 not run"),
}


@pytest.mark.parametrize(("counts", "said"), COUNTS.values(), ids=COUNTS)
def test_counts_are_in_words(counts: dict[str, int], said: str) -> None:
    assert counted(counts) == said
