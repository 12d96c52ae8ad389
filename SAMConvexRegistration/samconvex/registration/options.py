"""What register() is told, in one frozen object; checked before anything is computed."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import numpy as np

from ..errors import InputError
from ..settings.features import FEATURES, networks_of, unknown_feature
from ..settings.presets import get_settings
from ..settings.registration import Settings, with_overrides
from ..settings.strength import MODES, adjusted
from ..space.transforms import Transform
from ..space.volume import Volume
from ..weights.models import family_of, identity_of


@dataclass(frozen=True)
class Options:
    """The arguments of :func:`samconvex.register` beside the images and the progress, which explains them."""

    preset: str | Settings = "ct-inter-patient"
    strength: str = "normal"
    quality: str = "standard"
    affine: str | None = None
    refine: str | None = None
    features: str | None = None
    coarse: str | None = None
    initial_network: str | os.PathLike | None = None
    symmetric: bool | None = None
    initial_transform: Transform | None = None
    fixed_mask: Volume | None = None
    moving_mask: Volume | None = None
    protect_mask: Volume | None = None
    protect_mode: str = "rigid"
    fixed_labels: Volume | None = None
    moving_labels: Volume | None = None
    fixed_points: np.ndarray | None = None
    moving_points: np.ndarray | None = None
    device: str = "auto"
    threads: int | None = None
    max_memory_gib: float | None = None
    seed: int = 0
    weights: str | os.PathLike | None = None
    reproducible: bool = False

    @property
    def start(self) -> Transform:
        """The initial transform, or none at all."""
        return self.initial_transform or Transform()

    def settings(self) -> Settings:
        """The preset with everything that was said on top of it.

        Raises:
            InputError: a preset, strength, quality, refinement, protection or feature that does not exist.
        """
        settings = with_overrides(
            adjusted(get_settings(self.preset), quality=self.quality),
            affine=self.affine,
            refine=self.refine,
            coarse=self.coarse,
            symmetric=self.symmetric,
            initial_network=None if self.initial_network is None else str(self.initial_network),
        )
        settings = adjusted(settings, self.strength)
        if self.features is not None:
            names = tuple(self.features.split("+"))
            levels = tuple(replace(level, features=names, weights=()) for level in settings.levels)
            # What a level compared is what its refinement did; features of a refinement's own are replaced as well.
            own = names if settings.refine_features or not levels else ()
            # Whoever leaves the organs out of the features gets no start of theirs either.
            asked = settings.polish_affine != "organs" or "semantic" in names
            polish = settings.polish_affine if asked else ""
            settings = replace(settings, levels=levels, refine_features=own, polish_affine=polish)
        if self.initial_transform is not None and self.affine is None:
            settings = replace(settings, affine="none")
        if settings.refine not in ("none", "adam", "diffusion"):
            raise InputError(f"There is no refinement {settings.refine!r}; choose none, adam or diffusion.")
        if settings.coarse not in ("none", "sam"):
            raise InputError(f"There is no coarse field {settings.coarse!r}; choose none or sam.")
        unrefined = replace(settings, refine=get_settings(self.preset).refine)
        if not unrefined.deforms:
            self._check_linear(settings)
        elif self.features is not None and settings.deforms and not settings.levels and not settings.refinements:
            raise InputError(
                f"With {settings.name} and no refinement nothing compares features, they would have no effect; leave "
                "them out or choose a refinement."
            )
        if self.protect_mode not in MODES:
            raise InputError(f"There is no protection {self.protect_mode!r}; choose one of: {', '.join(MODES)}.")
        for name in sorted(settings.compared - set(FEATURES)):
            raise InputError(unknown_feature(name))
        return settings

    def _check_linear(self, settings: Settings) -> None:
        """A preset that ends with the linear part has nothing to refine and nothing to compare."""
        wanted = {"refinement": settings.refine != "none", "features": self.features is not None}
        for what in (what for what, given in wanted.items() if given):
            raise InputError(
                f"The preset {settings.name} ends with the linear map, {what} would have no effect; leave it out or "
                "choose another preset."
            )


def networks_used(settings: Settings) -> set[str]:
    """Families of the networks that have a part in a registration with these settings."""
    used = networks_of(settings.compared)
    if settings.initial_network:
        used.add(family_of(settings.initial_network))
    if settings.affine == "sam" and settings.polish_affine == "organs":
        used.add("semantic")
    # SAM-VoxelMorph reads embeddings.
    return used | {"sam"} if "sam" in (settings.affine, settings.coarse) or "sam-voxelmorph" in used else used


def unused_weights(weights: str | os.PathLike | None, settings: Settings) -> list[str]:
    """A warning if the given weights are of a network that has no part in this registration."""
    if weights is None:
        return []
    family = family_of(weights)
    if family in networks_used(settings):
        return []
    return [f"The {family} weights {weights} were not used: nothing here runs that network."]


def weights_used(weights: str | os.PathLike | None, settings: Settings) -> dict[str, dict[str, str]]:
    """Name and checksum of the weights of every network that has a part, by family."""
    given = (weights, settings.initial_network or None)
    return {family: identity_of(family, *given) for family in sorted(networks_used(settings))}
