"""Errors a user can act on. Each carries the exit status that the command line returns (see the README)."""

from __future__ import annotations


class SamConvexError(Exception):
    """Base class: one sentence that names the file or field and the way out."""

    exit_status = 1


class InputError(SamConvexError, ValueError):
    """Unusable input or arguments; nothing was written."""

    exit_status = 2


class Cancelled(SamConvexError):
    """The user stopped the work; nothing was written."""

    exit_status = 3

    def __init__(self, message: str = "Cancelled; nothing was written.") -> None:
        super().__init__(message)


class ResourceError(SamConvexError):
    """Not enough memory or disk, or a failing device; the sentence says what would fit."""

    exit_status = 4
