"""Where in the program something was put on a stream: cheap to note, told when somebody asks."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from types import CodeType, FrameType

from distparity_async.checker import Site

__all__ = ["Here"]

_OWN = str(Path(__file__).parent)
#: Parts of torch through which every call goes.
_PASSED = (
    "torch/_ops.py",
    "torch/library.py",
    "torch/_library/",
    "torch/_tensor.py",
    "torch/utils/_contextlib.py",
    "torch/utils/_python_dispatch.py",
    "torch/utils/_device.py",
    "torch/overrides.py",
    "torch/_compile.py",
    "torch/autograd/graph.py",
    "torch/distributed/c10d_logger.py",
    "torch/distributed/_tools/",
)


class Here:
    """The place of a call: an operation's name, and the frames that matter when it was called.

    These are the nearest one, and the nearest one outside of torch.
    """

    __slots__ = ("_frames", "operation")

    def __init__(self, operation: str) -> None:
        self.operation = operation
        frames: list[tuple[CodeType, int]] = []
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            matters = _matters(frame.f_code)
            if matters == 2 or (matters == 1 and not frames):
                frames.append((frame.f_code, frame.f_lineno))
                if matters == 2:
                    break
            frame = frame.f_back
        self._frames = frames

    def __call__(self) -> Site:
        frames = (f"{_short(code)}:{line} in {code.co_name}" for code, line in self._frames)
        return Site(self.operation, tuple(frames))


_KNOWN: dict[CodeType, int] = {}


def _matters(code: CodeType) -> int:
    """0 for what every call goes through, 1 for torch's own, 2 for a program that uses torch."""
    found = _KNOWN.get(code)
    if found is None:
        name = code.co_filename
        inside = name.rpartition("site-packages/")[2]
        passed = name.startswith((_OWN, "<")) or inside.startswith(_PASSED)
        # What wraps a call says so in the way that pytest knows.
        if passed or "__tracebackhide__" in code.co_varnames:
            found = 0
        else:
            found = 1 if inside.startswith("torch/") else 2
        _KNOWN[code] = found
    return found


@cache
def _short(code: CodeType) -> str:
    """A file as one would import it: without the folder in which Python found it."""
    name = code.co_filename
    folders = [folder for folder in sys.path if folder and name.startswith(f"{folder}/")]
    return name[len(max(folders, key=len)) + 1 :] if folders else Path(name).name
