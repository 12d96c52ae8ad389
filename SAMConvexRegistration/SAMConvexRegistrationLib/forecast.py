"""Time and memory a registration will take, asked of the engine in the background and compared with this computer."""

import json

from SAMConvexLib.job import EngineJob, JobState
from SAMConvexLib.process import engineModule
from SAMConvexLib.status import duration
from slicer.i18n import tr as _


class Forecaster:
    """Asks the engine once per image size and choice of settings; the answers come from what is known.

    Args:
        poller: called as ``poller(job)`` to have the job polled.
        command: makes the engine's command line of its arguments.
        onChange: called when an answer has arrived.
    """

    def __init__(self, poller, command, onChange=None):
        self._poller = poller
        self._command = command
        self._onChange = onChange
        self._answers = {}
        self._job = None

    def sentence(self, volumeNode, settings):
        """Forecast for a fixed volume and settings, with a warning where memory is short; "" until it is known."""
        key = self._key(volumeNode, settings)
        if key not in self._answers:
            self._ask(key)
            return ""
        answer = self._answers[key].get(settings.preset)
        if not answer:
            return ""
        # Of the engine only this, and not before it is needed: the module loads without it.
        available = engineModule("samconvex.memory").available_memory_gib()
        return costSentence(answer["forecast"], available, settings.maximumMemoryGib)

    def numbers(self, volumeNode, settings):
        """What a strength makes of a preset, for the panel; "" until it is known (asked for by ``sentence``)."""
        answer = self._answers.get(self._key(volumeNode, settings), {}).get(settings.preset, {})
        return strengthSentence(answer.get("strengths", {}).get(settings.strength.value, {}))

    def kill(self):
        if self._job is not None:
            self._job.kill()

    @staticmethod
    def _key(volumeNode, settings):
        """The question as the engine's arguments."""
        spacing = [round(value, 3) for value in volumeNode.GetSpacing()]
        size = volumeNode.GetImageData().GetDimensions()
        return ("--size", *size, "--spacing", *spacing, *settings.costArguments())

    def _ask(self, key):
        if self._job is not None:
            return
        arguments = ["presets", "--json", *key]
        self._job = EngineJob(arguments, command=self._command(arguments))

        def onChange(job):
            if job.isFinished:
                self._job = None
                self._answers[key] = readAnswer(job.log) if job.state is JobState.DONE else {}
                if self._onChange is not None:
                    self._onChange()

        self._job.onChange = onChange
        self._job.start()
        self._poller(self._job)


def readAnswer(text):
    """{preset: {"forecast": {"seconds": s, "memory_gib": g}, ...}} of what ``samconvex presets --json`` printed."""
    try:
        listing = json.loads(text[text.index("{") : text.rindex("}") + 1])
        return {name: entry for name, entry in listing.items() if entry["forecast"]}
    except (ValueError, KeyError, TypeError):
        return {}


def strengthSentence(numbers):
    """The numbers behind a strength, as ``samconvex presets --json`` lists them, or ""."""
    if not numbers:
        return ""
    text = _("coupling {coupling:.3g}, smoothing passes {box_passes}").format(**numbers)
    if "regularization" in numbers:
        text = _("{text}, regularization {regularization:.3g}").format(text=text, **numbers)
    return text


def costSentence(cost, available, limit=0.0):
    """One sentence for the panel.

    Args:
        cost: {"seconds": s, "memory_gib": g}.
        available: free memory in GiB.
        limit: what the user allows, GiB; 0 for what is free.
    """
    values = {"time": duration(cost["seconds"]), "memory": cost["memory_gib"]}
    if 0 < limit < cost["memory_gib"]:
        return _(
            "Needs about {memory:.1f} GiB of memory, more than the limit of {limit:g} GiB: coarser settings will be "
            "taken; raise the limit under Advanced to avoid that."
        ).format(limit=limit, **values)
    if not limit and cost["memory_gib"] > available:
        return _(
            "Needs about {memory:.1f} GiB of memory but only {available:.1f} GiB are free: coarser settings will be "
            "taken; crop the volumes or close other programs to avoid that."
        ).format(available=available, **values)
    return _("Expected: about {time} on two processor cores and {memory:.1f} GiB of memory.").format(**values)
