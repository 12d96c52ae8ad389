"""SAM features: anatomical embeddings of a volume (Yan et al., IEEE TMI 2022), for matching and for registration.

A volume is brought onto an identity-direction grid at the network's spacing, everything outside the body becomes air,
and the network maps it to a fine and a coarse field of unit vectors. The descriptor of a point joins both, so that the
dot product of two descriptors is the mean of the two cosines.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F

from ..device import cpu_has_bfloat16
from ..errors import InputError, ResourceError
from ..progress import Progress, stage
from ..space.filters import dilated
from ..space.grid import Grid
from ..space.intensity import looks_like_ct
from ..space.sampling import sample, slabs
from ..space.volume import FeatureMap, Volume, body_mask, resample
from ..weights.models import SamModel, SemanticModel, load_sam, suited_to

_AIR_HU = -1000.0
# Of an X-ray image prepared for its network, 0 to about 1.
_DARK = 0.02
# Consecutive rows of a search index that are first judged together.
BLOCK_ROWS = 16


@dataclass(frozen=True, eq=False)
class SamEmbedding:
    """What the network says about a volume.

    Attributes:
        fine: (1, C, d, h, w) unit vectors, half precision.
        coarse: the same at the coarse stride.
        body: bool (d, h, w) on the fine grid.
        network: sha256 of the weights; embeddings of different networks do not compare.
        grid: grid of the volume that was embedded.
    """

    fine: FeatureMap
    coarse: FeatureMap
    body: torch.Tensor
    network: str
    grid: Grid
    calibration: dict[str, float] = field(default_factory=dict)

    def descriptors(self, points: np.ndarray) -> torch.Tensor:
        """(N, Cf + Cc) float32 unit descriptors interpolated at LPS points (N, 3)."""
        points = np.asarray(points, dtype=float)
        center = self.fine.grid.center
        relative = torch.as_tensor(points - center, dtype=torch.float32)
        relative = relative.to(self.fine.tensor.device)[None, None]
        return join(
            *(_sample_map(_around(part, points), relative, center)[0, :, 0, 0].T for part in (self.fine, self.coarse))
        )

    @cached_property
    def search(self) -> SearchIndex:
        """Descriptors of every fine voxel in the body, made once, for matching."""
        return SearchIndex(self)

    @property
    def device(self) -> torch.device:
        return self.fine.tensor.device


class SearchIndex:
    """All body voxels of an embedding as one matrix.

    Attributes:
        vectors: (V, C) unit descriptors, bfloat16 where the processor multiplies it natively, else float32.
        voxels: (V,) flat index into the fine grid.
        dense: (d, h, w) row of ``vectors`` of each voxel, -1 outside the body.
    """

    def __init__(self, embedding: SamEmbedding) -> None:
        grid, device = embedding.fine.grid, embedding.device
        dtype = torch.bfloat16 if device.type == "cpu" and cpu_has_bfloat16() else torch.float32
        if device.type == "cuda":
            dtype = torch.float16
        self.voxels = torch.nonzero(embedding.body.flatten())[:, 0]
        self.dense = torch.full((grid.voxel_count,), -1, dtype=torch.int32, device=device)
        self.dense[self.voxels] = torch.arange(len(self.voxels), dtype=torch.int32, device=device)
        self.dense = self.dense.view(grid.shape)
        channels = embedding.fine.tensor.shape[1] + embedding.coarse.tensor.shape[1]
        self.vectors = torch.empty(len(self.voxels), channels, dtype=dtype, device=device)
        plane = grid.size[0] * grid.size[1]
        # The coarse grid's blocks fill the fine grid: in the plane at once, between planes as they come.
        planes = F.interpolate(embedding.coarse.tensor[0].transpose(0, 1).float(), size=grid.shape[1:], mode="bilinear")
        stride = grid.shape[0] / len(planes)
        for z0, z1 in slabs(grid, 200_000):
            ends = torch.tensor([z0 * plane, z1 * plane], device=device)
            first, last = torch.searchsorted(self.voxels, ends).tolist()
            if first == last:
                continue
            inside = self.voxels[first:last] - z0 * plane
            level = ((torch.arange(z0, z1, device=device) + 0.5) / stride - 0.5).clamp(0, len(planes) - 1)
            below = level.long().clamp(max=max(len(planes) - 2, 0))
            above = (below + 1).clamp(max=len(planes) - 1)
            coarse = torch.lerp(planes[below], planes[above], (level - below).view(-1, 1, 1, 1))
            coarse = coarse.permute(0, 2, 3, 1).flatten(0, 2)[inside]
            fine = embedding.fine.tensor[0, :, z0:z1].permute(1, 2, 3, 0).flatten(0, 2)[inside]
            self.vectors[first:last] = join(fine, coarse).to(dtype)
        self._grid = grid

    @cached_property
    def places(self) -> torch.Tensor:
        """(V, 3) float32 LPS mm of the voxels, relative to the fine grid's center."""
        centers = self._grid.voxel_centers(reference=self._grid.center, device=self.voxels.device)
        return centers.reshape(-1, 3)[self.voxels]

    @cached_property
    def thinned(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows of every second voxel along each axis, and their vectors."""
        rows = self.dense[::2, ::2, ::2].flatten().long()
        rows = rows[rows >= 0]
        return (rows, self.vectors[rows]) if len(rows) else (torch.arange(len(self.voxels)), self.vectors)

    @cached_property
    def boxes(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Lowest and highest corners (B, 3) of the places of every ``BLOCK_ROWS`` consecutive rows."""
        missing = -len(self.places) % BLOCK_ROWS
        padded = torch.cat([self.places, self.places[-1:].expand(missing, 3)]).view(-1, BLOCK_ROWS, 3)
        return padded.amin(1), padded.amax(1)


def join(fine: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
    """(N, Cf) and (N, Cc) to (N, Cf + Cc) unit vectors; dot products are the mean of both cosines."""
    parts = (F.normalize(fine.float(), dim=1), F.normalize(coarse.float(), dim=1))
    return torch.cat(parts, 1).mul_(0.5**0.5)


def _around(part: FeatureMap, points: np.ndarray) -> FeatureMap:
    """The part of a map that interpolation at the points (N, 3) looks at: a single point must not cost a whole body."""
    if not len(points):
        return part
    last = np.asarray(part.grid.size) - 1
    voxels = part.grid.points_to_voxels(points)
    low = np.clip(np.floor(voxels.min(0)), 0, last).astype(int)
    # Two voxels along every axis: normalized coordinates need an extent.
    low = np.minimum(low, np.maximum(last - 1, 0))
    high = np.minimum(np.maximum(np.clip(np.floor(voxels.max(0)), 0, last).astype(int) + 1, low + 1), last)
    x, y, z = (slice(a, b + 1) for a, b in zip(low.tolist(), high.tolist(), strict=True))
    size = tuple((high - low + 1).tolist())
    return FeatureMap(part.tensor[:, :, z, y, x], part.grid.cropped(tuple(low.tolist()), size))


def _sample_map(part: FeatureMap, points: torch.Tensor, reference: np.ndarray) -> torch.Tensor:
    return sample(part.tensor.float(), part.grid, points, reference=reference)


def embed(
    volume: Volume,
    model: SamModel | str | os.PathLike | None = None,
    *,
    device: torch.device | str = "cpu",
    mask: Volume | None = None,
    progress: Progress | None = None,
) -> SamEmbedding:
    """Embed a volume of any geometry, or an X-ray image (a volume of one slice).

    Args:
        model: a loaded network, a weights name or file; None is the shipped one.
        mask: what counts as body, instead of :func:`samconvex.space.volume.body_mask`.

    Raises:
        InputError: no body, wrong modality, unusable weights. ResourceError: the device ran out of memory.
        Cancelled: by ``progress``.
    """
    model = model if isinstance(model, SamModel) else load_sam(model)
    model = suited_to(model, volume)
    report = stage(progress, "embedding")
    report(0.0)
    grid, inside, values = _prepare_slice(volume, mask, model) if model.planar else _prepare(volume, mask, model)
    report(0.15)
    try:
        fine, coarse = _forward(model, values, torch.device(device), stage(progress, "embedding", 0.15, 1.0))
    except RuntimeError as error:
        if "out of memory" in str(error) or "alloc" in str(error):
            raise ResourceError(
                f"Embedding {volume.name} needs more memory than {device} has; crop the volume or use another device."
            ) from error
        raise
    fine_grid = grid.strided(model.fine_stride)
    share = F.avg_pool3d(inside.float(), tuple(reversed(model.fine_stride)))[0, 0]
    report(1.0)
    return SamEmbedding(
        FeatureMap(fine, fine_grid),
        FeatureMap(coarse, grid.strided(model.coarse_stride)),
        (share >= 0.5).to(fine.device),
        model.sha256,
        volume.grid,
        model.calibration,
    )


def _prepare(volume: Volume, mask: Volume | None, model: SamModel) -> tuple[Grid, torch.Tensor, torch.Tensor]:
    """Grid around the body, the body on it (bool), and the network's input."""
    is_ct = looks_like_ct(volume)
    if model.modality == "ct" and not is_ct:
        raise InputError(f"{volume.name} is no CT in Hounsfield units, but the weights {model.name} were made for CT.")
    grid, inside, near = body_grid(volume, mask if mask is not None else body_mask(volume), model)
    values = resample(volume, grid).tensor
    air = _AIR_HU if is_ct else float(values.min())
    values = values.masked_fill(~near, air)
    return grid, inside, model.prepare(values) if is_ct else _prepare_mr(values, inside)


def _prepare_slice(volume: Volume, mask: Volume | None, model: SamModel) -> tuple[Grid, torch.Tensor, torch.Tensor]:
    """The same of an X-ray image, whose own plane is the grid; what is as dark as the background is not body."""
    grid = volume.grid.with_spacing((model.spacing_mm, model.spacing_mm, volume.grid.spacing[2]))
    size = -(-np.asarray(grid.size) // np.asarray(model.multiple)) * np.asarray(model.multiple)
    grid = grid.cropped((0, 0, 0), tuple(int(s) for s in size))
    values = model.prepare(resample(volume, grid).tensor)
    inside = _inside_image(volume.grid, grid)
    inside &= resample(mask, grid, mode="nearest").tensor > 0 if mask is not None else values > _DARK
    if not bool(inside.any()):
        raise InputError(f"{volume.name} shows nothing but background; check that dense tissue is bright in it.")
    return grid, inside, values


def body_grid(volume: Volume, body: Volume, model: SamModel | SemanticModel) -> tuple[Grid, torch.Tensor, torch.Tensor]:
    """Grid around the body at the network's spacing, sizes at its multiples; body and body plus skin (bool)."""
    where = torch.nonzero(body.tensor[0, 0]).flip(1).double().numpy()
    if not len(where):
        raise InputError(f"The mask of {volume.name} is empty; draw it, or leave it out.")
    low, high = where.min(0), where.max(0)
    corners = np.array([np.where([c & 1, c & 2, c & 4], high + 0.5, low - 0.5) for c in range(8)])
    points = body.grid.voxels_to_points(corners)
    # Not beyond the image, where there is only padding.
    image = volume.grid.corners()
    lower = np.maximum(points.min(0) - 2 * model.spacing_mm, image.min(0))
    upper = np.minimum(points.max(0) + 2 * model.spacing_mm, image.max(0))
    grid = Grid.covering(np.stack([lower, np.maximum(upper, lower + model.spacing_mm)]), model.spacing_mm)
    multiple = np.asarray(model.multiple)
    size = -(-np.asarray(grid.size) // multiple) * multiple
    # Half of the padding on each side would shift voxels off the grid; all of it goes to the far ends.
    grid = grid.cropped((0, 0, 0), tuple(int(s) for s in size))
    inside = resample(body, grid, mode="nearest").tensor > 0
    image_box = _inside_image(volume.grid, grid)
    inside &= image_box
    near = dilated(inside, 1) & image_box
    return grid, inside, near


def _inside_image(image: Grid, grid: Grid) -> torch.Tensor:
    """Bool (1, 1, D, H, W): voxel centers of ``grid`` that lie in ``image``."""
    if image.direction == grid.direction:  # a box of indices
        first = image.points_to_voxels(np.asarray([grid.origin]))[0]
        within = []
        for axis in range(3):
            place = first[axis] + np.arange(grid.size[axis]) * (grid.spacing[axis] / image.spacing[axis])
            within.append(torch.from_numpy((place > -0.5 - 1e-4) & (place < image.size[axis] - 0.5 + 1e-4)))
        x, y, z = within
        return (z[:, None, None] & y[:, None] & x)[None, None]
    parts = []
    for z0, z1 in slabs(grid):
        points = grid.voxel_centers(z0, z1, reference=grid.center)
        coordinates = image.normalized(points, grid.center)
        size = torch.tensor(image.size)
        parts.append((coordinates.abs() <= size / (size - 1).clamp(min=1) + 1e-4).all(-1))
    return torch.cat(parts)[None, None]


def _prepare_mr(values: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    from ..networks.sam_official import preprocess_mr

    inner = values[inside]
    inner = inner[:: max(1, inner.numel() // 1_000_000)]
    lower, upper = torch.quantile(inner, torch.tensor([0.002, 0.998])).tolist()
    return preprocess_mr(values, min(lower, float(values.min())), upper)


@torch.inference_mode()
def _forward(
    model: SamModel, values: torch.Tensor, device: torch.device, report: Callable[[float], None]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both maps in half precision, slab by slab where the volume is large."""
    network = model.network.to(device)
    low_precision = torch.float16 if device.type == "cuda" else torch.bfloat16
    autocast = torch.autocast(device.type, low_precision, enabled=device.type == "cuda" or cpu_has_bfloat16())
    fine_parts, coarse_parts = [], []
    for z0, z1, first, last in tiles(values.shape[2:], model):
        part = values[:, :, first:last].to(device).contiguous(memory_format=torch.channels_last_3d)
        with autocast:
            maps = network(part)
        fine = maps["fine"]
        if "semantic" in maps:
            # UAE: the semantic head joins the appearance head with equal weight.
            fine = torch.cat([fine, maps["semantic"]], 1) * 0.5**0.5
        fine_parts.append(_rows(fine, z0 - first, z1 - first, model.fine_stride[2]))
        coarse_parts.append(_rows(maps["coarse"], z0 - first, z1 - first, model.coarse_stride[2]))
        report(z1 / values.shape[2])
    return torch.cat(fine_parts, 2).clone(), torch.cat(coarse_parts, 2).clone()


def _rows(features: torch.Tensor, first: int, last: int, stride: int) -> torch.Tensor:
    # Channels stay last in memory: matching reads whole descriptors.
    return features[:, :, first // stride : last // stride].half()


def tiles(shape: torch.Size, model: SamModel | SemanticModel) -> list[tuple[int, int, int, int]]:
    """Slices (z0, z1) that a tile answers for and (first, last) that it sees; all at the network's multiple."""
    depth, plane = shape[0], shape[1] * shape[2]
    step = model.multiple[2]
    halo = -(-model.halo // step) * step
    core = depth
    if depth * plane > model.tile_voxels:
        core = max(step, (model.tile_voxels // plane - 2 * halo) // step * step)
    return [(z, min(z + core, depth), max(z - halo, 0), min(z + core + halo, depth)) for z in range(0, depth, core)]


class SamPair:
    """Embeddings of two volumes as features of the solvers, read where points come to lie.

    The original extracts them again from the warped image at every level. Reading the embeddings made once for the
    affine costs a fifth of that; which of the two registers better has not been measured.

    Attributes:
        spacing_mm: see :class:`samconvex.features.PairFeatures`.
        kept: share of the squared distances between descriptors that the reduced channels keep.

    Args:
        parts: "fine", "coarse" or "both" (joined; dot products are the mean of both cosines).
        channels: descriptors are projected on this many principal directions of both volumes; 0 keeps all.
    """

    spacing_mm = 6.0

    def __init__(self, fixed: SamEmbedding, moving: SamEmbedding, parts: str = "both", channels: int = 32) -> None:
        vectors = [_part_vectors(embedding, parts) for embedding in (fixed, moving)]
        self.kept = 1.0
        if channels and channels < vectors[0].shape[1]:
            projection, self.kept = _principal(vectors, channels)
            vectors = [each @ projection.to(each.dtype) for each in vectors]
        self._maps = {
            side: FeatureMap(_dense(embedding, each), embedding.fine.grid)
            for side, embedding, each in zip(("fixed", "moving"), (fixed, moving), vectors, strict=True)
        }

    def at(self, side: str, points: torch.Tensor, reference: np.ndarray) -> torch.Tensor:
        """See :class:`samconvex.features.PairFeatures`; zero outside the body."""
        described = self._maps[side]
        return sample(described.tensor, described.grid, points, reference=reference, fill=0.0)


def _part_vectors(embedding: SamEmbedding, parts: str) -> torch.Tensor:
    """(V, C) unit descriptors of the body's voxels."""
    vectors = embedding.search.vectors
    fine = embedding.fine.tensor.shape[1]
    if parts == "both":
        return vectors
    # Joined vectors hold either part at a length of sqrt(1/2).
    return (vectors[:, :fine] if parts == "fine" else vectors[:, fine:]) * 2**0.5


def _principal(vectors: list[torch.Tensor], channels: int) -> tuple[torch.Tensor, float]:
    """(C, channels) projection that keeps most of the scatter of both bodies' descriptors, and that share."""
    drawn = torch.cat([each[:: max(1, len(each) // 4000)] for each in vectors]).float()
    energy, directions = torch.linalg.eigh(torch.cov(drawn.T))
    return directions[:, -channels:].contiguous(), float(energy[-channels:].sum() / energy.sum())


def _dense(embedding: SamEmbedding, vectors: torch.Tensor) -> torch.Tensor:
    """(1, C, d, h, w) float32 on the fine grid, zero outside the body."""
    grid = embedding.fine.grid
    output = torch.zeros(grid.voxel_count, vectors.shape[1], device=vectors.device)
    output[embedding.search.voxels] = vectors.float()
    return output.T.contiguous().view(1, -1, *grid.shape)
