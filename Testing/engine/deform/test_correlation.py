"""The correlation is exact, masks what has no data, and means the same whatever memory it may use."""

from __future__ import annotations

import pytest
import torch
from samconvex.deform.convex import coupled_convex
from samconvex.deform.correlation import LocalCorrelation
from samconvex.settings.registration import FORBIDDEN
from samconvex.space.filters import continued

RADIUS = 2
SHAPE = (5, 9, 21)


@pytest.fixture(scope="module")
def features() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(1, 6, *SHAPE), torch.randn(1, 6, *(s + 2 * RADIUS for s in SHAPE))


def naive(fixed: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
    """(D H W, K) costs by one subtraction per displacement."""
    depth, height, width = fixed.shape[2:]
    reach = range(2 * RADIUS + 1)
    columns = []
    for z in reach:
        for y in reach:
            for x in reach:
                shifted = moving[:, :, z : z + depth, y : y + height, x : x + width]
                columns.append(0.5 * (fixed - shifted).square().sum(1).flatten())
    return torch.stack(columns, 1)


def all_costs(correlation: LocalCorrelation) -> torch.Tensor:
    costs = torch.full((SHAPE[0] * SHAPE[1] * SHAPE[2], correlation.count), torch.nan)
    for _, voxels, part in correlation:
        costs[voxels] = part.float()
    return costs


def test_costs_equal_the_naive_sum(features: tuple[torch.Tensor, torch.Tensor]) -> None:
    torch.testing.assert_close(all_costs(LocalCorrelation(*features, RADIUS)), naive(*features), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("budget", [1, 100_000, 1 << 30])
def test_memory_budget_changes_nothing_but_memory(features: tuple, budget: int) -> None:
    correlation = LocalCorrelation(*features, RADIUS, memory_budget=budget)
    first, second = all_costs(correlation), all_costs(correlation)
    torch.testing.assert_close(first, naive(*features), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(first, second)


def test_reduced_precision_stays_within_its_rounding(features: tuple) -> None:
    unit = tuple(torch.nn.functional.normalize(f, dim=1) for f in features)
    costs = all_costs(LocalCorrelation(*unit, RADIUS, dtype=torch.bfloat16))
    # bfloat16 holds 8 bits: two rounded unit vectors, their squares and the rounded product, 2^-8 each at worst.
    assert float((costs - naive(*unit)).abs().max()) < 2**-6


def test_candidates_are_named_in_the_order_of_the_costs(features: tuple) -> None:
    fixed, _ = features
    moving = torch.full((1, 6, *(s + 2 * RADIUS for s in SHAPE)), 9.0)
    z, y, x = 2, -1, 1
    start = [RADIUS + s for s in (z, y, x)]
    moving[:, :, start[0] : start[0] + 5, start[1] : start[1] + 9, start[2] : start[2] + 21] = fixed
    correlation = LocalCorrelation(fixed, moving, RADIUS)
    best = correlation.displacements()[all_costs(correlation).argmin(1)]
    assert (best == torch.tensor([x, y, z], dtype=torch.float32)).all()


def test_candidates_without_data_are_never_chosen(features: tuple) -> None:
    valid = torch.ones(1, 1, *features[1].shape[2:], dtype=torch.bool)
    valid[..., :6] = False
    correlation = LocalCorrelation(*features, RADIUS, valid=valid)
    costs = all_costs(correlation).view(*SHAPE, -1)
    to_left = correlation.displacements()[:, 0]
    # Voxel x = 3 sits at 5 of the padded map: candidates that stay or go left have no data, +1 and +2 do.
    assert float(costs[:, :, 3, to_left <= 0].min()) > FORBIDDEN / 2
    assert float(costs[:, :, 3, to_left >= 1].max()) < FORBIDDEN / 2


def test_candidates_without_data_cost_as_much_more_as_wanted(features: tuple) -> None:
    valid = torch.ones(1, 1, *features[1].shape[2:], dtype=torch.bool)
    valid[..., :6] = False
    costs = all_costs(LocalCorrelation(*features, RADIUS, valid=valid, unseen=-0.5)).view(*SHAPE, -1)
    plain = all_costs(LocalCorrelation(*features, RADIUS)).view(*SHAPE, -1)
    to_left = LocalCorrelation(*features, RADIUS).displacements()[:, 0] <= 0
    torch.testing.assert_close((costs - plain)[:, :, 3], -0.5 * to_left.expand(*SHAPE[:2], -1), atol=1e-4, rtol=0)


def test_voxels_without_weight_are_left_out(features: tuple) -> None:
    weight = torch.zeros(1, 1, *SHAPE)
    weight[0, 0, 1:3, 4:7, 10:] = 0.5
    costs = all_costs(LocalCorrelation(*features, RADIUS, weight=weight))
    counted = weight.flatten() > 0
    assert costs[~counted].isnan().all()
    torch.testing.assert_close(costs[counted], 0.5 * naive(*features)[counted], atol=1e-4, rtol=1e-5)


def test_features_of_the_wrong_size_are_refused(features: tuple) -> None:
    with pytest.raises(ValueError, match="must have shape"):
        LocalCorrelation(features[0], features[0], RADIUS)


def shifted_texture(shift: tuple[int, int, int], radius: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    texture = torch.randn(1, 4, 40, 40, 40)
    size, margin = 16, 12
    fixed = texture[:, :, margin : margin + size, margin : margin + size, margin : margin + size]
    z, y, x = (margin - radius - s for s in shift[::-1])
    wide = size + 2 * radius
    return fixed, texture[:, :, z : z + wide, y : y + wide, x : x + wide]


def test_the_solver_returns_millimeters_on_anisotropic_grids() -> None:
    fixed, moving = shifted_texture((2, -1, 3), 3)
    spacing = (4.0, 5.0, 6.0)
    u = coupled_convex(LocalCorrelation(fixed, moving, 3), spacing, coupling_per_mm2=0.01)
    expected = torch.tensor([8.0, -5.0, 18.0]).view(1, 3, 1, 1, 1)
    assert float((u - expected).abs().max()) < 1e-3


def test_flat_regions_do_not_move_and_follow_their_neighbors() -> None:
    fixed, moving = torch.ones(1, 4, 8, 8, 8), torch.ones(1, 4, 14, 14, 14)
    u = coupled_convex(LocalCorrelation(fixed, moving, 3), (4.0, 4.0, 4.0), coupling_per_mm2=0.01)
    assert float(u.abs().max()) == 0.0


def test_stronger_coupling_is_stiffer() -> None:
    torch.manual_seed(3)
    fixed, moving = torch.rand(1, 4, 12, 12, 12), torch.rand(1, 4, 18, 18, 18)

    def roughness(coupling: float) -> float:
        u = coupled_convex(LocalCorrelation(fixed, moving, 3), (4.0,) * 3, coupling_per_mm2=coupling)
        return float(sum(u.diff(dim=axis).square().mean() for axis in (2, 3, 4)))

    assert roughness(1.0) < 0.5 * roughness(0.001)


def test_unweighted_voxels_take_their_neighbors_motion() -> None:
    fixed, moving = shifted_texture((2, 0, 0), 3)
    weight = torch.ones(1, 1, 16, 16, 16)
    weight[:, :, :, :, 7:9] = 0
    correlation = LocalCorrelation(fixed, moving, 3, weight=weight)
    u = coupled_convex(correlation, (4.0,) * 3, coupling_per_mm2=0.01, weight=weight)
    assert float((u[:, 0] - 8.0).abs().max()) < 0.5


def test_the_motion_goes_on_far_into_what_does_not_count() -> None:
    fixed, moving = shifted_texture((2, 0, 0), 3)
    weight = torch.zeros(1, 1, 16, 16, 16)
    weight[:, :, :, :, :5] = 1
    correlation = LocalCorrelation(fixed, moving, 3, weight=weight)
    u = coupled_convex(correlation, (4.0,) * 3, coupling_per_mm2=0.01, weight=weight)
    assert float((u[:, 0] - 8.0).abs().max()) < 0.5


def test_continued_values_are_kept_where_known_and_smooth_beyond() -> None:
    torch.manual_seed(4)
    values = torch.rand(1, 2, 9, 10, 11) + torch.arange(11.0)
    known = torch.zeros(1, 1, 9, 10, 11, dtype=torch.bool)
    known[..., 2:4, 3:5] = True
    result = continued(values, known)
    torch.testing.assert_close(result * known, values * known)
    # Means of what is known, so within its range.
    inside = (values * known)[known.expand_as(values)]
    assert float(result.min()) > float(inside.min()) - 1e-5 and float(result.max()) < float(inside.max()) + 1e-5
    # From the known voxels outwards without a jump.
    assert float(result.diff(dim=4).abs().max()) < 2.0
    assert continued(values, ~known.new_zeros(known.shape)) is values and continued(values, known & ~known) is values
