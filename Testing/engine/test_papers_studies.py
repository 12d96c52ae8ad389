"""Studies of docs/papers.md: what they compute from what they measured, on made-up figures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from benchmarks.data.pairs import EVALUATION_ABDOMENS
from benchmarks.studies import (
    aligned_images,
    hand_xray,
    initialization,
    masr_optimization,
    similarity_maps,
    suits_paired,
)
from samconvex.io.images import write_volume
from samconvex.networks.sam_compact import SAMCompact
from samconvex.space.grid import Grid
from samconvex.space.volume import Volume
from samconvex.synthetic.phantom import make_phantom
from samconvex.training.sam.recipe import save_weights
from samconvex.training.semantic import Source

GRID = Grid((4, 3, 2), (2.0, 2.0, 2.0))


def test_abdominal_mr_labels_become_those_of_the_ct():
    labels = Volume(torch.tensor([0, 1, 2, 3, 4, 9] * 4).view(1, 1, 2, 3, 4).to(torch.uint8), GRID)
    found = masr_optimization.relabeled(labels, masr_optimization.OF_MR).tensor
    assert found.flatten()[:6].tolist() == [0, 6, 2, 3, 1, 0]


def test_less_error_and_more_dice_count_as_better():
    def row(text: list[str], name: str) -> list[str]:
        return [cell.strip() for cell in next(line for line in text if line.startswith(f"| {name} ")).split("|")]

    mm = {str(n): {"start": _error(9.0), "dns": _error(4.0), "mind": _error(5.0 + n)} for n in range(6)}
    text = masr_optimization.table({"warps": mm}, "dns")
    assert row(text, "mind")[2:5] + row(text, "mind")[6:8] == ["6", "7.500", "+3.500", "0", "0.031"]
    low, high = (float(end) for end in row(text, "mind")[5].split(" to "))
    assert 1.0 <= low < 3.5 < high <= 6.0
    dice = {str(n): {"start": {"dice_mean": 0.3}, "dns": {"dice_mean": 0.5}, "mind": {"dice_mean": 0.6}} for n in "ab"}
    text = masr_optimization.table({"people": dice}, "dns")
    assert row(text, "mind")[2:8] == ["2", "0.600", "+0.100", "", "2", ""]


def test_every_brain_meets_the_atlas_in_both_directions(tmp_path):
    (tmp_path / "brain").mkdir()
    for number in (1, 2, 3):
        (tmp_path / "brain" / f"labelmap0{number}.nii.gz").touch()
    found = [pair.name for pair in masr_optimization.atlas_pairs(tmp_path)]
    assert found == ["atlas-02", "02-atlas", "atlas-03", "03-atlas"]


def _error(mean: float) -> dict:
    return {"known_error_mm": {"mean": mean}, "seconds": 1.0}


def test_variants_change_one_thing_of_masrs_optimization():
    found = masr_optimization.variants()
    base = found["dns"].stages
    assert [s.regularization for s in found["dns, lambda x 4"].stages] == [4 * s.regularization for s in base]
    assert [s.spacing for s in found["mind, middle grid 2 mm"].stages] == [base[0].spacing, 2.0, base[2].spacing]
    assert found["mind"].refine_features == ("mind",) and found["mind"].stages == base


def test_networks_are_compared_pairwise():
    scores = {"a": {"same": [0.5] * 6}, "b": {"same": [0.6] * 6}}
    lines = suits_paired.table(scores, "same")
    assert lines[2] == "| a | 0.500 |  | -0.100, better in 0, p 0.031 |"
    assert lines[3] == "| b | 0.600 | +0.100, better in 6, p 0.031 |  |"
    network = suits_paired.network_of("mind-4")
    assert network.stride == 4 and network(torch.rand(1, 1, 8, 8, 8), "mr").shape == (1, 12, 2, 2, 2)


def test_the_most_alike_voxel_is_found_where_the_image_was_shifted_to():
    torch.manual_seed(0)
    fixed = torch.rand(5, 8, 9, 10)
    places = np.array([[3, 4, 5], [2, 2, 2]])
    assert similarity_maps.distances(fixed, fixed, places, 3.0).tolist() == [0, 0]
    assert similarity_maps.distances(fixed, fixed.roll(2, -1), places, 3.0).tolist() == [6, 6]
    sheet = similarity_maps.picture([fixed[0], fixed[1]], {"MIND": [fixed, fixed]}, places)
    assert sheet.size == (3 * 3 * 10, 2 * 3 * 9)


def test_landmarks_are_laid_at_the_same_share_of_a_larger_image():
    query = Grid((7, 5, 2), (3.0, 3.0, 2.0), (10.0, 0.0, 0.0))
    found = hand_xray.scaled(np.array([[6.0, 4.0, 0.0], [0.0, 2.0, 0.0]]), GRID, query)
    assert np.allclose(found, [[28.0, 12.0, 0.0], [10.0, 6.0, 0.0]])


def test_no_evaluation_patient_is_aligned_for_training(tmp_path):
    (tmp_path / "headneck_pairs.csv").write_text("fixed,moving\nhn088,hn036\n")
    kept = aligned_images.evaluation_patients(tmp_path)
    assert {"hn088", "hn036", "btcv14", "btcv19", "ts_example"} <= kept and "btcv13" not in kept
    grid = aligned_images.box_around(np.array([1.0, 2.0, 3.0]), 4.0, (3, 2, 4))
    assert grid.size == (4, 2, 3) and np.allclose(grid.center, [1, 2, 3])


def _small_region(folder) -> initialization.Region:
    """Two invented patients to learn from and one held out, with their images."""
    (folder / "abdomen").mkdir()
    for seed, name in enumerate("abc"):
        phantom = make_phantom(seed, 8.0, size=(14, 14, 14))
        write_volume(phantom.ct, folder / "abdomen" / f"{name}_ct.nii.gz")
        write_volume(phantom.labels, folder / "abdomen" / f"{name}_seg.nii.gz")
    return initialization.Region("abdomen", "abdomen", ("first", "second"), (), ("a", "b"), ("c",))


def _embedding(path, **settings) -> dict:
    """Small weights in a file, and what it holds."""
    told = {"include": ["abdomen/*_ct.nii.gz"], "exclude": [], "validation": ["c"], "label_groups": [], **settings}
    save_weights(path, SAMCompact((4, 4, 4, 4), (1, 1, 1, 1), 4, 4), {"settings": told, "modality": "ct"})
    return initialization.embedding_of(path)


def test_both_starts_get_the_same_patients_steps_and_crops(tmp_path, monkeypatch):
    region, weights = _small_region(tmp_path), tmp_path / "embedding.pt"
    _embedding(weights)
    given, crops = [], []
    train, crop = initialization.train, Source.draw
    monkeypatch.setattr(initialization, "train", lambda *a, **k: (given.append(k), train(*a, **k)))
    monkeypatch.setattr(initialization, "SHAPE", (16, 16, 16))

    def draw(self, generator):
        crops.append(crop(self, generator))
        return crops[-1]

    monkeypatch.setattr(Source, "draw", draw)
    for start in initialization.STARTS:
        record = initialization.run(tmp_path, region, 2, start, weights, steps=1, seed=3, folder=tmp_path)
        assert record["training"] == ["a", "b"] and set(record["dice"]) == {"c"}
        assert {"first", "second", "mean"} == set(record["dice"]["c"]) and record["images_seen"] == []
    first, second = given
    assert (first.pop("start_from"), second.pop("start_from")) == (None, weights) and first == second
    assert len(crops) == 2 and torch.equal(crops[0][0], crops[1][0])
    # A second call finds what is on disk, evaluates what was only trained, and trains with another seed.
    monkeypatch.setattr(initialization, "train", lambda *_a, **_k: pytest.fail("trained again"))
    known = initialization.records_of(tmp_path)
    options = {"steps": 1, "folder": tmp_path}
    assert len(known) == 2 and initialization.run(tmp_path, region, 2, "random", weights, seed=3, **options) == known[0]
    (tmp_path / "runs.jsonl").unlink()
    assert initialization.run(tmp_path, region, 2, "random", weights, seed=3, **options) == known[0]
    for changed in ({"seed": 4}, {"seed": 3, "steps": 2}):
        with pytest.raises(pytest.fail.Exception):
            initialization.run(tmp_path, region, 2, "random", weights, **{**options, **changed})


def test_what_an_embedding_knows_of_the_held_out_patients_is_told(tmp_path):
    region = initialization.Region("abdomen", "abdomen", ("first",), (), ("a",), ("b", "c"))
    found = _embedding(tmp_path / "e.pt", label_groups=["abdomen"], label_share=0.0)
    assert initialization.seen_by(found, region) == ["b"] and not initialization.saw_labels(found)
    found = _embedding(tmp_path / "f.pt", label_groups=["abdomen"], label_share=0.4, include=["headneck/*"])
    assert initialization.seen_by(found, region) == [] and initialization.saw_labels(found)


def test_starts_are_compared_patient_by_patient_over_the_seeds_of_both():
    def record(start: str, seed: int, *means: float) -> dict:
        dice = {str(n): {"liver": mean, "mean": mean} for n, mean in enumerate(means)}
        told = {
            "labels_seen": False,
            "images_seen": ["btcv13"],
            "embedding": "abc",
            "patients": 5,
            "crop": [2, 48, 48, 48],
        }
        return {"region": "abdomen", "start": start, "seed": seed, "steps": 9, "dice": dice, **told}

    records = [record("random", 0, 0.2, 0.3), record("embedding", 0, 0.5, 0.4), record("random", 1, 0.9, 0.9)]
    lines = initialization.table(records)
    assert (
        lines[2] == "| abdomen | 5 | 9 x 2 of 48^3 | 1 | 2 | 0.250 | 0.450 | +0.200 (+0.100 to +0.300) | 2 | 0.5000 |"
    )
    assert "btcv13" in lines[3] and len(lines) == 4
    lines = initialization.table([*records, record("embedding", 1, 0.9, 0.9)])
    assert (
        lines[2] == "| abdomen | 5 | 9 x 2 of 48^3 | 2 | 2 | 0.575 | 0.675 | +0.100 (+0.050 to +0.150) | 2 | 0.5000 |"
    )
    assert "| liver | 0.575 | 0.675 |" in initialization.organ_table([*records, record("embedding", 1, 0.9, 0.9)])


def test_no_abdomen_of_an_evaluation_is_learned_from(tmp_path):
    folder = tmp_path / "abdomen"
    folder.mkdir()
    full = make_phantom(0, 30.0).labels
    tensor = torch.arange(full.tensor.numel()).view(full.tensor.shape) % 14
    for number in range(20):
        # One patient lacks the gallbladder and comes last.
        labels = tensor.where(tensor != 4, 0) if number == 9 else tensor
        write_volume(full.with_tensor(labels.to(torch.uint8)), folder / f"btcv{number:02d}_seg.nii.gz")
    region = initialization.region_of("abdomen", tmp_path)
    assert len(region.organs) == 13 and region.organs[5] == "liver" and region.training[-1] == "btcv09"
    assert len(region.training) == 10 and not set(region.training) & {*region.held_out, *EVALUATION_ABDOMENS}
