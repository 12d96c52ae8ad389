"""Affine alignment by organs: the map under which what a network takes for each organ overlaps best.

Embeddings find an affine map between any two bodies; where both show organs that the organ network knows, those say
more exactly how the two lie, and each counts alike, whatever its size. Kin of the weakly supervised affine networks
that are trained with a soft Dice of organs (Hu et al., Medical Image Analysis 2018); here nothing is trained, the
twelve numbers of one pair are found by a quasi-Newton method.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..anatomy.body import body_mask
from ..space.linear import limited
from ..space.sampling import sample
from ..space.totals import total
from ..space.transforms import AffineTransform
from ..space.volume import FeatureMap, Volume, resample

# An organ smaller than this in one of the images is no witness, mm^3.
LEAST_VOLUME = 1500.0
# One or two organs fix no affine map.
LEAST_ORGANS = 3
# The map found must overlap the organs better than the start by this much soft Dice.
LEAST_GAIN = 0.05
# The network knows no lungs. Where both images show a chest's, mm^3, and they lie well over each other already (Dice),
# the organs below may not pull them apart by more than this: in the demo's pair that cost 14 and 9 points before the
# deformation, 1 and 2 after it. Set on that pair; of the evaluation's one shows such lungs twice, and they lie apart.
_CHEST, _LUNGS_FOUND, _LUNGS_LOST = 2e6, 0.6, 0.02
_GAS_HU = -400.0
# Of the largest probability nearby, above which a place counts; below torch's threshold for divided sums.
POINTS = 20_000
_NEAR = 0.05
# Share of an organ that the moving image must show for its overlap to count in full.
_SHOWN = 0.5
_STEPS = 40
# One unit of a parameter: of the matrix, and of the shift in mm; and what a unit of the matrix squared costs of one
# organ's soft Dice. Pairs of training patients, against a stiffer map (1e-4 of the mean, whatever the number) that was
# asked for only below an overlap of 0.33: abdomen, 6 pairs, start 0.272 to 0.326, Dice +0.020 (one pair +0.115, the
# others -0.003 to 0.007); head and neck, 6 pairs, start 0.398 to 0.491, Dice -0.002 (-0.008 to 0.000).
_UNIT, _UNIT_MM, _STIFFNESS = 0.01, 1.0, 2e-4


class OrganOverlap:
    """Soft Dice of the organs that both images show, as a function of an affine map.

    Args:
        fixed, moving: organ probabilities (1, organs, D, H, W), as :func:`samconvex.anatomy.organs.
            organ_probabilities` finds them.

    Attributes:
        organs: how many both images show.
        center: (3,) LPS mm, the middle of the fixed image's organs.
    """

    def __init__(self, fixed: FeatureMap, moving: FeatureMap) -> None:
        here, there = _halved(fixed), _halved(moving)
        volumes = [
            (part.tensor > 0.5).flatten(2).sum(2)[0] * float(np.prod(part.grid.spacing)) for part in (here, there)
        ]
        shown = (volumes[0] > LEAST_VOLUME) & (volumes[1] > LEAST_VOLUME)
        self.organs = int(shown.sum())
        self.center = fixed.grid.center
        if not self.organs:
            return
        known = here.tensor[:, shown]
        near = F.max_pool3d(known.amax(1, keepdim=True), 5, 1, 2)[0, 0] > _NEAR
        index = near.nonzero()
        index = index[:: -(-len(index) // POINTS)]
        self.target = known[0, :, index[:, 0], index[:, 1], index[:, 2]]
        points = here.grid.voxels_to_points(index.cpu().numpy()[:, ::-1]) - self.center
        self.points = torch.as_tensor(points, dtype=torch.float32).to(known.device)
        # The last channel tells what the moving image shows.
        self._moving = torch.cat([there.tensor[:, shown], torch.ones_like(there.tensor[:, :1])], 1)
        self._grid = there.grid

    def __call__(self, matrix: Tensor, shift: Tensor) -> Tensor:
        """Mean soft Dice where center + p goes to center + matrix p + shift (mm), of what the moving image shows."""
        # Sums of products point by point: whoever adds them up, the rounding is the same.
        x, y, z = self.points.unbind(1)
        rows = zip(matrix, shift, strict=True)
        moved = torch.stack([row[0] * x + row[1] * y + row[2] * z + by for row, by in rows], 1)
        seen = sample(self._moving, self._grid, moved[:, None, None], reference=self.center, fill=0.0)[0, :, :, 0, 0]
        covered = seen[-1:].detach()
        found, target = seen[:-1], self.target * covered
        both = 2 * (found * target).sum(1) + 1
        overlap = both / (found.square().sum(1) + target.square().sum(1) + 1)
        # An organ that is mostly beyond the moving image is no match, however well the rest fits.
        shown = target.sum(1) / self.target.sum(1).clamp(min=1e-6)
        return (overlap * (shown / _SHOWN).clamp(max=1)).mean()

    def of(self, transform: AffineTransform) -> float:
        """The overlap under a map."""
        with torch.no_grad():
            return float(self(*self.about_center(transform)))

    def about_center(self, transform: AffineTransform) -> tuple[Tensor, Tensor]:
        """A map as the matrix (3, 3) and the shift (3,) mm that :meth:`__call__` takes."""
        shift = transform.map_points(self.center[None])[0] - self.center
        device = self.points.device
        matrix, moved = (torch.as_tensor(v, dtype=torch.float32, device=device) for v in (transform.matrix, shift))
        return matrix, moved


def _halved(organs: FeatureMap) -> FeatureMap:
    """At half the resolution, which is enough for twelve numbers; organ by organ, an eighth of the memory."""
    step = [min(2, n) for n in organs.tensor.shape[2:]]
    parts = [
        F.avg_pool3d(part.float(), step, step, ceil_mode=True, count_include_pad=False)
        for part in organs.tensor.split(1, 1)
    ]
    return FeatureMap(torch.cat(parts, 1), organs.grid.strided(step[::-1]))


def organ_affine(
    fixed: FeatureMap,
    moving: FeatureMap,
    start: AffineTransform,
    report: Callable[[float], None] = lambda share: None,
    *,
    model: str = "affine",
    images: tuple[Volume, Volume] | None = None,
) -> tuple[AffineTransform, dict[str, Any]]:
    """``start`` changed so that the organs of both images overlap best.

    A prior holds it near the start: organs are drawn by different hands and differ by more than an affine map.

    Args:
        fixed, moving: organ probabilities (1, organs, D, H, W).
        start: fixed to moving points, LPS mm.
        report: called with the share that is done; may raise Cancelled.
        model: "rigid", "similarity" or "affine": the nearest map of this kind is taken.
        images: the two CTs, Hounsfield units, whose lungs have a say too.

    Returns:
        The map (``start`` itself where too few organs are shown, where the map found overlaps them by less than
        :data:`LEAST_GAIN` more, or where it pulls lungs apart), and ``organs``, how many both show, with
        ``organ_overlap`` (soft Dice) of the start and of the map that was looked for, and ``lung_overlap`` of both
        where the images show lungs.
    """
    problem = OrganOverlap(fixed, moving)
    details: dict[str, Any] = {"organs": problem.organs}
    if problem.organs < LEAST_ORGANS:
        return start, details
    before = problem.of(start)
    found = _better(problem, start, model, report)
    after = problem.of(found)
    details["organ_overlap"] = [round(before, 3), round(after, 3)]
    if after <= before + LEAST_GAIN:
        return start, details
    first, second = (None, None) if images is None else map(_lungs, images)
    if first is not None and second is not None:
        kept, changed = (_lung_overlap(first, second, transform) for transform in (start, found))
        details["lung_overlap"] = [round(kept, 3), round(changed, 3)]
        if kept > _LUNGS_FOUND and changed < kept - _LUNGS_LOST:
            return start, details
    return found, details


def _lungs(image: Volume) -> Volume | None:
    """Gas inside the body on the grid of its mask, 0 or 1; None where it is less than a chest's."""
    body = body_mask(image)
    gas = ((resample(image, body.grid).tensor < _GAS_HU) & (body.tensor > 0)).float()
    enough = float(gas.sum()) * float(np.prod(body.grid.spacing)) > _CHEST
    return Volume(gas, body.grid) if enough else None


