"""Which widget shows which type of parameter, and how. As in Slicer a widget counts by its exact class."""

import enum
import pathlib
from dataclasses import dataclass

import ctk
import qt
import slicer

from .validators import Choice, Maximum, Minimum, WithinRange
from .values import splitAnnotations, unionMembers


@dataclass
class Decimals:
    """Annotation: decimals that a number widget shows."""

    value: int


@dataclass
class SingleStep:
    """Annotation: step of a number widget."""

    value: float


class GuiConnector:
    """Base class of connectors; subclasses may be registered for further widgets."""

    @staticmethod
    def canRepresent(widget, datatype):
        raise NotImplementedError

    @staticmethod
    def create(widget, datatype):
        raise NotImplementedError

    def __init__(self):
        self._callback = None

    def onChanged(self, callback):
        connected = self._callback is not None
        self._callback = callback
        if callback is None and connected:
            self._disconnect()
        elif callback is not None and not connected:
            self._connect()

    def changed(self, *args):
        if self._callback:
            self._callback()

    def _connect(self):
        raise NotImplementedError

    def _disconnect(self):
        raise NotImplementedError

    def widget(self):
        raise NotImplementedError

    def read(self):
        raise NotImplementedError

    def write(self, value):
        raise NotImplementedError


_connectors = []


def parameterNodeGuiConnector(classtype=None):
    """Class decorator that registers a connector."""
    if classtype is None:
        return parameterNodeGuiConnector
    _connectors.append(classtype)
    return classtype


def createGuiConnector(widget, datatype):
    for connector in _connectors:
        if connector.canRepresent(widget, datatype):
            return connector.create(widget, datatype)
    raise RuntimeError(f"Unable to create GUI connector from datatype '{datatype}' to widget type '{type(widget)}'")


class _SignalConnector(GuiConnector):
    """A connector of one widget with one change signal."""

    signal = None

    def __init__(self, widget, datatype):
        super().__init__()
        self._widget = widget
        self.kind, self.annotations = splitAnnotations(datatype)

    @classmethod
    def create(cls, widget, datatype):
        return cls(widget, datatype)

    def widget(self):
        return self._widget

    def _connect(self):
        if self.signal:
            getattr(self._widget, self.signal).connect(self.changed)

    def _disconnect(self):
        if self.signal:
            getattr(self._widget, self.signal).disconnect(self.changed)

    def annotation(self, kind):
        return next((a for a in self.annotations if isinstance(a, kind)), None)


@parameterNodeGuiConnector
class _BoolConnector(_SignalConnector):
    signal = "toggled"

    @staticmethod
    def canRepresent(widget, datatype):
        return splitAnnotations(datatype)[0] is bool and type(widget) in (
            qt.QCheckBox,
            qt.QPushButton,
            ctk.ctkCheckablePushButton,
        )

    def __init__(self, widget, datatype):
        super().__init__(widget, datatype)
        if not widget.checkable:
            widget.checkable = True

    def read(self):
        return self._widget.checked

    def write(self, value):
        self._widget.checked = value


@parameterNodeGuiConnector
class _NumberConnector(_SignalConnector):
    signal = "valueChanged"

    @staticmethod
    def canRepresent(widget, datatype):
        kind = splitAnnotations(datatype)[0]
        integers = (qt.QSlider, qt.QSpinBox, ctk.ctkSliderWidget)
        floats = (
            qt.QDoubleSpinBox,
            ctk.ctkSliderWidget,
            ctk.ctkDoubleSpinBox,
            slicer.qMRMLSliderWidget,
            slicer.qMRMLSpinBox,
        )
        return (kind is int and type(widget) in integers) or (kind is float and type(widget) in floats)

    def __init__(self, widget, datatype):
        super().__init__(widget, datatype)
        decimals, step = self.annotation(Decimals), self.annotation(SingleStep)
        if decimals is not None:
            widget.decimals = decimals.value
        elif self.kind is int and hasattr(widget, "decimals"):
            widget.decimals = 0
        if step is not None:
            widget.singleStep = step.value
        within, low, high = self.annotation(WithinRange), self.annotation(Minimum), self.annotation(Maximum)
        minimum = within.minimum if within else low.minimum if low else None
        maximum = within.maximum if within else high.maximum if high else None
        slider = type(widget) in (qt.QSlider, ctk.ctkSliderWidget, slicer.qMRMLSliderWidget)
        if slider and (minimum is None or maximum is None):
            raise RuntimeError(
                f"{type(widget).__name__} '{widget.objectName}' needs bounds: annotate with WithinRange."
            )
        # The bounds of the .ui file do not survive: Slicer sets what the annotation says, or none.
        unbounded = 2**31 - 1 if self.kind is int else 1e300
        widget.minimum = -unbounded if minimum is None else minimum
        widget.maximum = unbounded if maximum is None else maximum

    def read(self):
        return self.kind(self._widget.value)

    def write(self, value):
        self._widget.value = value


