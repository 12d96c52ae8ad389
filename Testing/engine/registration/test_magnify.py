"""Animals and phantoms: registered at any size, and said; humans and crops of them as before."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import samconvex as sc
import torch
from engine.phantom_fixtures import QUICK, error
from samconvex.registration.magnify import Magnification
from samconvex.space.grid import Grid
from samconvex.space.transforms import AffineTransform, Transform
from samconvex.space.volume import Volume
from samconvex.synthetic.phantom import Phantom


def resized(volume: Volume, factor: float) -> Volume:
    return replace(volume, grid=volume.grid.scaled(factor))


class Resized:
    """The known warp of a body that is ``factor`` times as large."""

    def __init__(self, truth, factor: float) -> None:
        self.truth, self.factor = truth, factor

    def map_points(self, points: np.ndarray) -> np.ndarray:
        return self.truth.map_points(points / self.factor) * self.factor


@pytest.mark.parametrize("factor", [0.05, 20.0])
def test_a_body_of_any_size_is_registered_as_well_as_a_humans(phantom: Phantom, breath, inside, factor: float) -> None:
    moving, truth = breath
    human = sc.register(phantom.ct, moving, preset=QUICK)
    small = sc.register(
        resized(phantom.ct, factor),
        resized(moving, factor),
        preset=QUICK,
        fixed_labels=resized(phantom.labels, factor),
        moving_labels=resized(phantom.labels, factor),
    )
    left = error(small.fixed_to_moving, Resized(truth, factor), inside * factor) / factor
    assert left == pytest.approx(error(human.fixed_to_moving, truth, inside), abs=0.3)
    assert left < 0.6 * error(Transform(), truth, inside)
    assert small.jacobian is not None and human.jacobian is not None
    there = small.fixed_to_moving.map_points(inside * factor)
    assert np.abs(small.moving_to_fixed.map_points(there) - inside * factor).mean() < 0.5 * factor
    assert any("far from a human body" in warning for warning in small.report["warnings"])
    # Gathered at the true size, the evidence on a large body took minutes and gigabytes.
    of = [result.report["verdict"]["evidence"] for result in (small, human)]
    assert of[0]["near_percent"] == pytest.approx(of[1]["near_percent"], abs=10.0)
    assert not any("far from a human body" in warning for warning in human.report["warnings"])
    assert set(small.report["dice"]["final"]) == {str(n) for n in np.unique(phantom.labels.tensor) if n}
    assert small.report["folding_percent"] == pytest.approx(human.report["folding_percent"], abs=0.1)


def test_the_initial_transform_of_a_small_body_is_in_its_own_millimeters(phantom: Phantom) -> None:
    shift = np.array([2.0, -1.0, 0.5])
    start = Transform((AffineTransform(np.eye(3), shift),))
    small = resized(phantom.ct, 0.05)
    preset = replace(QUICK, levels=())
    result = sc.register(small, small, preset=preset, initial_transform=start)
    points = small.grid.corners()
    np.testing.assert_allclose(result.fixed_to_moving.map_points(points), points + shift, atol=1e-6)


def test_crops_of_humans_are_left_alone() -> None:
    def image(size: int, spacing: float) -> Volume:
        grid = Grid((size, size, size), (spacing, spacing, spacing))
        return Volume(torch.rand(1, 1, *grid.shape), grid)

    hippocampus, thorax, mouse = image(40, 1.0), image(160, 2.5), image(100, 0.3)
    assert Magnification.of(hippocampus, hippocampus) == Magnification()
    assert Magnification.of(thorax, hippocampus) == Magnification()
    assert Magnification.of(mouse, mouse).factor == pytest.approx(400 / 30)
    assert Magnification.of(image(40, 100.0), thorax).factor == pytest.approx(0.1)
