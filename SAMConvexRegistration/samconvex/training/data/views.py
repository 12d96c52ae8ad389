"""Random views of a volume with exact point correspondences.

A view is a box of voxels that looks at a volume through an affine and an elastic map. Both the image and the points go
through the same map, so two views of one volume correspond exactly, without any label.

Units: everything is in voxels of the cached, isotropic volume and of the view (same spacing), ordered z, y, x.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

INVERSE_ITERATIONS = 12
INVERSE_TOLERANCE = 0.05
_FIELD_STEP = 8


@dataclass
class View:
    """One sampled box: view voxel ``v`` shows volume voxel ``center + matrix (v - middle) + field(v)``.

    ``field`` is (1, 3, d', h', w') in volume voxels, trilinear between nodes that span the box corner to corner.
    ``low`` and ``high`` bound the part of the box that shows the image; the rest was cut to air.
    """

    shape: tuple[int, int, int]
    center: Tensor
    matrix: Tensor
    field: Tensor
    low: Tensor
    high: Tensor

    @property
    def middle(self) -> Tensor:
        return (torch.tensor(self.shape, dtype=torch.float32) - 1) / 2

    def _displacement(self, coordinates: Tensor) -> Tensor:
        scale = 2 / (torch.tensor(self.shape, dtype=torch.float32) - 1).clamp(min=1)
        grid = (coordinates * scale - 1).flip(-1).reshape(1, -1, 1, 1, 3)
        return F.grid_sample(self.field, grid, align_corners=True, padding_mode="border")[0, :, :, 0, 0].T

    def to_volume(self, coordinates: Tensor) -> Tensor:
        """View coordinates (N, 3) -> volume coordinates (N, 3)."""
        return self.center + (coordinates - self.middle) @ self.matrix.T + self._displacement(coordinates)

    def locate(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Volume coordinates (N, 3) -> view coordinates (N, 3) and whether each is exactly found and visible (N,)."""
        inverse = torch.linalg.inv(self.matrix).T
        relative = points - self.center
        coordinates = self.middle + relative @ inverse
        for _ in range(INVERSE_ITERATIONS):
            coordinates = self.middle + (relative - self._displacement(coordinates)) @ inverse
        residual = (self.to_volume(coordinates) - points).norm(dim=1)
        visible = ((coordinates >= self.low) & (coordinates <= self.high)).all(1)
        return coordinates, visible & (residual < INVERSE_TOLERANCE)

    def sample(self, volume: Tensor, air: float, mode: str = "bilinear") -> Tensor:
        """Integer HU (1, 1, D, H, W) seen through the view: float (1, 1, d, h, w), ``air`` outside volume and cut.

        ``mode`` is grid_sample's: "nearest" for labels. The view is computed where the volume lies.
        """
        d, h, w = self.shape
        there = volume.device
        z, y, x = (torch.arange(n, dtype=torch.float32, device=there) - (n - 1) / 2 for n in self.shape)
        m, center = self.matrix.tolist(), self.center.tolist()
        coordinates = torch.empty(d, h, w, 3, device=there)
        # Nothing here waits for a GPU: what is drawn next is prepared while it computes.
        nodes = self.field.to(there, non_blocking=True)
        field = F.interpolate(nodes, size=self.shape, mode="trilinear", align_corners=True)[0]
        for axis in range(3):
            plane = (z * m[axis][0] + center[axis])[:, None, None] + (y * m[axis][1])[None, :, None]
            coordinates[..., 2 - axis] = plane + (x * m[axis][2])[None, None, :] + field[axis]
        # Only the part of the volume that is looked at becomes float; one voxel of air around it keeps edges right.
        size = torch.tensor(volume.shape[2:])
        reach = self.matrix.abs() @ self.middle
        nearest = self.center - reach + self.field.amin((0, 2, 3, 4))
        farthest = self.center + reach + self.field.amax((0, 2, 3, 4))
        low = torch.minimum(torch.clamp(nearest.floor().long() - 1, min=0), size - 1)
        high = torch.maximum(torch.minimum(farthest.ceil().long() + 2, size), low + 1)
        part = volume[:, :, low[0] : high[0], low[1] : high[1], low[2] : high[2]].float() - air
        part = F.pad(part, (1, 1, 1, 1, 1, 1))
        for axis in range(3):
            scale = 2 / (part.shape[2 + axis] - 1)
            coordinates[..., 2 - axis].sub_(float(low[axis]) - 1.0).mul_(scale).sub_(1)
        image = F.grid_sample(part, coordinates[None], mode, align_corners=True) + air
        for axis in range(3):
            first, last = math.ceil(float(self.low[axis])), math.floor(float(self.high[axis])) + 1
            if first > 0:
                image.narrow(2 + axis, 0, min(first, self.shape[axis])).fill_(air)
            if last < self.shape[axis]:
                image.narrow(2 + axis, max(last, 0), self.shape[axis] - max(last, 0)).fill_(air)
        return image


def rotation_matrix(angles: Tensor) -> Tensor:
    """Rotation about the z, y and x axes by ``angles`` (3,) radians, acting on z, y, x vectors."""
    matrix = torch.eye(3)
    for axis in range(3):
        a, b = [k for k in range(3) if k != axis]
        step = torch.eye(3)
        cosine, sine = math.cos(float(angles[axis])), math.sin(float(angles[axis]))
        step[a, a], step[a, b], step[b, a], step[b, b] = cosine, -sine, sine, cosine
        matrix = step @ matrix
    return matrix


def random_view(
    center: Tensor,
    shape: tuple[int, int, int],
    generator: torch.Generator,
    *,
    scale: tuple[float, float] = (0.8, 1.25),
    rotation_deg: float = 20.0,
    elastic_voxels: float = 3.0,
    cut_probability: float = 0.3,
) -> View:
    """A view about ``center`` (3,) with random scale (log-uniform), rotation, deformation and field-of-view cut.

    A shape of one slice stays in its plane.

    One view in ten turns up to twice as far as ``rotation_deg``. ``elastic_voxels`` is the standard deviation of nodes
    about a third of the box apart.
    """

    def uniform(low: float, high: float, count: int = 1) -> Tensor:
        return torch.rand(count, generator=generator) * (high - low) + low

    planar = shape[0] == 1
    log_scale = uniform(math.log(scale[0]), math.log(scale[1])) + uniform(-0.06, 0.06, 3) * (scale[1] > scale[0])
    limit = rotation_deg * (2.0 if float(uniform(0, 1)) < 0.1 else 1.0)
    angles = uniform(-limit, limit, 3) * math.pi / 180
    if planar:
        log_scale[0], angles[1:] = 0.0, 0.0
    rotation = rotation_matrix(angles)
    matrix = rotation @ torch.diag(torch.exp(log_scale))
    coarse = torch.randn(1, 3, 4, 5, 5, generator=generator) * elastic_voxels * float(uniform(0, 1))
    nodes = tuple(max(3, n // _FIELD_STEP + 1) for n in shape)
    field = F.interpolate(coarse, size=nodes, mode="trilinear", align_corners=True)
    field = F.avg_pool3d(F.pad(field, (1, 1, 1, 1, 1, 1), mode="replicate"), 3, 1)
    if planar:
        field[:, 0] = 0.0
    low, high = torch.zeros(3), torch.tensor(shape, dtype=torch.float32) - 1
    if float(uniform(0, 1)) < cut_probability:
        # Scans end along the body far more often than they cut its sides.
        weights = torch.tensor([0.0, 0.6, 0.4] if planar else [0.6, 0.2, 0.2])
        axis = int(torch.multinomial(weights, 1, generator=generator))
        amount = float(uniform(0.05, 0.4)) * (shape[axis] - 1)
        if float(uniform(0, 1)) < 0.5:
            low[axis] = amount
        else:
            high[axis] -= amount
    return View(shape, center.float(), matrix, field, low, high)
