"""Dtypes of parameters, of what is computed, and of what travels."""
