"""The multimodal suite hands each network its own weights, paints label maps as told and writes its page itself."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from benchmarks.data.pairs import Pair
from benchmarks.suites import multimodal
from benchmarks.suites.multimodal_landscape import AXES, MEASURES, joint_entropy_loss, landscape_lines
from samconvex.networks.masr import CHECKPOINT_FORMAT, CHECKPOINT_VERSION, MASRNet
from samconvex.space.grid import Grid
from samconvex.space.volume import Volume
from samconvex.training.loop import save_checkpoint
from samconvex.weights.models import load_network

PAIR = Pair("pair", "group", "mr-ct", lambda: None)  # type: ignore[arg-type,return-value]


@pytest.fixture
def masr(tmp_path):
    path = tmp_path / "masr.pt"
    save_checkpoint(path, MASRNet((4, 4, 4, 4), 2, 6), CHECKPOINT_FORMAT, CHECKPOINT_VERSION, {})
    return path


def test_a_named_network_runs_as_the_feature_it_holds_weights_of(masr, tmp_path):
    words = multimodal.words_of("mine-adam", PAIR, tmp_path, tmp_path, 1, {"mine": str(masr)})
    assert words[words.index("--features") + 1] == "dns" and words[words.index("--weights") + 1] == str(masr)
    assert words[words.index("--refine") + 1] == "adam"
    assert "--weights" not in multimodal.words_of("mind-none", PAIR, tmp_path, tmp_path, 1, {})


def test_variants_of_masr_load_and_describe_differently(masr, tmp_path):
    files = multimodal.masr_variants(tmp_path / "networks", str(masr))
    image = torch.rand(1, 1, 8, 8, 8)
    described = {name: load_network(MASRNet, file)(image) for name, file in files.items()}
    assert set(described) == {*multimodal.VARIANTS, "unsmoothed"}
    values = list(described.values())
    for number, first in enumerate(values):
        for second in values[number + 1 :]:
            assert first.shape != second.shape or not torch.allclose(first, second, atol=1e-3)


def test_fluid_is_dark_in_t1_and_bright_in_t2():
    labels = torch.zeros(1, 1, 12, 12, 12, dtype=torch.uint8)
    labels[..., :6] = 4
    labels[..., 6:] = 2
    maps = Volume(labels, Grid((12, 12, 12), (1.0, 1.0, 1.0)))
    for contrast, sign in (("t1", 1), ("t2", -1)):
        image = multimodal.painted(maps, contrast, 0).tensor
        assert sign * float(image[..., 8:].mean() - image[..., :4].mean()) > 100


def test_the_page_says_who_wrote_it_and_holds_every_pair(tmp_path):
    runs = tmp_path / "runs" / "one"
    runs.mkdir(parents=True)
    for method, error in (("start", 9.0), ("dns-none", 2.0)):
        record = {"pair": "one", "group": "warps", "method": method, "known_error_mm": {"mean": error}}
        (runs / f"{method}.json").write_text(json.dumps(record))
    text = multimodal.page(multimodal.write_results(tmp_path))
    assert "do not edit" in text and "| one | 9.00 | 2.00 |" in text


def test_mutual_information_is_best_where_one_image_is_a_function_of_the_other():
    random = np.random.default_rng(0)
    first = random.uniform(size=4000)
    assert joint_entropy_loss(first, 1 - first**2) < joint_entropy_loss(first, random.uniform(size=4000)) - 0.2


def test_a_landscape_is_told_by_its_lowest_place_and_how_far_it_rises(tmp_path):
    angles = [-8.0, -4.0, 0.0, 4.0, 8.0, 12.0]
    losses = {name: {axis: [3.0, 2.0, 1.0, 0.0, 1.0, 0.5] for axis in AXES} for name in MEASURES}
    losses["NMI"]["yaw"] = [3.0, 2.0, 0.0, 1.0, 2.0, 4.0]
    found = {"case": "one", "angles": angles, "losses": losses}
    lines = landscape_lines(found)
    assert "| MIND | pitch | 4 | 4 | 0.67 |" in lines
    assert "| NMI | yaw | 0 | 8 | 0.75 |" in lines
    (tmp_path / "landscape.json").write_text(json.dumps(found))
    (tmp_path / "landscape.png").write_bytes(b"png")
    document = {"machine": "here", "records": []}
    multimodal.publish_page(tmp_path, document, tmp_path / "page.md", tmp_path / "pictures")
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "| NMI | yaw | 0 | 8 | 0.75 |" in text and multimodal.PICTURE in text
    assert (tmp_path / "pictures" / multimodal.PICTURE).read_bytes() == b"png"


def test_variants_of_the_network_have_a_table_of_their_own():
    records = [
        {"pair": "a", "group": "MR-CT", "method": method, "known_error_mm": {"mean": 4.0}}
        for method in ("start", "mind-none", "dns-none", "ants", "untrained dns-none")
    ]
    above, _, below = multimodal.page({"machine": "here", "records": records}).partition("## What MASR-Net is made of")
    assert "| ants |" in above and "untrained dns" not in above
    assert "| untrained dns-none |" in below and "| dns-none |" in below and "| ants |" not in below
