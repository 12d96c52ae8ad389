"""What of a folder becomes training data, and in which coordinates."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from samconvex import InputError
from samconvex.synthetic.phantom import make_phantom
from samconvex.training.data.cases import AIR, find_cases, load_cases, make_case


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(1, 8.0)


def _write(folder, name, volume):
    folder.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(volume.to_sitk(), str(folder / name))


def test_images_pair_with_their_labels(tmp_path, phantom):
    _write(tmp_path / "a", "one_ct.nii.gz", phantom.ct)
    _write(tmp_path / "a", "one_seg.nii.gz", phantom.labels)
    _write(tmp_path / "b", "two.nrrd", phantom.ct)
    found = find_cases(tmp_path, [], [])
    names = [(image.name, label.name if label else None) for image, label in found]
    assert names == [("one_ct.nii.gz", "one_seg.nii.gz"), ("two.nrrd", None)]
    assert [p.name for p, _ in find_cases(tmp_path, ["a/*"], [])] == ["one_ct.nii.gz"]
    assert [p.name for p, _ in find_cases(tmp_path, [], ["one"])] == ["two.nrrd"]


def test_nothing_usable_is_said_in_a_sentence(tmp_path):
    with pytest.raises(InputError, match="not a folder"):
        find_cases(tmp_path / "missing", [], [])
    with pytest.raises(InputError, match="no image"):
        find_cases(tmp_path, [], [])


def test_labels_lie_where_the_organ_is_whatever_the_grids(phantom):
    case = make_case(phantom.ct, phantom.labels, name="one", group="g", spacing=4.0)
    array = phantom.labels.tensor[0, 0].numpy()
    for value, shape in list(case.labels.items())[:4]:
        voxels = np.argwhere(array == value)[:, ::-1].astype(float)
        expected = phantom.labels.grid.voxels_to_points(voxels).mean(0)
        found = case.grid.voxels_to_points(shape.centroid[None, ::-1])[0]
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_couch_is_gone_and_the_body_stays(phantom):
    case = make_case(phantom.ct, None, name="one", group="g", spacing=4.0)
    inside = case.body[None, None] > 0
    torch.testing.assert_close(case.masked[inside], case.hu[inside])
    outside = torch.nn.functional.max_pool3d(case.body[None, None].float(), 3, 1, 1) == 0
    assert (case.masked[outside] == AIR).all()
    index = case.points.round().long().T
    assert (case.body[tuple(index)] > 0).float().mean() > 0.95


def test_the_cache_gives_the_same_case(tmp_path, phantom):
    _write(tmp_path / "data", "one_ct.nii.gz", phantom.ct)
    _write(tmp_path / "data", "one_seg.nii.gz", phantom.labels)
    first, second = (load_cases(tmp_path / "data", spacing=6.0, cache=tmp_path / "cache")[0] for _ in range(2))
    assert len(list((tmp_path / "cache").glob("*.npz"))) == 1
    assert torch.equal(first.hu, second.hu) and torch.equal(first.points, second.points)
    assert first.grid == second.grid and first.name == second.name == "one"
    assert first.labels.keys() == second.labels.keys()
    for value, shape in first.labels.items():
        np.testing.assert_array_equal(shape.extremes, second.labels[value].extremes)
        assert shape.whole == second.labels[value].whole


def test_what_is_tubular_is_said_folder_by_folder(tmp_path, phantom):
    for folder in ("head", "belly"):
        _write(tmp_path / folder, f"{folder}_ct.nii.gz", phantom.ct)
        _write(tmp_path / folder, f"{folder}_seg.nii.gz", phantom.labels)
    value = next(iter(make_case(phantom.ct, phantom.labels, name="one", group="g", spacing=6.0).labels))
    cases = load_cases(tmp_path, spacing=6.0, tubular={"head": [value]}, cache=tmp_path / "cache")
    assert {case.group: case.labels[value].axis is not None for case in cases} == {"belly": False, "head": True}
    everywhere = load_cases(tmp_path, spacing=6.0, tubular=[value], cache=tmp_path / "cache")
    assert all(case.labels[value].axis is not None for case in everywhere)
