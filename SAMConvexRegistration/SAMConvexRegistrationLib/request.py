"""What one registration is asked to do: the nodes and settings, written out as files and engine arguments."""

from dataclasses import dataclass, field

import numpy as np
import SimpleITK as sitk
from SAMConvexLib import nodes, segments
from SAMConvexLib.files import PreparedRun, writeImage, writePoints
from slicer.i18n import tr as _


@dataclass
class RegistrationRequest:
    """Inputs of one registration; everything but the two volumes is optional.

    Attributes:
        settings: settings.RegistrationSettings or None for the preset as it is.
    """

    fixedVolume: object
    movingVolume: object
    settings: object = None
    fixedMask: object = None
    movingMask: object = None
    protectMask: object = None
    fixedSegmentation: object = None
    movingSegmentation: object = None
    fixedMarkups: object = None
    movingMarkups: object = None
    initialTransform: object = None

    def inputNodes(self):
        """All nodes that take part, for watching their removal."""
        every = (
            self.fixedVolume,
            self.movingVolume,
            self.fixedMask,
            self.movingMask,
            self.protectMask,
            self.fixedSegmentation,
            self.movingSegmentation,
            self.fixedMarkups,
            self.movingMarkups,
            self.initialTransform,
        )
        return [node for node in every if node is not None]


@dataclass(kw_only=True)
class PreparedRegistration(PreparedRun):
    """A registration's images in memory, its files, and what its results are called.

    Attributes:
        labelNames, protectedNames: {label value: segment name}.
        pointNames: labels of the points whose error is measured.
        segments, layers: what segments.metadata and segments.labelLayers give of the moving segmentation.
    """

    fixed: nodes.ImageInFrame
    moving: nodes.ImageInFrame
    fixedVoxelToRas: np.ndarray
    labelNames: dict = field(default_factory=dict)
    pointNames: list = field(default_factory=list)
    protectedNames: dict = field(default_factory=dict)
    segments: list = field(default_factory=list)
    layers: list = field(default_factory=list)


def checkInputs(request):
    """One sentence that says what is missing or wrong with a request, or an empty string."""
    if request.fixedVolume is None:
        return _("Choose the fixed volume.")
    if request.movingVolume is None:
        return _("Choose the moving volume.")
    if request.fixedVolume is request.movingVolume:
        return _("The fixed and the moving volume are the same; choose two different volumes.")
    try:
        for volume in (request.fixedVolume, request.movingVolume):
            nodes.checkVolume(volume)
            nodes.exportFrame(volume)
        for node in (request.movingSegmentation, request.movingMarkups):
            if node is not None:
                nodes.parentToWorld(node)
    except nodes.NodeError as error:
        return str(error)
    return ""


def prepare(request):
    """Copy the nodes' content into images and list the files to write.

    Raises:
        nodes.NodeError: an input that cannot be used.
    """
    sentence = checkInputs(request)
    if sentence:
        raise nodes.NodeError(sentence)
    fixed, moving = nodes.imageFromVolume(request.fixedVolume), nodes.imageFromVolume(request.movingVolume)
    run = PreparedRegistration(fixed=fixed, moving=moving, fixedVoxelToRas=nodes.ijkToRas(request.fixedVolume))
    fixedPath = run.addNamed("fixed", writeImage, fixed.image, request.fixedVolume.GetName())
    movingPath = run.addNamed("moving", writeImage, moving.image, request.movingVolume.GetName())
    run.arguments = ["register", fixedPath, movingPath, "-o", run.target, "--progress", "json"]
    if request.settings is not None:
        run.arguments += request.settings.engineArguments()
    if request.movingSegmentation is not None:
        run.segments = segments.metadata(request.movingSegmentation)
        run.layers = segments.labelLayers(request.movingSegmentation)
    _addMasks(request, run)
    _addProtection(request, run)
    _addLabels(request, run)
    _addPoints(request, run)
    if request.initialTransform is not None:
        transform = nodes.transformNodeToSitk(request.initialTransform, fixed, moving)
        path = run.add("initial.h5", sitk.WriteTransform, transform, request.initialTransform.GetName())
        run.arguments += ["--initial-transform", path]
    return run


