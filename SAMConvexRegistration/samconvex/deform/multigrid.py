"""The linear systems of the diffusion regularizer, solved by multigrid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..space.totals import total

# Entries xx, yy, zz, xy, xz, yz of the symmetric 3x3 block of a voxel.
ENTRIES = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
# Keeps the matrix definite where no image gradient fixes a constant shift; relative to the Laplacian's diagonal.
_RIDGE = 1e-6
# Below this many voxels along every axis a level is solved directly.
_COARSEST = 4
# Damping of the block Jacobi smoother; any value below 1 converges, 6/7 is best for the 3D Laplacian.
_DAMPING = 6 / 7
_SWEEPS = 2


@dataclass(frozen=True)
class Solution:
    """What :func:`conjugate_gradients` found.

    Attributes:
        tensor: (1, 3, D, H, W).
        iterations: matrix applications it took.
        residual: |b - A x| / |b| of the last iterate.
    """

    tensor: torch.Tensor
    iterations: int
    residual: float


def laplacian(u: torch.Tensor, spacing: Sequence[float], regularization: float) -> torch.Tensor:
    """``regularization * L u`` of (B, C, D, H, W): the derivative of :func:`roughness`; no flow across the border."""
    result = torch.zeros_like(u)
    for axis in (2, 3, 4):
        count = u.shape[axis] - 1
        flow = u.diff(dim=axis).mul_(regularization / spacing[4 - axis] ** 2)
        result.narrow(axis, 0, count).sub_(flow)
        result.narrow(axis, 1, count).add_(flow)
    return result


class DiffusionSystem:
    """The matrix of one step with its multigrid hierarchy.

    Args:
        blocks: (1, 6, D, H, W) entries xx, yy, zz, xy, xz, yz of each voxel's positive semidefinite data block.
        spacing: grid spacing x, y, z in mm.
        regularization: factor of the Laplacian, whose off-diagonal entries are -1 / spacing^2.
    """

    def __init__(self, blocks: torch.Tensor, spacing: Sequence[float], regularization: float) -> None:
        self._spacing, self._regularization = tuple(spacing), regularization
        diagonal = regularization * sum(step**-2 for step in spacing)
        ridge = blocks.new_tensor([_RIDGE * diagonal] * 3 + [0.0] * 3).view(1, 6, 1, 1, 1)
        self._blocks = blocks + ridge
        self._coarser: DiffusionSystem | None = None
        shape = blocks.shape[2:]
        if max(shape) > _COARSEST:
            coarse = [-(-n // 2) for n in shape]
            self._up = [_interpolation(n, m, blocks) for n, m in zip(shape, coarse, strict=True)]
            ratio = [n / m for n, m in zip(shape, coarse, strict=True)]
            volume = ratio[0] * ratio[1] * ratio[2]
            wider = [spacing[axis] * ratio[2 - axis] for axis in range(3)]
            # Restriction sums over a coarse voxel, so the Laplacian there counts once per fine voxel.
            self._coarser = DiffusionSystem(self._restricted(blocks), wider, regularization * volume)
            self._smoother = _DAMPING * _inverse(self._with_laplacian_diagonal())
        else:
            self._factor = torch.linalg.cholesky(self.matrix())

    def apply(self, u: torch.Tensor) -> torch.Tensor:
        """The matrix times (B, 3, D, H, W)."""
        return _block_product(self._blocks, u) + laplacian(u, self._spacing, self._regularization)

    def precondition(self, residual: torch.Tensor) -> torch.Tensor:
        """One symmetric V-cycle, an approximate inverse."""
        if self._coarser is None:
            return torch.cholesky_solve(residual.reshape(-1, 1), self._factor).view(residual.shape)
        x = _block_product(self._smoother, residual)
        for _ in range(_SWEEPS - 1):
            x += _block_product(self._smoother, residual - self.apply(x))
        x += self._prolonged(self._coarser.precondition(self._restricted(residual - self.apply(x))))
        for _ in range(_SWEEPS):
            x += _block_product(self._smoother, residual - self.apply(x))
        return x

    def matrix(self) -> torch.Tensor:
        """The dense (3N, 3N) matrix, rows in the order of (3, D, H, W); for small grids."""
        shape = self._blocks.shape[2:]
        size = 3 * shape.numel()
        identity = torch.eye(size, dtype=self._blocks.dtype, device=self._blocks.device)
        return self.apply(identity.view(size, 3, *shape)).view(size, size)

    def _with_laplacian_diagonal(self) -> torch.Tensor:
        diagonal = torch.zeros_like(self._blocks[:, :1])
        for axis in (2, 3, 4):
            stiffness, count = self._regularization / self._spacing[4 - axis] ** 2, diagonal.shape[axis] - 1
            diagonal.narrow(axis, 0, count).add_(stiffness)
            diagonal.narrow(axis, 1, count).add_(stiffness)
        blocks = self._blocks.clone()
        blocks[:, :3] += diagonal
        return blocks

    def _prolonged(self, coarse: torch.Tensor) -> torch.Tensor:
        return _along_axes(coarse, self._up)

    def _restricted(self, fine: torch.Tensor) -> torch.Tensor:
        return _along_axes(fine, [matrix.T for matrix in self._up])


def conjugate_gradients(
    system: DiffusionSystem,
    right: torch.Tensor,
    *,
    tolerance: float = 1e-5,
    maximum: int = 200,
    report: Callable[[], None] | None = None,
) -> Solution:
    """Solve ``system`` for the right side (1, 3, D, H, W).

    Args:
        tolerance: relative residual at which to stop; float32 cannot go much below 1e-6.
        maximum: iterations at most.
        report: called every iteration; may raise Cancelled.
    """
    x = torch.zeros_like(right)
    norm = _length(right)
    if norm == 0.0:
        return Solution(x, 0, 0.0)
    residual = right.clone()
    z = system.precondition(residual)
    direction = z
    energy = float(total(residual * z))
    size, iteration = 1.0, 0
    while size > tolerance and iteration < maximum and energy > 0:
        image = system.apply(direction)
        length = energy / float(total(direction * image))
        x += length * direction
        residual -= length * image
        iteration += 1
        size = _length(residual) / norm
        if report is not None:
            report()
        z = system.precondition(residual)
        previous, energy = energy, float((residual * z).sum())
        direction = z + (energy / previous) * direction
    return Solution(x, iteration, _length(right - system.apply(x)) / norm)


def _length(values: torch.Tensor) -> float:
    """The Euclidean norm of all elements."""
    return float(total(values.square()).sqrt())


class _Solve(torch.autograd.Function):
    @staticmethod
    def forward(ctx, blocks, right, spacing, regularization, tolerance, report):
        system = DiffusionSystem(blocks, spacing, regularization)
        x = conjugate_gradients(system, right, tolerance=tolerance, report=report).tensor
        ctx.system, ctx.tolerance = system, tolerance
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx, gradient):
        # A is symmetric: with A y = gradient, dE/db = y and dE/dA = -y x^T, of which the data blocks are a part.
        (x,) = ctx.saved_tensors
        y = conjugate_gradients(ctx.system, gradient.contiguous(), tolerance=ctx.tolerance).tensor
        of_blocks = torch.cat(
            [-(y[:, a] * x[:, b] if a == b else y[:, a] * x[:, b] + y[:, b] * x[:, a])[:, None] for a, b in ENTRIES],
            1,
        )
        return of_blocks, y, None, None, None, None


def solve(
    blocks: torch.Tensor,
    right: torch.Tensor,
    spacing: Sequence[float],
    regularization: float,
    *,
    tolerance: float = 1e-5,
    report: Callable[[], None] | None = None,
) -> torch.Tensor:
    """(1, 3, D, H, W) solution of the system of :class:`DiffusionSystem`; differentiable in blocks and right side.

    The backward pass is one more solve with the same matrix (SUITS, section 3.3).
    """
    return _Solve.apply(blocks, right, tuple(spacing), regularization, tolerance, report)


def _block_product(blocks: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Each voxel's symmetric block (1, 6, ...) times its vector (B, 3, ...)."""
    xx, yy, zz, xy, xz, yz = blocks.unbind(1)
    x, y, z = u.unbind(1)
    result = torch.empty_like(u)
    for row, (a, b, c) in enumerate(((xx, xy, xz), (xy, yy, yz), (xz, yz, zz))):
        torch.mul(a, x, out=result[:, row]).addcmul_(b, y).addcmul_(c, z)
    return result


