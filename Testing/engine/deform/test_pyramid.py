"""Features of both images on the solver's grids: warped and described, or read where points come to lie."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from engine.sam_fixtures import GRID, random_model, textured_body
from samconvex.anatomy.embed import embed
from samconvex.deform import pyramid
from samconvex.deform.correlation import LocalCorrelation
from samconvex.deform.pyramid import affordable, run_pyramid
from samconvex.deform.scene import Scene, View, described
from samconvex.features.mind import Mind
from samconvex.features.sam import SamPair
from samconvex.settings.registration import FORBIDDEN, Level
from samconvex.space.field import DisplacementField
from samconvex.space.grid import Grid
from samconvex.space.intensity import normalized_intensity
from samconvex.space.transforms import AffineTransform, Transform
from samconvex.space.volume import FeatureMap, Volume

SHIFT = np.array([12.0, -8.0, 4.0])
CONTROL = Grid.covering(GRID.center + np.array([[-50.0, -40.0, -50.0], [50.0, 40.0, 50.0]]), 8.0)


@pytest.fixture(scope="module")
def bodies() -> tuple[Volume, Volume]:
    """A body, and the same one further along ``SHIFT``."""
    body = textured_body(0)
    return body, replace(body, grid=replace(GRID, origin=tuple(np.add(GRID.origin, SHIFT))))


@pytest.fixture(scope="module")
def embeddings(bodies):
    return tuple(embed(volume, random_model()) for volume in bodies)


def scene_of(bodies: tuple[Volume, Volume], initial: Transform | None = None) -> Scene:
    images = (volume.with_tensor(normalized_intensity(volume)) for volume in bodies)
    box = GRID.center + np.array([[-60.0, -50.0, -60.0], [60.0, 50.0, 60.0]])
    return Scene(*images, initial or Transform(), box)


def relative(points: np.ndarray, reference: np.ndarray) -> torch.Tensor:
    return torch.as_tensor(points - reference, dtype=torch.float32)[None, None]


def test_embeddings_are_read_in_each_images_own_frame(embeddings) -> None:
    pair = SamPair(*embeddings, channels=0)
    # At voxel centers, where nothing is interpolated.
    points = embeddings[0].search.places[::50].double().numpy() + embeddings[0].fine.grid.center
    here = pair.at("fixed", relative(points, GRID.center), GRID.center)
    there = pair.at("moving", relative(points + SHIFT, GRID.center), GRID.center)
    elsewhere = pair.at("moving", relative(points, GRID.center), GRID.center)
    assert float(here.square().sum(1).mean()) == pytest.approx(1.0, abs=0.01)
    assert float((here * there).sum(1).mean()) > 0.95
    assert float((here * elsewhere).sum(1).mean()) < 0.8


def test_outside_the_body_a_descriptor_is_zero(embeddings) -> None:
    pair = SamPair(*embeddings)
    corner = relative(GRID.corners()[:1] + 4.0, GRID.center)
    assert not pair.at("fixed", corner, GRID.center).any()
    assert pair.at("fixed", relative(GRID.center[None], GRID.center), GRID.center).any()


def test_fewer_channels_keep_the_share_of_the_distances_they_state(embeddings) -> None:
    points = GRID.center + np.random.default_rng(1).uniform(-50, 50, (400, 3))
    read = [
        SamPair(*embeddings, channels=channels).at("fixed", relative(points, GRID.center), GRID.center)[0, :, 0, 0]
        for channels in (0, 8)
    ]
    whole, reduced = (torch.pdist(vectors.T).square() for vectors in read)
    pair = SamPair(*embeddings, channels=8)
    assert read[1].shape[0] == 8
    assert 0.3 < pair.kept < 0.999
    assert float(reduced.sum() / whole.sum()) == pytest.approx(pair.kept, abs=0.05)
    assert bool((reduced <= whole + 1e-4).all())


class _Ramp:
    """A descriptor of the image: its intensities, times a factor."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, volume: Volume) -> FeatureMap:
        return FeatureMap(volume.tensor * self.factor, volume.grid)


def test_weights_multiply_the_costs_of_their_descriptors(bodies) -> None:
    scene = scene_of(bodies)
    descriptors = {"one": _Ramp(1.0), "three": _Ramp(3.0)}
    distances = []
    for weights in ((), (2.0, 0.5)):
        fixed, moving = (
            described(View(scene, side), descriptors.__getitem__, ("one", "three"), weights, CONTROL, 2).tensor
            for side in ("fixed", "moving")
        )
        distances.append((fixed - moving).square())
    torch.testing.assert_close(distances[1][:, 0], 2.0 * distances[0][:, 0])
    torch.testing.assert_close(distances[1][:, 1], 0.5 * distances[0][:, 1])


