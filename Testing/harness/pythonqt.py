"""PythonQt's manners on PySide6: what ``import qt`` gives a module in Slicer.

PythonQt shows a Qt property as an attribute (``button.enabled = True``, ``label.text``) and connects signals by name
(``button.connect("clicked(bool)", function)``). PySide6's classes are changed in place to do the same; that holds for
the whole process, so harness code itself must write ``widget.size`` or ``widget.property("width")``, never
``widget.width()``.

As in PythonQt, neither constructors nor methods take keyword arguments, and an attribute that the C++ class does not
have cannot be set; a class that a module derives in Python may have attributes of its own.
"""

from __future__ import annotations

import sys
import types

from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

from .bool_result import BoolResult
from .dialogs import install_dialogs

# Getters that C++ looks up by name on the Python object: a property in their place would call itself for ever.
_VIRTUAL_GETTERS = {"sizeHint", "minimumSizeHint", "duration"}
_VIRTUAL_GETTERS_OF_CLASS = {("QProgressBar", "text"), ("QAbstractAnimation", "duration"), ("QLayout", "contentsRect")}

# PySide6 names that PythonQt's qt module does not have.
_PYSIDE_ONLY = {"Signal", "SignalInstance", "Slot", "Property", "ClassInfo", "QtCore", "QtGui", "QtWidgets"}

_Shiboken = QtCore.QObject.__mro__[-2]  # the base of every wrapped class
_installed = False
_natives = {}  # class -> its own attribute access, before it was replaced


class QtProperty:
    """A Qt property as a data descriptor; on the class it still gives the original method or static function."""

    def __init__(self, name, setter_name, original):
        self.name = name
        self.setter_name = setter_name
        self.original = original

    def __get__(self, instance, owner):
        if instance is None:
            if self.original is None:
                raise AttributeError(self.name)
            return self.original
        return instance.property(self.name)

    def __set__(self, instance, value):
        setter = getattr(type(instance), self.setter_name, None) if self.setter_name else None
        if setter is not None:
            setter(instance, value)
            return
        meta = instance.metaObject()
        if not meta.property(meta.indexOfProperty(self.name)).isWritable():
            raise AttributeError(f"Property '{self.name}' of type '{meta.className()}' object is not writable")
        instance.setProperty(self.name, value)


def install() -> None:
    """Change PySide6's classes and provide the modules ``qt`` and ``PythonQt``. Safe to call twice."""
    global _installed
    if _installed:
        return
    _installed = True
    for module in (QtCore, QtGui, QtWidgets):
        for value in _members(module).values():
            if isinstance(value, type) and issubclass(value, QtCore.QObject):
                _patch_properties(value)
    QtCore.QObject.name = QtProperty("objectName", "setObjectName", None)
    QtCore.QObject.className = lambda self: self.metaObject().className()
    QtCore.QObject.delete = lambda self: self.deleteLater()
    _patch_attribute_access()
    _patch_construction_and_setting()
    install_dialogs()
    _install_message_handler()
    sys.modules["qt"] = _qt_module()
    python_qt = types.ModuleType("PythonQt")
    python_qt.BoolResult = BoolResult
    sys.modules["PythonQt"] = python_qt


def _patch_properties(cls) -> None:
    meta = cls.staticMetaObject
    # Python may wrap a base whose meta object is another class's; only what this class itself declares is patched.
    if meta.className().split("::")[-1] != cls.__name__:
        return
    for index in range(meta.propertyOffset(), meta.propertyCount()):
        name = meta.property(index).name()
        if name in _VIRTUAL_GETTERS or (cls.__name__, name) in _VIRTUAL_GETTERS_OF_CLASS:
            continue
        setter_name = "set" + name[0].upper() + name[1:]
        if not hasattr(cls, setter_name):
            setter_name = None
        setattr(cls, name, QtProperty(name, setter_name, getattr(cls, name, None)))


def _patch_attribute_access() -> None:
    replaced = {
        "connect": _connect,
        "disconnect": _disconnect,
        "findChildren": _find_children,
        "findChild": _find_child,
    }

    def patch(cls):
        native = _natives[cls] = cls.__getattribute__

        def getattribute(self, name):
            if name in replaced:
                return types.MethodType(replaced[name], self)
            value = native(self, name)
            if type(value) is types.BuiltinFunctionType and not _is_own(_caller()):
                return _PositionalMethod(value)
            return value

        cls.__getattribute__ = getattribute

    # QProcess and QMenu look their attributes up with functions of their own.
    for cls in (QtCore.QProcess, QtWidgets.QMenu, QtCore.QObject):
        patch(cls)


def _patch_construction_and_setting() -> None:
    for module in (QtCore, QtGui, QtWidgets):
        for cls in _members(module).values():
            if not isinstance(cls, type) or not issubclass(cls, _Shiboken):
                continue
            if "__init__" in vars(cls):
                cls.__init__ = _positional_constructor(cls.__init__)
            if "__setattr__" in vars(cls):
                cls.__setattr__ = _set_attribute


def _positional_constructor(native):
    def __init__(self, *args, **keywords):
        if keywords and not _is_own(sys._getframe(1).f_globals["__name__"]):
            raise ValueError(f"{type(self).__name__} takes no keyword arguments: {', '.join(keywords)}")
        native(self, *args, **keywords)

    return __init__


