"""How one value is kept in a parameter node: texts as parameters, MRML nodes as node references."""

from __future__ import annotations

import enum
import pathlib
import types
import typing
from collections.abc import MutableMapping, MutableSequence
from dataclasses import dataclass

import slicer

from .validators import Default, Validator


def splitAnnotations(hint):
    """(type, annotations) of ``Annotated[type, *annotations]``, or (hint, [])."""
    if typing.get_origin(hint) is typing.Annotated:
        return hint.__origin__, list(hint.__metadata__)
    return hint, []


def unannotatedType(hint):
    return splitAnnotations(hint)[0]


def isParameterPack(kind):
    return getattr(kind, "_is_parameter_pack", False)


def unionMembers(hint):
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return typing.get_args(hint)
    return ()


@dataclass
class ParameterInfo:
    """One member of a wrapper or pack class."""

    basename: str
    store: object
    default: object
    unalteredType: object
    validators: list

    def defaultValue(self):
        return self.store.default() if self.default is None else self.default.value


def parameterInfo(owner, name, hint) -> ParameterInfo:
    kind, annotations = splitAnnotations(hint)
    validators = [a for a in annotations if isinstance(a, Validator)]
    default = next((a for a in annotations if isinstance(a, Default)), None)
    if name in vars(owner) and not isinstance(vars(owner)[name], property):
        default = Default(vars(owner)[name])
    return ParameterInfo(name, createStore(kind), default, hint, validators)


class Store:
    """Reads and writes a value of one type under a name."""

    def default(self):
        return None

    def caches(self):
        """Whether Slicer keeps the last value instead of reading the node: only where nobody can change it in place."""
        return True

    def has(self, node, name):
        return node.HasParameter(name)

    def check(self, value):
        pass

    def write(self, node, name, value):
        raise NotImplementedError

    def read(self, node, name):
        raise NotImplementedError

    def remove(self, node, name):
        node.UnsetParameter(name)


class TextStore(Store):
    """Anything with a text form."""

    def __init__(self, accepted, toText, fromText, default):
        self.accepted, self.toText, self.fromText, self._default = accepted, toText, fromText, default

    def default(self):
        return self._default

    def check(self, value):
        if value is None:
            raise ValueError("Value must not be None")
        # bool is an int to Python, but not a number to a user
        if not isinstance(value, self.accepted) or (isinstance(value, bool) and bool not in self.accepted):
            raise TypeError(f"Value {value!r} is a {type(value).__name__}; expected {self.accepted[0].__name__}")

    def write(self, node, name, value):
        node.SetParameter(name, self.toText(value))

    def read(self, node, name):
        return self.fromText(node.GetParameter(name))


class NodeStore(Store):
    """A node reference; the parameter of the same name tells a chosen None from one never set."""

    def __init__(self, kind):
        self.kind = kind

    def check(self, value):
        if value is not None and not isinstance(value, self.kind):
            raise TypeError(f"Value is a {type(value).__name__}; expected {self.kind.__name__}")

    def write(self, node, name, value):
        node.SetParameter(name, "")
        node.SetNodeReferenceID(name, value.GetID() if value is not None else None)

    def read(self, node, name):
        return node.GetNodeReference(name)

    def remove(self, node, name):
        node.UnsetParameter(name)
        node.RemoveNodeReferenceIDs(name)


class NoneStore(Store):
    """None, the other member of an Optional."""

    def check(self, value):
        if value is not None:
            raise TypeError(f"Value is a {type(value).__name__}; expected None")

    def write(self, node, name, value):
        node.SetParameter(name, "True")

    def read(self, node, name):
        return None


