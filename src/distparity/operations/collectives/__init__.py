"""The collectives, each compared with plain arithmetic on the inputs of all ranks."""
