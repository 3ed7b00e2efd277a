"""The version of distparity: a module of its own, so that rooms need not import the whole package."""

__all__ = ["__version__"]

__version__ = "0.1.0"
