"""The memory that a job may hold: watched from beside it, and marked before the worker is ended for it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from ..memory import current_memory_mib

# Of the worker's limit: what the engine is told to stay within, where the job is stopped, and where dask's nanny ends
# the process (its own default).
ALLOWED, STOPPED, ENDED = 0.85, 0.9, 0.95
_INTERVAL_S = 0.05


@contextlib.contextmanager
def watched(limit_mib: float | None, mark: Path, stop: threading.Event) -> Iterator[None]:
    """While inside: once this process holds nearly ``limit_mib``, ``mark`` is written and ``stop`` set.

    The mark outlives a process that is ended before it has seen ``stop``, so that the next attempt knows why.
    """
    if limit_mib is None:
        yield
        return
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_INTERVAL_S):
            if current_memory_mib() > STOPPED * limit_mib:
                mark.parent.mkdir(parents=True, exist_ok=True)
                mark.write_text(f"{current_memory_mib():.0f}\n", encoding="ascii")
                stop.set()
                return

    watcher = threading.Thread(target=watch, name="memory", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
