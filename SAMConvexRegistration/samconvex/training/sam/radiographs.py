"""Radiographs of the training CTs as planar cases: one patient from several sides, with the place of every point."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from ...networks.sam_compact import SAMCompact
from ...space.volume import Volume
from ...synthetic.radiograph import Projection, radiograph
from ..data.cases import AIR, Case
from ..data.landmarks import LabelShape
from .settings import SamSettings
from .validation import embed, match

VIEWS = {"front": 0.0, "side": 90.0}
POINTS = 3000
DENSE_HU = 150
STEP_MM = 3.0
# Of the first radiograph of every side: the usual distance of a chest X-ray.
SOURCE_MM = 1800.0


def make_radiographs(cases: list[Case], settings: SamSettings, report: Callable[[float], None]) -> list[Case]:
    """``settings.radiographs`` of every CT from the front and from the side, the first of each from exactly there."""
    result = []
    for number, case in enumerate(cases):
        random = np.random.default_rng([settings.seed, number])
        points = body_points(case, random)
        for view, turn in VIEWS.items():
            for index in range(settings.radiographs):
                projection = Projection.at_angles(case.grid.center, turn, source_mm=SOURCE_MM)
                if index:
                    projection = random_projection(case.grid.center, turn, random)
                bone = float(random.uniform(1.0, 2.0)) if index else 1.0
                result.append(planar_case(case, projection, points, f"{index} {view}", bone))
        report((number + 1) / len(cases))
    return result


def random_projection(isocenter: np.ndarray, turn: float, random: np.random.Generator) -> Projection:
    """A patient hardly ever stands straight; some rays are as good as parallel."""
    source = math.inf if random.random() < 0.2 else float(np.exp(random.uniform(np.log(700.0), np.log(2500.0))))
    angles = turn + random.uniform(-20, 20), random.uniform(-10, 10), random.uniform(-5, 5)
    return Projection.at_angles(isocenter + random.uniform(-30, 30, 3), *angles, source_mm=source)


def body_points(case: Case, random: np.random.Generator) -> np.ndarray:
    """(n, 3) LPS mm of points in the body, half of them in bone, which X-rays show best."""
    index = case.points.round().long()
    index = torch.minimum(index.clamp(min=0), torch.tensor(case.body.shape) - 1)
    dense = (case.hu[0, 0, index[:, 0], index[:, 1], index[:, 2]] > DENSE_HU).numpy()
    chosen = [random.permutation(np.flatnonzero(part))[: POINTS // 2] for part in (dense, ~dense)]
    return case.grid.voxels_to_points(case.points.numpy()[np.concatenate(chosen), ::-1])


def planar_case(case: Case, projection: Projection, points: np.ndarray, view: str, bone: float = 1.0) -> Case:
    """The radiograph of a CT case as a case of its own; tubular labels do not come along."""
    spacing = case.grid.spacing[0]
    grid = projection.grid(case.grid.corners(), spacing)
    image = radiograph(Volume(case.masked.clamp(min=AIR), case.grid), projection, grid, step_mm=STEP_MM, bone=bone)

    def pixels(voxels: np.ndarray) -> np.ndarray:
        return grid.points_to_voxels(projection.project(case.grid.voxels_to_points(voxels[:, ::-1])))[:, ::-1].copy()

    labels = {}
    for value, shape in case.labels.items():
        if shape.axis is None:
            inner = pixels(shape.points)
            labels[value] = LabelShape(
                pixels(shape.centroid[None])[0],
                np.cov(inner.T) + np.eye(3) * 0.1,
                inner,
                pixels(shape.extremes),
                shape.whole,
            )
    places = torch.from_numpy(grid.points_to_voxels(projection.project(points))[:, ::-1].copy()).float()
    places[:, 0] = 0.0
    body = (image.tensor[0, 0] > 0.02 * image.tensor.max()).to(torch.uint8)
    name, group = f"{case.name}#{view}", f"{case.group} {view.split()[-1]}"
    return Case(name, group, image.tensor, image.tensor, body, places, grid, labels)


def view_errors(network: SAMCompact, cases: list[Case], count: int = 30) -> dict[int, list[float]]:
    """Distances in mm, in the image, of body points of the first radiograph of a patient matched into the second."""
    was_training = network.training
    network.eval()
    by_name = {case.name: case for case in cases}
    errors: dict[int, list[float]] = {0: []}
    for case in cases:
        other = by_name.get(case.name.replace("#0 ", "#1 "))
        if "#0 " not in case.name or other is None:
            continue
        rows = np.linspace(0, len(case.points) - 1, count).astype(int)
        found = match(network, embed(network, case), case.points[rows], embed(network, other), other.body)
        errors[0] += ((found - other.points[rows]).norm(dim=1) * network.spacing_mm).tolist()
    network.train(was_training)
    return errors
