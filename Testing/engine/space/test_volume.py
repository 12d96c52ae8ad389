"""Volumes keep their values, types and place through reading, averaging and resampling."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import samconvex as sc
import SimpleITK as sitk
import torch
from engine.geometry_fixtures import ramp, rotation
from samconvex.anatomy.body import body_mask
from samconvex.space.grid import Grid
from samconvex.space.sampling import sample, sample_aligned
from samconvex.space.volume import Volume, average_to, resample
from samconvex.synthetic.phantom import make_phantom

OBLIQUE = Grid((30, 28, 26), (1.0, 1.2, 2.0), (50.0, -20.0, 300.0), tuple(rotation(10, 20, -15).ravel()))


@pytest.mark.parametrize("axis", range(3))
def test_resampling_onto_a_rotated_grid_keeps_positions(axis: int) -> None:
    target = Grid((9, 9, 9), (1.1, 0.9, 1.3), tuple(OBLIQUE.center - 4), tuple(rotation(-30, 5, 12).ravel()))
    values = resample(ramp(OBLIQUE, axis), target).tensor
    expected = ramp(target, axis).tensor
    assert float((values - expected).abs().max()) < 1e-3


@pytest.mark.parametrize("axis", range(3))
def test_averaging_keeps_positions(axis: int) -> None:
    averaged = average_to(ramp(OBLIQUE, axis), 4.0)
    assert averaged.grid.size == (8, 10, 13)
    # Partial blocks at the far border hold repeated voxels; all whole blocks must be exact.
    inner = (..., slice(0, 13), slice(0, 9), slice(0, 7))
    assert float((averaged.tensor - ramp(averaged.grid, axis).tensor)[inner].abs().max()) < 1e-3


def test_averaging_removes_noise_that_interpolation_would_alias() -> None:
    torch.manual_seed(0)
    noise = Volume(torch.randn(1, 1, 40, 40, 40), Grid((40, 40, 40), (1.0, 1.0, 1.0)))
    assert float(resample(noise, noise.grid.with_spacing(4.0)).tensor.std()) < 0.2


@pytest.mark.parametrize("kind", [sitk.sitkUInt8, sitk.sitkInt16, sitk.sitkUInt16, sitk.sitkUInt32, sitk.sitkFloat64])
def test_pixel_type_and_values_survive_a_file(tmp_path: Path, kind: int) -> None:
    values = np.random.default_rng(0).integers(0, 200, (9, 10, 11)) * (1 if kind == sitk.sitkUInt8 else 150)
    image = OBLIQUE.cropped((0, 0, 0), (11, 10, 9)).apply_to_sitk(sitk.Cast(sitk.GetImageFromArray(values), kind))
    sitk.WriteImage(image, str(tmp_path / "in.nrrd"))
    volume = sc.read_volume(tmp_path / "in.nrrd")
    sc.write_volume(volume, tmp_path / "out.nrrd")
    back = sitk.ReadImage(str(tmp_path / "out.nrrd"))
    assert back.GetPixelID() == kind
    assert (sitk.GetArrayFromImage(back) == values).all()
    np.testing.assert_allclose(back.GetDirection(), image.GetDirection(), atol=1e-12)


def test_integers_are_rounded_and_clipped_on_writing() -> None:
    volume = Volume(torch.tensor([[[[[-5.0, 1.6, 300.0]]]]]), Grid((3, 1, 1), (1.0, 1.0, 1.0)), sitk.sitkUInt8)
    assert sitk.GetArrayFromImage(volume.to_sitk()).ravel().tolist() == [0, 2, 255]


def test_the_body_mask_leaves_the_couch_and_keeps_the_lungs() -> None:
    phantom = make_phantom(seed=2, spacing=4.0, couch=True)
    mask = resample(body_mask(phantom.ct), phantom.ct.grid, mode="nearest").tensor > 0
    organs = phantom.labels.tensor > 0
    assert float(mask[organs].float().mean()) > 0.99
    bare = make_phantom(seed=2, spacing=4.0, couch=False)
    couch = (phantom.ct.tensor - bare.ct.tensor).abs() > 150
    assert int(couch.sum()) > 500
    assert float(mask[couch].float().mean()) < 0.1


def test_a_crop_of_the_chest_keeps_its_lung() -> None:
    grid = Grid((40, 40, 30), (4.0, 4.0, 4.0))
    values = torch.full((1, 1, 30, 40, 40), 40.0)
    # A lung that leaves the field of view at the side and in a corner, and an empty rim as resampled crops have it.
    values[..., 5:35, 12:] = -880.0
    values[..., :8, 30:] = -880.0
    values[..., -1, :] = -1024.0
    crop = Volume(values, grid, source="crop.nii")
    lung = resample(body_mask(crop), grid, mode="nearest").tensor[..., 8:30, 15:35] > 0
    assert float(lung.float().mean()) > 0.99


def test_nothing_but_air_has_no_body() -> None:
    torch.manual_seed(0)
    air = Volume(torch.randn(1, 1, 30, 30, 30) * 5 - 1000, Grid((30, 30, 30), (4.0, 4.0, 4.0)), source="air.nii")
    with pytest.raises(sc.InputError, match=r"No body was found in air\.nii"):
        body_mask(air)


@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_axis_by_axis_interpolation_equals_the_general_one(mode: str) -> None:
    """Finer, coarser than the lattice and reaching beyond it, off its voxel centers, axes tilted."""
    tilted = rotation(0, 20, 10)
    lattice = Grid((11, 9, 7), (1.5, 2.0, 3.0), (-4.0, 30.0, 2.0), tuple(tilted.flatten()))
    values = torch.rand(1, 2, *lattice.shape, generator=torch.Generator().manual_seed(0))
    origin = tuple(lattice.voxels_to_points(np.array([[-1.317, 0.4193, 1.1371]]))[0])
    for spacing in ((0.7, 0.9, 1.1), (3.1, 2.3, 4.7)):
        target = Grid((14, 12, 6), spacing, origin, lattice.direction)
        points = target.voxel_centers(reference=target.center)
        general = sample(values, lattice, points, reference=target.center, mode=mode, fill=-1.0)
        aligned = sample_aligned(values, lattice, target, mode=mode, fill=-1.0)
        assert (general == -1.0).any() and torch.allclose(aligned, general, atol=1e-5)


def test_points_and_box_of_what_is_marked():
    grid = Grid((4, 5, 6), (2.0, 3.0, 4.0), (10.0, 20.0, 30.0))
    mask = torch.zeros(1, 1, 6, 5, 4)
    mask[0, 0, 1, 2, 3] = 1.0
    mask[0, 0, 4, 2, 0] = 0.4
    volume = Volume(mask, grid)
    assert volume.points().tolist() == [[16.0, 26.0, 34.0], [10.0, 26.0, 46.0]]
    assert volume.points(above=0.5).tolist() == [[16.0, 26.0, 34.0]]
    assert volume.box().tolist() == [[9.0, 24.5, 32.0], [17.0, 27.5, 48.0]]
