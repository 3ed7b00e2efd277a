"""The cases under PyTorch's ``MultiProcContinuousTest``: one set of ranks a class, no isolation.

It was ``MultiProcContinousTest`` at first, and until 2.8 every rank ran the whole class by itself,
started by ``torchrun`` or by ``run_rank``.
"""

from __future__ import annotations

import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any

import _cases
from torch.testing._internal import common_distributed

from distparity.core.case import Case

Base: Any = getattr(
    common_distributed,
    "MultiProcContinuousTest",
    getattr(common_distributed, "MultiProcContinousTest", None),
)
#: Whether its ranks wait for the names of tests, from a process that runs the class.
HAS_WORKERS = hasattr(Base, "_worker_loop")


class _Parity(Base):  # type: ignore[misc]  # found by name
    @classmethod
    def backend_str(cls) -> str:
        return "gloo"

    @classmethod
    def device_type(cls) -> str:
        return "cpu"

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        _cases.prepare()


def _test(case: Case) -> Any:
    def test(self: Any) -> None:
        _cases.prepare()
        _cases.run_in_rank(case, self.rank)

    return test


def _classes() -> dict[str, type[_Parity]]:
    """A class for each world size: that is what a class has one of."""
    found: dict[str, type[_Parity]] = {}
    for number, case in enumerate(_cases.asked()):
        name = f"Ranks{case.world_size}"
        body = {"world_size": case.world_size, "__module__": __name__}
        kind = found.setdefault(name, type(name, (_Parity,), body))
        setattr(kind, f"test_{number:03}", _test(case))
    return found


CLASSES = _classes()
# The ranks import this module and look the class up in it.
globals().update(CLASSES)


def _whole_class(rank: int, name: str, file: str) -> None:
    """What ``run_rank`` does, without its reading of the command line."""
    kind = CLASSES[name]
    kind.rank, kind.rdvz_file = rank, file
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(kind)
    if not unittest.TextTestRunner().run(suite).wasSuccessful():
        sys.exit(1)


def _run_each_class() -> None:
    import torch.multiprocessing

    for name, kind in CLASSES.items():
        with tempfile.TemporaryDirectory() as folder:
            file = str(Path(folder) / "rendezvous")
            torch.multiprocessing.spawn(_whole_class, (name, file), nprocs=kind.world_size)


if __name__ == "__main__":
    if HAS_WORKERS:
        del _Parity
        unittest.main()
    _run_each_class()
