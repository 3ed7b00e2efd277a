"""Dtypes of parameters, of arithmetic and of gradient reduction."""
