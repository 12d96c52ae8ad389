"""Errors a user can act on. Each carries the exit status that the command line returns (see the README)."""

from __future__ import annotations

import contextlib
import os
import stat
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


def check_at_hand(path: str | os.PathLike, what: str = "", *, folder: bool = False) -> None:
    """Raise InputError for an input that is no file: missing, not allowed, or a pipe that libraries would wait for.

    Args:
        what: ends the advice, such as "of the points".
        folder: a folder is welcome too.
    """
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{path} does not exist; check the path{f' {what}' if what else ''}.") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} could not be opened ({reason}); check its name and its permissions.") from error
    if stat.S_ISDIR(mode):
        if not folder:
            raise InputError(f"{path} is a folder; give a file.")
    elif not stat.S_ISREG(mode):
        raise InputError(f"{path} is a pipe or a device; save its content as a file and give that.")


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
