"""Studies of docs/papers.md: what they compute from what they measured, on made-up figures."""

from __future__ import annotations

import numpy as np
import torch
from benchmarks.studies import aligned_images, hand_xray, masr_optimization, similarity_maps, suits_paired
from samconvex.space.grid import Grid
from samconvex.space.volume import Volume

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
    assert row(text, "mind")[2:7] == ["6", "7.500", "+3.500", "0", "0.031"]
    dice = {str(n): {"start": {"dice_mean": 0.3}, "dns": {"dice_mean": 0.5}, "mind": {"dice_mean": 0.6}} for n in "ab"}
    text = masr_optimization.table({"people": dice}, "dns")
    assert row(text, "mind")[2:7] == ["2", "0.600", "+0.100", "2", ""]


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
