"""Transforms do what ITK does with them, invert, compose and survive files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from engine.geometry_fixtures import ramp, rotation, smooth_field
from samconvex.errors import InputError
from samconvex.io.images import read_labels, read_mask, write_volume
from samconvex.lesions.files import read_lesions
from samconvex.report.metrics import dice
from samconvex.space.field import DisplacementField
from samconvex.space.filling import not_measured
from samconvex.space.filters import smooth
from samconvex.space.grid import Grid
from samconvex.space.transforms import AffineTransform, Transform
from samconvex.space.volume import Volume, resample

_FLIPPED = tuple((rotation(10, 20, 30) @ np.diag([1, 1, -1])).ravel())
FIXED = Grid((30, 26, 22), (2.0, 2.5, 3.1), (1000.0, -500.0, 300.0), _FLIPPED)
MOVING = Grid((70, 60, 60), (1.8, 2.2, 3.0), (950.0, -560.0, 180.0), tuple(rotation(-10, 5, 12).ravel()))


@pytest.fixture(scope="module")
def chain() -> Transform:
    field = smooth_field(Grid.covering(FIXED.corners(), 6.0, 12.0))
    affine = AffineTransform.about(FIXED.center, rotation(3, -4, 5) * 1.05, np.array([3.0, 4.0, -5.0]))
    return Transform((field, affine))


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    return FIXED.voxels_to_points(np.random.default_rng(0).uniform(0, 21, (60, 3)))


def test_points_map_as_itk_maps_them(chain: Transform, points: np.ndarray) -> None:
    itk = chain.to_sitk()
    np.testing.assert_allclose(chain.map_points(points), [itk.TransformPoint(tuple(p)) for p in points], atol=1e-6)


@pytest.mark.parametrize("axis", range(3))
def test_a_warped_position_image_shows_the_mapped_position(chain: Transform, axis: int) -> None:
    warped = chain.warp_volume(ramp(MOVING, axis), FIXED, background=-9e9).tensor
    voxels = np.random.default_rng(1).integers(2, 20, (50, 3))
    expected = chain.map_points(FIXED.voxels_to_points(voxels))[:, axis]
    shown = warped[0, 0, voxels[:, 2], voxels[:, 1], voxels[:, 0]].numpy()
    np.testing.assert_allclose(shown, expected, atol=1e-3)


def test_warping_equals_simpleitk_on_rotated_and_flipped_grids(chain: Transform) -> None:
    torch.manual_seed(1)
    moving = Volume((torch.rand(1, 1, *MOVING.shape) * 1000).to(torch.int16), MOVING, sitk.sitkInt16)
    warped = chain.warp_volume(moving, FIXED)
    expected = sitk.Resample(
        moving.to_sitk(), warped.to_sitk(), chain.to_sitk(), sitk.sitkLinear, moving.background, sitk.sitkFloat32
    )
    difference = np.abs(sitk.GetArrayFromImage(expected) - warped.tensor[0, 0].numpy())
    # Nothing but the rounding to whole numbers may differ (asked for integers, ITK would cut the fraction off).
    assert difference.max() < 0.51
    assert warped.tensor.dtype == torch.int16


@pytest.mark.parametrize(
    ("way", "interpolator"),
    [(Transform.warp_nearest, sitk.sitkNearestNeighbor), (Transform.warp_labels, sitk.sitkLabelLinear)],
)
def test_labels_warp_by_nearest_neighbor_or_largest_share_as_in_simpleitk(chain: Transform, way, interpolator) -> None:
    torch.manual_seed(2)
    coarse = torch.randint(0, 5, (1, 1, 12, 12, 14)).float()
    labels = Volume(torch.nn.functional.interpolate(coarse, MOVING.shape).to(torch.uint8), MOVING, sitk.sitkUInt8)
    warped = way(chain, labels, FIXED)
    expected = sitk.Resample(labels.to_sitk(), warped.to_sitk(), chain.to_sitk(), interpolator, 0)
    same = sitk.GetArrayFromImage(expected) == warped.tensor[0, 0].numpy()
    assert same.mean() > 0.9999


def test_an_outline_is_more_exact_by_shares_than_by_nearest_neighbor() -> None:
    coarse, fine = Grid((20, 20, 20), (5.0, 5.0, 5.0)), Grid((60, 60, 60), (1.5, 1.5, 1.5), (3.0, 3.0, 3.0))
    shift = Transform((AffineTransform(np.eye(3), np.array([1.1, -0.7, 0.4])),))

    def ball(grid: Grid, center: list[float]) -> Volume:
        inside = grid.voxel_centers(reference=np.array(center)).norm(dim=-1) < 18.0
        return Volume((3 * inside).to(torch.uint8)[None, None], grid, sitk.sitkUInt8)

    truth, moving = ball(fine, [48.0, 48.0, 48.0]), ball(coarse, [49.1, 47.3, 48.4])
    shares, nearest = (dice(truth, way(moving, fine))[3] for way in (shift.warp_labels, shift.warp_nearest))
    assert shares > nearest + 0.03


def test_a_label_of_one_voxel_is_not_lost() -> None:
    labels = Volume(torch.zeros(1, 1, 8, 8, 8, dtype=torch.uint8), Grid((8, 8, 8), (1.0, 1.0, 1.0)), sitk.sitkUInt8)
    labels.tensor[0, 0, 4, 4, 4] = 9
    half = Transform((AffineTransform(np.eye(3), np.array([0.4, 0.4, 0.4])),))
    assert int((half.warp_labels(labels, labels).tensor == 9).sum()) == 1


def test_a_thin_line_stays_whole() -> None:
    grid = Grid((40, 12, 12), (1.0, 1.0, 1.0))
    labels = Volume(torch.zeros(1, 1, *grid.shape, dtype=torch.uint8), grid, sitk.sitkUInt8)
    labels.tensor[0, 0, 5, 5] = 3
    turned = Transform((AffineTransform.about(grid.center, rotation(0, 5, 5), np.zeros(3)),))
    nearest, shares = (way(labels, grid).tensor == 3 for way in (turned.warp_nearest, turned.warp_labels))
    assert int(nearest.sum()) > 30 and bool(shares[nearest].all())


def test_labels_that_are_kept_for_being_thin_cost_no_other_label() -> None:
    values = torch.zeros(1, 1, 6, 6, 6, dtype=torch.uint8)
    values[0, 0, 2:4, 2:4, 2:4] = torch.tensor([[[6, 6], [6, 2]], [[1, 7], [1, 4]]])
    labels = Volume(values, Grid((6, 6, 6), (1.0, 1.0, 1.0)), sitk.sitkUInt8)
    shift = Transform((AffineTransform(np.eye(3), np.array([-0.2, -0.08, -0.47])),))
    there = set(shift.warp_nearest(labels, labels).tensor.unique().tolist())
    assert there <= set(shift.warp_labels(labels, labels).tensor.unique().tolist()) and 6 in there


@pytest.mark.parametrize("label", [2**24 + 1, 614454277, 2**32 - 1])
def test_large_label_ids_stay(chain: Transform, label: int) -> None:
    tensor = torch.zeros(1, 1, *MOVING.shape, dtype=torch.int64)
    tensor[..., :7] = label
    tensor[..., 7:] = label - 1
    labels = Volume(tensor, MOVING, sitk.sitkUInt32)
    expected = {0, label, label - 1}
    assert set(chain.warp_labels(labels, FIXED).tensor.unique().tolist()) <= expected
    assert set(resample(labels, MOVING.canonical(3.0), mode="nearest").tensor.unique().tolist()) == expected
    assert set(resample(labels, FIXED, mode="nearest").tensor.unique().tolist()) <= expected
    assert np.unique(sitk.GetArrayFromImage(Transform().warp_labels(labels, MOVING).to_sitk())).max() == label


@pytest.mark.parametrize("kind", [np.uint64, np.float64])
def test_ids_beyond_63_bits_are_refused_not_wrapped(tmp_path: Path, kind: type) -> None:
    values = np.zeros((9, 9, 9), kind)
    values[2:5] = 2**63 + 4096
    path = tmp_path / "labels.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(values), str(path))
    for read in (read_labels, read_mask, read_lesions):
        with pytest.raises(InputError, match=r"labels\.nrrd holds the value 9223372036854779904; renumber"):
            read(path)
    values[2:5] = 2**62
    sitk.WriteImage(sitk.GetImageFromArray(values), str(path))
    labels = read_labels(path)
    write_volume(labels, tmp_path / "again.nrrd")
    assert read_labels(tmp_path / "again.nrrd").tensor.unique().tolist() == [0, 2**62]


def test_outside_the_moving_image_lies_the_background(chain: Transform) -> None:
    far = Grid(FIXED.size, FIXED.spacing, (5000.0, 0.0, 0.0), FIXED.direction)
    moving = Volume(torch.full((1, 1, *MOVING.shape), 40, dtype=torch.int16), MOVING, sitk.sitkInt16)
    moving.tensor[0, 0, 0, 0, 0] = -1024
    assert (chain.warp_volume(moving, far).tensor == -1024).all()


def test_validity_is_where_the_warp_did_not_fill_up(chain: Transform) -> None:
    near = Grid((30, 28, 24), MOVING.spacing, MOVING.voxels_to_points(np.array([[20, 16, 18]]))[0], MOVING.direction)
    moving = Volume(torch.full((1, 1, *near.shape), 40, dtype=torch.int16), near, sitk.sitkInt16)
    shown = chain.warp_volume(moving, FIXED, background=-1.0).tensor == 40
    assert 0.1 < float(shown.float().mean()) < 0.9
    warped, valid = chain.warp_with_validity(moving, FIXED)
    assert torch.equal(valid.tensor.bool(), shown) and torch.equal(chain.validity(moving, FIXED).tensor, valid.tensor)
    assert torch.equal(warped.tensor, chain.warp_volume(moving, FIXED).tensor)
    voxels = np.random.default_rng(4).integers(0, 22, (200, 3))
    points = FIXED.voxels_to_points(voxels)
    expected = shown[0, 0].numpy()[voxels[:, 2], voxels[:, 1], voxels[:, 0]]
    np.testing.assert_array_equal(chain.reaches(moving, points), expected)


@pytest.mark.parametrize(("fill", "is_padding"), [(-2000, True), (-1024, False)])
def test_what_a_scanner_padded_is_no_data(fill: int, is_padding: bool) -> None:
    tensor = torch.full((1, 1, *FIXED.shape), -1000, dtype=torch.int16)
    tensor[..., :7] = fill
    tensor[0, 0, 10, 10, 20] = 400
    valid = Transform().validity(Volume(tensor, FIXED, sitk.sitkInt16), FIXED).tensor
    assert bool(valid[..., 7:].all())
    assert bool((valid[..., :7] == 0).all()) is is_padding


@pytest.mark.parametrize("padding", [-3024, -32768])
def test_padding_is_not_blended_with_tissue(padding: int) -> None:
    grid = Grid((40, 40, 8), (1.0, 1.0, 2.0))
    x, y = np.meshgrid(np.arange(40) - 19.5, np.arange(40) - 19.5)
    circle = torch.as_tensor(np.hypot(x, y) < 18)
    tensor = torch.where(circle, torch.tensor(40), torch.tensor(padding)).to(torch.int16).expand(1, 1, 8, 40, 40)
    turn = AffineTransform.about(
        grid.center, np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]]), np.array([0.4, 0, 0.3])
    )
    warped, valid = Transform((turn,)).warp_with_validity(Volume(tensor, grid, sitk.sitkInt16), grid)
    shown = warped.tensor[valid.tensor > 0]
    assert len(shown) > 0.55 * tensor.numel() and bool((shown == 40).all())
    assert bool((warped.tensor[valid.tensor == 0] == padding).all())


def test_tissue_that_fills_the_corners_is_no_data() -> None:
    grid = Grid((40, 40, 8), (1.0, 1.0, 2.0))
    generator = torch.Generator().manual_seed(0)
    tensor = (torch.randn(1, 1, *grid.shape, generator=generator) * 15 - 1000).round().to(torch.int16)
    tensor[..., 10:30, 10:30] += 1040
    whole = Volume(tensor, grid, sitk.sitkInt16)
    assert not_measured(whole) is None
    x, y = np.meshgrid(np.arange(40), np.arange(40))
    corners = torch.as_tensor((x + y < 12) | (x + y > 66)).expand(1, 1, *grid.shape)
    filled = whole.with_tensor(tensor.masked_fill(corners, 0))
    found = not_measured(filled)
    assert found is not None and torch.equal(found, corners)
    assert torch.equal(Transform().validity(filled, grid).tensor == 0, corners)


def test_fields_compose_in_the_order_of_maps(points: np.ndarray) -> None:
    first = smooth_field(Grid.covering(FIXED.corners(), 5.0, 10.0), seed=3)
    second = smooth_field(Grid.covering(FIXED.corners(), 7.0, 20.0), seed=4)
    composed = second.after(first)
    expected = second.map_points(first.map_points(points))
    # Exact at the samples; between them interpolation of the smooth sum differs by hundredths of a millimeter.
    nodes = composed.grid.voxels_to_points(np.random.default_rng(2).integers(3, 10, (40, 3)))
    np.testing.assert_allclose(composed.map_points(nodes), second.map_points(first.map_points(nodes)), atol=1e-3)
    assert np.linalg.norm(composed.map_points(points) - expected, axis=1).mean() < 0.1
    assert np.linalg.norm(composed.map_points(points) - (expected * 0 + points), axis=1).mean() > 1.0


def test_the_inverse_brings_every_point_back(chain: Transform, points: np.ndarray) -> None:
    back = chain.inverse().map_points(chain.map_points(points))
    assert np.linalg.norm(chain.map_points(points) - points, axis=1).min() > 2.0
    assert np.linalg.norm(back - points, axis=1).max() < 0.25
    assert np.linalg.norm(back - points, axis=1).mean() < 0.05


def test_the_inverse_of_a_field_is_exact_at_its_samples() -> None:
    field = smooth_field(Grid((24, 24, 24), (3.0, 3.0, 3.0)), size_mm=8.0)
    field = field.embedded(field.grid.padded(8), fade_mm=24.0)
    inverse = field.inverse()
    nodes = field.grid.voxels_to_points(np.random.default_rng(0).integers(6, 34, (300, 3)))
    residual = np.linalg.norm(field.map_points(inverse.map_points(nodes)) - nodes, axis=1)
    assert residual.max() < 2e-3


def test_a_file_keeps_the_transform(chain: Transform, points: np.ndarray, tmp_path: Path) -> None:
    chain.save(tmp_path / "t.h5")
    read = Transform.load(tmp_path / "t.h5")
    np.testing.assert_allclose(read.map_points(points), chain.map_points(points), atol=1e-6)
    itk = sitk.ReadTransform(str(tmp_path / "t.h5"))
    np.testing.assert_allclose([itk.TransformPoint(tuple(p)) for p in points], chain.map_points(points), atol=1e-6)


def test_rigid_and_bspline_files_are_read(points: np.ndarray, tmp_path: Path) -> None:
    euler = sitk.Euler3DTransform(FIXED.center.tolist(), 0.1, -0.2, 0.3, (4.0, 5.0, 6.0))
    image = FIXED.apply_to_sitk(sitk.Image(FIXED.size, sitk.sitkUInt8))
    spline = sitk.BSplineTransformInitializer(image, [3, 3, 3])
    spline.SetParameters(np.random.default_rng(0).uniform(-4, 4, len(spline.GetParameters())).tolist())
    both = sitk.CompositeTransform([euler, spline])
    for name, transform, tolerance in (("rigid.tfm", euler, 1e-6), ("both.h5", both, 0.05)):
        sitk.WriteTransform(transform, str(tmp_path / name))
        read = Transform.load(tmp_path / name, like=FIXED)
        expected = [transform.TransformPoint(tuple(p)) for p in points]
        assert np.linalg.norm(read.map_points(points) - expected, axis=1).mean() < tolerance


def test_one_field_can_replace_the_chain(chain: Transform, points: np.ndarray) -> None:
    field = chain.displacement_field(Grid.covering(FIXED.corners(), 3.0, 6.0))
    assert np.linalg.norm(field.map_points(points) - chain.map_points(points), axis=1).max() < 0.15


def test_the_jacobian_of_a_stretch_is_its_volume_ratio() -> None:
    grid = Grid((10, 11, 12), (2.0, 3.0, 4.0), direction=tuple(rotation(10, -20, 30).ravel()))
    points = grid.voxel_centers()
    stretch = points * torch.tensor([0.1, -0.2, 0.05])
    field = DisplacementField(stretch.permute(3, 0, 1, 2)[None].contiguous(), grid)
    expected = 1.1 * 0.8 * 1.05
    np.testing.assert_allclose(field.jacobian_determinant().numpy(), expected, rtol=1e-4)


def test_an_embedded_field_ends_in_zero_and_keeps_its_inside(points: np.ndarray) -> None:
    field = smooth_field(Grid.covering(FIXED.corners(), 5.0, 5.0))
    wide = field.embedded(field.grid.padded(12), fade_mm=40.0)
    nodes = field.grid.voxels_to_points(np.random.default_rng(0).integers(1, 10, (30, 3)))
    np.testing.assert_allclose(wide.map_points(nodes), field.map_points(nodes), atol=1e-4)
    border = wide.tensor.clone()
    border[:, :, 1:-1, 1:-1, 1:-1] = 0
    assert float(border.abs().max()) == 0.0


def test_smoothing_keeps_a_constant_everywhere_and_its_gradient_is_right() -> None:
    constant = torch.full((1, 2, 5, 6, 7), 3.0)
    torch.testing.assert_close(smooth(constant, 3), constant)
    values = torch.randn(1, 2, 4, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: smooth(x, 2), (values,))
    pooled = torch.nn.functional.avg_pool3d(values, 3, 1, 1, count_include_pad=False)
    torch.testing.assert_close(smooth(values, 1), pooled)


def test_a_missing_or_foreign_transform_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.h5").write_text("no transform")
    with pytest.raises(InputError, match=r"missing\.h5 does not exist"):
        Transform.load(tmp_path / "missing.h5")
    with pytest.raises(InputError, match=r"bad\.h5 could not be read"):
        Transform.load(tmp_path / "bad.h5")
