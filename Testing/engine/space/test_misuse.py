"""What Python callers get wrong is an InputError before any work: shapes, points, maps that cannot be inverted."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from samconvex.errors import InputError
from samconvex.io.checks import labels_note
from samconvex.landmarks.matching import match_points
from samconvex.registration.register import register
from samconvex.space.grid import Grid
from samconvex.space.transforms import AffineTransform, Transform
from samconvex.space.volume import Volume

GRID = Grid((12, 10, 9), (2.0, 2.0, 2.0))
MIRROR = Transform((AffineTransform(np.diag([-1.0, 1.0, 1.0]), np.zeros(3)),))


def _volume(name: str = "image") -> Volume:
    values = torch.from_numpy(np.random.default_rng(0).integers(-1000, 1000, (1, 1, *GRID.shape)).astype(np.int16))
    return Volume(values, GRID, sitk.sitkInt16, name)


@pytest.mark.parametrize("points", [np.zeros((3, 5)), np.zeros((4, 2)), [[0, 0, np.nan]], [[0, np.inf, 0]], ["a", "b"]])
def test_points_that_are_not_finite_rows_are_refused(points) -> None:
    for use in (
        lambda: Transform().map_points(points),
        lambda: match_points(_volume(), points, _volume()),
        lambda: register(_volume(), _volume(), fixed_points=points, moving_points=np.zeros((5, 3))),
    ):
        with pytest.raises(InputError, match="Points must be"):
            use()


def test_point_lists_of_different_length_are_refused() -> None:
    with pytest.raises(InputError, match="2 fixed points but 3 moving points"):
        register(_volume(), _volume(), fixed_points=np.zeros((2, 3)), moving_points=np.zeros((3, 3)))


@pytest.mark.parametrize("shape", [(10, 9), (1, 10, 9), (9, 10, 12), (1, 3, 9, 10, 12), (1, 1, 9, 12, 10)])
def test_tensors_that_are_no_volume_on_their_grid_are_refused(shape) -> None:
    odd = Volume(torch.rand(shape), GRID, source="odd")
    for words in ((odd, _volume()), (_volume(), odd)):
        with pytest.raises(InputError, match="odd holds"):
            register(*words)
    with pytest.raises(InputError, match="odd holds"):
        register(_volume(), _volume(), moving_labels=odd)


def test_other_objects_than_volumes_are_refused() -> None:
    with pytest.raises(InputError, match="ndarray is no volume"):
        register(np.zeros((9, 10, 12)), _volume())


@pytest.mark.parametrize(
    "image", [sitk.Image([9, 9], sitk.sitkInt16), sitk.Image([9, 9, 9], sitk.sitkVectorFloat32, 3)]
)
def test_2d_and_vector_images_are_refused(image) -> None:
    with pytest.raises(InputError, match="give one scalar volume"):
        Volume.from_sitk(image)


@pytest.mark.parametrize("matrix", [np.diag([1.0, 1.0, 0.0]), np.ones((3, 3)), np.diag([1.0, np.nan, 1.0])])
def test_a_singular_transform_is_refused_on_reading(tmp_path, matrix) -> None:
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(matrix.ravel().tolist())
    sitk.WriteTransform(transform, str(tmp_path / "t.tfm"))
    with pytest.raises(InputError, match=r"t\.tfm(: it is singular| could not be read)"):
        Transform.load(tmp_path / "t.tfm")


def test_a_small_scale_is_not_singular(tmp_path) -> None:
    Transform((AffineTransform(np.eye(3) * 1e-3, np.zeros(3)),)).save(tmp_path / "t.tfm")
    np.testing.assert_allclose(Transform.load(tmp_path / "t.tfm").map_points([[1.0, 2, 3]]), [[1e-3, 2e-3, 3e-3]])


def test_a_mirrored_initial_transform_is_refused() -> None:
    with pytest.raises(InputError, match="initial transform mirrors"):
        register(_volume(), _volume(), initial_transform=MIRROR)
    assert MIRROR.mirrors and not MIRROR.after(MIRROR).mirrors


def test_an_image_of_few_whole_numbers_looks_like_labels() -> None:
    few = _volume("few").with_tensor(_volume().tensor % 7)
    assert "few holds only 7 different values" in (labels_note(few, "x") or "")
    assert labels_note(_volume(), "x") is None
    assert labels_note(few.with_tensor(few.tensor.float()), "x") is None
