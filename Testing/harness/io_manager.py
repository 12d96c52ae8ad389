"""Stand-in for Slicer's IO manager: enough for slicer.util's load, save and export functions."""

from __future__ import annotations

import os
import shutil
import tempfile

import slicer
import vtk

# File name ending -> file type, longest endings first.
FILE_TYPES = {
    ".seg.nrrd": "SegmentationFile",
    ".seg.nhdr": "SegmentationFile",
    ".mrk.json": "MarkupsFile",
    ".nii.gz": "VolumeFile",
    ".schema.tsv": "TableFile",
    ".nrrd": "VolumeFile",
    ".nhdr": "VolumeFile",
    ".mrml": "SceneFile",
    ".ctbl": "ColorTableFile",
    ".fcsv": "MarkupsFile",
    ".json": "MarkupsFile",
    ".nii": "VolumeFile",
    ".mha": "VolumeFile",
    ".mhd": "VolumeFile",
    ".mrb": "SceneFile",
    ".tfm": "TransformFile",
    ".mat": "TransformFile",
    ".vtk": "ModelFile",
    ".vtp": "ModelFile",
    ".stl": "ModelFile",
    ".ply": "ModelFile",
    ".obj": "ModelFile",
    ".csv": "TableFile",
    ".tsv": "TableFile",
    ".txt": "TextFile",
    ".h5": "TransformFile",
}

WRITER_TYPES = (
    ("vtkMRMLSegmentationNode", "SegmentationFile"),
    ("vtkMRMLVolumeNode", "VolumeFile"),
    ("vtkMRMLTransformNode", "TransformFile"),
    ("vtkMRMLMarkupsNode", "MarkupsFile"),
    ("vtkMRMLModelNode", "ModelFile"),
    ("vtkMRMLTableNode", "TableFile"),
    ("vtkMRMLTextNode", "TextFile"),
    ("vtkMRMLColorNode", "ColorTableFile"),
    ("vtkMRMLSequenceNode", "SequenceFile"),
)