class UnionStore(Store):
    """One of several types: the value lies under ``name.0``, ``name.1`` ..., the number being that of its type."""

    def __init__(self, members):
        self.members = members

    def default(self):
        optional = len(self.members) == 2 and isinstance(self.members[1], NoneStore)
        return None if optional else self.members[0].default()

    def caches(self):
        return all(member.caches() for member in self.members)

    def has(self, node, name):
        return any(member.has(node, f"{name}.{index}") for index, member in enumerate(self.members))

    def check(self, value):
        self._indexFor(value)

    def _indexFor(self, value):
        for index, member in enumerate(self.members):
            if value is None and not isinstance(member, NoneStore):
                continue
            try:
                member.check(value)
            except (TypeError, ValueError):
                continue
            return index
        raise TypeError(f"Value {value!r} is a {type(value).__name__}, which is none of the types of the union")

    def write(self, node, name, value):
        index = self._indexFor(value)
        self.remove(node, name)
        self.members[index].write(node, f"{name}.{index}", value)

    def read(self, node, name):
        for index, member in enumerate(self.members):
            if member.has(node, f"{name}.{index}"):
                return member.read(node, f"{name}.{index}")
        raise KeyError(f"Unable to find value for name: {name}")

    def remove(self, node, name):
        for index, member in enumerate(self.members):
            member.remove(node, f"{name}.{index}")


class ListStore(Store):
    """Entries under ``name.0``, ``name.1`` ..., their number under ``name.len``."""

    def __init__(self, entry):
        self.entry = entry

    def default(self):
        return []

    def caches(self):
        return self.entry.caches()

    def has(self, node, name):
        return node.HasParameter(name + ".len")

    def check(self, value):
        if value is None:
            raise ValueError("Value must not be None")
        for entry in value:
            self.entry.check(entry)

    def write(self, node, name, value):
        values = list(value)
        for index in range(len(values), self._length(node, name)):
            self.entry.remove(node, f"{name}.{index}")
        node.SetParameter(name + ".len", str(len(values)))
        for index, entry in enumerate(values):
            self.entry.write(node, f"{name}.{index}", entry)

    def read(self, node, name):
        values = [self.entry.read(node, f"{name}.{index}") for index in range(self._length(node, name))]
        return ObservedList(self, node, name, values)

    def remove(self, node, name):
        for index in range(self._length(node, name)):
            self.entry.remove(node, f"{name}.{index}")
        node.UnsetParameter(name + ".len")

    @staticmethod
    def _length(node, name):
        return int(node.GetParameter(name + ".len") or 0)


class TupleStore(Store):
    """A fixed number of entries, each with its own type."""

    def __init__(self, entries):
        self.entries = entries

    def default(self):
        return tuple(entry.default() for entry in self.entries)

    def caches(self):
        return all(entry.caches() for entry in self.entries)

    def has(self, node, name):
        return self.entries[0].has(node, name + ".0")

    def check(self, value):
        if len(value) != len(self.entries):
            raise ValueError(f"{len(self.entries)} values are needed")
        for entry, part in zip(self.entries, value, strict=True):
            entry.check(part)

    def write(self, node, name, value):
        for index, (entry, part) in enumerate(zip(self.entries, value, strict=True)):
            entry.write(node, f"{name}.{index}", part)

    def read(self, node, name):
        return tuple(entry.read(node, f"{name}.{index}") for index, entry in enumerate(self.entries))

    def remove(self, node, name):
        for index, entry in enumerate(self.entries):
            entry.remove(node, f"{name}.{index}")


class DictStore(Store):
    """A list of pairs of key and value."""

    def __init__(self, key, value):
        self.pairs = ListStore(TupleStore([key, value]))

    def default(self):
        return {}

    def caches(self):
        return self.pairs.caches()

    def has(self, node, name):
        return self.pairs.has(node, name)

    def check(self, value):
        self.pairs.check(value.items())

    def write(self, node, name, value):
        self.pairs.write(node, name, value.items())

    def read(self, node, name):
        return ObservedDict(self, node, name, dict(self.pairs.read(node, name)))

    def remove(self, node, name):
        self.pairs.remove(node, name)


