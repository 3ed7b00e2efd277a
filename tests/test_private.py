"""Which private parts of torch a release does not have: what is lost of diagnostics there."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from distparity.session.training_case import _reports

RECORDER, HOOKS, CACHE = (
    "the flight recorder of any backend",
    "hooks of saved tensors",
    "DTensor's cache in C++",
)
#: As each release says itself (``distparity doctor`` prints it under "diagnostics").
GONE = {
    "2.4": [RECORDER, "the flight recorder of NCCL", HOOKS, CACHE],
    "2.5": [RECORDER, HOOKS, CACHE],
    "2.6": [RECORDER, HOOKS, CACHE],
    "2.7": [RECORDER, HOOKS, CACHE],
    "2.8": [CACHE],
    "2.9": [CACHE],
    **{release: [] for release in ("2.10", "2.11", "2.12", "2.13", "2.14", "2.15")},
}

ASK = """
import json, torch
from distparity.torch_support import private
private.forget_dtensor(), private.modes(), private.autograd_settings(), private.open_autocasts()
print(json.dumps([".".join(torch.__version__.split(".")[:2]), private.gone()]))
"""
#: Without any of them nothing is known, and nothing fails.
ALL_GONE = """
from distparity.torch_support import private
for name in private.PARTS:
    private.PARTS[name] = (("torch.no_such_module", "nothing"),)
private.tell_native_stacks(), private.forget_dtensor()
assert private.flight_recorders() == []
assert private.process_groups() is None
assert private.resolve_group("x") is None and private.default_store() is None
assert private.modes() == (None, None) and private.open_autocasts() is None
assert private.autograd_settings() == (None, "None")
assert private.gone() == list(private.PARTS)
"""
#: Stream 1 writes, stream 2 reads and does not wait; then it waits, and reads again.
SANITIZED = """
import os, torch
from distparity.torch_support import private
os.environ[private.SANITIZER] = "1"
private.sanitize("cpu")
print(private.sanitizer_reports())
private.sanitize("cuda")
from torch.cuda._sanitizer import cuda_sanitizer
print(cuda_sanitizer.enabled, private.sanitizer_reports())
cuda_sanitizer.disable()
handler = cuda_sanitizer.dispatch.event_handler
def launch(stream, reads, writes, name):
    return handler._handle_kernel_launch(stream, reads, writes, set(), name, {7: []})
handler._handle_memory_allocation(7)
launch(1, set(), {7}, "aten::mul(Tensor a, Tensor b) -> Tensor")
print(launch(2, {7}, set(), "aten::add(Tensor a) -> Tensor"))
handler._handle_stream_synchronization(1)
launch(2, {7}, set(), "aten::add(Tensor a) -> Tensor")
print(private.sanitizer_reports())
print(private.sanitizer_reports())
"""


def _ask(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=True)
    return done.stdout.decode()


def test_private_parts_of_this_release_are_those_known() -> None:
    release, gone = json.loads(_ask(ASK))
    if release not in GONE:
        pytest.skip(f"torch {release} is not in the table")

    assert gone == GONE[release]


def test_suite_does_without_any_of_them() -> None:
    _ask(ALL_GONE)


def test_reports_of_the_sanitizer_are_kept_and_not_raised() -> None:
    first = "no order between the write on the stream 1 (aten::mul) and the read on the stream 2 (aten::add)"

    assert _ask(SANITIZED).splitlines() == ["None", "True []", "[]", str([first]), "[]"]


@pytest.mark.parametrize(
    ("reports", "fact"),
    [([], "0 reported"), (["a", "b", "a"], "3 reported: a (2 times); b (1 times)")],
    ids=["none", "some"],
)
def test_reports_are_a_fact_of_the_case(reports: list[str], fact: str) -> None:
    assert _reports(reports) == fact
