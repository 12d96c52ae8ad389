"""Which images are paired: two of one folder, every folder as often as the others."""

from __future__ import annotations

import pytest
import SimpleITK as sitk
import torch
from samconvex.errors import InputError
from samconvex.space.grid import Grid
from samconvex.training.data.images import Image, load_images, neighbors, pairs_of

GROUPS = ["neck"] * 6 + ["belly"] * 2 + ["hand"]


def image(name: str, group: str) -> Image:
    return Image(name, "ct", torch.zeros(1, 1, 2, 2, 2), None, Grid((2, 2, 2), (1.0, 1.0, 1.0)), group)


def test_pairs_are_of_one_folder_and_every_folder_comes_up_as_often():
    draw = pairs_of([image(str(number), group) for number, group in enumerate(GROUPS)])
    generator = torch.Generator().manual_seed(0)
    drawn = [draw(generator) for _ in range(200)]
    assert all(a != b and GROUPS[a] == GROUPS[b] for a, b in drawn)
    assert 70 < sum(GROUPS[a] == "belly" for a, _ in drawn) < 130
    with pytest.raises(InputError, match="two images of one folder"):
        pairs_of([image("a", "neck"), image("b", "belly")])


def test_held_out_images_are_registered_to_the_one_before_them_in_their_folder():
    images = [image(str(number), group) for number, group in enumerate(GROUPS)]
    assert neighbors(images) == [(0, 5), (1, 0), (2, 1), (3, 2), (4, 3), (5, 4), (6, 7), (7, 6)]
    assert neighbors(images[:1]) == []


def test_the_group_of_a_loaded_image_is_its_folder(tmp_path):
    for name in ("neck", "belly"):
        (tmp_path / name).mkdir()
        picture = sitk.Image(8, 8, 8, sitk.sitkInt16) - 1000
        picture[2, 2, 2] = 40
        sitk.WriteImage(picture, str(tmp_path / name / "a_ct.nii.gz"))
    found = load_images(tmp_path, spacing=1.0, include=[], exclude=[], progress=lambda fraction, message: None)
    assert sorted(image.group for image in found) == ["belly", "neck"]
