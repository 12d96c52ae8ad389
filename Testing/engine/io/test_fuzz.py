"""A slice of the fuzz campaign (see Testing/campaigns/fuzz.py), and what the whole campaign once found."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest
from campaigns import seeds
from campaigns.cases import make_case
from campaigns.fuzz import GOOD, campaign, figures
from samconvex.errors import InputError
from samconvex.io.images import read_grid, read_volume
from samconvex.io.points import read_points
from samconvex.lesions.files import read_lesions
from samconvex.space.transforms import Transform


def test_damaged_files_raise_errors_of_ours_alone() -> None:
    records = list(campaign(list(range(200)), seed=1, workers=1))
    assert len(records) == 200 and {record["outcome"] for record in records} <= set(GOOD), figures(records)
    # Cases that are all refused at the first look would test nothing.
    assert sum(record["outcome"] == "ok" for record in records) > 30


def test_a_case_is_the_same_again(tmp_path) -> None:
    contents = []
    for turn in range(2):
        for number in range(10):
            folder = tmp_path / f"{turn}-{number}"
            folder.mkdir()
            path = make_case(2, number, folder)[1]
            contents.append([file.read_bytes() for file in ([path] if path.is_file() else sorted(path.iterdir()))])
    # The checkpoint's archive holds random identities of its own.
    same = [first == second for first, second in zip(contents[:10], contents[10:], strict=True)]
    assert sum(same) >= 9


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
@pytest.mark.parametrize("zipped", [False, True])
def test_a_nifti_place_that_is_no_number_is_refused(tmp_path, value, zipped) -> None:
    content = bytearray(seeds.image_bytes(".nii.gz"))
    content[280:284] = struct.pack("<f", value)
    path = tmp_path / ("a.nii.gz" if zipped else "a.nii")
    path.write_bytes(gzip.compress(content) if zipped else content)
    for read in (read_volume, read_grid):
        with pytest.raises(InputError, match=r"a\.nii.*no number"):
            read(path)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("NDims = 2147483647", "dimensions"),
        ("NDims = 11", "dimensions"),
        ("DimSize = 12 2147483647 9", "MiB of voxels"),
        ("ElementSpacing = 0 1.5 3", "spacing 0 x"),
        ("TransformMatrix = 1 0 0 1 0 0 0 0 1", "no usable place"),
        ("Comment = \x01", "header is damaged"),
        ("ElementDataFile", "header is damaged"),
    ],
)
def test_a_meta_image_that_itk_does_not_survive_is_refused(tmp_path, line, says) -> None:
    lines = seeds.image_bytes(".mha").split(b"\n")
    key = line.split(" =")[0].encode()
    new = [line.encode() if known.startswith(key) else known for known in lines]
    path = tmp_path / "a.mha"
    path.write_bytes(b"\n".join(new if new != lines else [line.encode(), *lines]))
    for read in (read_volume, read_grid, Transform.load):
        with pytest.raises(InputError, match=rf"a\.mha.*{says}"):
            read(path)


def test_a_dicom_element_longer_than_its_file_is_refused(tmp_path) -> None:
    for number, elements in enumerate(seeds.dicom_slices()):
        (tmp_path / f"{number}.dcm").write_bytes(seeds.dicom_bytes(elements))
    assert read_volume(tmp_path).grid.size == (12, 10, 9)
    content = (tmp_path / "4.dcm").read_bytes()
    place = content.index(struct.pack("<HH", 0x7FE0, 0x0010)) + 8
    (tmp_path / "4.dcm").write_bytes(content[:place] + struct.pack("<I", 1 << 31) + content[place + 4 :])
    with pytest.raises(InputError, match=r"4\.dcm is a DICOM file that is cut short or damaged"):
        read_volume(tmp_path)


@pytest.mark.parametrize("name", ["a.mrk.json", "a.json"])
def test_deeply_nested_json_is_refused(tmp_path, name) -> None:
    path = tmp_path / name
    path.write_text("[" * 100000 + "]" * 100000)
    with pytest.raises(InputError, match=name):
        read_lesions(path)
    if name.endswith(".mrk.json"):
        with pytest.raises(InputError, match=name):
            read_points(path)


def test_a_field_without_samples_is_refused(tmp_path) -> None:
    path = tmp_path / "t.tfm"
    text = seeds.transform_bytes(".tfm", "composite").decode()
    assert np.isfinite(Transform.load(_written(path, text)).map_points(np.zeros((1, 3)))).all()
    with pytest.raises(InputError, match=r"t\.tfm"):
        Transform.load(_written(path, text.replace("FixedParameters: 12 10 9", "FixedParameters: 0 0 0")))


def test_control_characters_in_a_text_transform_are_refused(tmp_path) -> None:
    text = seeds.transform_bytes(".tfm", "bspline").decode().replace("0 0", "0\0 0", 1)
    with pytest.raises(InputError, match=r"t\.tfm could not be read as a transform: it is damaged"):
        Transform.load(_written(tmp_path / "t.tfm", text))


def _written(path, text):
    path.write_text(text)
    return path