class _PositionalMethod:
    """A method of a C++ object, called by a module."""

    __slots__ = ("method",)

    def __init__(self, method):
        self.method = method

    def __call__(self, *args, **keywords):
        if keywords:
            raise ValueError(f"{self.method.__name__} takes no keyword arguments: {', '.join(keywords)}")
        return self.method(*args)


def _set_attribute(self, name, value):
    descriptor = next((vars(cls)[name] for cls in type(self).__mro__ if name in vars(cls)), None)
    if hasattr(type(descriptor), "__set__"):
        type(descriptor).__set__(descriptor, self, value)
        return
    # PySide6's .ui loader leaves every child on its top widget; stand-ins of C++ classes hold data of their own.
    is_child = isinstance(value, QtCore.QObject) and value.property("objectName") == name
    own = is_child or _is_own(sys._getframe(1).f_globals["__name__"])
    if own or name in getattr(self, "PYTHON_ATTRIBUTES", ()) or not _is_own(type(self).__module__):
        vars(self)[name] = value
    elif isinstance(self, QtCore.QObject) and self.property(name) is not None:
        self.setProperty(name, value)
    else:
        raise AttributeError(
            f"'{name}' does not exist on {type(self).__name__}, and C++ objects take no new attributes"
        )


def _caller() -> str:
    """Module of what looks an attribute up; empty where C++ does, with no Python below it."""
    frame = sys._getframe(1).f_back
    return "" if frame is None else frame.f_globals["__name__"]


def _is_own(module):
    """Whether a Python module belongs to PySide6 or to the stand-in: what stands for C++."""
    return module.split(".")[0] in ("PySide6", "shiboken6", "shibokensupport", "harness")


def _native(obj, name):
    native = next(_natives[cls] for cls in type(obj).__mro__ if cls in _natives)
    return native(obj, name)


def _is_signature(value) -> bool:
    return isinstance(value, str) and not value[:1].isdigit()


def _signal(obj, signature):
    """A pair: the Python signal of a stand-in, or None; and the normalized Qt signature."""
    aliases = getattr(type(obj), "PQ_SIGNALS", {})
    compact = signature.replace(" ", "")
    if compact in aliases:
        return _native(obj, aliases[compact]), None
    if "(" not in compact:
        # PythonQt also accepts the bare name.
        return _native(obj, compact), None
    normalized = bytes(QtCore.QMetaObject.normalizedSignature(signature)).decode()
    if obj.metaObject().indexOfSignal(normalized) < 0:
        raise ValueError(f"{obj.metaObject().className()} '{obj.property('objectName')}' has no signal {signature}")
    return None, normalized


def _connect(self, *args):
    if not (len(args) == 2 and _is_signature(args[0]) and callable(args[1])):
        return _native(self, "connect")(*args)
    if isinstance(args[1], _PositionalMethod):
        args = (args[0], args[1].method)
    hook = getattr(type(self), "connectSignature", None)
    if hook is not None and hook(self, args[0], args[1]):
        return True
    signal, signature = _signal(self, args[0])
    if signal is not None:
        signal.connect(args[1])
        return True
    return bool(QtCore.QObject.connect(self, QtCore.SIGNAL(signature), args[1]))


def _disconnect(self, *args):
    if not (args and _is_signature(args[0])):
        return _native(self, "disconnect")(*args)
    signal, signature = _signal(self, args[0])
    try:
        if signal is not None:
            signal.disconnect(*args[1:])
            return True
        if len(args) == 1:
            return bool(QtCore.QObject.disconnect(self, QtCore.SIGNAL(signature), None, None))
        return bool(QtCore.QObject.disconnect(self, QtCore.SIGNAL(signature), args[1]))
    except (RuntimeError, TypeError):
        return False  # was not connected; PythonQt answers False as well


def _find_children(self, kind=QtCore.QObject, name="", *options):
    """Also by class name, as PythonQt allows: ``window.findChildren("QToolBar")``."""
    if not isinstance(kind, str):
        found = _native(self, "findChildren")(kind, *options)
        return [child for child in found if not name or child.property("objectName") == name]
    children = _native(self, "findChildren")(QtCore.QObject)
    return [c for c in children if c.inherits(kind) and (not name or c.property("objectName") == name)]


def _find_child(self, kind=QtCore.QObject, name="", *options):
    found = _find_children(self, kind, name, *options)
    return found[0] if found else None


def _qt_module():
    qt = types.ModuleType("qt")
    for module in (QtCore, QtGui, QtWidgets, QtUiTools):
        for name, value in _members(module).items():
            if name not in _PYSIDE_ONLY:
                setattr(qt, name, value)
    return qt


def _members(module):
    # PySide6 creates its classes when they are first asked for: the module's own dictionary is not complete.
    return {name: getattr(module, name) for name in dir(module) if not name.startswith("_")}


# Lines of the off-screen platform and of QUiLoader that say nothing about a module.
_NOISE = ("propagateSizeHints", "No such signal", "QMetaObject::connectSlotsByName", "Cannot find EGLConfig", "raise()")


def _install_message_handler() -> None:
    def handler(kind, context, message):
        if not any(text in message for text in _NOISE):
            print(message, file=sys.stderr)

    QtCore.qInstallMessageHandler(handler)
