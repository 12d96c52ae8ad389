"""The settings of a registration: the panel's choices, and all of them as one frozen object."""

from dataclasses import asdict, dataclass, fields
from enum import Enum

from SAMConvexLib.choices import Device
from SAMConvexLib.process import engineModule
from slicer.i18n import tr as _
from slicer.i18n import translate

DEFAULT_PRESET = "ct-inter-patient"


class Strength(Enum):
    """How far neighboring tissue may deform differently."""

    STIFF = "stiff"
    NORMAL = "normal"
    FLEXIBLE = "flexible"
    # Aliases: scenes saved earlier hold these names, and presets the same in lower case.
    GENTLE = "stiff"
    STANDARD = "normal"
    STRONG = "flexible"

    def label(self):
        return {
            Strength.STIFF: _("Stiff (smoothest)"),
            Strength.NORMAL: _("Normal"),
            Strength.FLEXIBLE: _("Flexible (follows detail)"),
        }[self]


class Quality(Enum):
    """Time against accuracy."""

    FAST = "fast"
    STANDARD = "standard"
    BEST = "best"

    def label(self):
        return {Quality.FAST: _("Fast"), Quality.STANDARD: _("Standard"), Quality.BEST: _("Best")}[self]


class Affine(Enum):
    """First, global alignment."""

    PRESET = ""
    NONE = "none"
    MOMENTS = "moments"
    SAM = "sam"

    def label(self):
        return {
            Affine.PRESET: _("As the preset says"),
            Affine.NONE: _("None (already aligned)"),
            Affine.MOMENTS: _("Body shape"),
            Affine.SAM: _("Anatomical embedding"),
        }[self]


class Refinement(Enum):
    """Last, local optimization."""

    PRESET = ""
    NONE = "none"
    ADAM = "adam"
    DIFFUSION = "diffusion"

    def label(self):
        return {
            Refinement.PRESET: _("As the preset says"),
            Refinement.NONE: _("None"),
            Refinement.ADAM: _("Adam (gradient descent)"),
            Refinement.DIFFUSION: _("Diffusion (Gauss-Newton)"),
        }[self]

    def explanation(self):
        return {
            Refinement.PRESET: _("What the preset ends with: right for the images it is for."),
            Refinement.NONE: _("The deformation ends as it is: choose it between different patients, or to save time."),
            Refinement.ADAM: _(
                "Gradient descent on the features: choose it for two states of one patient, such as two breaths."
            ),
            Refinement.DIFFUSION: _(
                "Gauss-Newton steps with a diffusion regularizer: choose it for unlike images, such as MR and CT, "
                "where a smooth result is worth more than detail."
            ),
        }[self]


class _FeatureChoice(Enum):
    """What of the images is compared; names and sentences come from the engine's table."""

    def label(self):
        return translate(_TABLE, _CHOICES[self.name].label) if self.value else _("As the preset says")

    def explanation(self):
        if not self.value:
            return _("What the preset compares, coarse and fine: right for the images it is for.")
        return translate(_TABLE, _CHOICES[self.name].explanation)


# Where the sentences stand, as literals: the translators' context.
_TABLE = "samconvex.settings.features"
_CHOICES = {choice.key: choice for choice in engineModule("samconvex.settings.features").CHOICES}
Features = _FeatureChoice("Features", [("PRESET", ""), *((choice.key, choice.name) for choice in _CHOICES.values())])


class Protection(Enum):
    """What protected segments keep."""

    RIGID = "rigid"
    VOLUME = "volume"

    def label(self):
        return {Protection.RIGID: _("Shape (rigid)"), Protection.VOLUME: _("Volume only")}[self]


@dataclass(frozen=True)
class RegistrationSettings:
    """Everything a preset can hold. Empty or zero means: as the engine's preset says."""

    preset: str = DEFAULT_PRESET
    strength: Strength = Strength.NORMAL
    quality: Quality = Quality.STANDARD
    device: Device = Device.AUTO
    affine: Affine = Affine.PRESET
    refinement: Refinement = Refinement.PRESET
    threads: int = 0
    maximumMemoryGib: float = 0.0
    seed: int = 0
    protection: Protection = Protection.RIGID
    symmetric: bool = False
    features: Features = Features.PRESET

    @classmethod
    def names(cls):
        """Names of all settings."""
        return [entry.name for entry in fields(cls)]

    def engineArguments(self):
        """Command-line arguments of the engine."""
        arguments = ["--preset", self.preset, "--device", self.device.value, "--seed", str(self.seed)]
        if self.strength is not Strength.NORMAL:
            arguments += ["--strength", self.strength.value]
        if self.quality is not Quality.STANDARD:
            arguments += ["--quality", self.quality.value]
        if self.affine.value:
            arguments += ["--affine", self.affine.value]
        if self.features.value:
            arguments += ["--features", self.features.value]
        if self.refinement.value:
            arguments += ["--refine", self.refinement.value]
        if self.threads > 0:
            arguments += ["--threads", str(self.threads)]
        if self.maximumMemoryGib > 0:
            arguments += ["--max-memory", f"{self.maximumMemoryGib:g}"]
        if self.protection is not Protection.RIGID:
            arguments += ["--protect-mode", self.protection.value]
        if self.symmetric:
            arguments += ["--symmetric"]
        return arguments

    def costArguments(self):
        """Those of the engine's arguments that change what ``samconvex presets`` forecasts."""
        arguments = ["--features", self.features.value] if self.features.value else []
        if self.refinement.value:
            arguments += ["--refine", self.refinement.value]
        if self.quality is not Quality.STANDARD:
            arguments += ["--quality", self.quality.value]
        return [*arguments, "--symmetric"] if self.symmetric else arguments

    def changed(self, values):
        """The same with some settings replaced; ``values`` as fromDictionary takes them."""
        return self.fromDictionary(self.toDictionary() | values)

    def toDictionary(self):
        return {key: value.value if isinstance(value, Enum) else value for key, value in asdict(self).items()}

    @classmethod
    def fromDictionary(cls, values):
        """From stored values; unknown names are ignored and missing ones take their default.

        Raises:
            ValueError: a value that the current version does not know.
        """
        known = {}
        for entry in fields(cls):
            if entry.name in values:
                known[entry.name] = _understood(entry.name, type(entry.default), values[entry.name])
        return cls(**known)


def _understood(name, kind, value):
    """A stored or typed value as ``kind``; an enumeration that does not know it names what it knows."""
    try:
        return kind(value)
    except ValueError as error:
        if not issubclass(kind, Enum):
            raise
        aliases = {key.lower(): member for key, member in kind.__members__.items() if key != member.name}
        if value in aliases:
            return aliases[value]
        known = ", ".join(member.value for member in kind if member.value)
        sentence = _("'{value}' is not known as {name}; choose one of: {known}.")
        raise ValueError(sentence.format(name=name, value=value, known=known)) from error
