"""Frozen settings of a registration: levels, refinements and everything that a preset fixes."""

from __future__ import annotations

from dataclasses import dataclass, replace

FORBIDDEN = 1.0e4
# Three steps measure nearly as well as four (Dice 0.661 against 0.662 on six head-neck pairs) and those as the paper's
# six (0.686 against 0.687 on four others); two do not (0.607 against 0.624 on four harder ones).
COUPLINGS = (0.03, 0.3, 1.0)


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
    components: so many principal components of the features are compared at most; 0 compares all channels.
    iterations: Adam steps at most.
    step_mm: Adam's learning rate in millimeters at first; it falls evenly to zero.
    regularization: weight of the squared gradient of the displacement (dimensionless, mm per mm), per counted voxel.
    box_passes: 3^3 box filters over what is added to the field so far.
    enough: the descent ends once six steps gain less than this share of all that was gained; 0 takes all steps.
    anew: start from zero on features of the image warped so far, and compose (SAMConvex, section 2.3); otherwise the
        parameters start as the field so far.
    """

    spacing: float = 4.0
    subdivision: int = 1
    pool: int = 2
    components: int = 0
    iterations: int = 40
    step_mm: float = 0.5
    regularization: float = 0.1
    box_passes: int = 2
    enough: float = 0.02
    anew: bool = False


@dataclass(frozen=True)
class DiffusionSettings:
    """Attributes:
    spacing: grid of the displacement, mm.
    anew: as SUITS published it (Blendowski et al., 2020): ``iterations`` full steps, each on features made anew from
        the image warped so far by the field's quadratic B-spline. Otherwise the features are made once, and a step is
        halved while the energy would rise.
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
    anew: bool = False


@dataclass(frozen=True)
class Settings:
    """Everything that decides a registration.

    Attributes:
        name: preset name.
        description: when to choose it, one sentence.
        affine: "none" (images overlap already), "moments" (learning-free, many starts) or "sam" (embeddings).
        coarse: "sam" starts from a coarse field through points that embeddings match (SAM-coarse), "none" from the
            affine.
        initial_network: weights (name or file) of a feed-forward network whose field the levels and the refinement
            start from, such as LapIRN; empty starts from the affine.
        levels: the pyramid, coarse to fine; may be empty.
        coupling: strength of the coupling, cost per squared millimeter; larger follows the data less freely.
        couplings: factors on it, one a pass, weak to strong.
        box_passes: 3^3 box filters after every coupled pass; more is stiffer.
        symmetric: register both ways from the affine on and let the results meet halfway.
        refine: "adam", "diffusion" (Gauss-Newton) or "none".
        adam, diffusion: settings of the refinements.
        stages: instance optimization in several levels, coarse to fine, instead of ``adam`` alone (MASR-Net, Mok et
            al., 2024).
        refine_features: what the refinement compares; empty takes the last level's.
        working_spacing: images are averaged to about this spacing first, mm.
        field_spacing: grid of the resulting field, mm.
        fold_free: smooth the field where it would fold until it folds nowhere.
        affine_model: "rigid", "similarity" or "affine".
        polish_affine: what refines the affine of ``affine`` "sam": "images", right for images of one patient, where it
            is more exact, and wrong between patients, where anatomy tells more; "organs" that the organ network finds
            in both (:mod:`samconvex.align.by_organs`); or empty.
        same_patient: it is meant for two images of one patient in one posture and breath: the verdict expects them to
            look alike after small changes of shape.
        modality: "ct", "mr" or "mr and ct": what the images must be; empty for any.
    """

    name: str
    description: str
    affine: str = "moments"
    coarse: str = "none"
    initial_network: str = ""
    levels: tuple[Level, ...] = (Level(12.0, 3), Level(6.0, 3), Level(4.0, 2), Level(3.0, 1))
    coupling: float = 0.04
    couplings: tuple[float, ...] = COUPLINGS
    box_passes: int = 2
    symmetric: bool = False
    refine: str = "none"
    adam: AdamSettings = AdamSettings()
    diffusion: DiffusionSettings = DiffusionSettings()
    stages: tuple[AdamSettings, ...] = ()
    refine_features: tuple[str, ...] = ()
    working_spacing: float = 2.0
    field_spacing: float = 4.0
    fold_free: bool = True
    affine_model: str = "affine"
    polish_affine: str = ""
    same_patient: bool = False
    modality: str = ""

    @property
    def deforms(self) -> bool:
        """Something follows the affine."""
        return bool(self.levels or self.initial_network or self.coarse != "none" or self.refine != "none")

    @property
    def linear_part(self) -> Settings:
        """The same without anything that follows the affine."""
        return replace(self, levels=(), refine="none", coarse="none", initial_network="")

    @property
    def refinements(self) -> tuple[AdamSettings | DiffusionSettings, ...]:
        """The refinement's levels, coarse to fine."""
        if self.refine == "adam":
            return self.stages or (self.adam,)
        return (self.diffusion,) if self.refine == "diffusion" else ()

    @property
    def refined_by(self) -> tuple[tuple[str, ...], tuple[float, ...]]:
        """Features that the refinement compares, and their weights."""
        if self.refine_features or not self.levels:
            return self.refine_features or ("mind",), ()
        return self.levels[-1].features, self.levels[-1].weights

    @property
    def compared(self) -> set[str]:
        """Every feature that something compares."""
        names = {name for level in self.levels for name in level.features}
        return names | set(self.refined_by[0]) if self.refinements else names

    @property
    def finest(self) -> float:
        """Spacing of the finest level, mm; without levels that of the refinement, no finer than images show."""
        if self.levels:
            return self.levels[-1].spacing
        return max(min((step.spacing for step in self.refinements), default=0.0), 1.5 * self.working_spacing)


def with_overrides(settings: Settings, **overrides: object) -> Settings:
    """Settings with the given fields replaced; None leaves a field as it is.

    Whoever wants no start by embeddings ("moments") gets no first step by them either, unless it is given.
    """
    given = {key: value for key, value in overrides.items() if value is not None}
    if given.get("affine") == "moments":
        given.setdefault("coarse", "none")
    return replace(settings, **given)  # type: ignore[arg-type]
