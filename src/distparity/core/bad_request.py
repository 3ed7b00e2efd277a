"""The one error that a user makes."""

from __future__ import annotations

__all__ = ["BadRequest"]


class BadRequest(Exception):
    """What was asked for cannot be done here. ``detail`` has the whole account, where there is one."""

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail
