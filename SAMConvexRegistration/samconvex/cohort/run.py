"""A cohort from its manifest to its results: checked whole, jobs on dask's workers, a table that outlives them."""

from __future__ import annotations

import contextlib
import platform
import queue
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..errors import InputError, ResourceError
from ..io.files import file_sha256
from ..io.outputs import check_output_folder, writing
from ..progress import Progress
from ..registration.options import weights_used
from ..report.environment import environment, utc_now
from ..version import __version__
from ..weights.models import identity_of
from .ahead import Ahead, wanted
from .cluster import cores, local_client, planned, remote_client
from .commands import REGISTER, Row, options_of, said
from .inspection import Facts, file_faults, inspected, option_faults
from .job import Place, Runner, fill_store, run_job
from .manifest import Fault, read_manifest
from .needs import gpus, largest_gib
from .page import write_page
from .results import write_results
from .table import FAILED, PROVENANCE, WAITING, Job, forget_records, is_cohort, is_done, job_id, read_record, save_table

if TYPE_CHECKING:
    import argparse

    from distributed import Client, Future

    from .recycle import Recycling

T = TypeVar("T")
_POLL_S, _SAVE_S = 0.2, 5.0


@dataclass(frozen=True)
class Request:
    """What the command was asked.

    Attributes:
        folder: of all results.
        workers: of this machine; None lets memory and cores decide.
        scheduler: address of a running one, instead of workers of this machine.
        resume, overwrite: go on in ``folder``, or begin anew there.
        skip_faulty: run the rows without faults and report the others as failed.
        store, store_gib: where what is known of images is kept for all jobs, and how much of it.
        recycle_s: age at which a worker is replaced.
        defaults: cells of what a row leaves empty.
    """

    manifest: Path
    folder: Path
    workers: int | None = None
    scheduler: str | None = None
    resume: bool = False
    overwrite: bool = False
    skip_faulty: bool = False
    store: Path | None = None
    store_gib: float = 20.0
    recycle_s: float = 3600.0
    defaults: Mapping[str, str] = field(default_factory=dict)


class ManifestFaults(InputError):
    """Rows that cannot run.

    Attributes:
        faults: all of them.
    """

    def __init__(self, manifest: Path, faults: Sequence[Fault], rows: int) -> None:
        self.faults = list(faults)
        count = len({fault.row for fault in faults})
        super().__init__(
            f"{count} of {rows} rows of {manifest} cannot run and nothing was started; correct them, or give "
            "--skip-faulty to run the others."
        )


def run_cohort(
    request: Request, parsers: Mapping[str, argparse.ArgumentParser], run: Runner, progress: Progress
) -> list[Job]:
    """Check the manifest, run what is not done yet, and write table and results.

    Args:
        parsers: of each command a row may name; they raise InputError.
        run: the command line, see :class:`samconvex.cohort.job.Runner`; workers import it by name.

    Returns:
        The jobs in the manifest's order.

    Raises:
        InputError: an unusable manifest or output folder. ManifestFaults: rows that cannot run. ResourceError: the
            scheduler cannot be reached, or went away. Cancelled: by ``progress``.
    """
    rows, faults = read_manifest(request.manifest, parsers, request.defaults)
    _check_folder(request)
    progress("check", 0.0)
    with _client(request, rows, progress) as client:
        client.register_plugin(_recycling(request.recycle_s))
        facts = _facts(client, rows, progress)
        faults = [*faults, *_all(option_faults, rows), *file_faults(rows, facts)]
        faults.sort(key=lambda fault: fault.row)
        if faults and not request.skip_faulty:
            raise ManifestFaults(request.manifest, faults, len(rows))
        jobs = _table(request, rows, faults, facts, parsers)
        folder = request.folder
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with _held(folder):
            if request.overwrite:
                forget_records(folder)
            _note_run(request, rows, jobs)
            place = Place(folder, request.store or folder / ".store", request.store_gib, run)
            left = [row for row, job in zip(rows, jobs, strict=True) if job.status == WAITING]
            _fill(client, place, wanted(left, _contents(facts)), progress)
            jobs = _run(client, place, jobs, progress)
    return jobs


def publish(folder: Path, jobs: Sequence[Job]) -> None:
    """Write the table and everything that is made of it. ResourceError: the disk refused."""
    _keep(folder, jobs)
    with writing(folder):
        write_page(folder)


def _keep(folder: Path, jobs: Sequence[Job], known: dict[str, dict] | None = None) -> None:
    with writing(folder):
        save_table(folder, jobs)
        write_results(folder, jobs, known)