def test_an_image_on_a_subdivided_grid_is_the_one_sampled_there(bodies) -> None:
    turn = np.array([[0.98, -0.2, 0.0], [0.2, 0.97, 0.05], [0.0, -0.05, 1.02]])
    scene = scene_of(bodies, Transform((AffineTransform(turn, GRID.center - turn @ GRID.center + SHIFT),)))
    wave = torch.sin(torch.arange(CONTROL.voxel_count * 3.0)).view(1, 3, *CONTROL.shape)
    bend = DisplacementField(2.0 * wave, CONTROL)
    for view, chain, source in (
        (View(scene, "fixed"), Transform(), scene.fixed),
        (View(scene, "moving"), scene.initial, scene.moving),
        (View(scene, "moving", bend), scene.chain(bend), scene.moving),
    ):
        direct = chain.warp_volume(source, CONTROL.subdivided(2), background=0.0).tensor
        quick = view.image(CONTROL, 2).tensor
        # Beyond the field's own samples its values end and the shortcut continues them.
        inner = (..., *(slice(2, -2),) * 3)
        torch.testing.assert_close(quick[inner], direct[inner], atol=2e-3, rtol=0)


class _Checker:
    """Features of both images: +1 and -1 in alternating blocks of 4 mm along x."""

    spacing_mm = 2.0

    def at(self, side: str, points: torch.Tensor, reference: np.ndarray) -> torch.Tensor:
        cell = torch.div(points[..., 0] + float(reference[0]) - CONTROL.origin[0] + 4.0, 4.0, rounding_mode="floor")
        return (1.0 - 2.0 * (cell % 2))[None, None]


def test_finer_features_are_averaged_on_a_coarse_grid(bodies) -> None:
    view = View(scene_of(bodies), "fixed")
    read = described(view, lambda _: _Checker(), ("checker",), (), CONTROL, 1).tensor
    torch.testing.assert_close(read, torch.zeros_like(read))


@pytest.mark.parametrize(("names", "consistent"), [(("sam",), False), (("sam-fine",), False), (("sam",), True)])
def test_embeddings_alone_find_a_shift(bodies, embeddings, names: tuple[str, ...], consistent: bool) -> None:
    pair = SamPair(*embeddings, "both" if names == ("sam",) else "fine")
    levels = tuple(Level(spacing, 2, features=names, consistent=consistent) for spacing in (12.0, 6.0))
    field = run_pyramid(scene_of(bodies), lambda _: pair, levels, coupling=0.01)
    found = field.map_points(GRID.center[None] + np.array([[0, 0, 0], [20, 10, -10], [-20, -10, 15.0]]))
    expected = GRID.center + np.array([[0, 0, 0], [20, 10, -10], [-20, -10, 15.0]]) + SHIFT
    assert np.abs(found - expected).max() < 2.5


def test_the_moving_points_go_through_the_initial_transform(bodies, embeddings) -> None:
    start = Transform((AffineTransform(np.eye(3), SHIFT),))
    pair = SamPair(*embeddings)
    fixed, moving = (
        described(View(scene_of(bodies, start), side), lambda _: pair, ("sam",), (), CONTROL, 1).tensor
        for side in ("fixed", "moving")
    )
    assert float((fixed - moving).square().sum(1).mean()) < 0.02


def test_levels_grow_coarser_where_much_counts_but_no_further_than_they_may() -> None:
    levels = [Level(6.0, 2), Level(2.5, 2, coarsest=3.0), Level(2.0, 1, coarsest=3.0)]
    assert affordable(levels, 1e6) == levels
    first, second, third = affordable(levels, 14e6)
    assert (first, second) == tuple(levels[:2]) and 2.0 < third.spacing < 2.4 and 14e6 / third.spacing**3 < 1.3e6
    # The last one has become as coarse as the one before.
    first, second = affordable(levels, 26e6)
    assert 2.5 < second.spacing < 3.0 and 26e6 / second.spacing**3 < 1.3e6
    assert affordable(levels, 1e9) == [levels[0], replace(levels[1], spacing=3.0)]


@pytest.mark.parametrize(("strict", "expected"), [(False, -0.5), (True, FORBIDDEN)])
def test_a_users_mask_forbids_what_a_level_would_allow(bodies, monkeypatch, strict: bool, expected: float) -> None:
    asked = []

    def recorded(*args, unseen: float, **options) -> LocalCorrelation:
        asked.append(unseen)
        return LocalCorrelation(*args, unseen=unseen, **options)

    monkeypatch.setattr(pyramid, "LocalCorrelation", recorded)
    level = Level(12.0, 1, unseen=-0.5, consistent=True)
    run_pyramid(replace(scene_of(bodies), strict=strict), lambda name: Mind(), [level], coupling=0.1)
    assert asked == [expected] * 2
