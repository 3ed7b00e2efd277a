"""What a process has written to its file."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["tail"]


def tail(path: str, size: int = 8192, since: int = 0) -> str:
    """The last ``size`` bytes of a rank's file, as text, without its first ``since``; empty for none."""
    try:
        with Path(path).open("rb") as file:
            file.seek(0, os.SEEK_END)
            length = file.tell() - since
            file.seek(since + max(0, length - size))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return text if length <= size else f"[{length - size} bytes before this left out]\n{text}"
