"""A job that holds too much memory: run once more with smaller settings, then reported; its worker may be ended."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from samconvex.cohort import job as jobs
from samconvex.cohort.inspection import Facts
from samconvex.cohort.job import Place, run_job
from samconvex.cohort.run import _contents, publish
from samconvex.cohort.table import DONE, FAILED, Job, keep_record, load_table, read_record, save_table
from samconvex.errors import InputError, ResourceError
from samconvex.memory import current_memory_mib

CANCELLED = 3


@pytest.fixture
def crowded(monkeypatch: pytest.MonkeyPatch) -> float:
    """A worker that may hold less than this process does; MiB."""
    limit = current_memory_mib()
    manager = SimpleNamespace(memory_limit=int(limit * 2**20))
    monkeypatch.setattr(jobs, "_worker", lambda: SimpleNamespace(memory_manager=manager, name="w"))
    return limit


class Runner:
    """Stands for the command line: stopped at the first ``heavy`` calls, then writes a file."""

    def __init__(self, folder: Path, heavy: int) -> None:
        self.folder, self.heavy, self.allowed = folder, heavy, []

    def __call__(self, words: list[str], stop: threading.Event) -> int:
        given = [float(word.partition("=")[2]) for word in words if word.startswith("--max-memory=")]
        self.allowed.append(given[0] if given else None)
        assert stop.wait(5.0)
        if len(self.allowed) <= self.heavy:
            return CANCELLED
        (self.folder / "jobs" / "a").mkdir(parents=True)
        (self.folder / "jobs" / "a" / "report.json").write_text("{}")
        return 0


def _job(command: str = "register", *words: str) -> Job:
    return Job("a", 2, command, "id", [command, "f", "m", *words])


def _place(folder: Path, run: Runner) -> Place:
    return Place(folder, folder / ".store", 1.0, run)


def test_smaller_settings_are_tried_once_and_said(tmp_path: Path, crowded: float) -> None:
    run = Runner(tmp_path, heavy=1)
    done = run_job(_place(tmp_path, run), _job())
    assert done.status == DONE and "smaller settings" in done.warnings[0]
    first, second = run.allowed
    assert second < 0.7 * first and first < crowded / 1024
    assert read_record(tmp_path, "a") == done
    # Done is done: asked again, nothing runs.
    assert run_job(_place(tmp_path, run), _job()) == done and len(run.allowed) == 2


def test_what_is_too_large_even_so_is_reported(tmp_path: Path, crowded: float) -> None:
    run = Runner(tmp_path, heavy=9)
    failed = run_job(_place(tmp_path, run), _job())
    assert failed.status == FAILED and "needs more than" in failed.sentence and len(run.allowed) == 2


def test_commands_without_smaller_settings_are_reported_at_once(tmp_path: Path, crowded: float) -> None:
    run = Runner(tmp_path, heavy=9)
    failed = run_job(_place(tmp_path, run), _job("match"))
    assert failed.status == FAILED and run.allowed == [None]


def test_after_a_worker_was_ended_for_its_memory_the_next_begins_smaller(tmp_path: Path, crowded: float) -> None:
    mark = tmp_path / ".records" / "a.memory"
    mark.parent.mkdir()
    mark.write_text("1")
    run = Runner(tmp_path, heavy=0)
    done = run_job(_place(tmp_path, run), _job("register", "--max-memory=64"))
    assert done.status == DONE and len(run.allowed) == 1 and run.allowed[0] < 0.6 * crowded / 1024
    assert not mark.exists()


def test_the_table_learns_what_workers_recorded_after_it_was_written(tmp_path: Path) -> None:
    """A command that is killed has not written the last rows; their workers have."""
    waiting = _job()
    save_table(tmp_path, [waiting])
    assert load_table(tmp_path)[0].status == "waiting"
    keep_record(tmp_path, Job(**{**vars(waiting), "status": DONE}))
    assert load_table(tmp_path)[0].status == DONE
    keep_record(tmp_path, Job(**{**vars(waiting), "status": DONE, "id": "another"}))
    assert load_table(tmp_path)[0].status == "waiting"


@pytest.mark.parametrize("letter", ["\u2028", "\x85"])
def test_a_name_with_an_unusual_end_of_line_does_not_damage_the_table(tmp_path: Path, letter: str) -> None:
    job = Job("a", 2, "register", "", [], patient=f"Doe{letter}Jane", status=FAILED)
    save_table(tmp_path, [job, _job()])
    assert load_table(tmp_path)[0] == job


@pytest.mark.parametrize("line", ["[]", "3", '{"name": "a"}', "{"])
def test_a_damaged_table_is_told_in_one_sentence(tmp_path: Path, line: str) -> None:
    (tmp_path / "jobs.jsonl").write_text(line + "\n")
    with pytest.raises(InputError, match=r"jobs.jsonl is damaged; run the cohort again with --resume"):
        load_table(tmp_path)


def test_a_full_disk_is_told_in_one_sentence_and_leaves_the_table_as_it_was(tmp_path: Path, monkeypatch) -> None:
    publish(tmp_path, [_job()])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ResourceError, match="the disk is full; free some space"):
        publish(tmp_path, [_job(), _job()])
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}


def test_a_file_counts_by_its_content_though_another_row_cannot_use_it() -> None:
    """A label map named as an image by one row, and as labels by another: a change of it must be seen."""
    facts = {("l.nii", "labels"): Facts("s", "abc"), ("l.nii", "image"): Facts("s", fault="is a label map")}
    assert _contents(facts) == {"l.nii": "abc"}
