"""Ctrl-C and SIGTERM: stop within a second whatever a library is computing, and leave nothing half-written."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn

from ..errors import Cancelled
from ..io.outputs import discard_unfinished

# Most work notices a cancellation at its next progress report; the rest is abandoned after this many seconds.
PATIENCE_S = 0.4


def run_cancellable(
    work: Callable[[threading.Event], int], patience_s: float = PATIENCE_S, *, then_ends: bool = False
) -> int:
    """Run ``work(cancelled)`` in a thread and return its exit status; the main thread stays free for signals.

    The first SIGINT or SIGTERM sets ``cancelled``; work that checks it raises Cancelled. Work that does not (it may be
    inside one long tensor operation) is abandoned after ``patience_s``: unfinished outputs are removed and the process
    ends with status 3. A second signal abandons at once. Where the process ``then_ends``, a signal after the work
    changes nothing any more.
    """
    cancelled = threading.Event()
    outcome: list[int | BaseException] = []

    def body() -> None:
        try:
            outcome.append(work(cancelled))
        except BaseException as error:
            outcome.append(error)

    def on_signal(number: int, frame: object) -> None:
        if cancelled.is_set():
            _abandon()
        cancelled.set()

    previous = {number: signal.signal(number, on_signal) for number in _signals()}
    worker = threading.Thread(target=body, name="samconvex", daemon=True)
    worker.start()
    try:
        deadline = None
        while worker.is_alive():
            # Short waits: on Windows a blocked lock does not let Ctrl-C through.
            worker.join(0.05)
            if cancelled.is_set():
                deadline = deadline or time.monotonic() + patience_s
                if time.monotonic() > deadline and worker.is_alive():
                    _abandon()
    finally:
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_IGN if then_ends else handler)
    result = outcome[0]
    if isinstance(result, BaseException):
        raise result
    return result


def raise_if(cancelled: threading.Event) -> None:
    """Raise Cancelled once the user has asked to stop."""
    if cancelled.is_set():
        raise Cancelled()


def _signals() -> list[int]:
    numbers = [signal.SIGINT, signal.SIGTERM]
    hangup = getattr(signal, "SIGHUP", None)
    # nohup ignores hang-ups on purpose.
    if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:
        numbers.append(hangup)
    return [int(number) for number in numbers]


def _abandon() -> NoReturn:
    discard_unfinished()
    # The carriage return replaces a progress bar.
    sys.stderr.write(f"{chr(13) + chr(27) + '[K' if sys.stderr.isatty() else ''}{Cancelled()}\n")
    leave_now(Cancelled.exit_status)


def leave_now(status: int) -> NoReturn:
    """End the process without the interpreter's tidying up, which takes torch a second or more."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)
