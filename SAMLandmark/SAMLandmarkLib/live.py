"""Live matching: as the mouse moves over one volume, the matched point follows in the other, in both directions. No Qt.

Requests go to a LiveWorker one at a time; while one is answered only the newest position waits, so that the point never
lags behind a queue.
"""

import shutil
import threading
import time
from collections import deque
from enum import Enum

import numpy as np
import slicer
import vtk
from SAMConvexLib import nodes, segments
from SAMConvexLib.files import writeImage
from SAMConvexLib.process import temporaryFolder
from SAMConvexLib.scene import addHidden
from slicer.i18n import tr as _

from . import results, similarity
from .worker import LiveWorker

MARKER_COLOR = (1.0, 0.9, 0.1)
# Seconds that an answer may take before the user is told what is being done.
PATIENCE = 0.3


class LiveState(Enum):
    OFF = "off"
    LOADING = "loading"
    READY = "ready"
    SEARCHING = "searching"
    FOUND = "found"
    ABSENT = "absent"
    OUTSIDE = "outside"
    FAILED = "failed"


class LiveMatching:
    """Follows the mouse between two volumes.

    Args:
        first, second: scalar volume nodes.
        worker: LiveWorker to use instead of an own one.
    Attributes:
        state, message: what to tell the user; ``onChange(live)`` is called after every change.
        follow: the slice views of the other volume move to the matched point.
        minimumScore: found from this score on, None for the calibrated limit.
        latencies: seconds from a cursor event to the moved point, the latest 500.
    """

    def __init__(self, first, second, worker=None):
        nodes.checkVolume(first, slices=True)
        nodes.checkVolume(second, slices=True)
        if first is second:
            raise nodes.NodeError(_("Choose two different volumes."))
        self._volumes = (first, second)
        self._frames = {}
        self._worker = worker or LiveWorker()
        self._worker.onEnd = self._workerEnded
        self._folder = None
        self._writer = None
        self._loading = {}
        self._stamps = {}
        self._started = 0.0
        self._inFlight = None
        self._pending = None
        self._heatInFlight = False
        self._observations = []
        self._marker = self._heat = None
        self.heatWanted = False
        self.follow = True
        self.minimumScore = None
        self.state = LiveState.OFF
        self.message = ""
        self.lastAnswer = None
        self.latencies = deque(maxlen=500)
        self.onChange = None

    # --- life -------------------------------------------------------------------------------------------------------

    def start(self):
        """Embed both volumes (in the worker) and follow the mouse; returns at once, ``poll()`` does the rest.

        Raises:
            nodes.NodeError: a volume that cannot be used.
        """
        self._frames = {volume.GetID(): nodes.imageFromVolume(volume, slices=True) for volume in self._volumes}
        self._stamps = {volume.GetID(): _stamp(volume) for volume in self._volumes}
        self._folder = temporaryFolder()
        paths = {key: self._folder / f"volume{number}.mha" for number, key in enumerate(self._frames)}

        def write():
            for key, path in paths.items():
                writeImage(self._frames[key].image, str(path))

        self._writer = threading.Thread(target=write, daemon=True)
        self._writer.start()
        self._loading = {key: None for key in paths}
        self._started = time.perf_counter()
        self._paths = paths
        self._worker.start()
        self._observe()
        self._setState(LiveState.LOADING, self._loadingSentence(0.0))

    def stop(self):
        """End the process and remove marker and overlay."""
        for subject, tag in self._observations:
            subject.RemoveObserver(tag)
        self._observations = []
        self._worker.stop()
        self._inFlight = self._pending = None
        for node in (self._marker, self._heat):
            if node is not None and slicer.mrmlScene.IsNodePresent(node):
                if node is self._heat:
                    self._showHeat(False)
                    similarity.remove(node)
                else:
                    segments.removeWithDisplay(node)
        self._marker = self._heat = None
        self._cleanFolder()
        self._setState(LiveState.OFF, "")

    def _cleanFolder(self):
        folder, self._folder = self._folder, None
        if folder is None:
            return
        if self._writer is not None and self._writer.is_alive():
            threading.Thread(target=lambda: (self._writer.join(), shutil.rmtree(folder, True)), daemon=True).start()
        else:
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def isOn(self):
        return self.state not in (LiveState.OFF, LiveState.FAILED)

    @property
    def loadedFraction(self):
        """How much of preparing the two volumes is done, 0 to 1."""
        return sum(value or 0.0 for value in self._loading.values()) / max(1, len(self._loading))

    @property
    def progress(self):
        """Of what keeps the user waiting: 0 to 1, None while nobody knows how long it takes; 1 when nothing does."""
        if self.state is LiveState.SEARCHING:
            return None
        if self.state is LiveState.LOADING:
            return None if self.loadedFraction == 0.0 or self._isRelating else self.loadedFraction
        return 1.0

    @property
    def _isRelating(self):
        """One volume is ready and nothing is reported of the other: known already, it is only related to the first."""
        values = list(self._loading.values())
        return all(value in (None, 1.0) for value in values) and 1.0 in values

    @property
    def marker(self):
        """The markups node with the matched point, or None before the first."""
        return self._marker

    @property
    def heatNode(self):
        return self._heat

    def poll(self):
        """Advance: call it every few milliseconds while ``isOn``."""
        if self.state is LiveState.LOADING and self._writer is not None and not self._writer.is_alive():
            self._writer = None
            for key, path in self._paths.items():
                self._worker.request(
                    lambda answer, key=key: self._loaded(key, answer), do="load", name=key, path=str(path)
                )
        self._worker.poll()
        self._tellWaiting()

    def _tellWaiting(self):
        """Say what takes long, with the seconds it took so far."""
        if self.state is LiveState.LOADING:
            state, sentence = LiveState.LOADING, self._loadingSentence(time.perf_counter() - self._started)
        elif self._inFlight is not None and time.perf_counter() - self._inFlight[2] > PATIENCE:
            name = self._other(self._inFlight[0]).GetName()
            seconds = int(time.perf_counter() - self._inFlight[2])
            sentence = _("Looking for this place in '{name}' ({seconds} s)").format(name=name, seconds=seconds)
            state = LiveState.SEARCHING
        else:
            return
        if (state, sentence) != (self.state, self.message):
            self._setState(state, sentence)

    def _loadingSentence(self, seconds):
        if self.loadedFraction == 0.0:
            return _("Preparing the volumes ({seconds} s)").format(seconds=int(seconds))
        if self._isRelating:
            return _("Relating the two volumes to each other, once ({seconds} s)").format(seconds=int(seconds))
        return _("Describing the anatomy of both volumes, once: {percent} % ({seconds} s)").format(
            percent=round(100 * self.loadedFraction), seconds=int(seconds)
        )

    def _loaded(self, key, answer):
        if "error" in answer:
            name = slicer.mrmlScene.GetNodeByID(key).GetName()
            self._fail(answer["error"].replace(str(self._paths[key]), f"'{name}'"))
        elif "stage" in answer:
            self._loading[key] = float(answer["fraction"])
            self._tellWaiting()
        else:
            self._loading[key] = 1.0
            self._paths.pop(key).unlink(missing_ok=True)
            if not self._paths:
                self._setState(LiveState.READY, _("Move the mouse over one of the two volumes."))

    def _workerEnded(self, sentence):
        self._fail(sentence)

    def _fail(self, sentence):
        self.stop()
        self._setState(LiveState.FAILED, sentence)

    def _setState(self, state, message):
        self.state, self.message = state, message
        if self.onChange is not None:
            self.onChange(self)

    # --- scene ------------------------------------------------------------------------------------------------------

    def _observe(self):
        scene = slicer.mrmlScene
        crosshair = slicer.util.getNodesByClass("vtkMRMLCrosshairNode")[0]

        @vtk.calldata_type(vtk.VTK_OBJECT)
        def onNodeRemoved(_caller, _event, node):
            if node in self._volumes:
                self._fail(_("'{name}' was removed; live matching is off.").format(name=node.GetName()))

        events = slicer.vtkMRMLCrosshairNode
        self._observations = [
            (scene, scene.AddObserver(slicer.vtkMRMLScene.NodeAboutToBeRemovedEvent, onNodeRemoved)),
            (scene, scene.AddObserver(slicer.vtkMRMLScene.StartCloseEvent, lambda caller, event: self.stop())),
            (crosshair, crosshair.AddObserver(events.CursorPositionModifiedEvent, self._onCursor)),
        ]
        for volume in self._volumes:
            for event in (
                slicer.vtkMRMLVolumeNode.ImageDataModifiedEvent,
                slicer.vtkMRMLTransformableNode.TransformModifiedEvent,
            ):
                self._observations.append((volume, volume.AddObserver(event, self._onVolumeChanged)))

    def _onVolumeChanged(self, volume, event):
        if self._stamps.get(volume.GetID()) != _stamp(volume):
            self._fail(_("'{name}' was changed; start live matching again.").format(name=volume.GetName()))

    def _onCursor(self, crosshair, event):
        ras = [0.0, 0.0, 0.0]
        if not crosshair.GetCursorPositionRAS(ras):
            return
        xyz = [0.0, 0.0, 0.0]
        sliceNode = crosshair.GetCursorPositionXYZ(xyz)
        volume = self._volumeOf(sliceNode)
        if volume is not None:
            self.moveTo(volume, ras)

    def _volumeOf(self, sliceNode):
        """The one of the two volumes that a slice view shows, its background first."""
        composite = _compositeOf(sliceNode)
        if composite is None:
            return None
        for identifier in (composite.GetBackgroundVolumeID(), composite.GetForegroundVolumeID()):
            for volume in self._volumes:
                if identifier == volume.GetID():
                    return volume
        return None

    def sliceNodesOf(self, volume):
        """Slice nodes whose background is the volume."""
        found = slicer.util.getNodesByClass("vtkMRMLSliceNode")
        return [
            node
            for node in found
            if _compositeOf(node) is not None and _compositeOf(node).GetBackgroundVolumeID() == volume.GetID()
        ]

    # --- matching ---------------------------------------------------------------------------------------------------

    def moveTo(self, volume, ras):
        """Ask where a world point (RAS mm) of one volume lies in the other; the newest question wins."""
        if self.state in (LiveState.OFF, LiveState.LOADING, LiveState.FAILED):
            return
        question = volume, np.array(ras, dtype=float), time.perf_counter()
        if self._inFlight is None:
            self._ask(question)
        else:
            self._pending = question

    def _ask(self, question):
        volume, ras, _start = question
        source = self._frames[volume.GetID()]
        point = nodes.lpsInFrame([ras], source.worldFromFrame)[0]
        index = source.image.TransformPhysicalPointToContinuousIndex(point.tolist())
        size = source.image.GetSize()
        if any(not -0.5 <= value <= count - 0.5 for value, count in zip(index, size, strict=True)):
            self._place(None, self._other(volume))
            self._setState(LiveState.OUTSIDE, _("The mouse is outside the volume."))
            return
        self._inFlight = question
        self._worker.request(
            self._answered,
            do="match",
            **{"from": volume.GetID()},
            to=self._other(volume).GetID(),
            point=[float(value) for value in point],
            minimum_score=self.minimumScore,
        )

    def _other(self, volume):
        return self._volumes[1] if volume is self._volumes[0] else self._volumes[0]

    def _answered(self, answer):
        question, self._inFlight = self._inFlight, None
        if question is None:
            return
        volume, ras, start = question
        other = self._other(volume)
        if "error" in answer:
            self._place(None, other)
            self._setState(LiveState.ABSENT, answer["error"])
        elif "done" in answer:
            self.lastAnswer = answer
            if answer["found"]:
                place = nodes.worldOfLps([answer["point"]], self._frames[other.GetID()].worldFromFrame)[0]
                self._place(place, other)
                self.latencies.append(time.perf_counter() - start)
                self._setState(
                    LiveState.FOUND,
                    _("In '{name}': score {score:.2f}, return error {cycle:.1f} mm").format(
                        name=other.GetName(), score=answer["score"], cycle=answer["cycle_mm"]
                    ),
                )
            elif answer.get("state") == results.OUTSIDE:
                self._place(None, other)
                self._setState(
                    LiveState.ABSENT,
                    _("Outside this scan: '{name}' does not show this part of the body.").format(name=other.GetName()),
                )
            else:
                self._place(None, other)
                self._setState(
                    LiveState.ABSENT,
                    _("Not found: nothing in '{name}' looks like this place (score {score:.2f}).").format(
                        name=other.GetName(), score=answer["score"]
                    ),
                )
            self._askHeat(volume, ras)
        newest, self._pending = self._pending, None
        if newest is not None and self.isOn:
            self._ask(newest)

    def _place(self, position, other):
        """Move the marker; None hides it. It is only drawn in views of the volume it lies in."""
        marker = self._marker
        if marker is None:
            marker = addHidden("vtkMRMLMarkupsFiducialNode", _("Live match"))
            marker.SetLocked(True)
            marker.AddControlPointWorld(vtk.vtkVector3d(0.0, 0.0, 0.0))
            marker.SetNthControlPointLabel(0, "")
            marker.CreateDefaultDisplayNodes()
            marker.GetDisplayNode().SetSaveWithScene(False)
            marker.GetDisplayNode().SetSelectedColor(*MARKER_COLOR)
            marker.GetDisplayNode().SetGlyphScale(3.5)
            self._marker = marker
        display = marker.GetDisplayNode()
        if position is None:
            display.SetVisibility(False)
            return
        views = self.sliceNodesOf(other)
        identifiers = [node.GetID() for node in views]
        if list(display.GetViewNodeIDs() or ()) != identifiers:
            display.RemoveAllViewNodeIDs()
            for identifier in identifiers:
                display.AddViewNodeID(identifier)
        marker.SetNthControlPointPositionWorld(0, *[float(value) for value in position])
        display.SetVisibility(bool(identifiers))
        if self.follow:
            for node in views:
                node.JumpSliceByOffsetting(*[float(value) for value in position])

    # --- similarity overlay -----------------------------------------------------------------------------------------

    def setHeatWanted(self, wanted):
        """Show or hide the overlay of where else the point could be."""
        self.heatWanted = bool(wanted)
        if not wanted:
            self._showHeat(False)

    def _askHeat(self, volume, ras):
        if not self.heatWanted or self._heatInFlight or self._folder is None:
            return
        self._heatInFlight = True
        other = self._other(volume)
        point = nodes.lpsInFrame([ras], self._frames[volume.GetID()].worldFromFrame)[0]
        self._worker.request(
            lambda answer: self._heatAnswered(other, answer),
            do="similarity",
            **{"from": volume.GetID()},
            to=other.GetID(),
            point=[float(value) for value in point],
            path=str(self._folder / "similarity.npy"),
        )

    def _heatAnswered(self, other, answer):
        self._heatInFlight = False
        if "done" not in answer or not self.heatWanted:
            return
        scores = np.load(answer["path"], allow_pickle=False)
        if self._heat is None:
            self._heat = addHidden("vtkMRMLScalarVolumeNode", _("Similarity"))
        grid = answer["grid"]
        voxelToFrame = np.eye(4)
        voxelToFrame[:3, :3] = np.reshape(grid["direction"], (3, 3)) * np.asarray(grid["spacing"])
        voxelToFrame[:3, 3] = grid["origin"]
        toWorld = self._frames[other.GetID()].worldFromFrame @ nodes.LPS_FROM_RAS
        nodes.fillVolume(self._heat, scores, toWorld @ voxelToFrame)
        similarity.color(self._heat, scores)
        self._showHeat(True, other)

    def _showHeat(self, visible, other=None):
        if self._heat is None:
            return
        for node in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
            here = visible and other is not None and node.GetBackgroundVolumeID() == other.GetID()
            if here and node.GetForegroundVolumeID() in (None, "", self._heat.GetID()):
                node.SetForegroundVolumeID(self._heat.GetID())
                node.SetForegroundOpacity(similarity.OPACITY)
            elif node.GetForegroundVolumeID() == self._heat.GetID():
                node.SetForegroundVolumeID(None)
                node.SetForegroundOpacity(0.0)
        similarity.showLegend(self._heat, visible)


def _stamp(volume):
    """Changes when the voxels or the place of a volume change."""
    image = volume.GetImageData()
    matrix = nodes.parentToWorld(volume) @ nodes.ijkToRas(volume)
    return (image.GetPointData().GetScalars().GetMTime() if image is not None else 0, matrix.round(6).tobytes())


def _compositeOf(sliceNode):
    if sliceNode is None:
        return None
    logic = slicer.app.applicationLogic().GetSliceLogic(sliceNode)
    return logic.GetSliceCompositeNode() if logic is not None else None