def _lung_overlap(fixed: Volume, moving: Volume, transform: AffineTransform) -> float:
    """Dice under a map of fixed to moving points."""
    points = fixed.points()
    points = points[:: -(-len(points) // POINTS)]
    reference = moving.grid.center
    places = torch.as_tensor(transform.map_points(points) - reference, dtype=torch.float32)[None, None]
    met = float(sample(moving.tensor, moving.grid, places, reference=reference, fill=0.0).mean())
    here, there = (float(v.tensor.sum()) * float(np.prod(v.grid.spacing)) for v in (fixed, moving))
    return 2 * met * here / (here + there / max(abs(float(np.linalg.det(transform.matrix))), 1e-6))


def _better(
    problem: OrganOverlap, start: AffineTransform, model: str, report: Callable[[float], None]
) -> AffineTransform:
    matrix, shift = problem.about_center(start)
    change = torch.zeros(12, device=matrix.device, requires_grad=True)
    optimizer = torch.optim.LBFGS([change], max_iter=_STEPS, history_size=12, line_search_fn="strong_wolfe")
    calls = 0

    def cost() -> Tensor:
        nonlocal calls
        report(min(0.99, calls / (1.3 * _STEPS)))
        calls += 1
        optimizer.zero_grad()
        overlap = problem(matrix + _UNIT * change[:9].view(3, 3), shift + _UNIT_MM * change[9:])
        value = _STIFFNESS / problem.organs * total(change[:9].square()) - overlap
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(cost)  # type: ignore[no-untyped-call]
    if not bool(torch.isfinite(change).all()):
        return start
    found = change.detach().cpu().numpy().astype(float)
    changed = limited(start.matrix + _UNIT * found[:9].reshape(3, 3), model)
    middle = start.map_points(problem.center[None])[0] + _UNIT_MM * found[9:]
    return AffineTransform(changed, middle - changed @ problem.center)