class PackStore(Store):
    """The members of a parameter pack under ``name.member``."""

    def __init__(self, kind):
        self.kind = kind

    def default(self):
        return self.kind()

    def caches(self):
        return all(info.store.caches() for info in self.kind.allParameters.values())

    def has(self, node, name):
        return all(info.store.has(node, f"{name}.{member}") for member, info in self.kind.allParameters.items())

    def check(self, value):
        if not isinstance(value, self.kind):
            raise TypeError(f"expected {self.kind.__name__}")

    def write(self, node, name, value):
        for member, info in self.kind.allParameters.items():
            info.store.write(node, f"{name}.{member}", getattr(value, member))

    def read(self, node, name):
        values = {
            member: info.store.read(node, f"{name}.{member}")
            if info.store.has(node, f"{name}.{member}")
            else info.defaultValue()
            for member, info in self.kind.allParameters.items()
        }
        pack = self.kind(**values)
        # A member that is set later goes to the node as well.
        object.__setattr__(pack, "_written", lambda changed: self.write(node, name, changed))
        return pack

    def remove(self, node, name):
        for member, info in self.kind.allParameters.items():
            info.store.remove(node, f"{name}.{member}")


class ObservedList(MutableSequence):
    """A list in a parameter node: every change is written to the node."""

    def __init__(self, store, node, name, values):
        self._store, self._node, self._name, self._values = store, node, name, values

    def __len__(self):
        return len(self._values)

    def __getitem__(self, index):
        return self._values[index]

    def __setitem__(self, index, value):
        self._values[index] = value
        self._save()

    def __delitem__(self, index):
        del self._values[index]
        self._save()

    def insert(self, index, value):
        self._values.insert(index, value)
        self._save()

    def __eq__(self, other):
        return list(self) == list(other) if isinstance(other, (list, tuple, ObservedList)) else NotImplemented

    def __repr__(self):
        return f"ObservedList({self._values})"

    def _save(self):
        self._store.check(self._values)
        with slicer.util.NodeModify(self._node):
            self._store.write(self._node, self._name, self._values)


class ObservedDict(MutableMapping):
    """A dictionary in a parameter node: every change is written to the node."""

    def __init__(self, store, node, name, values):
        self._store, self._node, self._name, self._values = store, node, name, values

    def __len__(self):
        return len(self._values)

    def __iter__(self):
        return iter(self._values)

    def __getitem__(self, key):
        return self._values[key]

    def __setitem__(self, key, value):
        self._values[key] = value
        self._save()

    def __delitem__(self, key):
        del self._values[key]
        self._save()

    def __eq__(self, other):
        return dict(self) == dict(other) if isinstance(other, (dict, ObservedDict)) else NotImplemented

    def __repr__(self):
        return f"ObservedDict({self._values})"

    def _save(self):
        self._store.check(self._values)
        with slicer.util.NodeModify(self._node):
            self._store.write(self._node, self._name, self._values)


def createStore(kind) -> Store:
    """The store for a type hint; raises for a type that Slicer would not take either."""
    kind, annotations = splitAnnotations(kind)
    members = unionMembers(kind)
    if members:
        return UnionStore([createStore(member) for member in members])
    if kind is type(None):
        return NoneStore()
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is list:
        return ListStore(createStore(arguments[0]))
    if origin is dict:
        return DictStore(createStore(arguments[0]), createStore(arguments[1]))
    if origin is tuple:
        return TupleStore([createStore(argument) for argument in arguments])
    if isinstance(kind, type):
        if issubclass(kind, slicer.vtkMRMLNode):
            return NodeStore(kind)
        if isParameterPack(kind):
            return PackStore(kind)
        if issubclass(kind, enum.Enum):
            # By name, as in Slicer: renaming a member breaks saved scenes.
            return TextStore((kind,), lambda v: v.name, lambda text: kind[text], next(iter(kind)))
        if kind is bool:
            return TextStore((bool,), lambda v: "True" if v else "False", lambda text: text == "True", False)
        if kind is int:
            return TextStore((int,), str, int, 0)
        if kind is float:
            return TextStore((float, int), str, float, 0.0)
        if kind is str:
            return TextStore((str,), str, str, "")
        if issubclass(kind, pathlib.PurePath):
            return TextStore((kind, pathlib.PurePath), str, kind, kind())
    raise TypeError(f"Unable to create a serializer for {kind}")
