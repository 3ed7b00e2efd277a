"""Check whether distributed training on this device, with this torch, computes the same as one process.

The vocabulary, used in this sense everywhere (``docs/glossary.md`` has all of it):

scenario
    *What* is trained: a model, batches, a loss, an optimizer, a few steps.
strategy
    *How* it is distributed: DDP, FSDP1, FSDP2 (``fully_shard``), ...
world
    *Where* it runs: a group of ranks on one kind of device, started and ready.
verdict
    *Whether* it is the same: a trajectory compared with the oracle's, as a number.
matrix
    *Which* cells there are: torch releases times devices.
case
    scenario x strategy x world size x dtype, on one device.
cell
    One torch on one device: one column of the matrix, one JUnit XML file.
trajectory
    What a run recorded: per step the loss, the full gradients, parameters and buffers.
oracle
    The same scenario in one process, on the CPU, in float64, on the global batch.
reference run
    The same scenario in one process in the case's own dtype, on the case's own device.

Importing this package imports neither torch nor pytest: the process that runs pytest never needs
torch, and the noxfile reads the matrix from an interpreter that has neither. The classes that other
packages subclass are imported, and torch with them, at the first access to their name here.
"""

import os
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from distparity.core.version import __version__

if TYPE_CHECKING:
    from distparity.core.known_limit import Limit
    from distparity.core.own_cases import OwnCases
    from distparity.devices import Device, Sharing
    from distparity.devices.context import RankContext
    from distparity.operations import Operation
    from distparity.scenarios import Batch, Scenario
    from distparity.strategies import Strategy
    from distparity.strategies.parallelized import Parallelized
    from distparity.torch_support.row_dropout import dropout_by_row, row_seeds

__all__ = [
    "Batch",
    "Device",
    "Limit",
    "Operation",
    "Parallelized",
    "RankContext",
    "Scenario",
    "Sharing",
    "Strategy",
    "__version__",
    "cases",
    "dropout_by_row",
    "row_seeds",
]

#: Where each public name is defined.
_MODULES = {
    "Batch": "distparity.scenarios",
    "Device": "distparity.devices",
    "Limit": "distparity.core.known_limit",
    "Operation": "distparity.operations",
    "Parallelized": "distparity.strategies.parallelized",
    "RankContext": "distparity.devices.context",
    "Scenario": "distparity.scenarios",
    "Sharing": "distparity.devices",
    "Strategy": "distparity.strategies",
    "dropout_by_row": "distparity.torch_support.row_dropout",
    "row_seeds": "distparity.torch_support.row_dropout",
}


def cases(
    *scenarios: "type[Scenario]",
    strategies: "Sequence[str | type[Strategy]]",
    world_sizes: Sequence[int] = (2,),
    dtypes: Sequence[str] | None = None,
    device: str = "auto",
    timeout: float = 60.0,
    checkpoint: str | os.PathLike[str] | None = None,
    marks: Sequence[Any] = (),
) -> "OwnCases":
    """Declare the cases of your own scenarios; assign the result to a name in a test file.

    pytest collects one test per scenario, strategy, world size and dtype. ``strategies`` are names
    (``"ddp"``, ``"fsdp2"``) or your own classes. ``dtypes`` is the first of each scenario's by default.
    ``device`` is a kind of device; ``auto`` is this machine's accelerator, or the CPU if there is none.
    ``timeout`` is the time limit of a case in seconds. ``checkpoint`` is a file with a state dict, from
    which the models start. ``marks`` are pytest's. ``docs/your-model.md`` is a tutorial.

    Raises ``TypeError`` for a class that ranks cannot import.
    """
    from distparity.core import own_cases

    return own_cases.declare(
        scenarios, strategies, world_sizes, dtypes, device, timeout, checkpoint, marks
    )


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
