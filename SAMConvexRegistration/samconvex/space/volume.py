"""Volumes: voxels with their grid. Reading, writing, resampling, body mask and CT intensity window."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import SimpleITK as sitk
import torch
import torch.nn.functional as F

from ..errors import InputError
from .grid import Grid
from .sampling import sample, sample_aligned, slabs

MINIMUM_VOXELS_PER_AXIS = 8


@dataclass(frozen=True)
class Volume:
    """A scalar 3D image.

    Attributes:
        tensor: (1, 1, D, H, W) in the dtype it was read with (unsigned 16 and 32 bit one size wider).
        grid: its place in the patient, LPS mm.
        pixel_id: SimpleITK pixel type to write.
        source: file, folder or node name, for messages and reports.
        notes: what reading had to decide, for the report's warnings.
        known_modality: "ct" or "mr", where the values no longer tell because they were normalized.
    """

    tensor: torch.Tensor
    grid: Grid
    pixel_id: int = sitk.sitkFloat32
    source: str | None = None
    notes: tuple[str, ...] = field(default=())
    known_modality: str | None = None

    @classmethod
    def from_sitk(cls, image: sitk.Image, source: str | None = None, notes: tuple[str, ...] = ()) -> Volume:
        """From a scalar 3D SimpleITK image; the voxels are copied.

        Raises:
            InputError: several components, not 3D, no usable place (see :meth:`Grid.from_sitk`), or whole numbers
                above 2^63 - 1.
        """
        name = source or "the image"
        if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
            components = image.GetNumberOfComponentsPerPixel()
            raise InputError(f"{name} is {image.GetDimension()}D with {components} components; give one scalar volume.")
        try:
            grid = Grid.from_sitk(image)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
        array = sitk.GetArrayFromImage(image)
        if array.dtype == np.uint64:
            check_fits(int(array.max()), name)
        wider = {"uint16": "int32", "uint32": "int64", "uint64": "int64"}.get(array.dtype.name)
        tensor = torch.from_numpy(array.astype(wider) if wider else array)[None, None]
        return cls(tensor, grid, image.GetPixelID(), source, notes)

    def to_sitk(self) -> sitk.Image:
        """As a SimpleITK image of the original pixel type; integers are rounded and clipped to its range."""
        dtype = _numpy_dtype(self.pixel_id)
        array = self.tensor[0, 0].cpu()
        if dtype.kind in "iu" and array.is_floating_point():
            array = array.round()
        values = array.numpy()
        if dtype.kind in "iu":
            limits = np.iinfo(dtype)
            values = values.clip(limits.min, limits.max)
        return self.grid.apply_to_sitk(sitk.GetImageFromArray(values.astype(dtype, copy=False)))

    def as_float(self) -> torch.Tensor:
        """(1, 1, D, H, W) float32."""
        return self.tensor.float()

    @property
    def name(self) -> str:
        """How messages call this volume."""
        return self.source or "the volume"

    def points(self, above: float = 0.0) -> np.ndarray:
        """(N, 3) LPS mm of the centers of the voxels that are larger than ``above``."""
        return self.grid.voxels_to_points((self.tensor[0, 0] > above).nonzero().flip(1).cpu().numpy())

    def box(self, above: float = 0.0) -> np.ndarray:
        """(2, 3) opposite corners in LPS mm of the box around the voxels larger than ``above``, edges included."""
        voxels = (self.tensor[0, 0] > above).nonzero().flip(1).cpu().numpy()
        ends = self.grid.voxels_to_points(np.stack([voxels.min(0) - 0.5, voxels.max(0) + 0.5]))
        return np.stack([ends.min(0), ends.max(0)])

    @property
    def is_slice(self) -> bool:
        """True for a 2D image."""
        return self.grid.size[2] == 1

    @property
    def background(self) -> float:
        """Value outside the image: its minimum (air in CT)."""
        return float(self.tensor.min())

    @property
    def modality(self) -> str:
        """ "ct" where values look like Hounsfield units (air near -1000), else "mr"."""
        return self.known_modality or ("ct" if self.background <= -500 else "mr")

    def with_tensor(self, tensor: torch.Tensor, grid: Grid | None = None) -> Volume:
        """The same image with other voxels."""
        return replace(self, tensor=tensor, grid=grid or self.grid)


def check_fits(largest: float, name: str) -> None:
    """Refuse a whole number that 64 bits with a sign do not hold.

    Raises:
        InputError: ``largest`` is above 2^63 - 1.
    """
    if largest >= 2**63:
        raise InputError(f"{name} holds the value {largest:.0f}; renumber it with numbers below 2^63.")


def check_volume(volume: Volume, *, slices: bool = False) -> None:
    """Raise InputError where a volume (or, with ``slices``, a 2D image) cannot be registered or matched."""
    check_shape(volume)
    name, tensor = volume.name, volume.tensor
    if min(volume.grid.size[: 2 if slices and volume.is_slice else 3]) < MINIMUM_VOXELS_PER_AXIS:
        size = "x".join(map(str, volume.grid.size))
        raise InputError(f"{name} has {size} voxels; at least {MINIMUM_VOXELS_PER_AXIS} along every axis are needed.")
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise InputError(f"{name} holds NaN or infinite voxels; replace them (for example by the air value) and retry.")
    if bool(tensor.min() == tensor.max()):
        raise InputError(f"{name} is constant (every voxel is {tensor.min().item():g}); choose an image with content.")


def check_shape(volume: Volume) -> None:
    """Raise InputError for what is no scalar volume on its grid: another type, a 2D or a vector tensor."""
    if not isinstance(volume, Volume):
        kind = type(volume).__name__
        raise InputError(f"A {kind} is no volume; read it with read_volume, or give Volume.from_sitk(image).")
    expected = (1, 1, *volume.grid.shape)
    if tuple(volume.tensor.shape) != expected:
        shape = " x ".join(map(str, volume.tensor.shape))
        raise InputError(f"{volume.name} holds {shape} numbers; its grid needs {' x '.join(map(str, expected))}.")


def _numpy_dtype(pixel_id: int) -> np.dtype:
    return sitk.GetArrayViewFromImage(sitk.Image([1, 1, 1], pixel_id)).dtype


def resample(volume: Volume, grid: Grid, *, mode: str = "linear", fill: float | None = None) -> Volume:
    """Resample onto another grid by physical position; finer inputs are first averaged (no aliasing).

    Args:
        mode: "linear" (float32 result) or "nearest" (dtype kept).
        fill: value outside the image; default the volume's background, 0 for "nearest".
    """
    if fill is None:
        fill = 0.0 if mode == "nearest" else volume.background
    if grid == volume.grid and mode == "linear":
        return volume.with_tensor(volume.as_float())
    source = volume if mode == "nearest" else _averaged(volume, grid)
    values = source.tensor if mode == "nearest" else source.tensor.float()
    if grid.direction == source.grid.direction:
        result = sample_aligned(values, source.grid, grid, mode=mode, fill=fill)
    else:
        pieces = []
        for z0, z1 in slabs(grid):
            points = grid.voxel_centers(z0, z1, reference=grid.origin, device=values.device)
            pieces.append(sample(values, source.grid, points, reference=grid.origin, mode=mode, fill=fill))
        result = torch.cat(pieces, 2)
    return volume.with_tensor(result, grid)


def _averaged(volume: Volume, grid: Grid) -> Volume:
    """Mean over whole-voxel blocks, so that linear interpolation at ``grid``'s spacing sees every voxel."""
    # Target spacing along each source axis: the shortest step any target axis makes along it.
    along = np.abs(volume.grid.lps_to_voxel[:3, :3] @ grid.voxel_to_lps[:3, :3]).max(1)
    return _block_mean(volume, np.maximum(np.floor(along + 0.25), 1).astype(int))


