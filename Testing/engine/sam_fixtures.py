"""A textured body and a small random network: enough to test the geometry of matching without any trained weights."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
import torch.nn.functional as F
from samconvex.networks.sam_compact import CHECKPOINT_FORMAT, SAMCompact, preprocess
from samconvex.space.grid import Grid
from samconvex.space.volume import Volume, resample
from samconvex.weights import models as weights

GRID = Grid((48, 40, 48), (4.0, 4.0, 4.0), (-120.0, 30.0, -700.0))


def textured_body(seed: int = 0, grid: Grid = GRID) -> Volume:
    """CT of an ellipsoid full of smooth, unrepeated structure."""
    generator = torch.Generator().manual_seed(seed)
    texture = torch.zeros(1, 1, *grid.shape)
    for cells, strength in ((5, 150.0), (10, 120.0), (18, 80.0)):
        noise = torch.randn(1, 1, cells, cells, cells, generator=generator)
        texture += strength * F.interpolate(noise, size=grid.shape, mode="trilinear", align_corners=True)
    points = grid.voxel_centers(reference=grid.center)
    radius = (points / torch.as_tensor(grid.extent * 0.44, dtype=torch.float32)).norm(dim=-1)
    hounsfield = torch.where(radius < 1, (40 + texture[0, 0]).clamp(-200, 900), torch.tensor(-1000.0))
    return Volume(hounsfield.round().to(torch.int16)[None, None], grid, sitk.sitkInt16, f"body {seed}")


def turned(volume: Volume, degrees: float, spacing: tuple[float, float, float], flip: bool = False) -> Volume:
    """The same physical image on an oblique, anisotropic (and flipped) grid that covers it."""
    angle = np.radians(degrees)
    axes = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1.0]])
    if flip:
        axes = axes @ np.diag([-1.0, 1.0, -1.0])
    extent = np.abs(axes).T @ volume.grid.extent
    size = np.ceil(extent / spacing).astype(int)
    origin = volume.grid.center - axes @ ((size - 1) / 2 * np.asarray(spacing))
    grid = Grid(tuple(size.tolist()), spacing, tuple(origin), tuple(axes.ravel()))
    return resample(volume, grid)


@lru_cache(maxsize=4)
def random_model(seed: int = 0) -> weights.SamModel:
    """A tiny compact network with random weights, centered on a body so that its vectors differ between places."""
    torch.manual_seed(seed)
    network = SAMCompact((8, 16, 16, 16), (1, 1, 1, 1), 32, 24)
    image = preprocess(F.interpolate(textured_body(99).tensor.float(), (96, 80, 96), mode="trilinear"))
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, torch.nn.BatchNorm3d):
                layer.momentum = None
        network(image)  # training mode: collects the statistics
        for _ in range(3):
            fine, coarse = network.eval().raw_features(image)
            for head, values in ((network.fine_head, fine), (network.coarse_head, coarse)):
                spread = values.std((0, 2, 3, 4)).clamp(min=1e-6)
                head[-1].bias -= values.mean((0, 2, 3, 4))
                head[-1].weight /= spread[:, None, None, None, None]
                head[-1].bias /= spread
    return weights.compact_model(network, "random", f"{seed:064d}")


def random_weights(path: Path) -> Path:
    """The network of :func:`random_model` as a weights file."""
    network = random_model().network
    content = {"format": CHECKPOINT_FORMAT, "version": 1, "config": network.config, "state_dict": network.state_dict()}
    torch.save(content, path)
    return path


def body_points(volume: Volume, count: int = 20, seed: int = 0, share: float = 0.3) -> np.ndarray:
    """LPS points (count, 3) well inside the body."""
    random = np.random.default_rng(seed)
    return volume.grid.center + random.uniform(-share, share, (count, 3)) * volume.grid.extent
