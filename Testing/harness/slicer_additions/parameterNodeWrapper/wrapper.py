"""``@parameterNodeWrapper``: a class of typed properties over one vtkMRMLScriptedModuleNode."""

import typing
import weakref

import qt
import slicer
import vtk

from .connectors import GuiConnector, createGuiConnector
from .values import parameterInfo, unannotatedType

SlicerParameterNamePropertyName = "SlicerParameterName"

# Slicer 5.10 and older: disconnectGui() leaves its observer on the node, and with it the wrapper. Tests set this.
disconnectLeavesObserver = False


def isParameterNodeWrapper(classOrObject):
    return getattr(classOrObject, "_is_parameter_node_wrapper", False)


def parameterNodeWrapper(classtype=None):
    """Class decorator; usable with and without parentheses."""
    return _process if classtype is None else _process(classtype)


def findChildWidgetForParameter(widget, parameter):
    for child in widget.findChildren(qt.QWidget):
        if child.property(SlicerParameterNamePropertyName) == parameter:
            return child
    return None


def _process(cls):
    hints = typing.get_type_hints(cls, include_extras=True)
    allParameters = {name: parameterInfo(cls, name, hint) for name, hint in hints.items()}
    for name in hints:
        if hasattr(_Wrapper, name):
            raise ValueError(f"Cannot use reserved name '{name}' in a parameterNodeWrapper")
        setattr(cls, name, _property(name))
    for name, value in vars(_Wrapper).items():
        if name == "__init__" or not name.startswith("__"):
            setattr(cls, name, value)
    cls.allParameters = allParameters
    cls._is_parameter_node_wrapper = True
    cls.dataType = staticmethod(lambda name: _dataType(cls, name))
    return cls


def _property(name):
    return property(lambda self: self.getValue(name), lambda self, value: self.setValue(name, value))


def _info(cls, name):
    first, _, rest = name.partition(".")
    if first not in cls.allParameters:
        raise ValueError(f"Cannot find a param with the given name: {first}; there are {', '.join(cls.allParameters)}")
    return cls.allParameters[first], rest


def _dataType(cls, name):
    info, rest = _info(cls, name)
    return unannotatedType(info.unalteredType).dataType(rest) if rest else info.unalteredType


class _Parameter:
    """One value of one node."""

    def __init__(self, node, name, info):
        self._node, self._name, self._info = node, name, info
        if not info.store.has(node, name):
            info.store.write(node, name, info.defaultValue())

    def _load(self):
        if not self._info.store.has(self._node, self._name):
            self._info.store.write(self._node, self._name, self._info.defaultValue())
        return self._info.store.read(self._node, self._name)

    def read(self):
        return self._load()

    def write(self, value):
        self._info.store.check(value)
        for validator in self._info.validators:
            validator.validate(value)
        self._save(value)

    def _save(self, value):
        with slicer.util.NodeModify(self._node):
            self._info.store.write(self._node, self._name, value)


class _CachedParameter(_Parameter):
    """As in Slicer the value is read again after every event of the node: every wrapper that lives costs time."""

    def __init__(self, node, name, info):
        super().__init__(node, name, info)
        self._writing = False
        self._value = self._load()
        weak = weakref.ref(self)
        self._tag = node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda caller, event: weak()._modified())

    def __del__(self):
        self._node.RemoveObserver(self._tag)

    def _modified(self):
        if not self._writing:
            self._value = self._load()

    def read(self):
        return self._value

    def _save(self, value):
        self._writing = True
        try:
            # Read back before other observers are told: they may ask for the value.
            with slicer.util.NodeModify(self._node):
                super()._save(value)
                self._value = self._load()
        finally:
            self._writing = False


class _Wrapper:
    """The members that every wrapper class gets."""

    def __init__(self, parameterNode, prefix=None):
        self.parameterNode = parameterNode
        self._guis = {}
        self._guiObservers = {}
        self._nextTag = 0
        self._updatingGui = False
        self._parameters = {}
        for name, info in self.allParameters.items():
            kind = _CachedParameter if info.store.caches() else _Parameter
            self._parameters[name] = kind(parameterNode, (prefix or "") + name, info)

    # Values

    def getValue(self, name):
        info, rest = _info(type(self), name)
        value = self._parameters[info.basename].read()
        return value.getValue(rest) if rest else value

    def setValue(self, name, value):
        info, rest = _info(type(self), name)
        if rest:
            self.getValue(info.basename).setValue(rest, value)
        else:
            self._parameters[info.basename].write(value)

    def default(self, name):
        return _info(type(self), name)[0].default

    def isCached(self, name):
        info, _ = _info(type(self), name)
        return isinstance(self._parameters[info.basename], _CachedParameter)

    # Widgets

    def connectGui(self, gui):
        """Connect every widget that names a parameter in ``SlicerParameterName``; returns a tag for disconnectGui."""
        if getattr(gui, "isWidgetType", lambda: False)():
            widgets = gui.findChildren(qt.QWidget)
        else:
            widgets = [w for w in vars(gui).values() if hasattr(w, "property")]
        named = {}
        for widget in widgets:
            name = widget.property(SlicerParameterNamePropertyName)
            if name:
                named[name] = widget
        return self.connectParametersToGui(named)

    def connectParametersToGui(self, mapping):
        connectors = {}
        for name, widget in mapping.items():
            dataType = self.dataType(name)
            connectors[name] = widget if isinstance(widget, GuiConnector) else createGuiConnector(widget, dataType)
        tag = self._nextTag
        self._nextTag += 1
        self._guis[tag] = connectors
        for name, connector in connectors.items():
            connector.write(self.getValue(name))
            connector.onChanged(self._makeCallback(name, connector))
        # As in Slicer the observer holds the wrapper, and the wrapper its node.
        self._guiObservers[tag] = self.AddObserver(
            vtk.vtkCommand.ModifiedEvent, lambda caller, event: self._updateGuis()
        )
        return tag

    def disconnectGui(self, tag):
        for connector in self._guis.pop(tag, {}).values():
            connector.onChanged(None)
        observer = self._guiObservers.pop(tag, None)
        if observer is not None and not disconnectLeavesObserver:
            self.RemoveObserver(observer)

    def _makeCallback(self, name, connector):
        def changed():
            with slicer.util.NodeModify(self):
                if not self._updatingGui:
                    self.setValue(name, connector.read())

        return changed

    def _updateGuis(self):
        if self._updatingGui:
            return
        self._updatingGui = True
        try:
            with slicer.util.NodeModify(self):
                for connectors in list(self._guis.values()):
                    for name, connector in connectors.items():
                        connector.write(self.getValue(name))
        finally:
            self._updatingGui = False

    # The node itself

    def StartModify(self):
        return self.parameterNode.StartModify()

    def EndModify(self, wasModified):
        return self.parameterNode.EndModify(wasModified)

    def AddObserver(self, event, callback, priority=0.0):
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag):
        self.parameterNode.RemoveObserver(tag)

    def Modified(self):
        self.parameterNode.Modified()
