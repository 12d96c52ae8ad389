"""``@parameterNodeWrapper``: a class of typed properties over one vtkMRMLScriptedModuleNode."""

import typing
import weakref

import qt
import slicer
import vtk

from .connectors import GuiConnector, createGuiConnector
from .values import parameterInfo, unannotatedType

SlicerParameterNamePropertyName = "SlicerParameterName"


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


class _Wrapper:
    """The members that every wrapper class gets."""

    def __init__(self, parameterNode, prefix=None):
        self.parameterNode = parameterNode
        self._prefix = prefix or ""
        self._guis = {}
        self._nextTag = 0
        self._updatingGui = False
        with slicer.util.NodeModify(parameterNode):
            for name, info in self.allParameters.items():
                if not info.store.has(parameterNode, self._prefix + name):
                    info.store.write(parameterNode, self._prefix + name, info.defaultValue())

    # Values

    def getValue(self, name):
        info, rest = _info(type(self), name)
        stored = self._prefix + info.basename
        if not info.store.has(self.parameterNode, stored):
            info.store.write(self.parameterNode, stored, info.defaultValue())
        value = info.store.read(self.parameterNode, stored)
        return value.getValue(rest) if rest else value

    def setValue(self, name, value):
        info, rest = _info(type(self), name)
        if rest:
            pack = self.getValue(info.basename)
            pack.setValue(rest, value)
            return
        info.store.check(value)
        for validator in info.validators:
            validator.validate(value)
        with slicer.util.NodeModify(self.parameterNode):
            info.store.write(self.parameterNode, self._prefix + info.basename, value)

    def default(self, name):
        return _info(type(self), name)[0].default

    def isCached(self, name):
        _info(type(self), name)
        return False

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
        for name, connector in connectors.items():
            connector.write(self.getValue(name))
            connector.onChanged(self._makeCallback(name, connector))
        # The observer must not keep the wrapper alive: modules drop wrappers when the parameter node changes.
        weak = weakref.ref(self)

        def nodeModified(caller, event):
            wrapper = weak()
            if wrapper is not None:
                wrapper._updateGuis()

        observer = self.parameterNode.AddObserver(vtk.vtkCommand.ModifiedEvent, nodeModified)
        self._guis[tag] = (connectors, observer)
        return tag

    def disconnectGui(self, tag):
        connectors, observer = self._guis.pop(tag, ({}, None))
        for connector in connectors.values():
            connector.onChanged(None)
        if observer is not None:
            self.parameterNode.RemoveObserver(observer)

    def _makeCallback(self, name, connector):
        weak = weakref.ref(self)

        def changed():
            wrapper = weak()
            if wrapper is not None and not wrapper._updatingGui:
                with slicer.util.NodeModify(wrapper.parameterNode):
                    wrapper.setValue(name, connector.read())

        return changed

    def _updateGuis(self):
        if self._updatingGui:
            return
        self._updatingGui = True
        try:
            for connectors, _ in list(self._guis.values()):
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
