"""Registration for the console and the panel: nodes in, nodes out, one pair or many. No Qt."""

import json
from pathlib import Path

import slicer
from SAMConvexLib.job import EngineJob, startRun
from SAMConvexLib.nodes import NodeError
from SAMConvexLib.parametersets import ParameterSetLogic
from SAMConvexLib.process import engineCommand
from slicer.i18n import tr as _

from . import attachment, batch, outputs, request
from .parameters import SAMConvexRegistrationParameterNode
from .settings import DEFAULT_PRESET, RegistrationSettings


class SAMConvexRegistrationLogic(ParameterSetLogic):
    """Registration for the console and the widget, without Qt: ``poller`` advances the jobs."""

    poller = None
    parameterClass = SAMConvexRegistrationParameterNode

    def __init__(self):
        super().__init__()
        # Several parameter sets may live in one scene.
        self.isSingletonParameterNode = False

    def registerVolumes(
        self,
        fixedNode,
        movingNode,
        preset=DEFAULT_PRESET,
        outputTransform=None,
        outputVolume=None,
        movingSegmentation=None,
        outputSegmentation=None,
        movingMarkups=None,
        progressCallback=None,
        **more,
    ):
        """Register and wait for the result.

        Args:
            fixedNode, movingNode: scalar volumes; they are not modified.
            preset: name of a built-in preset.
            outputTransform: filled, or created when None: displacement grid from parent, fixed to moving world.
            outputVolume: filled with the moving image on the fixed grid when given.
            movingSegmentation: carried along into outputSegmentation (created when None).
            movingMarkups: carried along into a new (or ``outputMarkups=``) node.
            progressCallback: called as ``progressCallback(stage, fraction, message)``; returning False cancels.
            more: fields of RegistrationRequest (fixedMask, protectMask, fixedSegmentation, initialTransform, ...), of
                OutputNodes as output... (outputInverse, outputJacobian, outputValidity, outputError, outputTable,
                outputMarkups), of RegistrationSettings (``features="sam+mind"``, ``refinement="diffusion"``, threads,
                ...), or all of these at once as ``settings``, which then replaces ``preset``.
        Returns:
            outputs.RegistrationResult: ``transformNode``, ``outputs`` and the engine's ``report``.
        Raises:
            NodeError: unusable input. ValueError: an unknown setting. JobFailed, JobCancelled. Each holds one sentence
                for the user.
        """
        job = self.startRegistration(
            fixedNode,
            movingNode,
            preset,
            outputTransform,
            outputVolume,
            movingSegmentation,
            outputSegmentation,
            movingMarkups,
            poller=None,
            **more,
        )
        callback = None
        if progressCallback is not None:

            def callback(running):
                return progressCallback(running.progress.stage, running.progress.fraction, running.progress.message)

        return job.wait(callback)

    def startRegistration(
        self,
        fixedNode,
        movingNode,
        preset=DEFAULT_PRESET,
        outputTransform=None,
        outputVolume=None,
        movingSegmentation=None,
        outputSegmentation=None,
        movingMarkups=None,
        poller="default",
        **more,
    ):
        """Start a registration and return its job at once; arguments as registerVolumes.

        Args:
            poller: called as ``poller(job)`` to have ``job.poll()`` called until the end; None leaves it to the caller.
        """
        settings = more.pop("settings", None) or RegistrationSettings(preset=preset)
        settings = settings.changed({name: more.pop(name) for name in RegistrationSettings.names() if name in more})
        targets = outputs.OutputNodes(
            transform=outputTransform,
            volume=outputVolume,
            segmentation=outputSegmentation,
            **{name: more.pop(key, None) for key, name in outputs.MORE_OUTPUTS.items()},
        )
        wanted = request.RegistrationRequest(
            fixedNode, movingNode, settings, movingSegmentation=movingSegmentation, movingMarkups=movingMarkups, **more
        )
        missing = ["transform"] if targets.transform is None else []
        missing += ["segmentation"] if movingSegmentation is not None and targets.segmentation is None else []
        missing += ["markups"] if movingMarkups is not None and targets.markups is None else []
        job = self.startRequest(wanted, targets, missing)
        poller = self.poller if poller == "default" else poller
        if poller is not None:
            poller(job)
        return job

    def startRequest(self, wanted, targets, create=()):
        """Start the job of a request.

        Args:
            targets: OutputNodes to fill.
            create: names of OutputNodes fields that are created when the result is there.
        Raises:
            NodeError: an input that cannot be used, or an output that is also an input.
        """
        outputs.checkTargets(wanted, targets)
        for node in wanted.inputNodes():
            # What lies under an earlier result is registered from where it came from.
            attachment.detach(node)
        run = request.prepare(wanted)

        def finish(files):
            outputs.create(wanted, targets, create)
            return outputs.fill(wanted, run, files, targets)

        return startRun(
            run,
            self.engineCommand(run.arguments),
            finish,
            guards=[*wanted.inputNodes(), *targets.nodes()],
            collect=lambda: outputs.readFiles(run, {*create, *targets.names()}),
        )

    def sceneBatchItems(self, fixedNode, movingNodes, settings):
        """Batch items that register every moving volume to the fixed one; each gives a transform and a volume."""

        def item(movingNode):
            wanted = request.RegistrationRequest(fixedNode, movingNode, settings)
            name = movingNode.GetName()

            def start():
                if not all(slicer.mrmlScene.IsNodePresent(node) for node in (fixedNode, movingNode)):
                    raise NodeError(_("'{name}' or the fixed volume was removed from the scene.").format(name=name))
                return self.startRequest(wanted, outputs.OutputNodes(), ["transform", "volume"])

            return batch.BatchItem(name, start)

        return [item(node) for node in movingNodes]

    def fileBatchItems(self, pairs, folder, settings):
        """Batch items of image file pairs; each gets a result folder as the engine's command line writes it.

        Args:
            pairs: (name, fixed path, moving path) as batch.readPairs gives them.
        """

        def start(name, fixedPath, movingPath):
            target = Path(folder) / name
            arguments = ["register", fixedPath, movingPath, "-o", target, "--progress", "json"]
            arguments += settings.engineArguments()
            job = EngineJob(
                arguments,
                collect=lambda: json.loads((target / "report.json").read_text(encoding="utf-8")),
                command=self.engineCommand(arguments),
            )
            job.start()
            return job

        return [batch.BatchItem(pair[0], lambda pair=pair: start(*pair)) for pair in pairs]

    def engineCommand(self, arguments):
        """Command line that runs the engine; tests put another program here."""
        return engineCommand(arguments)
