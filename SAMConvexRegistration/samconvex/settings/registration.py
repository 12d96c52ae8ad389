"""Frozen settings of a registration: levels, refinements and everything that a preset fixes."""

from __future__ import annotations

from dataclasses import dataclass, replace

FORBIDDEN = 1.0e4


@dataclass(frozen=True)
class Level:
    """One level of the pyramid.

    Attributes:
        spacing: control grid and displacement step, mm.
        radius: candidates reach ``radius * spacing`` mm along each axis.
        subdivision: feature voxels per control voxel along an axis; features are averaged over them.
        features: descriptor names whose costs are summed at this level, such as ("mind",) or ("sam", "mind").
        weights: factor on the cost of each; empty means 1 for all.
        unseen: added to the cost of a candidate where the moving image has no data. Forbidden by default: right where
            both images show the same; else what the other image does not show is squeezed into what it does.
        coarsest: where more than a million voxels count, the spacing grows up to this, mm; 0 keeps it.
        coupling: factor on the registration's coupling at this level.
        consistent: solve in both directions and make the maps each other's inverse (ConvexAdam's inverse consistency,
            Siebert et al., 2021): steadier where patients differ much, less exact where they do not.
    """

    spacing: float
    radius: int
    subdivision: int = 2
    features: tuple[str, ...] = ("mind",)
    weights: tuple[float, ...] = ()
    unseen: float = FORBIDDEN
    coarsest: float = 0.0
    coupling: float = 1.0
    consistent: bool = False


@dataclass(frozen=True)
class AdamSettings:
    """Attributes:
    spacing: grid of the displacement parameters, mm.
    subdivision: feature voxels per parameter voxel along an axis.
    pool: image voxels averaged into a feature voxel along an axis; features of a finer image find the last millimeter.
    iterations: Adam steps at most.
    step_mm: Adam's learning rate in millimeters at first; it falls evenly to zero.
    regularization: weight of the squared gradient of the displacement (dimensionless, mm per mm), per counted voxel.
    box_passes: 3^3 box filters that smooth the parameters before they displace.
    enough: the descent ends once six steps gain less than this share of all that was gained; 0 takes all steps.
    """

    spacing: float = 4.0
    subdivision: int = 1
    pool: int = 2
    iterations: int = 40
    step_mm: float = 0.5
    regularization: float = 1.0
    box_passes: int = 2
    enough: float = 0.02


@dataclass(frozen=True)
class DiffusionSettings:
    """Attributes:
    spacing: grid of the displacement, mm.
    pool: image voxels averaged into a feature voxel along an axis.
    iterations: Gauss-Newton steps at most.
    regularization: weight of the squared displacement gradient (mm per mm) against 1 per unit of feature distance.
    step: share of each increment that is taken first; halved while the energy would rise.
    tolerance: relative residual at which a linear system counts as solved.
    enough: the descent ends once a step lowers the energy by less than this share.
    """

    spacing: float = 4.0
    pool: int = 2
    iterations: int = 15
    regularization: float = 2.0
    step: float = 1.0
    tolerance: float = 1e-3
    enough: float = 1e-3


@dataclass(frozen=True)
class Settings:
    """Everything that decides a registration.

    Attributes:
        name: preset name.
        description: when to choose it, one sentence.
        affine: "none" (images overlap already), "moments" (learning-free, many starts) or "sam" (embeddings).
        levels: the pyramid, coarse to fine; empty stops after the affine.
        coupling: strength of the coupling, cost per squared millimeter; larger follows the data less freely.
        box_passes: 3^3 box filters after every coupled pass; more is stiffer.
        symmetric: register both ways from the affine on and let the results meet halfway.
        refine: "adam", "diffusion" (Gauss-Newton) or "none".
        adam, diffusion: settings of the refinements.
        working_spacing: images are averaged to about this spacing first, mm.
        field_spacing: grid of the resulting field, mm.
        fold_free: smooth the field where it would fold until it folds nowhere.
        affine_model: "rigid", "similarity" or "affine".
        polish_affine: refine the embeddings' affine by the images themselves; right for images of one patient, where
            it is more exact, and wrong between patients, where anatomy tells more.
    """

    name: str
    description: str
    affine: str = "moments"
    levels: tuple[Level, ...] = (Level(12.0, 3), Level(6.0, 3), Level(4.0, 2), Level(3.0, 1))
    coupling: float = 0.04
    box_passes: int = 2
    symmetric: bool = False
    refine: str = "none"
    adam: AdamSettings = AdamSettings()
    diffusion: DiffusionSettings = DiffusionSettings()
    working_spacing: float = 2.0
    field_spacing: float = 4.0
    fold_free: bool = True
    affine_model: str = "affine"
    polish_affine: bool = False


def with_overrides(settings: Settings, **overrides: object) -> Settings:
    """Settings with the given fields replaced; None leaves a field as it is."""
    given = {key: value for key, value in overrides.items() if value is not None}
    return replace(settings, **given)  # type: ignore[arg-type]
