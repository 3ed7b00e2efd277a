"""The primitives under all of this, each against plain arithmetic on the inputs of all ranks."""
