"""Instance optimization compares points as a dense evaluation would, descends along the true slope, ends in time."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from samconvex.deform.adam import PATIENCE, Comparison, optimize, settled
from samconvex.features.mind import mind_ssc
from samconvex.settings.registration import AdamSettings
from samconvex.space.field import DisplacementField
from samconvex.space.grid import Grid
from samconvex.space.sampling import sample
from samconvex.space.volume import FeatureMap

GRID = Grid((9, 7, 8), (2.0, 3.0, 2.5), (-40.0, 11.0, 3.0))
MOTION = torch.tensor([4.0, -2.5, 3.0])


def random_pair(grid: Grid = GRID, wide: Grid | None = None, channels: int = 5):
    """Features of two images in float64, a weight that is zero in a third of the voxels, and displacements."""
    generator = torch.Generator().manual_seed(4)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    wide = wide or grid.padded(2)
    weight = (drawn(1, 1, *grid.shape) - 0.33).clamp(min=0)
    u = (drawn(1, 3, *grid.shape) - 0.5) * 14
    return (
        FeatureMap(drawn(1, channels, *grid.shape), grid),
        FeatureMap(drawn(1, channels, *wide.shape), wide),
        weight,
        u,
    )


def dense_distance(
    fixed: FeatureMap, moving: FeatureMap, weight: torch.Tensor, u: torch.Tensor
) -> tuple[float, torch.Tensor]:
    """The same energy of all voxels by ``grid_sample``, and its derivative by autograd."""
    u = u.clone().requires_grad_(True)
    grid = fixed.grid
    points = grid.voxel_centers(reference=grid.center, dtype=torch.float64) + u[0].permute(1, 2, 3, 0)
    warped = sample(moving.tensor, moving.grid, points, reference=grid.center)
    energy = 0.5 * ((warped - fixed.tensor).square().sum(1, keepdim=True) * weight).sum() / weight.sum()
    energy.backward()
    return float(energy.detach()), u.grad


def at_counted(comparison: Comparison, u: torch.Tensor) -> torch.Tensor:
    return u.flatten(2)[0, :, comparison.counted]


@pytest.mark.parametrize("wide", [GRID.padded(2), GRID.padded(-1), Grid((9, 7, 1), (2.0, 3.0, 2.5), (-40, 11, 10))])
def test_points_are_compared_as_all_voxels_would_be(wide):
    fixed, moving, weight, u = random_pair(wide=wide)
    comparison = Comparison(fixed, moving, weight)
    energy, slope = comparison.distance(at_counted(comparison, u))
    expected, gradient = dense_distance(fixed, moving, weight, u)
    assert 0 < len(comparison.counted) < 0.8 * GRID.voxel_count
    assert energy == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(slope, at_counted(comparison, gradient), rtol=1e-4, atol=1e-8)


def test_the_slope_agrees_with_finite_differences():
    fixed, moving, weight, u = random_pair()
    comparison = Comparison(fixed, moving, weight)
    moved = at_counted(comparison, u)
    direction = torch.randn(moved.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    slope = float((comparison.distance(moved)[1] * direction).sum())
    step = 1e-6
    ahead, behind = (comparison.distance(moved + sign * step * direction)[0] for sign in (1, -1))
    assert slope == pytest.approx((ahead - behind) / (2 * step), rel=1e-4)


def test_what_does_not_count_has_no_part():
    fixed, moving, weight, u = random_pair()
    broken = FeatureMap(torch.where(weight > 0, fixed.tensor, torch.nan), fixed.grid)
    comparison = Comparison(broken, moving, weight)
    energy, slope = comparison.distance(at_counted(comparison, u))
    assert energy > 0 and bool(slope.isfinite().all())


def test_channels_that_say_nothing_are_left_out():
    fixed, moving, weight, u = random_pair()
    both = [FeatureMap(torch.cat([f.tensor, torch.zeros_like(f.tensor)], 1), f.grid) for f in (fixed, moving)]
    whole, wider = Comparison(fixed, moving, weight), Comparison(*both, weight)
    moved = at_counted(whole, u)
    assert wider.channels == whole.channels == 5
    assert wider.distance(moved)[0] == whole.distance(moved)[0]
    # One that only the moving image has counts.
    both[1].tensor[:, 7] = 1.0
    assert Comparison(*both, weight).channels == 6


def mixed(features: FeatureMap, channels: int) -> FeatureMap:
    """As many channels, each a sum of the few there are, and nearly constant ones of large values."""
    generator = torch.Generator().manual_seed(9)
    sums = torch.rand(channels, features.tensor.shape[1], generator=generator, dtype=torch.float64)
    tensor = torch.einsum("cf,bfzyx->bczyx", sums, features.tensor)
    return FeatureMap(torch.cat([tensor, tensor[:, :2] * 1e-4 + 5], 1), features.grid)


def test_principal_components_compare_what_scatters():
    fixed, moving, weight, u = random_pair(channels=3)
    fixed, moving = mixed(fixed, 9), mixed(moving, 9)
    whole, few = Comparison(fixed, moving, weight), Comparison(fixed, moving, weight, components=3)
    assert (whole.channels, few.channels) == (11, 3)
    found, expected = (comparison.distance(at_counted(whole, u)) for comparison in (few, whole))
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-4, atol=1e-7)
    # One component less misses something; more than there are channels changes nothing.
    assert Comparison(fixed, moving, weight, components=2).distance(at_counted(whole, u))[0] < 0.98 * expected[0]
    assert Comparison(fixed, moving, weight, components=40).distance(at_counted(whole, u))[0] == expected[0]


def waves(of: Grid, center, shift: torch.Tensor) -> FeatureMap:
    x, y, z = (of.voxel_centers(reference=center) - shift).unbind(-1)
    channels = [torch.sin(x / 9), torch.cos(y / 8), torch.sin((z + x) / 10), torch.cos((y - z) / 9)]
    return FeatureMap(torch.stack(channels)[None], of)


def refined(settings: AdamSettings, weight: torch.Tensor | None = None) -> tuple[torch.Tensor, list[float]]:
    """The displacement (3, D, H, W) found for a known motion, and the reported fractions."""
    grid = Grid((16, 15, 14), (4.0, 4.0, 4.0), (-31.0, 12.0, 5.0))
    dense = grid.subdivided(settings.subdivision)
    wide = grid.padded(4).subdivided(settings.subdivision)
    fixed, moving = waves(dense, grid.center, torch.zeros(3)), waves(wide, grid.center, MOTION)
    weight = torch.ones(1, 1, *dense.shape) if weight is None else weight
    reports: list[float] = []
    start = DisplacementField.zeros(grid)
    found = optimize(start, fixed, moving, weight, settings, grid=grid, report=reports.append)
    return found.tensor[0], reports


@pytest.mark.parametrize("parts", [1, 2])
def test_a_known_motion_is_found_in_millimeters(parts):
    found, reports = refined(AdamSettings(subdivision=parts, step_mm=1.0, regularization=0.01, enough=0.0))
    error = (found.permute(1, 2, 3, 0) - MOTION).norm(dim=-1)
    assert float(error.mean()) < 0.6
    assert reports[-1] == 1.0 and reports == sorted(reports)


def test_it_ends_when_it_gains_next_to_nothing():
    settings = AdamSettings(iterations=300, step_mm=0.5, regularization=0.01, enough=0.02)
    found, reports = refined(settings)
    assert PATIENCE < len(reports) < 100
    assert float((found.permute(1, 2, 3, 0) - MOTION).norm(dim=-1).mean()) < 1.5


def test_without_a_rule_every_step_is_taken():
    assert len(refined(AdamSettings(iterations=30, step_mm=1.0, enough=0.0))[1]) == 31


def test_the_rule_looks_at_what_was_gained_and_not_at_the_energy_that_remains():
    falling = [10.0, 9.0, 8.2, 7.5, 6.9, 6.4]
    assert not settled(falling, 0.02)
    assert settled([*falling, 6.39, 6.4, 6.38, 6.385, 6.39, 6.38], 0.02)
    offset = [1000 + energy for energy in falling]
    assert not settled(offset, 0.02)
    assert settled([5.0, *[6.0] * PATIENCE], 0.02)
    assert not settled([5.0, 6.0, 7.0], 0.02)


def test_steps_far_too_long_do_not_worsen_the_start():
    found, _ = refined(AdamSettings(iterations=6, step_mm=80.0, regularization=0.01))
    assert float(found.abs().max()) == 0.0


def test_voxels_without_weight_follow_their_neighbors():
    grid = Grid((16, 15, 14), (4.0, 4.0, 4.0))
    weight = torch.ones(1, 1, *grid.shape)
    weight[..., :4] = 0
    found, _ = refined(AdamSettings(step_mm=1.0, regularization=0.01, iterations=60, enough=0.0), weight)
    assert F.mse_loss(found[:, 7, 7, 1], MOTION) < 1.0


def test_where_nothing_counts_the_start_is_only_smoothed():
    grid = Grid((16, 15, 14), (4.0, 4.0, 4.0))
    found, _ = refined(AdamSettings(iterations=10), torch.zeros(1, 1, *grid.shape))
    assert float(found.abs().max()) == 0.0


def bent_pair() -> tuple[FeatureMap, FeatureMap, torch.Tensor, Grid]:
    """MIND of an image and of the same bent to and fro every 64 mm, as organs of two people differ."""
    grid = Grid((20, 18, 16), (4.0, 4.0, 4.0))
    wide = grid.padded(3)
    generator = torch.Generator().manual_seed(3)
    texture = F.avg_pool3d(torch.rand(1, 1, 58, 60, 64, generator=generator), 5, 1)
    source = Grid(texture.shape[:1:-1], (2.0, 2.0, 2.0), (-21.0, -21.0, -21.0))
    features = []
    for dense in (grid.subdivided(2), wide.subdivided(2)):
        points = dense.voxel_centers(reference=grid.center)
        shift = bend(points) if dense.size[0] == 40 else torch.zeros_like(points)
        seen = sample(texture, source, points + shift, reference=grid.center)
        features.append(F.avg_pool3d(mind_ssc(seen), 2))
    truth = bend(grid.voxel_centers(reference=grid.center))
    return FeatureMap(features[0], grid), FeatureMap(features[1], wide), truth, grid


def bend(points: torch.Tensor) -> torch.Tensor:
    """(..., 3) mm at points in mm."""
    return 3.0 * torch.sin(points.roll(1, -1) * (2 * torch.pi / 64.0))


def left_of_the_bend(settings: AdamSettings) -> float:
    """Mean remaining error of what was to be found, as a share of it, away from the border."""
    fixed, moving, truth, grid = bent_pair()
    weight = torch.ones(1, 1, *grid.shape)
    start = DisplacementField.zeros(grid)
    found = optimize(start, fixed, moving, weight, settings, grid=grid, report=lambda fraction: None)
    inner = (slice(2, -2),) * 3
    return float(
        (found.tensor[0].permute(1, 2, 3, 0) - truth)[inner].norm(dim=-1).mean() / truth[inner].norm(dim=-1).mean()
    )


def test_the_default_weight_lets_people_differ():
    # With ten times the weight 0.39 is left.
    assert left_of_the_bend(AdamSettings()) < 0.25
