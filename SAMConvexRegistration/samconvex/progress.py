"""Progress and cancellation, injected into every long computation as one callable.

A progress callable takes ``(stage, fraction, message)`` with ``fraction`` in [0, 1] of that stage. To cancel, it
raises :class:`~samconvex.errors.Cancelled`; the engine calls it several times a second and holds nothing that must
be cleaned up, so that the exception simply travels outwards.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol


class Progress(Protocol):
    """Receives progress; raises ``Cancelled`` to stop the work."""

    def __call__(self, stage: str, fraction: float, message: str = "") -> None: ...


def null_progress(stage: str, fraction: float, message: str = "") -> None:
    """Report to nobody."""


def stage(progress: Progress | None, name: str, start: float = 0.0, end: float = 1.0) -> Callable[[float], None]:
    """Return ``report(fraction)`` that fills the share [start, end] of the stage ``name``."""

    def report(fraction: float) -> None:
        if progress is not None:
            progress(name, start + (end - start) * min(max(fraction, 0.0), 1.0))

    return report


@dataclass
class Clock:
    """Seconds per stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
