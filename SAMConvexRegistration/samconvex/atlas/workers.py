"""The images of an atlas on dask's workers, as the rows of a cohort are."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from ..cohort.cluster import check_dask, cores, local_client, planned, remote_client
from ..errors import ResourceError
from ..progress import Progress
from .work import Spread

if TYPE_CHECKING:
    from distributed import Future

J = TypeVar("J")
R = TypeVar("R")
_POLL_S = 0.1


def _result(future: Future) -> Any:
    """Of a job. ResourceError: the workers that had it died."""
    from distributed import KilledWorker

    try:
        return future.result()
    except KilledWorker as error:
        raise ResourceError(
            "Workers died again and again (crash or memory); give fewer --workers, a coarser --spacing, or crop the "
            "images."
        ) from error


@contextlib.contextmanager
def on_workers(workers: int | None, scheduler: str | None, job_gib: float, count: int) -> Iterator[Spread]:
    """A :class:`samconvex.atlas.work.Spread` on workers of this machine, or on those of a scheduler.

    Args:
        workers: None takes as many as memory and cores allow. job_gib: forecast of one registration.
        count: images.
        scheduler: its address.

    Raises:
        InputError: dask is absent, or more workers than cores. ResourceError: nobody answers at the address.
    """
    check_dask()
    if scheduler is None:
        opened = local_client(planned(job_gib, workers, count, cores=cores()))
    else:
        opened = remote_client(scheduler)
    with opened as client:

        def spread(
            work: Callable[[J, Progress | None], R], jobs: Sequence[J], progress: Progress, stage: str
        ) -> list[R]:
            # A worker that died, of memory or by a crash, is not the image's fault: once more, elsewhere.
            futures = [client.submit(work, job, None, pure=False, retries=1) for job in jobs]
            try:
                while True:
                    ended = sum(future.done() for future in futures)
                    progress(stage, ended / len(futures), f"{ended} of {len(futures)}")
                    if any(future.status == "error" for future in futures) or ended == len(futures):
                        break
                    if client.status in ("closed", "closing") or any(future.cancelled() for future in futures):
                        raise ResourceError("The scheduler went away; start it again, and then the atlas.")
                    time.sleep(_POLL_S)
                # The first image that failed, in the order of the list, speaks.
                return [_result(future) for future in futures if future.done()]
            finally:
                client.cancel(futures)

        yield spread
