"""Read the file that a process writes to. A rank may have replaced the file by anything."""

from __future__ import annotations

import contextlib
import os
import stat

from distparity.core.redact import omitted

__all__ = ["OutputFile", "tail"]


class OutputFile:
    """A rank's file, opened before the rank starts and read through its descriptor from then on.

    It is never opened by name again: the rank may have put a pipe that blocks for ever, an endless
    device, or somebody else's file in its place. A file that is closed reads as empty.
    """

    def __init__(self, path: str) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(path, flags, 0o600)

    def size(self) -> int:
        with contextlib.suppress(OSError):
            return os.fstat(self._fd).st_size
        return 0

    def stamp(self) -> tuple[int, int]:
        """Its size, and when it was changed, in nanoseconds."""
        with contextlib.suppress(OSError):
            found = os.fstat(self._fd)
            return found.st_size, found.st_mtime_ns
        return 0, 0

    def read(self, size: int, start: int = 0) -> bytes:
        with contextlib.suppress(OSError):
            return os.pread(self._fd, size, start)
        return b""

    def tail(self, size: int = 8192, since: int = 0) -> str:
        """The last ``size`` bytes as text, without the first ``since`` bytes of the file."""
        length = self.size() - since
        data = self.read(size, since + max(0, length - size)) if length > 0 else b""
        return _text(data, length, size)

    def empty(self) -> None:
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, 0)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def tail(path: str, size: int = 8192) -> str:
    """The last ``size`` bytes of a file as text; empty if it is missing or not a plain file."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            return ""
        data = os.pread(file, size, max(0, found.st_size - size))
        return _text(data, found.st_size, size)
    except OSError:
        return ""
    finally:
        os.close(file)


def _text(data: bytes, length: int, size: int) -> str:
    text = data.decode("utf-8", "replace")
    return text if length <= size else omitted(length - size) + text
