"""A network's field comes back in millimeters of the fixed frame, whatever arrays the network reads."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from samconvex.cli.main import main
from samconvex.deform.feed_forward import VOXELS, network_grid, predicted
from samconvex.deform.scene import Scene
from samconvex.errors import InputError
from samconvex.networks.lapirn import CHECKPOINT_FORMAT, CHECKPOINT_VERSION, LapIRN
from samconvex.networks.sam_voxelmorph import SAMVoxelMorph
from samconvex.registration.forecast import forecast
from samconvex.registration.options import Options
from samconvex.settings.registration import Settings
from samconvex.space.grid import Grid
from samconvex.space.transforms import Transform
from samconvex.space.volume import FeatureMap, Volume
from samconvex.training.loop import save_checkpoint


def NOTHING(name: str):  # noqa: N802
    raise AssertionError(f"{name} was not asked for")


class Shifting(torch.nn.Module):
    """Says that everything moves by ``shift`` voxels along the last, second and first axis, and keeps what it saw."""

    multiple, spacing_mm, features = 8, 2.0, ""

    def __init__(self, axes: str, shift: tuple[float, float, float]) -> None:
        super().__init__()
        self.axes, self.shift, self.seen = axes, shift, []

    def forward(self, moving, fixed):
        self.seen = [moving, fixed]
        size = torch.tensor(fixed.shape[:1:-1], dtype=torch.float32)
        unit = torch.tensor(self.shift) * 2 / (size - 1)
        return unit.view(1, 3, 1, 1, 1).expand(1, 3, *fixed.shape[2:])


def scene_of(values: torch.Tensor, grid: Grid) -> Scene:
    return Scene(Volume(values, grid), Volume(values, grid), Transform(), grid.corners())


@pytest.mark.parametrize(
    ("axes", "expected"), [("zyx-lps", (2.0, 4.0, 6.0)), ("xyz-ras", (-6.0, -4.0, 2.0))], ids=["LPS", "RAS"]
)
def test_voxels_become_millimeters_along_the_right_axes(axes, expected):
    grid = Grid((18, 14, 10), (2.0, 2.0, 2.0), (5.0, 6.0, 7.0))
    values = torch.zeros(1, 1, *grid.shape)
    values[0, 0, 1, 2, 3] = 1.0  # near the lowest z, y, x: inferior, anterior, right
    network = Shifting(axes, (1.0, 2.0, 3.0))
    field = predicted(network, scene_of(values, grid), NOTHING, lambda fraction: None)
    assert all(n % 8 == 0 for n in field.grid.size)
    np.testing.assert_allclose(field.tensor[0].mean((1, 2, 3)), expected, rtol=1e-4)
    place = torch.nonzero(network.seen[1][0, 0] == network.seen[1].max())[0].tolist()
    size = network.seen[1].shape[2:]
    if axes == "zyx-lps":
        assert [p < n / 2 for p, n in zip(place, size, strict=True)] == [True, True, True]
    else:  # right and anterior are far along x and y of RAS, inferior is near along z
        assert [p < n / 2 for p, n in zip(place, size, strict=True)] == [False, False, True]


class Pooled:
    """Embeddings by no network: the same unit vectors everywhere."""

    def pooled(self, image: Volume, factor: int) -> FeatureMap:
        grid = image.grid.strided(factor)
        return FeatureMap(torch.full((1, 4, *grid.shape), 0.5), grid)


@pytest.mark.parametrize("network", [LapIRN(start_channels=1, shape=(8, 16, 24)), SAMVoxelMorph(width=0.1)])
@pytest.mark.parametrize("size", [(1, 9, 14), (14, 9, 1), (7, 5, 3), (33, 17, 9)])
def test_images_of_any_size_get_a_field_of_their_whole_box(network, size):
    torch.manual_seed(0)
    grid = Grid(size, (3.0, 2.0, 2.5), (5.0, 6.0, 7.0))
    field = predicted(network, scene_of(torch.rand(1, 1, *grid.shape), grid), lambda name: Pooled(), lambda part: None)
    assert all(n % network.multiple == 0 for n in field.grid.size) and field.grid.spacing == (2.0, 2.0, 2.0)
    low, high = field.grid.corners().min(0), field.grid.corners().max(0)
    assert (low <= grid.corners().min(0)).all() and (high >= grid.corners().max(0)).all()
    assert bool(torch.isfinite(field.tensor).all()) and float(field.tensor.abs().max()) > 0


def test_any_size_is_padded_and_what_is_too_large_seen_more_coarsely():
    box = np.array([[0.0, 0.0, 0.0], [101.0, 37.0, 3.0]])
    grid = network_grid(box, 2.0, 8)
    assert grid.spacing == (2.0, 2.0, 2.0) and grid.size == (56, 24, 8)
    np.testing.assert_allclose(grid.center, box.mean(0))
    large = network_grid(np.array([[0.0] * 3, [500.0, 500.0, 1800.0]]), 2.0, 8)
    assert large.voxel_count < 1.2 * VOXELS and large.spacing[0] > 4 and all(n % 8 == 0 for n in large.size)


@pytest.fixture
def blobs(tmp_path) -> tuple[str, str]:
    """Two T1-like images of a soft ball, 8 mm apart, of a size that is no multiple of 8."""
    paths = []
    for name, shift in (("fixed", 0), ("moving", 2)):
        z, y, x = np.mgrid[:18, :22, :26]
        ball = 1000 * np.exp(-((z - 9) ** 2 + (y - 11) ** 2 + (x - 13 - shift) ** 2) / 40.0)
        image = sitk.GetImageFromArray(ball.astype(np.float32))
        image.SetSpacing((4.0, 4.0, 4.0))
        sitk.WriteImage(image, str(tmp_path / f"{name}.nii.gz"))
        paths.append(str(tmp_path / f"{name}.nii.gz"))
    return paths[0], paths[1]


def test_a_registration_starts_from_a_network_and_may_end_with_it(tmp_path, blobs):
    torch.manual_seed(0)
    network = LapIRN(start_channels=1, spacing_mm=4.0)
    with torch.no_grad():  # strong enough to be seen
        for level in network.levels:
            level.output[2].weight.mul_(20)
    save_checkpoint(tmp_path / "lapirn.pt", network, CHECKPOINT_FORMAT, CHECKPOINT_VERSION, {})
    words = ["register", *blobs, "--affine", "none", "--initial-network", str(tmp_path / "lapirn.pt")]
    words += ["--preset", "fast-preview", "--progress", "none", "--device", "cpu"]
    assert main([*words, "-o", str(tmp_path / "out")]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["settings"]["initial_network"].endswith("lapirn.pt") and "network" in report["seconds"]["stages"]
    assert main([*words, "--refine", "adam", "-o", str(tmp_path / "refined")]) == 0


def test_weights_that_are_none_of_a_field_end_before_anything_is_read(tmp_path, capsys):
    words = ["register", "absent.nii", "absent.nii", "-o", str(tmp_path / "out"), "--initial-network", "masr"]
    assert main(words) == 2
    assert "masr holds masr weights, which predict no field" in capsys.readouterr().err


def test_features_that_nothing_compares_are_refused():
    options = {"preset": "affine", "initial_network": "lapirn-ct", "features": "mind"}
    with pytest.raises(InputError, match="nothing compares features, they would have no effect; leave them out"):
        Options(**options).settings()
    assert Options(**options, refine="adam").settings().compared == {"mind"}


def test_a_network_alone_and_a_network_that_is_refined(tmp_path, blobs):
    import samconvex as sc

    fixed, moving = (sc.read_volume(path) for path in blobs)
    torch.manual_seed(0)
    network = LapIRN(start_channels=1, spacing_mm=4.0)
    with torch.no_grad():
        network.levels[0].output[2].weight.mul_(40)
    save_checkpoint(tmp_path / "lapirn.pt", network, CHECKPOINT_FORMAT, CHECKPOINT_VERSION, {})
    bare = Settings("bare", "", affine="none", levels=(), working_spacing=4.0, fold_free=False)

    def moved(preset: Settings = bare, **options) -> np.ndarray:
        result = sc.register(fixed, moving, preset=preset, device="cpu", **options)
        points = fixed.grid.center + np.array([[0.0, 0, 0], [8.0, 4, -4], [-12.0, 8, 8]])
        return result.fixed_to_moving.map_points(points) - points

    nothing, alone = moved(), moved(initial_network=tmp_path / "lapirn.pt")
    refined = moved(initial_network=tmp_path / "lapirn.pt", refine="adam")
    assert np.abs(nothing).max() == 0 and np.abs(alone).max() > 0.5
    # Without levels the refinement compares MIND, from the network's field on.
    assert np.abs(refined - alone).max() > 0.1 and not np.allclose(
        refined, moved(replace(bare, refine="adam")), atol=0.05
    )


def test_the_forecast_knows_the_network():
    grid = Grid((200, 160, 160), (2.0, 2.0, 2.0))
    bare = Settings("bare", "", affine="none", levels=())
    without, with_network = (
        forecast(s, grid, grid) for s in (bare, Settings(**{**vars(bare), "initial_network": "x"}))
    )
    assert with_network.memory_gib > without.memory_gib + 1 and with_network.seconds > without.seconds + 5
