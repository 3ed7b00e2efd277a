"""The training loop, what it records, and the reference runs that a case is compared with."""
