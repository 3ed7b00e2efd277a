"""Does distributed training on this device, with this torch, compute what one process computes?

The vocabulary, used in this sense everywhere:

scenario
    *What* is trained: a model, batches, a loss, an optimizer, a few steps.
strategy
    *How* it is distributed: DDP, FSDP1, FSDP2 (``fully_shard``), ...
world
    *Where* it runs: so many ranks on one kind of device, alive and ready.
verdict
    *Whether* it is the same: a trajectory held against the oracle's, as a number.
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
native run
    The same scenario in one process in the case's own dtype, on the case's own device.

Importing this package imports neither torch nor pytest: the process that runs pytest never needs
torch, and the noxfile reads the matrix from an interpreter that has neither.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
