"""The Gauss-Newton system is what the paper says, its solver is exact, differentiable, and finds a known motion."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import samconvex
import torch
from samconvex.anatomy.body import body_mask
from samconvex.deform.diffusion import Linearization, descend, increment, roughness
from samconvex.deform.multigrid import DiffusionSystem, conjugate_gradients, laplacian, solve
from samconvex.errors import InputError
from samconvex.settings.presets import PRESETS
from samconvex.settings.registration import DiffusionSettings, Level
from samconvex.space.field import DisplacementField
from samconvex.space.grid import Grid
from samconvex.space.volume import FeatureMap
from samconvex.synthetic.phantom import make_phantom
from samconvex.synthetic.warps import breathing_warp

SPACING = (2.0, 3.0, 2.5)
ENTRIES = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))


def data_blocks(shape: tuple[int, int, int], seed: int = 0) -> torch.Tensor:
    """Semidefinite blocks of two feature channels, absent in half of the voxels."""
    generator = torch.Generator().manual_seed(seed)
    slopes = torch.randn(1, 3, 2, *shape, generator=generator, dtype=torch.float64)
    blocks = torch.stack([(slopes[:, a] * slopes[:, b]).sum(1) for a, b in ENTRIES], 1)
    return blocks * (torch.rand(1, 1, *shape, generator=generator) > 0.5)


def random_vector(shape: tuple[int, int, int], seed: int = 1) -> torch.Tensor:
    return torch.randn(1, 3, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sparse_matrix(blocks: torch.Tensor, spacing: tuple[float, float, float], regularization: float):
    """The same matrix assembled entry by entry with scipy, rows in the order of (3, D, H, W)."""
    from scipy import sparse

    shape = blocks.shape[2:]
    count = int(np.prod(shape))
    entries = {pair: blocks[0, k].flatten().numpy() for k, pair in enumerate(ENTRIES)}
    data = sparse.bmat([[sparse.diags(entries[min(a, b), max(a, b)]) for b in range(3)] for a in range(3)])
    index = np.arange(count).reshape(shape)
    graph = sparse.csr_matrix((count, count))
    for axis in range(3):
        step = spacing[2 - axis]
        first = np.take(index, range(shape[axis] - 1), axis).ravel()
        second = np.take(index, range(1, shape[axis]), axis).ravel()
        edge = sparse.coo_matrix((np.full(len(first), regularization / step**2), (first, second)), (count, count))
        graph = graph + edge + edge.T
    stiffness = sparse.diags(np.asarray(graph.sum(1)).ravel()) - graph
    ridge = 1e-6 * regularization * sum(s**-2 for s in spacing)
    return (data + sparse.block_diag([stiffness] * 3) + ridge * sparse.identity(3 * count)).tocsc()


def test_the_solution_agrees_with_a_direct_sparse_solver():
    from scipy.sparse.linalg import spsolve

    shape = (7, 10, 9)
    blocks, right = data_blocks(shape), random_vector(shape)
    expected = spsolve(sparse_matrix(blocks, SPACING, 1.7), right.flatten().numpy())
    found = conjugate_gradients(DiffusionSystem(blocks, SPACING, 1.7), right, tolerance=1e-9)
    difference = np.linalg.norm(found.tensor.flatten().numpy() - expected) / np.linalg.norm(expected)
    assert found.residual < 1e-8
    assert difference < 1e-5


def test_the_solution_agrees_with_algebraic_multigrid():
    pyamg = pytest.importorskip("pyamg")
    shape = (12, 9, 11)
    blocks, right = data_blocks(shape), random_vector(shape)
    matrix = sparse_matrix(blocks, SPACING, 5.0).tocsr()
    constant = np.kron(np.eye(3), np.ones((int(np.prod(shape)), 1)))
    reference = pyamg.smoothed_aggregation_solver(matrix, B=constant)
    expected = reference.solve(right.flatten().numpy(), tol=1e-10, accel="cg")
    found = conjugate_gradients(DiffusionSystem(blocks, SPACING, 5.0), right, tolerance=1e-9).tensor
    assert np.linalg.norm(found.flatten().numpy() - expected) / np.linalg.norm(expected) < 1e-5


def test_the_matrix_is_symmetric_and_its_preconditioner_too():
    shape = (5, 8, 6)
    system = DiffusionSystem(data_blocks(shape), SPACING, 0.6)
    matrix = system.matrix()
    torch.testing.assert_close(matrix, matrix.T)
    first, second = random_vector(shape, 3), random_vector(shape, 4)
    forward = float((first * system.precondition(second)).sum())
    assert forward == pytest.approx(float((second * system.precondition(first)).sum()), rel=1e-9)
    assert float((first * system.precondition(first)).sum()) > 0


@pytest.mark.parametrize("regularization", [0.1, 3.0, 100.0])
def test_iterations_do_not_grow_with_the_grid(regularization):
    needed = []
    for shape in ((9, 10, 8), (26, 21, 23)):
        system = DiffusionSystem(data_blocks(shape), (3.0, 3.0, 3.0), regularization)
        needed.append(conjugate_gradients(system, random_vector(shape), tolerance=1e-6).iterations)
    assert max(needed) <= 14
    assert needed[1] <= needed[0] + 4


def test_gradients_agree_with_finite_differences():
    shape = (3, 5, 4)
    blocks = (data_blocks(shape) + 0.5 * torch.tensor([1.0, 1, 1, 0, 0, 0]).view(1, 6, 1, 1, 1)).requires_grad_(True)
    right = random_vector(shape).requires_grad_(True)
    assert torch.autograd.gradcheck(
        lambda b, r: solve(b, r, SPACING, 0.8, tolerance=1e-12),
        (blocks, right),
        eps=1e-6,
        atol=1e-6,
        rtol=1e-4,
        fast_mode=True,
    )


def test_a_step_passes_gradients_to_the_features_of_both_images():
    grid = Grid((5, 4, 6), (2.0, 2.0, 2.0))
    wide = grid.padded(1)
    generator = torch.Generator().manual_seed(5)
    fixed = torch.rand(1, 2, *grid.shape, generator=generator, dtype=torch.float64).requires_grad_(True)
    moving = torch.rand(1, 2, *wide.shape, generator=generator, dtype=torch.float64).requires_grad_(True)
    u = 0.3 * torch.rand(1, 3, *grid.shape, generator=generator, dtype=torch.float64)
    weight = torch.ones(1, 1, *grid.shape, dtype=torch.float64)

    def step(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return increment(Linearization(first, FeatureMap(second, wide), weight, grid), u, 0.5, tolerance=1e-12)

    assert torch.autograd.gradcheck(step, (fixed, moving), eps=1e-6, atol=1e-6, rtol=1e-4, fast_mode=True)


def test_the_laplacian_is_the_derivative_of_the_roughness():
    u = random_vector((4, 5, 6)).requires_grad_(True)
    terms = ((u.diff(dim=axis) / SPACING[4 - axis]).square().sum() for axis in (2, 3, 4))
    (expected,) = torch.autograd.grad(0.5 * 1.3 * sum(terms), u)
    torch.testing.assert_close(laplacian(u.detach(), SPACING, 1.3), expected)
    assert roughness(torch.ones(1, 3, 4, 4, 4), SPACING, 2.0) == 0


def test_descent_finds_a_known_motion_in_millimeters():
    grid = Grid((22, 20, 18), (3.0, 3.0, 3.0), (-31.0, 12.0, 5.0))
    wide = grid.padded(4)

    def features(of: Grid, shift: torch.Tensor) -> torch.Tensor:
        x, y, z = (of.voxel_centers(reference=grid.center) - shift).unbind(-1)
        return torch.stack([torch.sin(x / 9), torch.cos(y / 8), torch.sin((z + x) / 10), torch.cos((y - z) / 9)])[None]

    motion = torch.tensor([4.0, -2.5, 3.0])
    fixed = FeatureMap(features(grid, torch.zeros(3)), grid)
    moving = FeatureMap(features(wide, motion), wide)
    weight = torch.ones(1, 1, *grid.shape)
    reports: list[float] = []
    found = descend(
        DisplacementField.zeros(grid),
        fixed,
        moving,
        weight,
        DiffusionSettings(regularization=0.5),
        grid=grid,
        report=reports.append,
    )
    error = (found.tensor[0].permute(1, 2, 3, 0) - motion).norm(dim=-1)
    assert float(error.mean()) < 0.15
    assert reports[-1] == 1.0 and reports == sorted(reports)


def test_voxels_without_weight_follow_their_neighbors():
    grid = Grid((16, 16, 16), (2.0, 2.0, 2.0))
    x = grid.voxel_centers(reference=grid.center)[..., 0]
    weight = torch.ones(1, 1, *grid.shape)
    weight[..., :6, :] = 0
    broken = torch.where(weight[0, 0] > 0, torch.sin(x / 6), torch.full_like(x, 9.0))
    moved = FeatureMap(torch.sin((x - 2.0) / 6)[None, None], grid)
    found = descend(
        DisplacementField.zeros(grid),
        FeatureMap(broken[None, None], grid),
        moved,
        weight,
        DiffusionSettings(regularization=0.05),
        grid=grid,
        report=lambda fraction: None,
    ).tensor
    assert abs(float(found[0, 0, 8, 2, 8]) - 2.0) < 0.4


@pytest.fixture(scope="module")
def breath():
    """A phantom, its image after a breath of 20 mm, the exact map, and points inside the body."""
    phantom = make_phantom(seed=1, spacing=6.0).ct
    moving, truth = breathing_warp(phantom, 20.0)
    mask = body_mask(phantom)
    points = mask.grid.voxels_to_points(mask.tensor[0, 0].nonzero().flip(1).numpy())[::97]
    low, high = phantom.grid.corners().min(0) + 30, phantom.grid.corners().max(0) - 30
    return phantom, moving, truth, points[((points > low) & (points < high)).all(1)]


def test_registration_with_diffusion_brings_a_breath_closer(breath):
    fixed, moving, truth, points = breath
    settings = replace(
        PRESETS["fast-preview"],
        affine="none",
        levels=(Level(12.0, 2),),
        working_spacing=6.0,
        field_spacing=8.0,
        diffusion=DiffusionSettings(spacing=12.0, pool=2, iterations=8),
    )

    def error(refine: str) -> float:
        result = samconvex.register(fixed, moving, preset=settings, refine=refine)
        return float(
            np.linalg.norm(result.fixed_to_moving.map_points(points) - truth.map_points(points), axis=1).mean()
        )

    assert error("diffusion") < error("none") - 0.1


def test_an_unknown_refinement_is_refused_before_any_work(breath):
    fixed, moving, *_ = breath
    with pytest.raises(InputError, match="none, adam or diffusion"):
        samconvex.register(fixed, moving, refine="newton")
