"""X-ray images: their network, and matching through the same functions as volumes."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import SimpleITK as sitk
import torch
import torch.nn.functional as F
from engine.sam_fixtures import random_model, textured_body
from samconvex.anatomy.embed import embed
from samconvex.cli.main import main
from samconvex.errors import InputError
from samconvex.io.images import read_volume, write_volume
from samconvex.landmarks.matching import match_points
from samconvex.networks.sam_2d import SAM2D, preprocess
from samconvex.space.grid import Grid
from samconvex.space.volume import Volume
from samconvex.synthetic.phantom import make_phantom
from samconvex.synthetic.radiograph import Projection, radiograph
from samconvex.training.sam.recipe import save_weights
from samconvex.weights import models as weights

GRID = Grid((128, 112, 1), (2.0, 2.0, 2.0), (-40.0, 15.0, 7.0))
UPRIGHT = (0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def textured_image(grid: Grid = GRID, seed: int = 0) -> Volume:
    """An X-ray image full of smooth, unrepeated structure, without unit."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.zeros(1, 1, *grid.shape)
    for cells, strength in ((5, 150.0), (12, 120.0), (24, 80.0)):
        noise = torch.randn(1, 1, 1, cells, cells, generator=generator)
        values += strength * F.interpolate(noise, size=grid.shape, mode="trilinear", align_corners=True)
    return Volume(values.round().to(torch.int16), grid, sitk.sitkInt16, f"image {seed}")


@lru_cache(maxsize=1)
def slice_model() -> weights.SamModel:
    """A tiny 2D network with random weights, centered so that its vectors differ between places."""
    torch.manual_seed(0)
    network = SAM2D((8, 16, 16, 16), (1, 1, 1, 1), 32, 24)
    image = preprocess(textured_image(seed=9).tensor)
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = None
        network(image)
        fine, coarse = network.eval().raw_features(image)
        for head, values in ((network.fine_head, fine), (network.coarse_head, coarse)):
            head[-1].bias -= values.mean((0, 2, 3, 4))
    return weights.compact_model(network, "random 2D", "2" * 64, "xray")


def image_points(grid: Grid, count: int = 12) -> np.ndarray:
    random = np.random.default_rng(0)
    voxels = np.column_stack([random.uniform(24, size - 24, count) for size in grid.size[:2]])
    return grid.voxels_to_points(np.column_stack([voxels, np.zeros(count)]))


def test_maps_have_one_slice_and_unit_vectors():
    network = SAM2D((8, 8, 8, 8), (1, 1, 1, 1), 12, 10).eval()
    maps = network(torch.rand(2, 1, 1, 32, 48))
    assert maps["fine"].shape == (2, 12, 1, 16, 24) and maps["coarse"].shape == (2, 10, 1, 4, 6)
    torch.testing.assert_close(maps["fine"].norm(dim=1), torch.ones(2, 1, 16, 24))
    for shape in ((1, 1, 2, 32, 32), (1, 1, 1, 32, 40)):
        with pytest.raises(ValueError, match="multiples"):
            network(torch.rand(shape))


def test_unit_and_offset_of_an_image_do_not_matter():
    image = torch.rand(1, 1, 1, 40, 40)
    prepared = preprocess(image)
    torch.testing.assert_close(preprocess(300 * image - 70), prepared, atol=1e-4, rtol=0)
    assert float(prepared.min()) == 0 and 0.9 < float(prepared.quantile(0.98)) <= 1


@pytest.mark.parametrize("direction", [None, UPRIGHT])
def test_points_are_found_in_a_shifted_image_lying_or_standing(direction):
    grid = GRID if direction is None else replace(GRID, direction=direction)
    template = textured_image(grid)
    axes = np.reshape(grid.direction, (3, 3))
    shift = 16.0 * axes[:, 0] - 32.0 * axes[:, 1] + 5.0 * axes[:, 2]
    query = template.with_tensor(template.tensor, replace(grid, origin=tuple((grid.origin + shift).tolist())))
    points = image_points(grid)
    for mode in ("stable", "fast", "live"):
        found = match_points(template, points, query, weights=slice_model(), mode=mode)
        assert np.median(np.linalg.norm(found.points - points - shift, axis=1)) < 1.0
        np.testing.assert_allclose(grid.points_to_voxels(found.points - shift)[:, 2], 0, atol=0.5)


