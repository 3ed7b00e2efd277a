"""The version of distparity: a module of its own, so that rooms need not import the whole package."""

from importlib.metadata import PackageNotFoundError, metadata, version

__all__ = ["__version__", "source"]

try:
    __version__ = version("distparity")
except PackageNotFoundError:
    # The noxfile imports from the sources.
    __version__ = "0+sources"


def source() -> str | None:
    """The address of the sources of this version, if it was built with one."""
    try:
        found = metadata("distparity").get_all("Project-URL") or []
    except PackageNotFoundError:
        return None
    urls = dict(line.split(", ", 1) for line in found)
    return urls.get("Source")
