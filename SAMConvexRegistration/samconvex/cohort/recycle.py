"""Workers replaced by fresh processes between two jobs, so that nothing that a library leaks adds up."""

from __future__ import annotations

import math
import os
import random
import time
from typing import Any

from distributed import Worker, WorkerPlugin

# How the keys of jobs begin; reading a file for the check makes no worker old.
JOB = "job-"
# Not all at once.
_STAGGER = 0.2
# Until what the job has found is told to the scheduler.
_FAREWELL_S = 0.3


class Recycling(WorkerPlugin):
    """Ends the process of a worker after the job during which it became too old; its nanny starts a fresh one.

    dask's own ``--lifetime`` does not wait for the end of a job: what it had computed would be lost.

    Args:
        after_s: age, give or take a fifth.
    """

    name = "samconvex-recycling"

    def __init__(self, after_s: float) -> None:
        self._after_s = after_s
        self._until = math.inf
        self._worker: Worker | None = None

    def setup(self, worker: Worker) -> None:
        """Called by the worker at its start."""
        self._worker = worker
        self._until = time.monotonic() + self._after_s * random.uniform(1 - _STAGGER, 1 + _STAGGER)

    def transition(self, key: Any, start: str, finish: str, **further: Any) -> None:
        """Called by the worker whenever the state of a task changes."""
        worker = self._worker
        if (
            finish != "memory"
            or not str(key).startswith(JOB)
            or time.monotonic() < self._until
            or worker is None
            or not worker.nanny
        ):
            return
        self._until = math.inf
        # As after a crash, which dask's nanny mends: a worker that closes itself is not started again.
        worker.loop.call_later(_FAREWELL_S, os._exit, 0)