def _all(find: Callable[[Row], list[Fault]], rows: Sequence[Row]) -> Iterator[Fault]:
    for row in rows:
        if row.values:
            yield from find(row)


def _check_folder(request: Request) -> None:
    folder = request.folder
    if request.resume and request.overwrite:
        raise InputError("--resume and --overwrite contradict each other; give one.")
    if request.resume and not is_cohort(folder):
        raise InputError(f"{folder} holds no cohort to go on with; leave --resume out.")
    check_output_folder(folder, overwrite=request.resume or request.overwrite, inputs=[request.manifest])
    if request.overwrite and any(folder.iterdir() if folder.is_dir() else ()) and not is_cohort(folder):
        raise InputError(f"{folder} is not empty and holds no cohort; give another output folder.")


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """The folder for this process alone.

    Raises:
        InputError: another run is at work there.
    """
    try:
        import fcntl
    except ImportError:
        # No such locks; two runs at once then only do work twice.
        yield
        return
    with writing(folder):
        stream = open(folder / ".lock", "w", encoding="ascii")  # noqa: SIM115
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"Another run is at work in {folder}; wait for it or give another folder.") from error
        yield


@contextlib.contextmanager
def _client(request: Request, rows: Sequence[Row], progress: Progress) -> Iterator[Client]:
    if request.scheduler is not None:
        if request.workers is not None:
            raise InputError("--workers is for this machine, --scheduler for its own workers; give one of them.")
        with remote_client(request.scheduler) as client:
            _wait_for_workers(client, request.scheduler, progress)
            yield client
        return
    plan = planned(largest_gib(rows), request.workers, len(rows), cores=cores(), gpus=gpus(rows))
    with local_client(plan) as client:
        yield client


def _recycling(after_s: float) -> Recycling:
    # Its base class is dask's, which may be absent.
    from .recycle import Recycling

    return Recycling(after_s)


def _wait_for_workers(client: Client, address: str, progress: Progress) -> None:
    while not client.scheduler_info()["workers"]:
        progress("check", 0.0, f"waiting for a worker: dask worker {address} --nthreads 1")
        time.sleep(_POLL_S)


def _facts(client: Client, rows: Sequence[Row], progress: Progress) -> dict[tuple[str, str], Facts]:
    """Every file of the manifest, read once by some worker."""
    wanted = list(dict.fromkeys((path, kind) for row in rows for _, kind, path in row.files()))
    futures = {client.submit(inspected, path, kind, pure=False): (path, kind) for path, kind in wanted}
    found: dict[tuple[str, str], Facts] = {}
    for key, future in _ended(client, futures):
        progress("check", (len(found) + 1) / len(wanted), f"{len(found) + 1} of {len(wanted)} files")
        try:
            found[key] = future.result()
        except Exception as error:  # of any kind, from a worker
            found[key] = Facts("", fault=_death(error))
    return found


def _contents(facts: Mapping[tuple[str, str], Facts]) -> dict[str, str]:
    """Checksum by path; a file that cannot serve as one thing, and so has none there, may serve as another."""
    return {path: known.sha256 for (path, _), known in facts.items() if known.sha256}


def _table(
    request: Request,
    rows: Sequence[Row],
    faults: Sequence[Fault],
    facts: Mapping[tuple[str, str], Facts],
    parsers: Mapping[str, argparse.ArgumentParser],
) -> list[Job]:
    """A job per row: those that are done already with their records, those that cannot run as failed."""
    contents = _contents(facts)
    faulty: dict[int, list[str]] = {}
    for fault in faults:
        faulty.setdefault(fault.row, []).append(f"{fault.column}: {fault.sentence}" if fault.column else fault.sentence)
    jobs = []
    for row in rows:
        if row.number in faulty:
            sentence = " ".join(faulty[row.number])
            jobs.append(
                Job(row.name, row.number, row.command, "", [], row.patient, row.visit, FAILED, sentence=sentence)
            )
            continue
        identity = job_id(row.command, row.values, contents, _weights(row), __version__)
        job = Job(
            row.name,
            row.number,
            row.command,
            identity,
            said(row, request.folder, parsers[row.command]),
            row.patient,
            row.visit,
        )
        done = is_done(request.folder, job) if request.resume else None
        jobs.append(job if done is None else replace(done, row=row.number, patient=row.patient, visit=row.visit))
    return jobs


