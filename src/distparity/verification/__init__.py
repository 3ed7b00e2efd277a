"""Whether a run computed the same as its reference: the tolerance, the verdict, the diagnosis."""
