"""What one training step sees: two cases, two views of each, points to compare and label correspondences."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ...networks import sam_2d, sam_compact
from ..data.augmentation import augment_curve, augment_hu, augment_radiograph, augment_window
from ..data.cases import AIR, Case
from ..data.landmarks import Correspondences, alignment, correspondences
from ..data.views import View, random_view
from .settings import SamSettings


@dataclass
class PointSet:
    """Points (N, 3) of one case, volume voxels, with their place (N, 3) and visibility (N,) in its two views."""

    points: Tensor
    places: list[Tensor]
    visible: list[Tensor]

    @classmethod
    def of(cls, points: Tensor, views: list[View]) -> PointSet:
        located = [view.locate(points) for view in views]
        return cls(points, [place for place, _ in located], [seen for _, seen in located])

    def to(self, device: torch.device) -> PointSet:
        places, visible = ([each.to(device) for each in part] for part in (self.places, self.visible))
        return PointSet(self.points.to(device), places, visible)


@dataclass
class Batch:
    """What one step compares.

    Attributes:
        cases: numbers of the two cases.
        views: two of each.
        seed: of what changes the views' appearance.
        candidates: per case, the points negatives (and the positives of the self-supervised part) come from.
        queries: per case, indices into its candidates of points seen in both views.
        labeled: per case, matching points of the two cases; row i of one corresponds to row i of the other.
        tolerance: (n,) voxels around a labeled point that hold no certain negative.
        mapped: per case, its candidates carried roughly into the other case, or None without common labels.
    """

    names: tuple[str, str]
    cases: tuple[int, int]
    views: list[list[View]]
    seed: int
    candidates: list[PointSet]
    queries: list[Tensor]
    labeled: list[PointSet] | None
    tolerance: Tensor
    mapped: list[Tensor] | None

    def to(self, device: torch.device) -> Batch:
        return replace(
            self,
            candidates=[points.to(device) for points in self.candidates],
            queries=[each.to(device) for each in self.queries],
            labeled=None if self.labeled is None else [points.to(device) for points in self.labeled],
            tolerance=self.tolerance.to(device),
            mapped=None if self.mapped is None else [each.to(device) for each in self.mapped],
        )


class Renderer:
    """What the views of a batch see, computed where the cases' images lie.

    Args:
        device: where to; the images of all cases go there as they are first looked at.
    """

    def __init__(self, cases: list[Case], settings: SamSettings, device: torch.device) -> None:
        self.cases, self.settings, self.device = cases, settings, device
        self._there: dict[int, tuple[Tensor, Tensor]] = {}

    def images(self, batch: Batch) -> Tensor:
        """(4, 1, d, h, w): views 0, 1 of the first case, 0, 1 of the second, ready for the network."""
        generator = torch.Generator().manual_seed(batch.seed)
        pairs = zip(batch.cases, batch.views, strict=True)
        return torch.cat([self._image(number, view, generator) for number, views in pairs for view in views])

    def _image(self, number: int, view: View, generator: torch.Generator) -> Tensor:
        s, case = self.settings, self.cases[number]
        if number not in self._there:
            self._there[number] = case.hu.to(self.device), case.masked.to(self.device)
        hu, masked = self._there[number]
        if case.planar:
            return sam_2d.preprocess(augment_radiograph(view.sample(hu, 0.0), generator, s.intensity))
        only_body = float(torch.rand(1, generator=generator)) < s.mask_probability
        image = view.sample(masked if only_body else hu, float(AIR))
        if s.window:
            image = augment_window(image, s.window, case.group in s.windowed, generator)
        image = augment_hu(image, generator, s.intensity)
        return augment_curve(sam_compact.preprocess(image), generator, s.intensity)


def draw_with_images(number: int, source: BatchSource, renderer: Renderer | None) -> tuple[Batch, Tensor | None]:
    """The batch of a number, with its images where somebody is to compute them beside it."""
    batch = source.draw(number)
    return batch, None if renderer is None else renderer.images(batch)


def _same_patient(first: Case, second: Case) -> bool:
    return first is not second and (first.group, first.patient) == (second.group, second.patient)


class BatchSource:
    """Draws batches from cases; the same seed and number give the same batch."""

    def __init__(self, cases: list[Case], settings: SamSettings, seed: int) -> None:
        self.settings, self.seed = settings, seed
        self.generator = torch.Generator()
        self.rng = np.random.default_rng()
        self.cases = cases
        shares = settings.group_shares
        groups: dict[str, int] = {}
        for case in cases:
            groups[case.group] = groups.get(case.group, 0) + 1
        weights = np.array([shares.get(c.group, 1.0 if not shares else 0.02) / groups[c.group] for c in cases])
        self.probability = weights / weights.sum()
        self.labeled: dict[str, list[Case]] = {}
        for case in cases:
            if sum(s.whole for s in case.labels.values()) >= 2 and (
                not settings.label_groups or case.group in settings.label_groups
            ):
                self.labeled.setdefault(case.group, []).append(case)
        self.labeled = {g: members for g, members in self.labeled.items() if len(members) >= 2}
        self.views: dict[str, list[Case]] = {}
        for case in cases:
            self.views.setdefault(f"{case.group} {case.patient}", []).append(case)
        self.views = {key: members for key, members in self.views.items() if len(members) >= 2}

    def _uniform(self, low: float, high: float, count: int) -> Tensor:
        return torch.rand(count, generator=self.generator) * (high - low) + low

    def _choose(self) -> tuple[Case, Case, bool]:
        if self.views and self.rng.random() < self.settings.same_share:
            members = self.views[list(self.views)[int(self.rng.integers(len(self.views)))]]
            one, other = self.rng.choice(len(members), 2, replace=False)
            return members[one], members[other], True
        if self.labeled and self.rng.random() < self.settings.label_share:
            group = list(self.labeled)[int(self.rng.integers(len(self.labeled)))]
            first, second = self.rng.choice(len(self.labeled[group]), 2, replace=False)
            return self.labeled[group][first], self.labeled[group][second], True
        if len(self.cases) == 1:
            return self.cases[0], self.cases[0], False
        first, second = self.rng.choice(len(self.cases), 2, replace=False, p=self.probability)
        return self.cases[first], self.cases[second], False

    def _views(self, case: Case, shape: tuple[int, int, int], labeled: bool) -> list[View]:
        s = self.settings
        size = torch.tensor(shape, dtype=torch.float32)
        middle = case.points.mean(0)
        anchor = case.points[int(self.rng.integers(len(case.points)))]
        keys = [k for k, shape_ in case.labels.items() if shape_.whole]
        if labeled and keys:
            key = keys[int(self.rng.integers(len(keys)))]
            anchor = torch.from_numpy(case.labels[key].centroid).float()
        center = anchor + (middle - anchor) * self._uniform(0.1, 0.7, 1)
        views = []
        for _ in range(2):
            shift = self._uniform(-0.5, 0.5, 3) * size * (size > 1) * s.view_shift
            views.append(
                random_view(
                    center + shift,
                    shape,
                    self.generator,
                    scale=s.scale,
                    rotation_deg=s.rotation_deg,
                    elastic_voxels=s.elastic_voxels,
                    cut_probability=s.cut_probability,
                )
            )
        return views

    def _near(self, points: Tensor, copies: int, case: Case) -> Tensor:
        """Points 4 to 10 voxels from the given ones, inside the body: the negatives that sharpen the peak."""
        repeated = points.repeat_interleave(copies, 0)
        direction = torch.randn(len(repeated), 3, generator=self.generator)
        if case.planar:
            direction[:, 0] = 0.0
        direction = direction / direction.norm(dim=1, keepdim=True).clamp_min(1e-6)
        moved = repeated + direction * self._uniform(3.0, 10.0, len(repeated))[:, None]
        index = moved.round().long()
        size = torch.tensor(case.body.shape)
        inside = ((index >= 0) & (index < size)).all(1)
        moved, index = moved[inside], index[inside]
        return moved[case.body[index[:, 0], index[:, 1], index[:, 2]] > 0]

    def _match(self, first: Case, second: Case) -> Correspondences:
        """Matching points: the same ones in two radiographs of a patient, those of shared labels in two patients."""
        spacing = first.grid.spacing[0]
        if not _same_patient(first, second):
            return correspondences(first.labels, second.labels, self.rng, spacing)
        rows = self.rng.integers(0, len(first.points), 2 * self.settings.label_points)
        one, other = first.points[rows].numpy(), second.points[rows].numpy()
        return Correspondences(one, other, np.full(len(rows), self.settings.ignore_mm / spacing))

    def draw(self, number: int) -> Batch:
        """The batch of this number."""
        self.rng = np.random.default_rng([self.seed, number])
        self.generator.manual_seed(int(self.rng.integers(2**62)))
        s = self.settings
        first, second, use_labels = self._choose()
        shape = s.shapes[int(self.rng.integers(len(s.shapes)))]
        cases = [first, second]
        views = [self._views(case, shape, use_labels) for case in cases]
        labeled, tolerance = None, torch.zeros(0)
        if use_labels:
            match = self._match(first, second)
            if len(match.first):
                keep = self.rng.permutation(len(match.first))[: s.label_points]
                labeled = [
                    PointSet.of(torch.from_numpy(x[keep]).float(), pair)
                    for x, pair in zip((match.first, match.second), views, strict=True)
                ]
                tolerance = torch.from_numpy(match.tolerance[keep]).float()
        candidates, queries = [], []
        for k, case in enumerate(cases):
            chosen = torch.from_numpy(self.rng.integers(0, len(case.points), s.candidates * 2))
            spread = PointSet.of(case.points[chosen], views[k])
            seen = spread.visible[0] & spread.visible[1]
            any_seen = spread.visible[0] | spread.visible[1]
            query = torch.nonzero(seen)[: s.queries, 0]
            parts = [spread.points[query], spread.points[torch.nonzero(any_seen & ~seen)[: s.candidates // 2, 0]]]
            parts.append(spread.points[torch.nonzero(seen)[s.queries : s.candidates, 0]])
            parts.append(self._near(parts[0], 4, case))
            if labeled is not None:
                parts.append(self._near(labeled[k].points, 4, case))
            candidates.append(PointSet.of(torch.cat(parts), views[k]))
            queries.append(torch.arange(len(query)))
        mapped = None
        rough = alignment(first.labels, second.labels) if use_labels else None
        if _same_patient(first, second):
            # Both look from about the same side.
            mapped = [points.points for points in candidates]
        elif rough is not None:
            scale, c1, c2 = rough[0], torch.from_numpy(rough[1]).float(), torch.from_numpy(rough[2]).float()
            mapped = [c2 + scale * (candidates[0].points - c1), c1 + (candidates[1].points - c2) / scale]
        one, other = (next(n for n, known in enumerate(self.cases) if known is case) for case in cases)
        seed = int(self.rng.integers(2**62))
        names = (first.name, second.name)
        return Batch(names, (one, other), views, seed, candidates, queries, labeled, tolerance, mapped)
