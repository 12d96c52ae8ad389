"""Annotations of a parameter: its default and what values it accepts."""


class Default:
    """``Annotated[int, Default(3)]``; ``Default(generator=list)`` calls the function for every node."""

    def __init__(self, value=None, *, generator=None):
        if value is not None and generator is not None:
            raise ValueError("give either a value or a generator")
        self._value = value
        self._generator = generator

    @property
    def value(self):
        return self._generator() if self._generator else self._value


class Validator:
    """Raises ValueError for a value it does not accept."""

    def validate(self, value):
        raise NotImplementedError


class NotNone(Validator):
    def validate(self, value):
        if value is None:
            raise ValueError("Value must not be None")


class IsInstance(Validator):
    def __init__(self, *types):
        self.types = tuple(t for entry in types for t in (entry if isinstance(entry, tuple) else (entry,)))

    def validate(self, value):
        if value is not None and not isinstance(value, self.types):
            raise TypeError(
                f"Value {value!r} is a {type(value).__name__}; expected {', '.join(t.__name__ for t in self.types)}"
            )


class Minimum(Validator):
    def __init__(self, minimum):
        self.minimum = minimum

    def validate(self, value):
        if value < self.minimum:
            raise ValueError(f"Value must be at least {self.minimum}; it is {value}")


class Maximum(Validator):
    def __init__(self, maximum):
        self.maximum = maximum

    def validate(self, value):
        if value > self.maximum:
            raise ValueError(f"Value must be at most {self.maximum}; it is {value}")


class WithinRange(Validator):
    def __init__(self, minimum, maximum):
        self.minimum = minimum
        self.maximum = maximum

    def validate(self, value):
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"Value must be within [{self.minimum}, {self.maximum}]; it is {value}")


class RangeBounds(WithinRange):
    """For values that are ranges: both ends within the bounds."""

    def validate(self, value):
        super().validate(value.minimum)
        super().validate(value.maximum)


class Choice(Validator):
    def __init__(self, choices):
        self.choices = list(choices)

    def validate(self, value):
        if value not in self.choices:
            raise ValueError(f"Value must be one of {self.choices}; it is {value!r}")


class Exclude(Validator):
    def __init__(self, excluded):
        self.excluded = list(excluded)

    def validate(self, value):
        if value in self.excluded:
            raise ValueError(f"Value must not be one of {self.excluded}")
