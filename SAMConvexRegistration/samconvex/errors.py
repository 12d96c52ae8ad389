"""Errors a user can act on. Each carries the exit status that the command line returns (see the README)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

# Exit status of a command whose work is done and written, and whose check (commission, verify) did not pass.
CHECK_FAILED = 5


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


@contextlib.contextmanager
def refusing(sentence: str | Callable[[Exception], str]) -> Iterator[None]:
    """Around a library that reads a user's file: whatever it raises becomes an InputError that says ``sentence``.

    Args:
        sentence: the words, or what makes them of the error.

    Libraries raise any kind on a damaged file (a UnicodeDecodeError on their own message, a RecursionError on nested
    JSON), so no list of kinds is complete. Errors of ours, and a lack of memory, pass unchanged.
    """
    try:
        yield
    except (SamConvexError, MemoryError):
        raise
    except Exception as error:
        raise InputError(sentence if isinstance(sentence, str) else sentence(error)) from error