def _inverse(blocks: torch.Tensor) -> torch.Tensor:
    """Inverses of positive definite blocks (1, 6, ...), in the same order of entries."""
    xx, yy, zz, xy, xz, yz = blocks.unbind(1)
    a, b, c = yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy
    determinant = xx * a + xy * b + xz * c
    entries = (a, xx * zz - xz * xz, xx * yy - xy * xy, b, c, xy * xz - xx * yz)
    return torch.stack(entries, 1) / determinant[:, None]


def _interpolation(fine: int, coarse: int, like: torch.Tensor) -> torch.Tensor:
    """(fine, coarse) matrix of linear interpolation between the cell centers of two grids over the same extent."""
    identity = torch.eye(coarse, dtype=like.dtype, device=like.device)[:, None]
    return F.interpolate(identity, size=fine, mode="linear", align_corners=False)[:, 0].T.contiguous()


def _along_axes(values: torch.Tensor, matrices: Sequence[torch.Tensor]) -> torch.Tensor:
    """A matrix (out, in) applied along each of the axes z, y, x of (B, C, D, H, W)."""
    along_z, along_y, along_x = matrices
    batch, channels, depth, height, width = values.shape
    values = along_z @ values.reshape(batch, channels, depth, height * width)
    values = along_y @ values.view(batch, channels, -1, height, width)
    return values @ along_x.T
