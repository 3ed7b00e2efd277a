"""Can be imported once in a run: a file says that it was."""

from __future__ import annotations

import os
from pathlib import Path

_BEEN = Path(os.environ["IMPORTED_ONCE"])
if _BEEN.exists():
    raise RuntimeError("not a second time")
_BEEN.touch()