def average_to(volume: Volume, spacing: float) -> Volume:
    """Float volume averaged over whole voxels to at most about ``spacing`` mm; its axes stay as they are."""
    factors = np.floor(spacing / np.asarray(volume.grid.spacing) + 0.25)
    averaged = _block_mean(volume, np.maximum(factors, 1).astype(int))
    return averaged.with_tensor(averaged.as_float())


def _block_mean(volume: Volume, factors: np.ndarray) -> Volume:
    if (factors == 1).all():
        return volume
    fx, fy, fz = (int(f) for f in factors)
    pieces = []
    for z0, z1 in slabs(volume.grid):
        z0, z1 = z0 - z0 % fz, (z1 if z1 == volume.grid.size[2] else z1 - z1 % fz)
        block = volume.tensor[:, :, z0:z1].float()
        padding = [(-block.shape[axis]) % f for axis, f in ((4, fx), (3, fy), (2, fz))]
        block = F.pad(block, (0, padding[0], 0, padding[1], 0, padding[2]), mode="replicate")
        pieces.append(F.avg_pool3d(block, (fz, fy, fx)))
    return volume.with_tensor(torch.cat(pieces, 2), volume.grid.strided((fx, fy, fz)))


@dataclass(frozen=True)
class FeatureMap:
    """Feature vectors on a grid.

    Attributes:
        tensor: (1, C, D, H, W).
        grid: where the vectors lie.
    """

    tensor: torch.Tensor
    grid: Grid
