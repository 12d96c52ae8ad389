"""What a GPU computes is what the processor computes; skipped where there is none."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from samconvex import match_points, register
from samconvex.anatomy.embed import embed
from samconvex.cli.main import main
from samconvex.synthetic.phantom import Phantom, make_phantom
from samconvex.training.data.images import make_image
from samconvex.training.semantic import SemanticSettings, Source, make_example

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
PRESETS = ("ct-inter-patient", "ct-lung-breathing", "ct-follow-up", "mr-body", "rigid", "fast-preview")


@pytest.fixture(scope="module")
def pair() -> tuple[Phantom, Phantom]:
    return make_phantom(1, 4.0), make_phantom(2, 4.0)


@pytest.mark.parametrize("preset", PRESETS)
def test_both_devices_find_the_same_map(pair, preset):
    maps = [register(pair[0].ct, pair[1].ct, preset=preset, device=device) for device in ("cpu", "cuda")]
    assert maps[1].report["device"] != maps[0].report["device"] == "cpu"
    points = np.stack(list(pair[0].landmarks.values()))
    places = [found.fixed_to_moving.map_points(points) for found in maps]
    apart = np.linalg.norm(places[0] - places[1], axis=1)
    # Rounding differs; a wrong device path is centimeters off.
    assert np.median(apart) < 1.0 and np.percentile(apart, 90) < 3.0


def test_both_devices_embed_alike(pair):
    found = [embed(pair[0].ct, device=device) for device in ("cpu", "cuda")]
    for part in ("coarse", "fine"):
        first, second = (getattr(each, part).tensor.float().cpu() for each in found)
        assert first.shape == second.shape
        cosine = torch.nn.functional.cosine_similarity(first, second, dim=1)
        assert float(cosine[first.norm(dim=1) > 0.5].median()) > 0.99


def test_both_devices_match_alike(pair):
    points = np.stack(list(pair[0].landmarks.values()))[:6]
    found = [match_points(pair[0].ct, points, pair[1].ct, device=device) for device in ("cpu", "cuda")]
    apart = np.linalg.norm(found[0].points - found[1].points, axis=1)
    assert np.median(apart) < 2.0


def test_a_gpu_gives_its_memory_back(pair):
    register(pair[0].ct, pair[1].ct, preset="fast-preview", device="cuda")
    before = torch.cuda.memory_allocated()
    for _ in range(3):
        register(pair[0].ct, pair[1].ct, preset="fast-preview", device="cuda")
    assert torch.cuda.memory_allocated() <= before + 64 * 2**20


def test_a_gpu_draws_the_crops_that_the_processor_draws():
    images = [make_image(p.ct, p.labels, f"phantom{k}", 6.0) for k, p in enumerate((make_phantom(1, 6.0),))]
    settings = SemanticSettings(spacing_mm=6.0, shapes=((32, 32, 32),), intensity=0.0, batch=1)
    example = make_example(images[0], settings)
    assert example is not None
    drawn = [Source([example.to(torch.device(device))], settings).numbered(3) for device in ("cpu", "cuda")]
    for here, there in zip(*drawn, strict=True):
        assert there.is_cuda
        # A voxel on a rim may fall to either side.
        assert float(((here - there.cpu()).abs() > 0.01).float().mean()) < 0.01


@pytest.mark.parametrize("recipe", ["sam", "semantic"])
def test_a_gpu_trains(recipe, tmp_path):
    small = {"spacing_mm": 6.0, "shapes": [[32, 32, 32]], "widths": [8, 8, 8, 8]}
    if recipe == "sam":
        small |= {"candidates": 200, "queries": 40, "workers": 2}
    config, weights = tmp_path / "c.json", tmp_path / "w.pt"
    config.write_text(json.dumps(small))
    words = ["train", recipe, "--data", "phantom", "--config", str(config), "-o", str(weights), "--device", "cuda"]
    assert main([*words, "--steps", "20", "--progress", "none"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "w.log.jsonl").read_text().splitlines()]
    assert weights.exists() and all(np.isfinite(line["loss"]) for line in lines if "loss" in line)
