"""Dense displacement fields in physical space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
import torch

from .grid import Grid
from .sampling import sample


@dataclass(frozen=True)
class DisplacementField:
    """A map p -> p + u(p), zero outside its grid (ITK's rule for displacement fields).

    Attributes:
        tensor: (1, 3, D, H, W) float32, displacement in LPS mm, components x, y, z.
        grid: lattice of the samples; between them u is trilinear.
    """

    tensor: torch.Tensor
    grid: Grid

    @classmethod
    def zeros(cls, grid: Grid, device: torch.device | str = "cpu") -> DisplacementField:
        """The identity map on ``grid``."""
        return cls(torch.zeros(1, 3, *grid.shape, device=device), grid)

    def map_relative(self, points: torch.Tensor, reference: np.ndarray) -> torch.Tensor:
        """Map (d, h, w, 3) LPS mm given relative to ``reference``."""
        moved = sample(self.tensor, self.grid, points, reference=reference, fill=0.0)
        return points + moved[0].permute(1, 2, 3, 0).to(points)

    def map_points(self, points: np.ndarray) -> np.ndarray:
        """Map (N, 3) LPS mm."""
        points = np.asarray(points, dtype=float).reshape(-1, 3)
        relative = torch.as_tensor(points - self.grid.center, dtype=torch.float64, device=self.tensor.device)
        values = sample(self.tensor.double(), self.grid, relative[None, None], reference=self.grid.center, fill=0.0)
        return points + values[0, :, 0, 0].T.cpu().numpy()

    def on_grid(self, grid: Grid, fill: float | None = 0.0) -> DisplacementField:
        """The same map sampled on another grid; ``fill=None`` continues the edge values outwards."""
        points = grid.voxel_centers(reference=grid.center, device=self.tensor.device)
        return DisplacementField(sample(self.tensor, self.grid, points, reference=grid.center, fill=fill), grid)

    def after(self, first: DisplacementField) -> DisplacementField:
        """The composition p -> self(first(p)) on ``first``'s grid: u1(p) + u2(p + u1(p)); fields never add."""
        grid = first.grid
        points = grid.voxel_centers(reference=grid.center, device=first.tensor.device)
        moved = points + first.tensor[0].permute(1, 2, 3, 0)
        second = sample(self.tensor.to(first.tensor), self.grid, moved, reference=grid.center, fill=0.0)
        return DisplacementField(first.tensor + second, grid)

    def inverse(
        self,
        iterations: int = 40,
        tolerance_mm: float = 1e-3,
        report: Callable[[float], None] | None = None,
        grid: Grid | None = None,
    ) -> DisplacementField:
        """The inverse map on the same or another grid, by damped fixed-point iteration v <- -u(p + v).

        Exact (residual below ``tolerance_mm``) at the samples wherever the map is invertible; where it folds, the
        iteration stops at a nearby preimage. Between the samples the error falls with the square of their spacing.
        """
        grid = grid or self.grid
        points = grid.voxel_centers(reference=grid.center, device=self.tensor.device).view(-1, 3)
        v = self._backwards(points, grid.center, iterations, tolerance_mm, report)
        return DisplacementField(v.T.reshape(1, 3, *grid.shape).contiguous(), grid)

    def _backwards(
        self,
        points: torch.Tensor,
        reference: np.ndarray,
        iterations: int = 40,
        tolerance_mm: float = 1e-3,
        report: Callable[[float], None] | None = None,
    ) -> torch.Tensor:
        """(N, 3) displacements of the inverse map at (N, 3) LPS mm given relative to ``reference``."""
        u = self.tensor.to(points.dtype)
        v = torch.zeros_like(points)
        damping = torch.ones_like(points[:, :1])
        previous = torch.full_like(damping, torch.inf)
        active = torch.arange(len(points), device=u.device)
        for iteration in range(iterations):
            near = v[active]
            moved = sample(u, self.grid, (points[active] + near)[None, None], reference=reference, fill=0.0)
            residual = near + moved[0, :, 0, 0].T
            size = residual.norm(dim=1, keepdim=True)
            # Full steps diverge where |grad u| > 1: halve the step of voxels that got worse.
            step = torch.where(size > previous[active], damping[active] * 0.5, damping[active])
            damping[active], previous[active] = step, size
            v[active] = near - step * residual
            active = active[size[:, 0] > tolerance_mm]
            if report is not None:
                report((iteration + 1) / iterations)
            if not len(active):
                break
        return v

    def jacobian_determinant(self) -> torch.Tensor:
        """(1, 1, D, H, W) determinant of the map's Jacobian, central differences (one-sided at the border)."""
        u = self.tensor[0]
        # Rows of d: derivative along voxel axis x, y, z; one-sided ends keep the border meaningful.
        gradients = torch.gradient(u, dim=(3, 2, 1))
        to_lps = torch.as_tensor(self.grid.lps_to_voxel[:3, :3], dtype=u.dtype, device=u.device)
        jacobian = torch.einsum("acdhw,ab->cbdhw", torch.stack(gradients), to_lps)
        jacobian = jacobian + torch.eye(3, dtype=u.dtype, device=u.device)[:, :, None, None, None]
        a, b, c = jacobian[0], jacobian[1], jacobian[2]
        determinant = (
            a[0] * (b[1] * c[2] - b[2] * c[1]) - a[1] * (b[0] * c[2] - b[2] * c[0]) + a[2] * (b[0] * c[1] - b[1] * c[0])
        )
        return determinant[None, None]

    def embedded(self, grid: Grid, fade_mm: float) -> DisplacementField:
        """On a larger ``grid``: edge values continue outwards and fade to zero towards the new border.

        ITK takes zero displacement outside a field's buffer, so the fade avoids a jump there.
        """
        points = grid.voxel_centers(reference=grid.center, device=self.tensor.device)
        values = sample(self.tensor, self.grid, points, reference=grid.center, fill=None)
        outside = torch.zeros(grid.shape, device=values.device)
        corners = self.grid.points_to_voxels(grid.center[None])[0]
        linear = torch.as_tensor(self.grid.lps_to_voxel[:3, :3], dtype=points.dtype, device=points.device)
        index = points @ linear.T + torch.as_tensor(corners, dtype=points.dtype, device=points.device)
        for axis in range(3):
            beyond = torch.maximum(-index[..., axis], index[..., axis] - (self.grid.size[axis] - 1)).clamp(min=0)
            outside += (beyond * self.grid.spacing[axis]) ** 2
        weight = (1 - outside.sqrt() / fade_mm).clamp(0, 1)
        values = values * weight
        values[:, :, [0, -1]] = 0
        values[:, :, :, [0, -1]] = 0
        values[:, :, :, :, [0, -1]] = 0
        return DisplacementField(values, grid)

    def to_sitk_image(self) -> sitk.Image:
        """As a vector image (float64), the form ITK's DisplacementFieldTransform takes."""
        array = self.tensor[0].permute(1, 2, 3, 0).double().cpu().numpy()
        return self.grid.apply_to_sitk(sitk.GetImageFromArray(array, isVector=True))

    @classmethod
    def from_sitk_image(cls, image: sitk.Image) -> DisplacementField:
        """From a 3-component vector image of LPS displacements."""
        array = sitk.GetArrayFromImage(image).astype(np.float32)
        return cls(torch.from_numpy(array).permute(3, 0, 1, 2)[None].contiguous(), Grid.from_sitk(image))


@dataclass(frozen=True)
class InverseField:
    """The inverse map of ``field``, solved anew for every point, so that turning it round again is exact."""

    field: DisplacementField

    def inverse(self) -> DisplacementField:
        return self.field

    def map_relative(self, points: torch.Tensor, reference: np.ndarray) -> torch.Tensor:
        """Map (d, h, w, 3) LPS mm given relative to ``reference``."""
        flat = points.reshape(-1, 3)
        return (flat + self.field._backwards(flat, reference)).view(points.shape)

    def map_points(self, points: np.ndarray) -> np.ndarray:
        """Map (N, 3) LPS mm."""
        points = np.asarray(points, dtype=float).reshape(-1, 3)
        center = self.field.grid.center
        relative = torch.as_tensor(points - center, dtype=torch.float64, device=self.field.tensor.device)
        return points + self.field._backwards(relative, center, tolerance_mm=1e-6).cpu().numpy()

    def sampled(self) -> DisplacementField:
        """As a field on the grid of ``field``, for files that hold nothing else."""
        return self.field.inverse()
