"""``@parameterPack``: a small data class whose members are stored under dotted names."""

import typing

from .validators import NotNone
from .values import parameterInfo


def parameterPack(classtype=None):
    """Class decorator; usable with and without parentheses."""
    return _process if classtype is None else _process(classtype)


def _process(cls):
    hints = typing.get_type_hints(cls, include_extras=True)
    cls.allParameters = {name: parameterInfo(cls, name, hint) for name, hint in hints.items()}
    cls._is_parameter_pack = True
    for name in hints:
        setattr(cls, name, _member(name))

    def __init__(self, *args, **kwargs):
        object.__setattr__(self, "_written", None)
        names = list(self.allParameters)
        if len(args) > len(names) or set(kwargs) - set(names):
            raise ValueError(f"{cls.__name__} has the members {names}")
        given = dict(zip(names, args, strict=False), **kwargs)
        for name, info in self.allParameters.items():
            value = given[name] if name in given else info.defaultValue()
            _check(info, value)
            object.__setattr__(self, "_value_" + name, value)

    cls.__init__ = __init__
    cls.__eq__ = lambda self, other: (
        type(self) is type(other) and all(getattr(self, n) == getattr(other, n) for n in hints)
    )
    cls.__repr__ = lambda self: f"{cls.__name__}({', '.join(f'{n}={getattr(self, n)!r}' for n in hints)})"
    cls.getValue = _getValue
    cls.setValue = _setValue
    cls.dataType = staticmethod(lambda name: cls.allParameters[name].unalteredType)
    return cls


def _check(info, value):
    if value is not None or any(isinstance(v, NotNone) for v in info.validators):
        info.store.check(value)
    for validator in info.validators:
        validator.validate(value)


def _member(name):
    def get(self):
        return getattr(self, "_value_" + name)

    def set(self, value):
        _check(self.allParameters[name], value)
        object.__setattr__(self, "_value_" + name, value)
        if self._written:
            self._written(self)

    return property(get, set)


def _getValue(self, name):
    first, _, rest = name.partition(".")
    value = getattr(self, first)
    return value.getValue(rest) if rest else value


def _setValue(self, name, value):
    first, _, rest = name.partition(".")
    if not rest:
        setattr(self, first, value)
        return
    inner = getattr(self, first)
    inner.setValue(rest, value)
    setattr(self, first, inner)
