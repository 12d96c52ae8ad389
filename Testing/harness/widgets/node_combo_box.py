"""Stand-in for qMRMLNodeComboBox: chooses, makes, renames and removes nodes of a scene."""

from __future__ import annotations

import slicer
import vtk
from PySide6 import QtCore, QtWidgets

Property = QtCore.Property
Signal = QtCore.Signal


def _release(scene, scene_observers, name_observers):
    for tag in scene_observers:
        scene.RemoveObserver(tag)
    scene_observers.clear()
    _unobserve(name_observers)


def _unobserve(name_observers):
    for reference, tag in name_observers:
        node = reference.Get()
        if node is not None:
            node.RemoveObserver(tag)
    name_observers.clear()


class _SortFilterProxyModel:
    """qMRMLSortFilterProxyModel: what is left out of the list although its type fits."""

    def __init__(self, changed):
        self._changed = changed
        self._hidden = []

    @property
    def hiddenNodeIDs(self):
        return tuple(self._hidden)

    @hiddenNodeIDs.setter
    def hiddenNodeIDs(self, identifiers):
        self._hidden = [str(identifier) for identifier in identifiers]
        self._changed()


class qMRMLNodeComboBox(QtWidgets.QWidget):
    """Lists the scene's nodes of the given types, below them the actions that are enabled."""

    currentNodeChanged = Signal(object)
    currentNodeIDChanged = Signal(str)
    nodeActivated = Signal(object)
    currentNodeRenamed = Signal(str)
    nodeAdded = Signal(object)
    nodeAddedByUser = Signal(object)
    nodeAboutToBeRemoved = Signal(object)
    nodeAboutToBeEdited = Signal(object)
    PQ_SIGNALS = {
        "currentNodeChanged(vtkMRMLNode*)": "currentNodeChanged",
        "currentNodeChanged(bool)": "currentNodeChanged",
        "currentNodeIDChanged(QString)": "currentNodeIDChanged",
        "nodeActivated(vtkMRMLNode*)": "nodeActivated",
        "nodeAdded(vtkMRMLNode*)": "nodeAdded",
        "nodeAddedByUser(vtkMRMLNode*)": "nodeAddedByUser",
        "nodeAboutToBeRemoved(vtkMRMLNode*)": "nodeAboutToBeRemoved",
    }

    def __init__(self, parent=None):
        super().__init__(parent)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._combo = QtWidgets.QComboBox()
        self._combo.setSizePolicy(QtWidgets.QSizePolicy.Policy.Expanding, QtWidgets.QSizePolicy.Policy.Fixed)
        self._combo.setMinimumContentsLength(10)
        layout.addWidget(self._combo)
        self.setFocusProxy(self._combo)
        self.setSizePolicy(QtWidgets.QSizePolicy.Policy.Expanding, QtWidgets.QSizePolicy.Policy.Fixed)
        self._scene = None
        self._whenDestroyed = None
        self._observers = []
        self._name_observers = []  # weakly: Slicer's widget is C++ and keeps no node's Python object alive
        self._current = None  # node ID
        self._filling = False
        self._types = []
        self._attributes = []
        self._labels = {}
        self._options = {
            "noneEnabled": False,
            "noneDisplay": "None",
            "addEnabled": True,
            "removeEnabled": True,
            "renameEnabled": False,
            "editEnabled": False,
            "baseName": "",
            "showHidden": False,
            "showChildNodeTypes": True,
            "hideChildNodeTypes": [],
            "selectNodeUponCreation": True,
            "interactionNodeSingletonTag": "",
        }
        self._actions = []
        self._proxy = _SortFilterProxyModel(self._fillAndKeep)
        self._combo.activated.connect(self._activated)

    # Scene

    def mrmlScene(self):
        return self._scene

    def setMRMLScene(self, scene):
        self.forgetScene()
        self._scene = scene
        if scene is not None:

            @vtk.calldata_type(vtk.VTK_OBJECT)
            def added(caller, event, node):
                self._nodeAdded(node)

            @vtk.calldata_type(vtk.VTK_OBJECT)
            def removed(caller, event, node):
                self._nodeAboutToBeRemoved(node)

            events = slicer.vtkMRMLScene
            self._observers = [
                scene.AddObserver(events.NodeAddedEvent, added),
                scene.AddObserver(events.NodeAboutToBeRemovedEvent, removed),
                # Within a batch, such as closing a scene, once at its end.
                scene.AddObserver(events.NodeRemovedEvent, lambda *a: scene.IsBatchProcessing() or self._fill()),
                scene.AddObserver(events.EndBatchProcessEvent, lambda *a: self._fillAndKeep()),
            ]

        # A widget that Qt deletes takes its observers along.
        scene_observers, name_observers = self._observers, self._name_observers
        self._whenDestroyed = lambda: _release(scene, scene_observers, name_observers)
        self.destroyed.connect(self._whenDestroyed)
        self._fillAndKeep()

    def forgetScene(self):
        """Follow the scene no longer, as after deletion; nobody is told."""
        _release(self._scene, self._observers, self._name_observers)
        if self._whenDestroyed is not None:
            self.destroyed.disconnect(self._whenDestroyed)
            self._whenDestroyed = None

    def nodes(self):
        """The nodes on offer, in the scene's order."""
        if self._scene is None:
            return []
        nodes = [self._scene.GetNthNode(i) for i in range(self._scene.GetNumberOfNodes())]
        return [node for node in nodes if self._isOffered(node)]

    def _isOffered(self, node):
        if node is None or (node.GetHideFromEditors() and not self._options["showHidden"]):
            return False
        if node.GetID() in self._proxy.hiddenNodeIDs:
            return False
        child = self._options["showChildNodeTypes"]
        if not any(node.IsA(t) if child else node.GetClassName() == t for t in self._types):
            return False
        if any(node.IsA(t) for t in self._options["hideChildNodeTypes"]):
            return False
        for nodeType, name, value in self._attributes:
            if node.IsA(nodeType):
                has = node.GetAttribute(name)
                if has is None or (value is not None and has != value):
                    return False
        return True

    def _nodeAdded(self, node):
        if node is None or not self._isOffered(node):
            return
        self._fill()
        self.nodeAdded.emit(node)
        if not self._options["noneEnabled"] and self._current is None and not self._scene.IsBatchProcessing():
            # Without "None" there is always a choice, as in Slicer.
            self.setCurrentNode(node)

    def _nodeAboutToBeRemoved(self, node):
        if node is None or not self._isOffered(node):
            return
        self.nodeAboutToBeRemoved.emit(node)
        if node.GetID() == self._current:
            others = [n for n in self.nodes() if n.GetID() != self._current]
            self.setCurrentNode(others[0] if others and not self._options["noneEnabled"] else None)

    def _fillAndKeep(self):
        if self._scene is not None and self._current is not None and self._scene.GetNodeByID(self._current) is None:
            self.setCurrentNode(None)
        self._fill()
        if self._scene is not None and self._current is None and not self._options["noneEnabled"]:
            nodes = self.nodes()
            if nodes:
                self.setCurrentNode(nodes[0])

    # Contents of the list

    def _fill(self):
        if self._filling:
            return
        self._filling = True
        try:
            _unobserve(self._name_observers)
            self._combo.clear()
            if self._options["noneEnabled"] or self._current is None:
                self._combo.addItem(
                    self._options["noneDisplay"] if self._options["noneEnabled"] else self._placeholder(), None
                )
            for node in self.nodes():
                self._combo.addItem(node.GetName() or "", node.GetID())
                reference = vtk.vtkWeakReference()
                reference.Set(node)
                tag = node.AddObserver(vtk.vtkCommand.ModifiedEvent, self._nodeModified)
                self._name_observers.append((reference, tag))
            self._addActions()
            self._showCurrent()
        finally:
            self._filling = False

    def _placeholder(self):
        names = [self.nodeTypeLabel(nodeType) for nodeType in self._types]
        return f"Select a {' or a '.join(names)}" if names else ""

    def nodeTypeLabel(self, nodeType):
        if nodeType in self._labels:
            return self._labels[nodeType]
        return nodeType.replace("vtkMRML", "").replace("Node", "").replace("ScalarVolume", "Volume")

    def _addActions(self):
        self._actions = []
        options = self._options
        labels = {
            "create": [(f"Create new {self.nodeTypeLabel(t)}", t) for t in self._types]
            if options["addEnabled"]
            else [],
            "rename": [(f"Rename current {self.nodeTypeLabel(self._types[0])}…", None)]
            if options["renameEnabled"] and self._types
            else [],
            "delete": [(f"Delete current {self.nodeTypeLabel(self._types[0])}", None)]
            if options["removeEnabled"] and self._types
            else [],
        }
        entries = [(kind, text, nodeType) for kind, found in labels.items() for text, nodeType in found]
        if not entries:
            return
        self._combo.insertSeparator(self._combo.property("count"))
        for kind, text, nodeType in entries:
            self._actions.append(self._combo.property("count"))
            self._combo.addItem(text, (kind, nodeType))
            if kind != "create" and self._current is None:
                self._combo.model().item(self._combo.property("count") - 1).setEnabled(False)

    def _nodeModified(self, node, event):
        index = self._combo.findData(node.GetID())
        if index >= 0 and self._combo.itemText(index) != (node.GetName() or ""):
            self._combo.setItemText(index, node.GetName() or "")

    def _showCurrent(self):
        index = self._combo.findData(self._current) if self._current is not None else 0
        self._combo.setCurrentIndex(max(index, 0))

    def _activated(self, index):
        data = self._combo.itemData(index)
        if isinstance(data, tuple):
            self._showCurrent()
            {"create": self._create, "rename": self._rename, "delete": self._delete}[data[0]](data[1])
            return
        self.setCurrentNodeID(data or "")
        self.nodeActivated.emit(self.currentNode())

    def _create(self, nodeType):
        node = self.addNode(nodeType)
        if node is not None:
            self.nodeAddedByUser.emit(node)

    def _rename(self, _):
        node = self.currentNode()
        name = QtWidgets.QInputDialog.getText(
            self, "Rename", "New name:", QtWidgets.QLineEdit.EchoMode.Normal, node.GetName()
        )
        if name:
            node.SetName(name)
            self.currentNodeRenamed.emit(name)

    def _delete(self, _):
        self.removeCurrentNode()

    # What modules call

    def addNode(self, nodeType=None):
        nodeType = nodeType or self._types[0]
        base = self._options["baseName"] or self.nodeTypeLabel(nodeType)
        node = self._scene.CreateNodeByClass(nodeType)
        node.UnRegister(None)
        node.SetName(self._scene.GenerateUniqueName(base))
        for attributeType, name, value in self._attributes:
            if node.IsA(attributeType):
                node.SetAttribute(name, value or "")
        self._scene.AddNode(node)
        if self._options["selectNodeUponCreation"]:
            self.setCurrentNode(node)
        return node

    def removeCurrentNode(self):
        node = self.currentNode()
        if node is not None:
            self._scene.RemoveNode(node)

    def currentNode(self):
        return self._scene.GetNodeByID(self._current) if self._scene is not None and self._current else None

    def setCurrentNode(self, node):
        if isinstance(node, str):
            node = self._scene.GetNodeByID(node) if self._scene else None
        # A node that is not on offer cannot be chosen.
        identifier = node.GetID() if node is not None and self._isOffered(node) else None
        if identifier == self._current:
            return
        self._current = identifier
        self._fill()
        self.currentNodeChanged.emit(self.currentNode())
        self.currentNodeIDChanged.emit(identifier or "")

    def setCurrentNodeID(self, identifier):
        self.setCurrentNode(self._scene.GetNodeByID(identifier) if self._scene and identifier else None)

    def setCurrentNodeIndex(self, index):
        self.setCurrentNode(self.nodes()[index])

    def sortFilterProxyModel(self):
        return self._proxy

    def nodeCount(self):
        return len(self.nodes())

    def nodeFromIndex(self, index):
        return self.nodes()[index]

    def addAttribute(self, nodeType, name, value=None):
        self._attributes.append((nodeType, name, value))
        self._fillAndKeep()

    def removeAttribute(self, nodeType, name):
        self._attributes = [a for a in self._attributes if a[:2] != (nodeType, name)]
        self._fillAndKeep()

    def setNodeTypeLabel(self, label, nodeType):
        self._labels[nodeType] = label
        self._fill()

    def _setTypes(self, types):
        self._types = [t for t in types if t]
        if self._scene is not None and self.currentNode() is not None and not self._isOffered(self.currentNode()):
            self.setCurrentNode(None)
        self._fillAndKeep()

    def _option(kind, name):  # noqa: N805 - makes the properties below
        def get(self):
            return self._options[name]

        def set(self, value):
            self._options[name] = list(value) if kind == "QStringList" else value
            self._fillAndKeep()

        return Property(kind, get, set)

    nodeTypes = Property("QStringList", lambda self: self._types, _setTypes)
    noneEnabled = _option(bool, "noneEnabled")
    noneDisplay = _option(str, "noneDisplay")
    addEnabled = _option(bool, "addEnabled")
    removeEnabled = _option(bool, "removeEnabled")
    renameEnabled = _option(bool, "renameEnabled")
    editEnabled = _option(bool, "editEnabled")
    baseName = _option(str, "baseName")
    showHidden = _option(bool, "showHidden")
    showChildNodeTypes = _option(bool, "showChildNodeTypes")
    hideChildNodeTypes = _option("QStringList", "hideChildNodeTypes")
    selectNodeUponCreation = _option(bool, "selectNodeUponCreation")
    interactionNodeSingletonTag = _option(str, "interactionNodeSingletonTag")

    def _getID(self):
        return self._current or ""

    currentNodeID = Property(str, _getID, setCurrentNodeID)

    def comboBox(self):
        return self._combo
