"""A file that is written comes back at its place, or its format is refused before the work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from samconvex.cli import main
from samconvex.errors import InputError
from samconvex.io import images
from samconvex.io.images import check_format, read_grid, write_volume
from samconvex.registration import register as registration
from samconvex.space.grid import Grid
from samconvex.space.transforms import Transform
from samconvex.space.volume import Volume

ROTATION = tuple(np.array(sitk.Euler3DTransform((0, 0, 0), 0.2, 0.1, 0.3).GetMatrix()))
FLIPPED = (1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)
SHEARED = (1.0, 0.0, 0.0, 0.0, 1.0, 0.2588, 0.0, 0.0, 0.9659)
STRAIGHT = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
ANY_GRID = ("nrrd", "nhdr", "mha", "mhd")
NO_SHEAR = ("nii", "nii.gz", "hdr", "img")
NO_AXES = ("vtk", "gipl")


def _volume(direction: tuple[float, ...]) -> Volume:
    grid = Grid((9, 10, 11), (1.5, 2.0, 3.0), (-312.25, 87.5, 1024.0), direction)
    values = torch.arange(990, dtype=torch.int16).reshape(1, 1, *grid.shape)
    return Volume(values, grid, sitk.sitkInt16)


@pytest.mark.parametrize("ending", (*ANY_GRID, *NO_SHEAR, *NO_AXES))
@pytest.mark.parametrize("direction", [STRAIGHT, FLIPPED, ROTATION, SHEARED])
def test_a_grid_comes_back_or_the_format_is_refused(tmp_path: Path, ending: str, direction: tuple[float, ...]) -> None:
    volume, path = _volume(direction), tmp_path / f"out.{ending}"
    refused = (ending in NO_AXES and direction != STRAIGHT) or (ending in NO_SHEAR and direction == SHEARED)
    if refused:
        words = "sheared" if direction == SHEARED else "turned"
        for write in (lambda: check_format(path, volume.grid), lambda: write_volume(volume, path)):
            with pytest.raises(InputError, match=rf"out\.{ending}: this format cannot hold the {words} grid"):
                write()
        assert not list(tmp_path.iterdir())
    else:
        write_volume(volume, path)
        np.testing.assert_allclose(read_grid(path).corners(), volume.grid.corners(), atol=0.01)


def test_a_header_that_the_writer_bent_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bent(image: sitk.Image, path: Path) -> None:
        image.SetOrigin((0.0, 0.0, 0.0))
        sitk.WriteImage(image, str(path))

    monkeypatch.setattr(images, "write_image", bent)
    with pytest.raises(Exception, match=r"out\.nrrd came back 1074\.\d+ mm off"):
        write_volume(_volume(STRAIGHT), tmp_path / "out.nrrd")


def test_voxels_that_a_format_cannot_hold_are_named_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"out\.gipl: this format cannot hold .* voxels"):
        check_format(tmp_path / "out.gipl", _volume(STRAIGHT).grid, sitk.sitkInt64)


def test_commands_refuse_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(*_args: object, **_options: object) -> None:
        raise AssertionError("the work began")

    monkeypatch.setattr(Transform, "warp_volume", work)
    monkeypatch.setattr(registration, "register", work)
    for name, direction in (("sheared.nrrd", SHEARED), ("turned.nrrd", ROTATION)):
        write_volume(_volume(direction), tmp_path / name)
    sitk.WriteTransform(sitk.AffineTransform(3), str(tmp_path / "t.tfm"))
    before = sorted(path.name for path in tmp_path.iterdir())
    sheared, turned, still = (str(tmp_path / name) for name in ("sheared.nrrd", "turned.nrrd", "t.tfm"))
    cases = (
        (["apply", still, turned, "--like", turned, "-o", str(tmp_path / "o.vtk")], r"o.vtk: this format cannot hold"),
        (["apply", still, turned, "--like", sheared, "-o", str(tmp_path / "o.nii")], r"o.nii: this format cannot hold"),
        (["register", sheared, turned, "-o", str(tmp_path / "r")], "cannot hold the sheared grid"),
    )
    for words, sentence in cases:
        assert main([*words, "--progress", "none"]) == 2
        assert sentence in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == before