class IOManager:
    """Reads and writes through the module logics and the nodes' own storage nodes."""

    def __init__(self, app):
        self._app = app

    # Reading

    def fileType(self, fileName):
        name = str(fileName).lower()
        return next((kind for ending, kind in FILE_TYPES.items() if name.endswith(ending)), "NoFile")

    def loadNodes(self, fileType, properties, loadedNodes=None, userMessages=None):
        fileName = str(properties["fileName"])
        if not os.path.exists(fileName):
            self._message(userMessages, f"File does not exist: {fileName}")
            return False
        reader = getattr(self, f"_read{fileType}", None)
        if reader is None:
            self._message(userMessages, f"No reader is available for file type '{fileType}': {fileName}")
            return False
        nodes = reader(fileName, properties, userMessages)
        if nodes is None:
            return False
        for node in nodes:
            if loadedNodes is not None:
                loadedNodes.AddItem(node)
        return True

    def loadScene(self, fileName, clear=True):
        return self.loadNodes("SceneFile", {"fileName": fileName, "clear": clear})

    def _readVolumeFile(self, fileName, properties, userMessages):
        Options = slicer.vtkSlicerVolumesLogic
        options = 0
        options |= Options.LabelMap if properties.get("labelmap") else 0
        options |= Options.CenterImage if properties.get("center") else 0
        options |= Options.SingleFile if properties.get("singleFile") else 0
        options |= Options.AutoWindowLevel if properties.get("autoWindowLevel", True) else 0
        options |= Options.DiscardOrientation if properties.get("discardOrientation") else 0
        name = properties.get("name") or self.completeBaseName(fileName)
        node = slicer.modules.volumes.logic().AddArchetypeVolume(fileName, name, options)
        if node is None:
            return None
        if properties.get("show", True):
            selection = self._app.applicationLogic().GetSelectionNode()
            if properties.get("labelmap"):
                selection.SetReferenceActiveLabelVolumeID(node.GetID())
            else:
                selection.SetReferenceActiveVolumeID(node.GetID())
            self._app.applicationLogic().PropagateVolumeSelection()
        return [node]

    def _readSegmentationFile(self, fileName, properties, userMessages):
        name = properties.get("name") or self.completeBaseName(fileName)
        if fileName.lower().endswith((".stl", ".obj", ".vtp", ".vtk", ".ply")):
            self._message(userMessages, "Surface files are not read as segmentations by this stand-in.")
            return None
        node = slicer.modules.segmentations.logic().LoadSegmentationFromFile(fileName, True, name)
        return None if node is None else [node]

    def _readTransformFile(self, fileName, properties, userMessages):
        node = slicer.modules.transforms.logic().AddTransform(fileName, slicer.mrmlScene)
        if node is None:
            return None
        node.SetName(slicer.mrmlScene.GetUniqueNameByString(properties.get("name") or self.completeBaseName(fileName)))
        return [node]

    def _readMarkupsFile(self, fileName, properties, userMessages):
        name = properties.get("name") or self.completeBaseName(fileName)
        ids = slicer.modules.markups.logic().LoadMarkups(fileName, name, userMessages)
        if not ids:
            return None
        return [slicer.mrmlScene.GetNodeByID(nodeID) for nodeID in ids.split(",")]

    def _readModelFile(self, fileName, properties, userMessages):
        node = slicer.modules.models.logic().AddModel(fileName)
        return None if node is None else [node]

    def _readTableFile(self, fileName, properties, userMessages):
        node = slicer.modules.tables.logic().AddTable(
            fileName, properties.get("name") or self.completeBaseName(fileName)
        )
        return None if node is None else [node]

    def _readTextFile(self, fileName, properties, userMessages):
        return self._readWithStorage("vtkMRMLTextNode", fileName, properties)

    def _readColorTableFile(self, fileName, properties, userMessages):
        node = (
            slicer.app.applicationLogic()
            .GetColorLogic()
            .LoadColorFile(fileName, properties.get("name") or self.completeBaseName(fileName))
        )
        return None if node is None else [node]

    def _readWithStorage(self, className, fileName, properties):
        node = slicer.mrmlScene.AddNewNodeByClass(className, properties.get("name") or self.completeBaseName(fileName))
        node.AddDefaultStorageNode(fileName)
        if node.GetStorageNode().ReadData(node):
            return [node]
        slicer.mrmlScene.RemoveNode(node)
        return None

    def _readSceneFile(self, fileName, properties, userMessages):
        scene, clear = slicer.mrmlScene, bool(properties.get("clear"))
        if fileName.lower().endswith(".mrb"):
            success = scene.ReadFromMRB(fileName, clear, userMessages)
        else:
            scene.SetURL(fileName)
            # Closing and importing are one batch, as in Slicer: between them the scene is empty and not yet ready.
            success = scene.Connect(userMessages) if clear else scene.Import(userMessages)
        return [] if success else None

    # Writing

    def fileWriterFileType(self, node, preferredFormat=""):
        return next((kind for className, kind in WRITER_TYPES if node.IsA(className)), "NodeFile")

    def fileWriterExtensions(self, node):
        if not node.IsA("vtkMRMLStorableNode"):
            return []
        storage = node.CreateDefaultStorageNode()
        if storage.IsA("vtkMRMLVolumeArchetypeStorageNode"):
            types = slicer.vtkDataFileFormatHelper().GetITKSupportedWriteFileFormats()
        elif storage.IsA("vtkMRMLTextStorageNode"):
            return ["Text (.txt)", "XML (.xml)", "JSON (.json)"]
        else:
            types = storage.GetSupportedWriteFileTypes()
        return [types.GetValue(i) for i in range(types.GetNumberOfValues())]

    def extractKnownExtension(self, fileName, node):
        name = str(fileName).lower()
        extensions = [
            slicer.vtkDataFileFormatHelper.GetFileExtensionFromFormatString(f) for f in self.fileWriterExtensions(node)
        ]
        known = [extension for extension in extensions if name.endswith(extension.lower())]
        return max(known, key=len) if known else os.path.splitext(name)[1]

    def completeBaseName(self, fileName):
        name = os.path.basename(str(fileName))
        ending = next((e for e in FILE_TYPES if name.lower().endswith(e)), os.path.splitext(name)[1])
        return name[: len(name) - len(ending)]

    def saveNodes(self, fileType, properties, userMessages=None):
        fileName = str(properties["fileName"])
        if fileType == "SceneFile":
            return self._saveScene(fileName, properties, userMessages)
        node = slicer.mrmlScene.GetNodeByID(properties["nodeID"])
        if node is None or not node.IsA("vtkMRMLStorableNode"):
            self._message(userMessages, "The node cannot be saved.")
            return False
        storage = node.GetStorageNode()
        if storage is None or not storage.SupportedFileType(fileName):
            if storage is not None:
                slicer.mrmlScene.RemoveNode(storage)
            node.AddDefaultStorageNode(fileName)
            storage = node.GetStorageNode()
        storage.SetFileName(fileName)
        self._useCompression(storage, properties)
        success = bool(storage.WriteData(node))
        self._copyMessages(storage, userMessages)
        return success

    def exportNodes(self, nodeIDs, fileNames, properties=None, hardenTransform=False, userMessages=None):
        success = True
        for nodeID, fileName in zip(nodeIDs, fileNames, strict=True):
            success = self._export(nodeID, fileName, properties or {}, hardenTransform, userMessages) and success
        return success

    def _export(self, nodeID, fileName, properties, hardenTransform, userMessages):
        scene = slicer.mrmlScene
        node = exported = scene.GetNodeByID(nodeID)
        if hardenTransform and node.GetParentTransformNode():
            exported = scene.AddNewNodeByClass(node.GetClassName(), node.GetName())
            exported.CopyContent(node)
            exported.SetAndObserveTransformNodeID(node.GetTransformNodeID())
            exported.HardenTransform()
            # Some nodes get a display node as soon as they are in a scene.
            while exported.GetNumberOfDisplayNodes():
                scene.RemoveNode(exported.GetNthDisplayNode(0))
        storage = node.CreateDefaultStorageNode()
        storage.SetScene(scene)  # some storage nodes look up display and colors through the scene
        storage.SetFileName(str(fileName))
        self._useCompression(storage, properties)
        success = bool(storage.WriteData(exported))
        self._copyMessages(storage, userMessages)
        if exported is not node:
            scene.RemoveNode(exported)
        return success

    def _saveScene(self, fileName, properties, userMessages):
        scene = slicer.mrmlScene
        lower = fileName.lower()
        if lower.endswith(".mrml"):
            scene.SetURL(fileName)
            scene.SetRootDirectory(os.path.dirname(os.path.abspath(fileName)))
            return bool(scene.Commit(fileName, userMessages))
        if lower.endswith(".mrb"):
            return bool(scene.WriteToMRB(fileName, None, userMessages))
        if os.path.exists(fileName):
            shutil.rmtree(fileName)
        os.makedirs(fileName)
        return bool(self._app.applicationLogic().SaveSceneToSlicerDataBundleDirectory(fileName, None, userMessages))

    @staticmethod
    def _useCompression(storage, properties):
        if "useCompression" in properties:
            storage.SetUseCompression(int(properties["useCompression"]))

    @staticmethod
    def _copyMessages(storage, userMessages):
        if userMessages is not None:
            userMessages.AddMessages(storage.GetUserMessages())

    @staticmethod
    def _message(userMessages, text):
        if userMessages is not None:
            userMessages.AddMessage(vtk.vtkCommand.ErrorEvent, text)


def temporary_folder(prefix="SAMConvexHarness-"):
    """A folder that disappears with the process."""
    import atexit

    folder = tempfile.mkdtemp(prefix=prefix)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
