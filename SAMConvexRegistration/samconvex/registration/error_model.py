"""From evidence to millimeters: a calibrated quantile regression that can only rise with every piece of evidence.

The logarithm of the bound is a sum of rising, piecewise linear functions, one for each input. What they are, and for
which presets, stands in ``error_models.py``, which ``Testing/benchmarks/studies/expected_error.py fit`` writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..settings.presets import PRESETS
from ..settings.registration import Settings
from .error_models import FAMILIES

LINEAR, SAME_PATIENT, BETWEEN_PATIENTS, PREVIEW = "linear", "same patient", "between patients", "preview"
# Presets whose finest level is as coarse as this see what a preview sees, mm.
_COARSE_MM = 5.0


@dataclass(frozen=True)
class Rise:
    """A rising function of one input: 0 up to the first knot, the sum of all heights from the last one on.

    Attributes:
        knots: (K,) rising values of the input.
        heights: (K - 1,) not negative, how much the function rises from knot to knot.
    """

    knots: tuple[float, ...]
    heights: tuple[float, ...]

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        total = torch.zeros_like(values)
        for low, high, height in zip(self.knots, self.knots[1:], self.heights, strict=False):
            if height > 0:
                total += height * ((values - low) / max(high - low, 1e-9)).clamp(0, 1)
        return total


@dataclass(frozen=True)
class ErrorModel:
    """The 90 % bound of the error from evidence.

    Attributes:
        intercept: logarithm of the bound in mm where nothing speaks for an error.
        rises: by name of the evidence.
        scale: factor that makes nine of ten errors of patients who were held out smaller than the bound.
    """

    intercept: float
    rises: dict[str, Rise]
    scale: float = 1.0

    def bound(self, evidence: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Millimeters, in the shape of the evidence, every piece of which is of the same shape."""
        total = self.intercept + sum(rise(evidence[name].float()) for name, rise in self.rises.items())
        assert isinstance(total, torch.Tensor)
        return self.scale * total.exp()

    def plain(self) -> dict:
        """For the table."""
        return {
            "inputs": sorted(self.rises),
            "intercept": self.intercept,
            "scale": self.scale,
            "rises": {
                name: {"knots": list(rise.knots), "heights": list(rise.heights)} for name, rise in self.rises.items()
            },
        }

    @classmethod
    def of(cls, values: Mapping) -> ErrorModel:
        """What :meth:`plain` gave."""
        rises = {name: Rise(tuple(rise["knots"]), tuple(rise["heights"])) for name, rise in values["rises"].items()}
        return cls(float(values["intercept"]), rises, float(values["scale"]))


def family_of(settings: Settings) -> str:
    """The family whose presets do most nearly what these settings do."""
    if not settings.deforms:
        return LINEAR
    for name, family in FAMILIES.items():
        # A linear preset that was told to deform is none any more.
        if name != LINEAR and settings.name in family["presets"]:
            return name
    if is_coarse(settings):
        return PREVIEW
    return SAME_PATIENT if settings.affine_model == "rigid" or settings.polish_affine == "images" else BETWEEN_PATIENTS


def is_coarse(settings: Settings) -> bool:
    """True where nothing finer than several millimeters was matched, in seconds."""
    return settings.refine == "none" and all(level.spacing >= _COARSE_MM for level in settings.levels)


@dataclass(frozen=True)
class Calibration:
    """The model for some settings, and whether it was calibrated on their own preset."""

    family: str
    own: bool
    model: ErrorModel


def calibration_for(settings: Settings, evidence: Iterable[str]) -> Calibration:
    """The calibration of the settings' own preset, else of the nearest family.

    Args:
        evidence: names of what is at hand; of a family's models, the first that needs no more is taken.
    """
    name = family_of(settings)
    family = FAMILIES[name]
    own = settings.name in family["presets"] and _as_calibrated(settings)
    return Calibration(name, own, model_for(family["models"], evidence))


def _as_calibrated(settings: Settings) -> bool:
    """They deform as the preset of their name does."""
    preset = PRESETS.get(settings.name)
    return preset is not None and _deforming(settings) == _deforming(preset)


def _deforming(settings: Settings) -> tuple[object, ...]:
    stiffness = (settings.coupling, settings.couplings, settings.box_passes)
    first = (settings.coarse, settings.initial_network)
    return settings.levels, settings.refinements, settings.refined_by, settings.symmetric, *first, *stiffness


def model_for(models: Sequence[Mapping], evidence: Iterable[str]) -> ErrorModel:
    """The first of a family's models, richest first, that needs no more than the evidence there is."""
    have = set(evidence)
    return ErrorModel.of(next(model for model in models if set(model["inputs"]) <= have))


def quantile_with_weights(values: np.ndarray, weights: np.ndarray, share: float) -> float:
    """The smallest value that leaves at most ``1 - share`` of the weight above it."""
    order = np.argsort(values)
    below = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][min(int(np.searchsorted(below, share)), len(values) - 1)])