def _weights(row: Row) -> dict[str, dict[str, str]]:
    """Name and checksum of every network that has a part in the row."""
    weights = row.values.get("weights")
    if row.command == REGISTER:
        return weights_used(weights, options_of(row).settings())
    return {} if row.command == "apply" else {"sam": identity_of("sam", weights)}


def _note_run(request: Request, rows: Sequence[Row], jobs: Sequence[Job]) -> None:
    """Provenance: which versions, weights and options made the results; every run adds itself."""
    import json

    from ..io.files import replaced

    path = request.folder / PROVENANCE
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))["runs"] if request.resume else []
    except (OSError, ValueError, KeyError, TypeError):
        earlier = []
    families: dict[str, dict[str, str]] = {}
    for row, job in zip(rows, jobs, strict=True):
        if job.id:
            families |= {f"{family} {used['name']}": used for family, used in _weights(row).items()}
    options = {name: str(value) if isinstance(value, Path) else value for name, value in vars(request).items()}
    run = {
        "date": utc_now(),
        "host": platform.node(),
        "manifest": {"path": str(request.manifest), "sha256": file_sha256(request.manifest), "rows": len(rows)},
        "options": options,
        "weights": families,
        "environment": environment(),
        "done_before": sum(job.status == "done" for job in jobs),
    }
    with writing(request.folder), replaced(path) as temporary:
        document = {"version": __version__, "date": run["date"], "runs": [*earlier, run]}
        temporary.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _fill(client: Client, place: Place, images: Sequence[Ahead], progress: Progress) -> None:
    """What several rows ask of an image, found once; a task that fails leaves the work to the rows."""
    futures = {client.submit(fill_store, place, image, pure=False): image.path for image in images}
    for number, (path, _) in enumerate(_ended(client, futures), start=1):
        progress("store", number / len(images), f"{number} of {len(images)} images: {Path(path).name}")


def _run(client: Client, place: Place, jobs: list[Job], progress: Progress) -> list[Job]:
    """Everything that waits, on dask; the table is kept up to date meanwhile."""
    position = {job.name: number for number, job in enumerate(jobs)}
    waiting = [job for job in jobs if job.status == WAITING]
    known: dict[str, dict] = {}
    _keep(place.folder, jobs, known)
    ended, failed, saved = 0, 0, time.monotonic()
    progress("jobs", 0.0, f"{len(waiting)} of {len(jobs)} to run")
    # Failures that a job does not explain itself, such as a network folder that is away for a moment, are tried again.
    futures = {
        client.submit(run_job, place, job, key=f"job-{job.id}-{job.row}", pure=False, retries=1): job for job in waiting
    }
    try:
        for job, future in _ended(client, futures):
            job = _outcome(place.folder, job, future)
            jobs[position[job.name]] = job
            ended, failed = ended + 1, failed + (job.status == FAILED)
            said = f", {failed} failed" if failed else ""
            progress("jobs", ended / len(waiting), f"{ended} of {len(waiting)} done{said}")
            if time.monotonic() - saved > _SAVE_S:
                _keep(place.folder, jobs, known)
                saved = time.monotonic()
    finally:
        _keep(place.folder, jobs, known)
    publish(place.folder, jobs)
    return jobs


def _ended(client: Client, futures: dict[Future, T]) -> Iterator[tuple[T, Future]]:
    """Futures in the order in which they end, and what they stand for; each is let go of then.

    dask would compute again what a worker that ends had computed, as long as somebody holds it.

    Raises:
        ResourceError: the scheduler went away.
    """
    ended: queue.SimpleQueue[Future] = queue.SimpleQueue()
    for future in futures:
        future.add_done_callback(ended.put)
    while futures:
        try:
            future = ended.get(timeout=_POLL_S)
        except queue.Empty:
            if client.status in ("closed", "closing"):
                raise ResourceError(_GONE) from None
            continue
        if future.cancelled() and future in futures:
            raise ResourceError(_GONE)
        if future in futures:
            yield futures.pop(future), future
        del future


_GONE = "The scheduler went away; what is done stays: start it again and go on with --resume."


def _outcome(folder: Path, job: Job, future: Future) -> Job:
    """What became of a job: its record, which stays where its worker does not."""
    record = read_record(folder, job.name) if future.status != "error" else None
    if record is not None and record.id == job.id:
        return record
    try:
        return future.result()
    except Exception as error:  # of any kind, from a worker
        return replace(job, status=FAILED, sentence=_death(error), finished=utc_now())


def _death(error: Exception) -> str:
    if type(error).__name__ == "KilledWorker":
        return "Its workers died again and again (crash or memory); see the log of the row."
    return f"{type(error).__name__}: {error}"