@parameterNodeGuiConnector
class _ComboBoxConnector(_SignalConnector):
    """A combo box, filled with the choices of the annotation or the members of the enumeration."""

    signal = "currentIndexChanged"

    @staticmethod
    def canRepresent(widget, datatype):
        kind = splitAnnotations(datatype)[0]
        simple = kind in (int, float, str, bool) or (isinstance(kind, type) and issubclass(kind, enum.Enum))
        return type(widget) is qt.QComboBox and simple

    def __init__(self, widget, datatype):
        super().__init__(widget, datatype)
        if issubclass(self.kind, enum.Enum):
            label = getattr(self.kind, "label", lambda member: member.name)
            self.choices = list(self.kind)
            texts = [label(member) for member in self.choices]
        else:
            choice = self.annotation(Choice)
            if choice is None:
                raise RuntimeError("A combo box needs the Choice annotation.")
            self.choices = choice.choices
            texts = [str(value) for value in self.choices]
        widget.clear()
        widget.addItems(texts)

    def read(self):
        return self.choices[self._widget.currentIndex]

    def write(self, value):
        self._widget.currentIndex = self.choices.index(value)


@parameterNodeGuiConnector
class _TextConnector(_SignalConnector):
    signal = "textChanged"

    @staticmethod
    def canRepresent(widget, datatype):
        return splitAnnotations(datatype)[0] is str and type(widget) in (qt.QLineEdit, qt.QTextEdit)

    def read(self):
        return self._widget.text if type(self._widget) is qt.QLineEdit else self._widget.toPlainText()

    def write(self, value):
        # Setting the same text would move the cursor while the user types.
        if self.read() == value:
            return
        if type(self._widget) is qt.QLineEdit:
            self._widget.text = value
        else:
            self._widget.setPlainText(value)


@parameterNodeGuiConnector
class _LabelConnector(_SignalConnector):
    """Shows, never changes."""

    @staticmethod
    def canRepresent(widget, datatype):
        return type(widget) is qt.QLabel

    def read(self):
        return self._widget.text

    def write(self, value):
        self._widget.text = str(value)


class _PathConnector(_SignalConnector):
    def read(self):
        return self.kind(getattr(self._widget, self.member))

    def write(self, value):
        setattr(self._widget, self.member, str(value))


def _isPath(datatype):
    kind = splitAnnotations(datatype)[0]
    return isinstance(kind, type) and issubclass(kind, pathlib.PurePath)


@parameterNodeGuiConnector
class _PathLineEditConnector(_PathConnector):
    signal = "currentPathChanged"
    member = "currentPath"

    @staticmethod
    def canRepresent(widget, datatype):
        return type(widget) is ctk.ctkPathLineEdit and _isPath(datatype)


@parameterNodeGuiConnector
class _DirectoryButtonConnector(_PathConnector):
    signal = "directoryChanged"
    member = "directory"

    @staticmethod
    def canRepresent(widget, datatype):
        return type(widget) is ctk.ctkDirectoryButton and _isPath(datatype)


def _nodeClasses(datatype):
    kind = splitAnnotations(datatype)[0]
    members = [m for m in unionMembers(kind) if m is not type(None)] or [kind]
    if all(isinstance(m, type) and issubclass(m, slicer.vtkMRMLNode) for m in members):
        return [m.__name__ for m in members]
    return []


@parameterNodeGuiConnector
class _NodeComboBoxConnector(_SignalConnector):
    signal = "currentNodeChanged"

    @staticmethod
    def canRepresent(widget, datatype):
        return type(widget) is slicer.qMRMLNodeComboBox and bool(_nodeClasses(datatype))

    def __init__(self, widget, datatype):
        super().__init__(widget, datatype)
        widget.nodeTypes = _nodeClasses(datatype)

    def read(self):
        return self._widget.currentNode()

    def write(self, value):
        self._widget.setCurrentNode(value)
