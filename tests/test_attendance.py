"""If not all ranks make all steps, every step is still compared with the oracle."""

from __future__ import annotations

import pytest
from conftest import Ran, Suite

#: What is wrong, in which case, and where it has to be seen first.
WRONG = {
    "uneven_batches/wrong_divisor-ws2-float32": "step 2, gradient '0.weight', rank 1",
    "uneven_batches_mean/wrong_divisor-ws2-float32": "step 2, gradient '0.weight', rank 1",
    "uneven_batches/wrong_left_behind-ws2-float32": "step 3, parameter '0.weight', rank 0",
    "left_alone/wrong_alone-ws2-float32": "step 0, gradient '4.weight', rank 0",
    "resume_checkpoint/wrong_momentum_lost-ws2-float32": "step 2, parameter '0.weight', rank 0",
    "resume_checkpoint/wrong_anew-ws2-float32": "step 2, loss 'loss', rank 0",
}
RIGHT = (
    "uneven_batches/ddp-ws4-float32",
    "uneven_batches_mean/ddp-ws4-float32",
    "resume_checkpoint/fsdp2_to_1-ws2-float32",
    "resume_checkpoint/fsdp2_to_3-ws2-float32",
    "resume_checkpoint_adamw/fsdp1_to_fsdp2-ws2-float32",
)


@pytest.fixture(scope="module")
def ran(suite: Suite) -> Ran:
    words = [word for case in (*WRONG, *RIGHT) for word in ("--case", case)]
    return suite("--device", "cpu", "--include", "wrong_attendance", *words)


@pytest.mark.parametrize(("case", "begins"), WRONG.items())
def test_wrong_is_seen_where_it_begins(ran: Ran, case: str, begins: str) -> None:
    assert ran.text("here-cpu", case).startswith(f"failed: {begins}")


@pytest.mark.parametrize("case", RIGHT)
def test_right_is_right(ran: Ran, case: str) -> None:
    assert ran.statuses("here-cpu")[case] == "passed"
