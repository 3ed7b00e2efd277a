"""The error for a request that distparity cannot fulfil."""

from __future__ import annotations

__all__ = ["BadRequest"]


class BadRequest(Exception):
    """The request cannot be fulfilled here. ``detail`` has a traceback or output, if there is one."""

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail
