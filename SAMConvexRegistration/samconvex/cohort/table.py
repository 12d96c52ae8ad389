"""The job table: what each row stands for, what became of it, and whether its files are still the ones it wrote."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..io.files import file_sha256, replaced

DONE, FAILED, WAITING = "done", "failed", "waiting"
TABLE, PROVENANCE = "jobs.jsonl", "cohort.json"
_RECORDS, _LOGS = ".records", "logs"


@dataclass(frozen=True)
class Output:
    """A file that a job wrote: the checksum decides, size and time spare reading it again."""

    size: int
    modified: int
    sha256: str


@dataclass
class Job:
    """A row of the table.

    Attributes:
        name, row, command, patient, visit: of the manifest's row.
        id: checksum of everything that decides the result: content of the inputs, options, version, weights.
        words: what comes after ``samconvex``.
        status: one of done, failed, waiting.
        sentence: why it failed.
        warnings: of the cohort, beside those of the report.
        outputs: by file name.
        seconds, peak_memory_mib, host, worker, finished: of the run that ended it.
    """

    name: str
    row: int
    command: str
    id: str
    words: list[str]
    patient: str = ""
    visit: str = ""
    status: str = WAITING
    sentence: str = ""
    warnings: list[str] = field(default_factory=list)
    outputs: dict[str, Output] = field(default_factory=dict)
    seconds: float | None = None
    peak_memory_mib: float | None = None
    host: str = ""
    worker: str = ""
    finished: str = ""

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Job:
        """From JSON. TypeError: something else."""
        if not isinstance(record, Mapping):
            raise TypeError(f"{record!r:.40} is no job")
        outputs = {name: Output(**output) for name, output in record.get("outputs", {}).items()}
        return cls(**{**record, "outputs": outputs})


def job_id(command: str, values: Mapping[str, Any], contents: Mapping[str, str], weights: Any, version: str) -> str:
    """Checksum, hexadecimal, of what decides a result; a file counts by its content, not by its place.

    Args:
        contents: checksums by path, of every file among ``values``.
        weights: name and checksum of every network that has a part.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return [plain(one) for one in value]
        return {"sha256": contents[value]} if isinstance(value, str) and value in contents else value

    said = [command, version, weights, {name: plain(value) for name, value in values.items() if value is not False}]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32]


def record_path(folder: Path, name: str) -> Path:
    """Where a worker keeps what became of a job."""
    return folder / _RECORDS / f"{name}.json"


def log_path(folder: Path, name: str) -> Path:
    """Where a job's words to the terminal go."""
    return folder / _LOGS / f"{name}.log"


def written(place: Path) -> dict[str, Output]:
    """Every file of a job's folder."""
    files = sorted(path for path in place.rglob("*") if path.is_file()) if place.is_dir() else []
    return {path.relative_to(place).as_posix(): _output(path) for path in files}


def _output(path: Path) -> Output:
    state = path.stat()
    return Output(state.st_size, state.st_mtime_ns, file_sha256(path))


def keep_record(folder: Path, job: Job) -> None:
    """Write what became of a job, in one step."""
    path = record_path(folder, job.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path) as temporary:
        temporary.write_text(json.dumps(asdict(job), ensure_ascii=False), encoding="utf-8")


def read_record(folder: Path, name: str) -> Job | None:
    """What became of a job; None where nothing did, or where the record is damaged."""
    try:
        return Job.of(json.loads(record_path(folder, name).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def is_done(folder: Path, job: Job) -> Job | None:
    """The record of a job that is done, all its files unchanged; None otherwise."""
    record = read_record(folder, job.name)
    if record is None or record.status != DONE or record.id != job.id or not record.outputs:
        return None
    place = folder / "jobs" / job.name
    return record if all(_unchanged(place / name, output) for name, output in record.outputs.items()) else None


def _unchanged(path: Path, output: Output) -> bool:
    try:
        state = path.stat()
        if state.st_size != output.size:
            return False
        return state.st_mtime_ns == output.modified or file_sha256(path) == output.sha256
    except OSError:
        return False


def forget_records(folder: Path) -> None:
    """Nothing of an earlier run counts as done any more; its results stay until they are replaced."""
    shutil.rmtree(folder / _RECORDS, ignore_errors=True)


def save_table(folder: Path, jobs: Iterable[Job]) -> None:
    """Write the whole table, a line per job, in one step."""
    lines = "".join(json.dumps(asdict(job), ensure_ascii=False) + "\n" for job in jobs)
    with replaced(folder / TABLE) as temporary:
        temporary.write_text(lines, encoding="utf-8")


def load_table(folder: Path) -> list[Job]:
    """The table with what the workers have recorded since it was written.

    Raises:
        InputError: there is none, or it is damaged.
    """
    path = folder / TABLE
    try:
        # Not splitlines: names and sentences may hold other ends of lines, which JSON does not escape.
        lines = path.read_text(encoding="utf-8").split("\n")
        jobs = [Job.of(json.loads(line)) for line in lines if line]
    except OSError as error:
        raise InputError(f"{folder} holds no cohort ({TABLE} is missing); give the output folder of one.") from error
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged; run the cohort again with --resume, which writes it anew.") from error
    known = [read_record(folder, job.name) if job.status == WAITING else None for job in jobs]
    return [
        record if record is not None and record.id == job.id else job for job, record in zip(jobs, known, strict=True)
    ]


def is_cohort(folder: Path) -> bool:
    """True for the output folder of a cohort."""
    return os.path.isfile(folder / PROVENANCE)
