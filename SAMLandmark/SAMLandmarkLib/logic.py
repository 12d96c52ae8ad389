"""Matching and tracking for the console and the panel: nodes in, nodes out. No Qt."""

import slicer
from SAMConvexLib import nodes
from SAMConvexLib.choices import Device, Mode
from SAMConvexLib.job import startRun
from SAMConvexLib.parametersets import ParameterSetLogic
from SAMConvexLib.process import engineCommand
from slicer.i18n import tr as _

from . import findings, library, matching, results, tracking
from .live import LiveMatching
from .parameters import SAMLandmarkParameterNode
from .patients import patientOf


class SAMLandmarkLogic(ParameterSetLogic):
    """Matching and tracking for the console and the widget, without Qt: whoever starts a job polls it."""

    parameterClass = SAMLandmarkParameterNode

    # --- for the console --------------------------------------------------------------------------------------------

    def matchLandmarks(
        self,
        templateVolume,
        templateMarkups,
        queryVolume,
        outputMarkups=None,
        minimumScore=None,
        moreTemplates=(),
        mode=Mode.STABLE,
        device=Device.AUTO,
        progressCallback=None,
    ):
        """Find the template's points in other volumes and wait for the result.

        Args:
            templateVolume: the image the points were placed in; None for points loaded from a template of the library.
            templateMarkups: any number of control points; those without a position are left out, and those outside the
                template volume come back in the state "outside the template".
            queryVolume: the target scan, or a list of them.
            outputMarkups: filled, or created when None; a list of the same length for a list of volumes.
            minimumScore: a point counts as found from this score on, in [-1, 1]; None for the calibrated limit.
            moreTemplates: further (volume, markups) pairs that vote on points with the same labels.
            progressCallback: called as ``progressCallback(stage, fraction, message)``; returning False cancels.
        Returns:
            The markups node, or a list of them for a list of volumes. Points that were not found have no position;
            ``pointRows(node)`` gives state, 90 % radius, score and return error of every point.
        Raises:
            NodeError: unusable input. JobFailed, JobCancelled. Each holds one sentence for the user.
        """
        several = isinstance(queryVolume, list | tuple)
        volumes = list(queryVolume) if several else [queryVolume]
        outputs = list(outputMarkups or [None] * len(volumes)) if several else [outputMarkups]
        templates = [matching.Template.of(templateMarkups, templateVolume)]
        templates += [matching.Template.of(markups, volume) for volume, markups in moreTemplates]
        request = matching.MatchRequest(templates, volumes, minimumScore, Mode(mode).value, Device(device).value)
        found = self.startMatching(request, outputs).wait(_callback(progressCallback))
        return found if several else found[0]

    def trackLesions(
        self,
        baselineVolume,
        lesions,
        followUpVolumes,
        outputTable=None,
        minimumScore=None,
        device=Device.AUTO,
        progressCallback=None,
    ):
        """Find a patient's lesions in later images and wait for the result.

        Args:
            lesions: a node, or a list of nodes: points, ROIs, lines (diameters) or segmentations on the baseline.
            followUpVolumes: a volume or sequence, or a list of them; ordered by acquisition date where all are known.
            outputTable: filled, or created when None.
            minimumScore, device, progressCallback: as for matchLandmarks.
        Returns:
            The table node. ``course.courseOf(table)`` holds all findings as plain values.
        Raises:
            NodeError: unusable input. JobFailed, JobCancelled. Each holds one sentence for the user.
        """
        lesions = list(lesions) if isinstance(lesions, list | tuple) else [lesions]
        followUps = list(followUpVolumes) if isinstance(followUpVolumes, list | tuple) else [followUpVolumes]
        request = tracking.TrackingRequest(
            baselineVolume, lesions, tracking.followUpsOf(followUps, baselineVolume), minimumScore, Device(device).value
        )
        return self.startTracking(request, outputTable).wait(_callback(progressCallback)).table

    def pointRows(self, markups, truthMarkups=None):
        """results.PointRows of a result: label, state, 90 % radius, score, return error, confidence, true error."""
        return results.rows(markups, truthMarkups)

    # --- jobs -------------------------------------------------------------------------------------------------------

    def startMatching(self, request, outputMarkups=None):
        """Start a MatchRequest and return its EngineJob at once; its result is the list of markups nodes.

        Raises:
            nodes.NodeError: an input that cannot be used, or an output that is also an input.
        """
        outputs = list(outputMarkups or [None] * len(request.queryVolumes))
        for node in outputs:
            if node is not None and node in request.inputNodes():
                raise nodes.NodeError(
                    _("'{name}' is an input; choose another node as output.").format(name=node.GetName())
                )
        run = matching.prepare(request)
        template = request.templates[0]
        first = template.markups

        def finish(answers):
            found = []
            for volume, node, frame, entries in zip(request.queryVolumes, outputs, run.frames, answers, strict=True):
                node = node or results.create(volume, first)
                results.fill(node, entries, run.points, frame, volume, first, template.volume)
                found.append(node)
            return found

        return self._start(run, request.inputNodes() + outputs, finish)

    def startRematching(self, request, markups):
        """Start finding some points of a result again (``request.only`` names them); returns the EngineJob."""
        run = matching.prepare(request)

        def finish(answers):
            entries = {entry["label"]: entry for entry in answers[0]}
            for index in range(markups.GetNumberOfControlPoints()):
                entry = entries.get(markups.GetNthControlPointLabel(index))
                if entry is not None and entry["point"] is not None:
                    position = nodes.worldOfLps([entry["point"]], run.frames[0].worldFromFrame)[0]
                    results.replace(markups, index, entry, position)
            return [markups]

        return self._start(run, [*request.inputNodes(), markups], finish)

    def startSaving(self, directory, name, volume, markups, description="", reference=False):
        """Start saving a template into the library's folder; the EngineJob's result is the new folder.

        Raises:
            library.LibraryError, nodes.NodeError: a name in use, unusable inputs.
        """
        run = library.prepareSaving(directory, name, volume, markups, description, reference)
        return self._start(run, [volume, markups], lambda _content: run.target)

    def startTracking(self, request, outputTable=None):
        """Start a TrackingRequest and return its EngineJob at once; its result is a findings.TrackingOutput.

        Raises:
            nodes.NodeError: an input that cannot be used.
        """
        run = tracking.prepare(request)

        def finish(content):
            table = outputTable
            if table is None:
                name = patientOf(request.baselineVolume)[1] or request.baselineVolume.GetName()
                title = slicer.mrmlScene.GenerateUniqueName(_("Lesions of {name}").format(name=name))
                table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", title)
            return findings.fill(request, run, content, table)

        guards = [*request.inputNodes(), outputTable]
        return self._start(run, guards, finish)

    def _start(self, run, guards, finish):
        return startRun(run, self.engineCommand(run.arguments), finish, guards)

    def liveMatching(self, first, second):
        """A LiveMatching between two volumes, to be started and polled."""
        return LiveMatching(first, second)

    def engineCommand(self, arguments):
        """Command line that runs the engine; tests put another program here."""
        return engineCommand(arguments)


def _callback(progressCallback):
    if progressCallback is None:
        return None
    return lambda job: progressCallback(job.progress.stage, job.progress.fraction, job.progress.message)