def test_networks_of_volumes_and_of_images_are_not_mixed_up():
    with pytest.raises(InputError, match="is a single slice"):
        embed(textured_image(), random_model())
    with pytest.raises(InputError, match="is no 2D image"):
        embed(textured_body(), slice_model())
    black = textured_image()
    with pytest.raises(InputError, match="nothing but background"):
        embed(black.with_tensor(torch.zeros_like(black.tensor)), slice_model())


def test_2d_files_are_read_where_they_are_welcome_only(tmp_path):
    image = sitk.GetImageFromArray(np.random.default_rng(0).integers(0, 255, (20, 30)).astype(np.uint8))
    image.SetSpacing((0.5, 0.7))
    sitk.WriteImage(image, str(tmp_path / "flat.png"))
    sitk.WriteImage(sitk.JoinSeries(image)[:, :, ::1], str(tmp_path / "slice.nrrd"))
    standing = sitk.PermuteAxes(sitk.JoinSeries(image), [2, 0, 1])
    sitk.WriteImage(standing, str(tmp_path / "standing.nrrd"))
    for name in ("flat.png", "slice.nrrd", "standing.nrrd"):
        volume = read_volume(tmp_path / name, slices=True)
        assert volume.is_slice and volume.grid.size == (30, 20, 1)
        np.testing.assert_array_equal(volume.tensor[0, 0, 0], sitk.GetArrayFromImage(image))
        with pytest.raises(InputError, match="2D"):
            read_volume(tmp_path / name)


def test_the_command_matches_images(tmp_path):
    save_weights(tmp_path / "w.pt", slice_model().network, {})
    template = textured_image()
    query = template.with_tensor(template.tensor, replace(GRID, origin=(0.0, 0.0, 0.0)))
    write_volume(template, tmp_path / "a.mha")
    write_volume(query, tmp_path / "b.mha")
    point = image_points(GRID, 1)[0]
    (tmp_path / "p.csv").write_text("x,y,z,label\n" + ",".join(f"{v:.3f}" for v in point) + ",here\n")
    words = ["match", "a.mha", "p.csv", "b.mha", "-o", "out.csv", "--weights", "w.pt"]
    words = [str(tmp_path / word) if "." in word else word for word in words]
    assert main([*words, "--min-score", "-1", "--progress", "none"]) == 0
    row = (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()[1].split(",")
    found = np.array([float(value) for value in row[1:4]])
    np.testing.assert_allclose(found - point, -np.asarray(GRID.origin), atol=1.5)


def test_the_shipped_network_finds_landmarks_of_another_patient_and_an_untrained_one_does_not():
    images, points = [], []
    for seed, turn in ((0, 0.0), (1, 5.0)):
        phantom = make_phantom(seed, 8.0, couch=False)
        projection = Projection.at_angles(phantom.ct.grid.center, turn, source_mm=1500.0)
        grid = projection.grid(phantom.ct.grid.corners(), 2.0)
        images.append(radiograph(phantom.ct, projection, grid, step_mm=8.0))
        points.append(projection.project(np.stack([phantom.landmarks[name] for name in sorted(phantom.landmarks)])))
    torch.manual_seed(0)
    untrained = weights.compact_model(SAM2D(), "untrained", "0" * 64, "xray")
    errors = {}
    for name, model in (("shipped", None), ("untrained", untrained)):
        found = match_points(images[0], points[0], images[1], weights=model)
        errors[name] = np.linalg.norm(found.points - points[1], axis=1)
    assert np.median(errors["shipped"]) < 8.0 and (errors["shipped"] < 30.0).mean() > 0.9
    assert np.median(errors["untrained"]) > 30.0
