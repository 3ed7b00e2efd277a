"""The cases under PyTorch's ``MultiProcessTestCase``: fresh ranks for each, as upstream has them."""

from __future__ import annotations

import unittest
from typing import Any

import _cases
import torch.distributed as dist
from torch.testing._internal.common_distributed import MultiProcessTestCase

from distparity.core.case import Case


class _Parity(MultiProcessTestCase):
    size: int

    @property
    def world_size(self) -> int:
        return self.size

    def setUp(self) -> None:
        super().setUp()
        self._spawn_processes()


def _test(case: Case) -> Any:
    def test(self: _Parity) -> None:
        _cases.prepare()
        store = dist.FileStore(self.file_name, self.world_size)
        dist.init_process_group("gloo", store=store, rank=self.rank, world_size=self.world_size)
        _cases.run_in_rank(case, self.rank)
        dist.barrier()

    return test


def _classes() -> dict[str, type[_Parity]]:
    """A class for each world size: that is what a class has one of."""
    found: dict[str, type[_Parity]] = {}
    for number, case in enumerate(_cases.asked()):
        name = f"Ranks{case.world_size}"
        kind = found.setdefault(
            name, type(name, (_Parity,), {"size": case.world_size, "__module__": __name__})
        )
        setattr(kind, f"test_{number:03}", _test(case))
    return found


# The ranks import this module and look the class up in it.
globals().update(_classes())

if __name__ == "__main__":
    del _Parity
    unittest.main()
