"""SAM-VoxelMorph's recipe: its loss falls where CTs come together; its weights start a registration."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
import torch.nn.functional as F
from samconvex.cli.main import main
from samconvex.networks.lapirn import warped
from samconvex.networks.sam_voxelmorph import SAMVoxelMorph
from samconvex.training import same
from samconvex.training.same import SameSettings, Seen, pair_loss
from samconvex.weights.models import load_feed_forward


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three CTs of soft balls with a bone in them, and their label maps."""
    (tmp_path / "data").mkdir()
    z, y, x = np.mgrid[:20, :20, :20]
    for number, shift in enumerate((0, 1, 2)):
        distance = np.sqrt((z - 10) ** 2 + (y - 10) ** 2 + (x - 9 - shift) ** 2)
        values = np.where(distance < 8, 40.0, -1000.0) + 600 * (distance < 3)
        for name, array in (("ct", values.astype(np.int16)), ("seg", (distance < 3).astype(np.uint8))):
            image = sitk.GetImageFromArray(array)
            image.SetSpacing((8.0, 8.0, 8.0))
            sitk.WriteImage(image, str(tmp_path / "data" / f"ball{number}_{name}.nii.gz"))
    return tmp_path / "data"


def test_the_loss_is_least_where_images_and_embeddings_come_together(monkeypatch):
    torch.manual_seed(0)
    image = F.avg_pool3d(torch.rand(1, 1, 36, 36, 36), 5, 1)
    maps = F.normalize(torch.randn(1, 8, 16, 16, 16), dim=1)
    shift = torch.zeros(1, 3, 32, 32, 32)
    shift[:, 0] = 2 * 2 / 31
    fixed = Seen(image, None, maps)
    moving = Seen(warped(image, -shift), None, maps.roll(1, -1))
    network = SAMVoxelMorph()
    losses = {}
    for name, u in (("right", shift), ("none", 0 * shift), ("wrong", -shift)):
        monkeypatch.setattr(same, "integrated", lambda velocity, u=u: u)
        monkeypatch.setattr(network, "velocity", lambda *images: None)
        for weight in (0.0, 5.0):
            settings = SameSettings(similarity=weight, smoothness=0.0)
            losses[name, weight] = float(pair_loss(network, fixed, moving, settings)[0])
    for weight in (0.0, 5.0):
        assert losses["right", weight] < losses["none", weight] and losses["right", weight] < losses["wrong", weight]
    # The embeddings have their say.
    assert losses["none", 5.0] - losses["right", 5.0] > losses["none", 0.0] - losses["right", 0.0] + 1


def test_the_command_trains_and_its_weights_start_a_registration(tmp_path, folder):
    config, output = tmp_path / "config.json", tmp_path / "same.pt"
    small = {"spacing_mm": 8.0, "shape": [32, 32, 32], "width": 0.1, "validation": ["ball0"]}
    config.write_text(json.dumps(small))
    words = ["train", "same", "--data", str(folder), "-o", str(output), "--config", str(config), "--threads", "1"]
    assert main([*words, "--steps", "2", "--progress", "none"]) == 0
    network = load_feed_forward(output)
    assert isinstance(network, SAMVoxelMorph) and network.spacing_mm == 8.0
    pair = [str(folder / f"ball{number}_ct.nii.gz") for number in (0, 2)]
    words = ["register", *pair, "-o", str(tmp_path / "out"), "--preset", "fast-preview", "--affine", "none"]
    words += ["--coarse", "sam", "--initial-network", str(output), "--progress", "none", "--device", "cpu"]
    assert main(words) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert {"coarse", "network", "convex"} <= set(report["seconds"]["stages"])
    assert report["settings"]["coarse"] == "sam"
