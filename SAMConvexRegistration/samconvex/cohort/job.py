"""What runs in a worker: one row of the manifest, through the same code as the single command."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..anatomy.cache import CACHE_FOLDER, CACHE_GIB
from ..anatomy.known import KNOWN
from ..errors import Cancelled
from ..memory import current_memory_mib, forget_peak_memory, peak_memory_mib
from ..report.environment import utc_now
from ..version import __version__
from .ahead import Ahead, find_ahead
from .cap import ALLOWED, watched
from .commands import REGISTER
from .table import DONE, FAILED, Job, is_done, keep_record, log_path, read_record, record_path, written

if TYPE_CHECKING:
    from distributed import Worker

# Runs the words of a command line in this thread; returns the exit status. Words to the user go to stderr.
Runner = Callable[[list[str], threading.Event], int]
# The engine keeps some numbers per process (threads, seeds): one job at a time in each.
_alone = threading.Lock()
# Share of the limit above which what is known of earlier images is let go before a job.
_CROWDED = 0.5


@dataclass(frozen=True)
class Place:
    """What all jobs of a cohort share.

    Attributes:
        folder: the cohort's output folder, at the same path for every worker.
        store, store_gib: where embeddings and organs of images are kept for all jobs, and how much.
        run: the command line.
        version: of the engine that made the table.
    """

    folder: Path
    store: Path
    store_gib: float
    run: Runner
    version: str = __version__

    @contextlib.contextmanager
    def using_store(self) -> Iterator[None]:
        """While inside, this process looks for what is known of images in the store, and keeps it there."""
        before = {name: os.environ.get(name) for name in (CACHE_FOLDER, CACHE_GIB)}
        os.environ.update({CACHE_FOLDER: str(self.store), CACHE_GIB: str(self.store_gib)})
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name)
                os.environ.update({} if value is None else {name: value})


def fill_store(place: Place, ahead: Ahead) -> None:
    """Leave what several rows will ask of an image in the store; does nothing where it is there already."""
    with _alone:
        with place.using_store():
            find_ahead(ahead)
        KNOWN.clear()


def run_job(place: Place, job: Job) -> Job:
    """Run a job and keep its record; what it could not do is said in the record, nothing is raised for it."""
    with _alone:
        if place.version != __version__:
            sentence = (
                f"The worker on {platform.node()} runs samconvex {__version__}, the cohort {place.version}; install "
                "one version everywhere."
            )
            return replace(job, status=FAILED, sentence=sentence)
        if (done := is_done(place.folder, job)) is not None:
            return done
        with place.using_store():
            job = _attempted(place, job)
        keep_record(place.folder, job)
        _mark(place.folder, job).unlink(missing_ok=True)
        return job


def _attempted(place: Place, job: Job) -> Job:
    """The job as it stands after one attempt, or two where the first needed too much memory."""
    limit = worker_limit_mib()
    began, earlier = time.monotonic(), read_record(place.folder, job.name)
    share = ALLOWED
    # An earlier worker was ended for its memory, in the middle of this job.
    again = _mark(place.folder, job).exists()
    while True:
        warnings = []
        if again:
            if job.command != REGISTER:
                return _failed(job, _too_large(limit), began)
            share = 0.5
            warnings = [f"The job held more than {_gib(limit)} allow and was run again with smaller settings."]
        status, sentence, over = _run(place, job, limit, share)
        if status == 0:
            _tidy(place.folder, job, earlier)
            return replace(
                job,
                status=DONE,
                sentence="",
                warnings=warnings,
                outputs=written(place.folder / "jobs" / job.name),
                **_measured(began),
            )
        if not over:
            return replace(_failed(job, sentence, began), warnings=warnings)
        if again:
            return _failed(job, _too_large(limit), began)
        again = True


def _run(place: Place, job: Job, limit_mib: float | None, share: float) -> tuple[int, str, bool]:
    """Exit status, the last words to stderr, and True where the job was stopped for its memory."""
    if limit_mib is not None and (share < ALLOWED or current_memory_mib() > _CROWDED * limit_mib):
        KNOWN.clear()
        gc.collect()
    forget_peak_memory()
    stop, words = threading.Event(), _within(job, limit_mib, share)
    log = log_path(place.folder, job.name)
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a", encoding="utf-8", buffering=1) as stream:
        said = _Tee(stream)
        stream.write(f"{utc_now()} {platform.node()}: samconvex {' '.join(words)}\n")
        with (
            watched(limit_mib, _mark(place.folder, job), stop),
            contextlib.redirect_stdout(stream),
            contextlib.redirect_stderr(said),
        ):
            status = place.run(words, stop)
        stream.write(f"{utc_now()} exit status {status}\n")
    return status, said.last_words(), stop.is_set() and status == Cancelled.exit_status


class _Tee(io.TextIOBase):
    """Writes to the log and remembers what was said."""

    def __init__(self, stream: io.TextIOBase | io.TextIOWrapper) -> None:
        self._stream, self._said = stream, ""

    def write(self, text: str) -> int:
        self._said = (self._said + text)[-4000:]
        return self._stream.write(text)

    def flush(self) -> None:
        self._stream.flush()

    def last_words(self) -> str:
        """The last line; of a traceback the error too."""
        lines = [line.strip() for line in self._said.splitlines() if line.strip()]
        if len(lines) > 1 and lines[-1].startswith("This is a defect"):
            return f"{lines[-2]} ({lines[-1]})"
        return lines[-1] if lines else ""


def _within(job: Job, limit_mib: float | None, share: float) -> list[str]:
    """The words with the memory that a registration may hold; what free memory there is must not decide a result."""
    if job.command != REGISTER or limit_mib is None:
        return job.words
    allowed = share * limit_mib / 1024
    own = [word for word in job.words if word.startswith("--max-memory=")]
    if own:
        allowed = min(allowed, float(own[0].partition("=")[2]))
    return [*(word for word in job.words if word not in own), f"--max-memory={allowed:.3g}"]


def _tidy(folder: Path, job: Job, earlier: Job | None) -> None:
    """Remove results of an earlier run of other inputs or options that this one did not replace."""
    place = folder / "jobs" / job.name
    for name, output in (earlier.outputs if earlier is not None else {}).items():
        with contextlib.suppress(OSError):
            if (place / name).stat().st_mtime_ns == output.modified:
                (place / name).unlink()


def _failed(job: Job, sentence: str, began: float) -> Job:
    return replace(job, status=FAILED, sentence=sentence, outputs={}, **_measured(began))


def _measured(began: float) -> dict:
    return {
        "seconds": round(time.monotonic() - began, 3),
        "peak_memory_mib": round(peak_memory_mib(), 1),
        "host": platform.node(),
        "worker": str(_worker().name),
        "finished": utc_now(),
    }


def worker_limit_mib() -> float | None:
    """What dask allows this worker to hold; None where it does not limit it."""
    limit = _worker().memory_manager.memory_limit
    return None if not limit else limit / 2**20


def _worker() -> Worker:
    from distributed import get_worker

    return get_worker()


def _mark(folder: Path, job: Job) -> Path:
    return record_path(folder, job.name).with_suffix(".memory")


def _gib(limit_mib: float | None) -> str:
    return "a worker's memory" if limit_mib is None else f"the {limit_mib / 1024:.1f} GiB of a worker"


def _too_large(limit_mib: float | None) -> str:
    return (
        f"The job needs more than {_gib(limit_mib)} allow, also with smaller settings; give fewer --workers, or crop "
        "the images."
    )
