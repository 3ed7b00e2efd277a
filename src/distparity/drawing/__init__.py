"""Trainings that nobody wrote: a grammar, a seeded generator, and a shrinker. Nothing here imports torch."""