def _addMasks(request, run):
    for side, node, volume, frame in (
        ("fixed", request.fixedMask, request.fixedVolume, run.fixed),
        ("moving", request.movingMask, request.movingVolume, run.moving),
    ):
        if node is None:
            continue
        mask = segments.maskOf(node, frame)
        if not mask.any():
            raise nodes.NodeError(
                _("The mask '{mask}' does not cover any voxel of '{volume}'; draw it there or choose none.").format(
                    mask=node.GetName(), volume=volume.GetName()
                )
            )
        _addImage(run, f"--{side}-mask", f"{side}-mask.mha", mask, frame, node.GetName())


def _addProtection(request, run):
    """Every segment is a label of its own: touching bones stay two bodies."""
    if request.protectMask is None:
        return
    labels = segments.separateLabels(request.protectMask, run.fixed)
    if not labels.any():
        raise nodes.NodeError(
            _("The segmentation '{mask}' to protect does not cover any voxel of '{volume}'.").format(
                mask=request.protectMask.GetName(), volume=request.fixedVolume.GetName()
            )
        )
    run.protectedNames = {
        n: request.protectMask.GetSegmentation().GetSegment(segmentId).GetName()
        for n, segmentId in enumerate(segments.segmentIds(request.protectMask), start=1)
    }
    _addImage(run, "--protect", "protect.mha", labels, run.fixed, request.protectMask.GetName())


def _addLabels(request, run):
    """Label maps of the segments that both sides name alike: the report's Dice per structure."""
    if request.fixedSegmentation is None or request.movingSegmentation is None:
        return
    names = [
        [segment.GetName() for _segmentId, segment in segments.metadata(node)]
        for node in (request.fixedSegmentation, request.movingSegmentation)
    ]
    common = [name for name in dict.fromkeys(names[0]) if name in names[1]]
    if not common:
        return
    run.labelNames = {index + 1: name for index, name in enumerate(common)}
    for side, node, frame in (
        ("fixed", request.fixedSegmentation, run.fixed),
        ("moving", request.movingSegmentation, run.moving),
    ):
        labels = segments.namedLabels(node, common, frame)
        if labels.any():
            _addImage(run, f"--{side}-labels", f"{side}-labels.mha", labels, frame, node.GetName())


def _addPoints(request, run):
    """Points that both sides label alike (or, with equal counts and other labels, in order): the report's TRE."""
    if request.fixedMarkups is None or request.movingMarkups is None:
        return
    fixed, moving = pairedPoints(request.fixedMarkups, request.movingMarkups)
    if not len(fixed):
        return
    run.pointNames = pairedNames(request.fixedMarkups, request.movingMarkups)
    for side, points, frame, node in (
        ("fixed", fixed, run.fixed, request.fixedMarkups),
        ("moving", moving, run.moving, request.movingMarkups),
    ):
        points = nodes.lpsInFrame(points, frame.worldFromFrame)
        run.arguments += [f"--{side}-points", run.add(f"{side}-points.csv", writePoints, points, node.GetName())]


def pairedNames(fixedMarkups, movingMarkups):
    """Labels of what pairedPoints gives; those of the fixed points, or their numbers, where they pair by order."""
    fixedLabels = nodes.worldPoints(fixedMarkups)[0]
    common = _commonLabels(fixedLabels, nodes.worldPoints(movingMarkups)[0])
    return common or [label or str(number) for number, label in enumerate(fixedLabels, start=1)]


def _commonLabels(fixedLabels, movingLabels):
    # Only unique labels identify a point.
    return [
        label for label in fixedLabels if label and fixedLabels.count(label) == 1 and movingLabels.count(label) == 1
    ]


def pairedPoints(fixedMarkups, movingMarkups):
    """Two (N, 3) arrays of corresponding world points."""
    fixedLabels, fixed = nodes.worldPoints(fixedMarkups)
    movingLabels, moving = nodes.worldPoints(movingMarkups)
    usable = _commonLabels(fixedLabels, movingLabels)
    if usable:
        return (
            np.array([fixed[fixedLabels.index(label)] for label in usable]),
            np.array([moving[movingLabels.index(label)] for label in usable]),
        )
    if len(fixed) == len(moving):
        return fixed, moving
    return np.zeros((0, 3)), np.zeros((0, 3))


def _addImage(run, option, fileName, array, frame, nodeName):
    image = sitk.GetImageFromArray(array)
    image.CopyInformation(frame.image)
    run.arguments += [option, run.add(fileName, writeImage, image, nodeName)]
