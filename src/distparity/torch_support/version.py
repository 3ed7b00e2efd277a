"""The release number of the imported torch, for comparisons."""

from __future__ import annotations

import re

__all__ = ["installed"]


def installed() -> tuple[int, int]:
    """``(2, 13)`` for torch 2.13.0+cpu, and also for 2.13.0a0+git0abc and 2.13.0.dev20261101.

    Raises ``ValueError`` if torch's version has no release number.
    """
    import torch

    match = re.match(r"(\d+)\.(\d+)", torch.__version__)
    if match is None:
        raise ValueError(f"torch.__version__ is {torch.__version__!r}")
    return int(match[1]), int(match[2])
