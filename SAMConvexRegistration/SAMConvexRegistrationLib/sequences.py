"""Images over time: the volumes of a sequence one by one, and results of theirs as sequences again."""

import slicer
from SAMConvexLib.nodes import ijkToRas, vtkFromMatrix
from SAMConvexLib.scene import addHidden, copyDisplay
from SAMConvexLib.segments import removeWithDisplay
from slicer.i18n import tr as _

from .outputs import OUTPUT_ATTRIBUTE

NAMES = ("volume", "transform")


def holdsVolumes(node):
    """True for a sequence of scalar volumes that is no result of ours."""
    if not node.IsA("vtkMRMLSequenceNode") or node.GetAttribute(OUTPUT_ATTRIBUTE):
        return False
    first = node.GetNthDataNode(0) if node.GetNumberOfDataNodes() else None
    return first is not None and first.IsA("vtkMRMLScalarVolumeNode") and not first.IsA("vtkMRMLLabelMapVolumeNode")


def names(sequence):
    """What its volumes are called: the sequence's name and each one's index value."""
    values = [sequence.GetNthIndexValue(index) for index in range(sequence.GetNumberOfDataNodes())]
    return [_("{sequence}, {value}").format(sequence=sequence.GetName(), value=value) for value in values]


def standIn(sequence, index, name):
    """A hidden volume of the scene with the voxels, place and window of one of a sequence's volumes."""
    source = sequence.GetNthDataNode(index)
    volume = addHidden("vtkMRMLScalarVolumeNode", name)
    # The voxels are shared, not copied.
    volume.SetAndObserveImageData(source.GetImageData())
    volume.SetIJKToRASMatrix(vtkFromMatrix(ijkToRas(source)))
    volume.CreateDefaultDisplayNodes()
    volume.GetDisplayNode().SetSaveWithScene(False)
    copyDisplay(source, volume)
    return volume


class SequenceResults:
    """Takes the results of a sequence's volumes out of the scene into two sequences, played by one browser."""

    def __init__(self, source):
        self._source = source
        self._browser = None
        self.sequences = {}

    def take(self, index, result):
        """Store the nodes of one volume's RegistrationResult under its index value and remove them from the scene."""
        for name in NAMES:
            node = getattr(result.outputs, name)
            self._sequence(name).SetDataNodeAtValue(node, self._source.GetNthIndexValue(index))
            removeWithDisplay(node)
        if self._browser is None:
            title = _("{sequence} registered").format(sequence=self._source.GetName())
            self._browser = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", title)
            for name in NAMES:
                self._browser.AddSynchronizedSequenceNode(self.sequences[name])

    def _sequence(self, name):
        if name not in self.sequences:
            titles = {"volume": _("{sequence} registered volumes"), "transform": _("{sequence} transforms")}
            title = slicer.mrmlScene.GenerateUniqueName(titles[name].format(sequence=self._source.GetName()))
            made = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", title)
            made.SetIndexName(self._source.GetIndexName())
            made.SetIndexUnit(self._source.GetIndexUnit())
            made.SetIndexType(self._source.GetIndexType())
            made.SetAttribute(OUTPUT_ATTRIBUTE, name)
            self.sequences[name] = made
        return self.sequences[name]
