"""A run in its own process: every way it can go ends in the right state, quickly, with a sentence."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import slicer
from modules import scene_builders as build

FAKE = str(Path(__file__).with_name("fake_engine.py"))


@pytest.fixture
def jobs(scene):
    from SAMConvexLib import job

    return job


def start(jobs, behavior, *arguments, **options):
    job = jobs.EngineJob([], command=[sys.executable, FAKE, behavior, *arguments], **options)
    job.states = []
    job.onChange = lambda running: job.states.append((running.state, round(running.progress.fraction, 2)))
    job.start()
    return job


def poll_until(job, condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        job.poll()
        assert time.monotonic() < end, f"still {job.state}"
        time.sleep(0.01)


def test_a_run_goes_through_its_states_and_gives_its_result(jobs, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    job = start(
        jobs, "done", prepare=lambda: (folder / "in").touch(), collect=lambda: 21, finish=lambda v: v * 2, folder=folder
    )
    assert job.wait() == 42
    states = list(dict.fromkeys(state for state, _fraction in job.states))
    assert states == [jobs.JobState.PREPARING, jobs.JobState.RUNNING, jobs.JobState.IMPORTING, jobs.JobState.DONE]
    fractions = [fraction for _state, fraction in job.states]
    assert fractions == sorted(fractions) and 0.6 in fractions
    assert "a line that is no progress" in job.log
    assert not folder.exists()


def test_progress_tells_stage_memory_and_time_left(jobs):
    job = start(jobs, "slow")
    poll_until(job, lambda: job.progress.fraction > 0)
    assert (job.progress.stage, job.progress.memoryMib, job.progress.secondsLeft) == ("convex", 500.0, 2.0)
    job.kill()


def test_cancelling_is_answered_within_a_second(jobs):
    job = start(jobs, "slow")
    poll_until(job, lambda: job.progress.fraction > 0)
    begin = time.monotonic()
    job.cancel()
    assert job.state is jobs.JobState.CANCELLING
    with pytest.raises(jobs.JobCancelled, match="nothing was changed"):
        job.wait()
    assert time.monotonic() - begin < 1.0


def test_an_engine_that_ignores_the_request_is_killed_with_its_children_within_a_second(jobs):
    job = start(jobs, "stubborn")
    poll_until(job, lambda: "child" in job.log and job.progress.fraction > 0.15)
    child = int(job.log.split("child ")[1].split()[0])
    begin = time.monotonic()
    job.cancel()
    with pytest.raises(jobs.JobCancelled):
        job.wait()
    assert time.monotonic() - begin < 1.0
    end = time.monotonic() + 2
    while is_alive(child):
        assert time.monotonic() < end
        time.sleep(0.02)


def is_alive(pid):
    try:
        # A killed orphan may stay as a zombie until its new parent looks.
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").split(")")[1].split()[0] != "Z"
    except OSError:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return not Path("/proc").exists()


def test_cancelling_while_files_are_still_written_leaves_none(jobs, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()

    def slow_write():
        time.sleep(0.4)
        (folder / "late").write_text("x")

    job = start(jobs, "done", prepare=slow_write, folder=folder)
    begin = time.monotonic()
    job.cancel()
    with pytest.raises(jobs.JobCancelled):
        job.wait()
    assert time.monotonic() - begin < 0.3
    end = time.monotonic() + 2
    while folder.exists():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_an_unusable_input_is_told_with_the_nodes_name(jobs):
    job = start(jobs, "input", "/tmp/abc/fixed.mha", names={"/tmp/abc/fixed.mha": "Chest CT"})
    with pytest.raises(jobs.JobFailed) as error:
        job.wait()
    assert str(error.value) == "'Chest CT' is constant (every voxel is 0); choose an image with content."


def test_a_kill_from_outside_says_so_and_costs_nothing_else(jobs):
    job = start(jobs, "killed")
    with pytest.raises(jobs.JobFailed, match="signal 9.*memory"):
        job.wait()


def test_a_defect_keeps_the_traceback_in_the_log(jobs):
    job = start(jobs, "defect")
    with pytest.raises(jobs.JobFailed, match="ZeroDivisionError"):
        job.wait()
    assert "Traceback" in job.log


def test_the_engines_own_cancellation_is_no_error(jobs):
    with pytest.raises(jobs.JobCancelled):
        start(jobs, "cancelled").wait()


def test_an_engine_that_cannot_start_fails_with_a_message(jobs):
    job = jobs.EngineJob([], command=["/nonexistent/python"])
    job.start()
    with pytest.raises(jobs.JobFailed):
        job.wait()


def test_a_failure_while_importing_fails_the_run(jobs):
    def broken(_value):
        raise ValueError("no space")

    with pytest.raises(jobs.JobFailed, match="no space"):
        start(jobs, "done", finish=broken).wait()


def test_the_log_is_capped(jobs):
    job = start(jobs, "chatty")
    job.wait()
    assert len(job.log) <= jobs.LOG_LIMIT


def test_closing_the_scene_ends_the_run(jobs):
    job = start(jobs, "slow")
    poll_until(job, lambda: job.progress.fraction > 0)
    slicer.mrmlScene.Clear(0)
    assert job.state is jobs.JobState.CANCELLING
    with pytest.raises(jobs.JobCancelled, match="scene"):
        job.wait()


def test_removing_an_input_ends_the_run_and_names_it(jobs):
    node = build.volume("Chest", build.box_array(), build.oblique())
    other = build.volume("Other", build.box_array(), build.oblique())
    job = start(jobs, "slow", guards=[node])
    poll_until(job, lambda: job.progress.fraction > 0)
    slicer.mrmlScene.RemoveNode(other)
    assert job.state is jobs.JobState.RUNNING
    slicer.mrmlScene.RemoveNode(node)
    with pytest.raises(jobs.JobCancelled, match="Chest"):
        job.wait()


def test_a_callback_that_returns_false_cancels(jobs):
    seen = []

    def callback(job):
        seen.append(job.progress.fraction)
        return not seen[-1] > 0

    with pytest.raises(jobs.JobCancelled):
        start(jobs, "slow").wait(callback)
    assert seen[-1] > 0


def test_observers_are_removed_at_the_end(jobs):
    before = observers()
    job = start(jobs, "done")
    assert observers() == before + 2
    job.wait()
    assert observers() == before


def observers():
    return str(slicer.mrmlScene).count("EventName:")


def test_the_time_left_goes_on_while_the_engine_is_silent(scene, monkeypatch):
    from SAMConvexLib import job, status

    now = [100.0]
    monkeypatch.setattr(job.time, "monotonic", lambda: now[0])
    running = job.EngineJob([], command=["none"])
    running.state = job.JobState.RUNNING
    running._process = SimpleNamespace(exitStatus=None, lines=list)
    monkeypatch.setattr(running, "_readLines", lambda: None)
    running._readProgress('{"stage": "convex", "seconds_left": 40.0, "memory_mib": null}')
    texts = []
    running.onChange = lambda changed: texts.append(status.sentence(changed))
    for _second in range(45):
        now[0] += 1.0
        running.poll()
    assert texts[0].endswith("about 39 s left") and texts[-1].endswith("longer than expected")
    assert len(set(texts)) > 39
