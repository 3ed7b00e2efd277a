"""The version of distparity: a module of its own, so that rooms need not import the whole package."""

from importlib.metadata import PackageNotFoundError, version

__all__ = ["__version__"]

try:
    __version__ = version("distparity")
except PackageNotFoundError:
    # The noxfile imports from the sources.
    __version__ = "0+sources"
