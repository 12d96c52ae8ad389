"""Sentences about a run for the panel."""

import math

from slicer.i18n import tr as _

from . import verdicts
from .job import JobState


def stageLabel(stage):
    """A stage of the engine in the user's language; unknown stages as the engine calls them."""
    labels = {
        "read": _("Reading the images"),
        "prepare": _("Preparing the images"),
        "affine": _("Aligning position and size"),
        "coarse": _("Bringing matched points together"),
        "network": _("Predicting the deformation"),
        "convex": _("Deforming, coarse to fine"),
        "refine": _("Refining the deformation"),
        "finish": _("Completing the transform"),
        "inverse": _("Inverting the transform"),
        "error": _("Estimating the error"),
        "measure": _("Measuring quality"),
        "evaluate": _("Measuring quality"),
        "warp": _("Resampling the moving image"),
        "write": _("Writing the results"),
        "embedding": _("Describing the anatomy"),
        "matching": _("Finding the points"),
        "tracking": _("Tracking the lesions"),
        "done": _("Finished"),
    }
    # Stages that come several times are numbered.
    return labels.get(stage.split(" ")[0], stage)


def stateLabel(state):
    """A job's state in one word."""
    return {
        JobState.IDLE: _("waiting"),
        JobState.PREPARING: _("preparing"),
        JobState.RUNNING: _("running"),
        JobState.CANCELLING: _("cancelling"),
        JobState.IMPORTING: _("loading"),
        JobState.DONE: _("done"),
        JobState.CANCELLED: _("cancelled"),
        JobState.FAILED: _("failed"),
    }[state]


def duration(seconds):
    """Seconds in words that suit their size."""
    if seconds < 90:
        return _("{count} s").format(count=round(seconds))
    return _("{count} min").format(count=round(seconds / 60))


def level(job):
    """The verdicts level whose color a job's sentence has; "" for one that needs none."""
    if job.state is JobState.FAILED:
        return verdicts.DO_NOT_USE
    if job.state is not JobState.DONE:
        return ""
    report = getattr(job.result, "report", None) or {}
    judged = verdicts.levelOf(report)
    if judged in (verdicts.CHECK, verdicts.DO_NOT_USE):
        return judged
    return verdicts.CHECK if report.get("warnings") else ""


def sentence(job):
    """What is happening, for the line below the progress bar."""
    if job.state is JobState.PREPARING:
        return _("Preparing the images...")
    if job.state is JobState.CANCELLING:
        return _("Cancelling...")
    if job.state is JobState.IMPORTING:
        return _("Loading the results...")
    if job.state is JobState.DONE:
        report = getattr(job.result, "report", None) or {}
        finished = _("Finished in {time}.").format(time=duration(job.seconds))
        return " ".join(filter(None, [finished, verdicts.sentence(report), *report.get("warnings", [])]))
    if job.state in (JobState.CANCELLED, JobState.FAILED):
        return job.message
    progress = job.progress
    text = stageLabel(progress.stage) if progress.stage else _("Starting the engine...")
    left = progress.remaining()
    if left is not None and left > 0:
        text = _("{stage}, about {time} left").format(stage=text, time=duration(math.ceil(left)))
    elif left is not None:
        text = _("{stage}, longer than expected").format(stage=text)
    if progress.memoryMib:
        text = _("{text} ({memory:.1f} GiB in use)").format(text=text, memory=progress.memoryMib / 1024)
    return text
