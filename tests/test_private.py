"""Which private parts of torch a release does not have: what is lost of diagnostics there."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

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
