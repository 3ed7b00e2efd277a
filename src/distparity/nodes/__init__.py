"""Machines that join a run, and fork its ranks."""
