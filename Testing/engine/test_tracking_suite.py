"""The tracking suite: its follow-ups show what their truth says, and its figures count what they name."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from benchmarks.data import synthetic_lesions as made
from benchmarks.data.drawn_lesions import stands_out
from benchmarks.data.later_images import HARD, Condition, averaged_slices, posture
from benchmarks.results.tracking import figures, goal_lines, markdown, states, summary
from samconvex.space.grid import Grid
from samconvex.space.volume import Volume

GRID = Grid((60, 60, 40), (2.0, 2.0, 2.5), (-59.0, -59.0, -49.0))


def lesion(x: float, radius: float, partner: int | None = None, hounsfield: float = 100.0) -> made.SyntheticLesion:
    lumps = np.array([[1.0, 0.0, 0.0, 0.1]])
    return made.SyntheticLesion(
        np.array([x, 0.0, 0.0]), np.full(3, radius), np.eye(3), lumps, hounsfield, 0.7, 0, partner
    )


@pytest.fixture(scope="module")
def image() -> Volume:
    points = GRID.voxel_centers(reference=(0.0, 0.0, 0.0))
    body = torch.where(points[..., :2].norm(dim=-1) < 50, 40.0, -1000.0)
    return Volume(body.to(torch.int16)[None, None], GRID, sitk.sitkInt16, "ct")


def test_neighbors_that_merge_are_one_mass_and_fragments_are_apart() -> None:
    pair = [lesion(-10, 6, 1), lesion(10, 6, 0)]
    random = np.random.default_rng(0)
    grid = Grid((120, 60, 60), (0.5, 0.5, 0.5), (-30.0, -15.0, -15.0))
    points = grid.voxel_centers(reference=(0.0, 0.0, 0.0))

    def parts(shapes: list) -> int:
        inside = torch.zeros(grid.shape, dtype=torch.bool)
        for shape, growth in shapes:
            inside |= shape.distance(points - torch.as_tensor(shape.center, dtype=points.dtype), growth) <= 0
        return int(sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray(inside.numpy() * 1))).max())

    for fate, count in (("merged", 1), ("unchanged", 2)):
        shapes = [shape for row in (0, 1) for shape in made._shapes(pair, row, fate, 2.0, random)]
        assert parts(shapes) == count
    for _ in range(4):
        fragments = made._shapes([lesion(0, 10)], 0, "split", 2.0, random)
        assert parts(fragments) == len(fragments) >= 2


def test_no_lesion_shrinks_to_less_than_the_slices_show() -> None:
    small, large = lesion(0, 4), lesion(30, 12)
    fates = [made._fates([small, large], np.random.default_rng(seed), True, 5.0) for seed in range(30)]
    assert "shrunk" not in {fate[0] for fate in fates} and "shrunk" in {fate[1] for fate in fates}


def test_a_lesion_is_seen_by_half_of_its_border() -> None:
    points = GRID.voxel_centers(reference=(0.0, 0.0, 0.0))
    one = lesion(0, 9)
    for share, seen in ((0.35, False), (0.65, True)):
        # Tissue of the lesion's own brightness hides the border from here on; what is left of it is fat.
        beyond = points[..., 0] > (2 * share - 1) * 10
        values = torch.where(beyond, one.hounsfield, one.hounsfield - 100)[None, None]
        assert stands_out(values, GRID, one, np.ones(3), level=one.hounsfield) is seen
    # Brighter by 60 HU on one side, darker on the other, and alike in between.
    mixed = one.hounsfield + 60.0 * (points[..., 0] / 4).trunc().clamp(-1, 1)[None, None]
    assert not stands_out(mixed, GRID, one, np.ones(3), level=one.hounsfield), "neither brighter nor darker"


def test_a_split_that_nobody_sees_has_not_happened(image) -> None:
    hidden = lesion(0, 12, hounsfield=45.0)
    clear = lesion(0, 12, hounsfield=140.0)
    random = np.random.default_rng(1)
    condition = Condition("x")
    back = posture(GRID, random, condition)
    for one, seen in ((hidden, False), (clear, True)):
        values = image.tensor.float().clone()
        shapes = made._draw_seen(values, GRID, [one], 0, "split", back, 2.5, random, condition)
        assert (shapes is not None) is seen and bool((values != image.tensor).any()) is seen


def test_no_fragment_is_thinner_than_the_slices_show() -> None:
    wide = lesion(0, 12)
    for seed in range(20):
        fragments = made._shapes([wide], 0, "split", 6.0, np.random.default_rng(seed))
        assert all(2 * shape.radii.min() >= 1.5 * 6.0 - 1e-9 for shape, _ in fragments)
    fates = {made._fates([lesion(0, 9)], np.random.default_rng(seed), True, 6.0)[0] for seed in range(30)}
    assert "split" not in fates


@pytest.mark.parametrize("condition", HARD, ids=lambda condition: condition.name)
def test_a_follow_up_shows_its_lesions_where_the_truth_says(image, condition) -> None:
    later = made.make_follow_up(image, [lesion(0, 9, hounsfield=140.0)], np.random.default_rng(5), condition=condition)
    voxels = np.round(later.image.grid.points_to_voxels(later.centers)).astype(int)[0]
    if condition.slice_mm:
        assert later.image.grid.spacing[2] == pytest.approx(condition.slice_mm, rel=0.05)
    if later.view[0] == "inside" and later.fates[0] not in ("removed", "split"):
        x, y, z = voxels
        seen = later.image.tensor[0, 0, z - 1 : z + 2, y - 1 : y + 2, x - 1 : x + 2].float().median()
        assert seen > 65 or later.necrotic[0]


def test_thick_slices_are_means_of_thin_ones() -> None:
    values = torch.arange(6.0).view(1, 1, 6, 1, 1).expand(1, 1, 6, 4, 4)
    thick, grid = averaged_slices(values, Grid((4, 4, 6), (1.0, 1.0, 2.0)), 3)
    assert thick[0, 0, :, 0, 0].tolist() == [1.0, 4.0] and grid.spacing[2] == 6.0
    assert grid.voxels_to_points(np.zeros((1, 3)))[0, 2] == pytest.approx(2.0)
    assert Condition("x").slice_mm == 0


def record(truth: str, state: str, case: str = "a", **more) -> dict:
    found = state in ("unchanged", "grown", "shrunk", "merged", "split")
    fixed = {"condition": "c", "kind": "mask", "view": "inside", "inside": True, "necrotic": False, "neighbor": False}
    numbers = {"diameter_mm": 12.0, "radius_mm": 6.0, "seconds": 1.0, "distance_mm": 2.0, "error90_mm": 3.0}
    return {"case": case, "truth": truth, "state": state, "found": found, **fixed, **numbers, **more}


def test_recall_precision_and_rates_count_what_they_name() -> None:
    records = [
        record("grown", "grown"),
        record("grown", "unchanged", "b", distance_mm=8.0),
        record("gone", "grown", "b"),
        record("gone", "gone"),
        record("outside", "outside", "b"),
        record("grown", "gone", view="cut"),
    ]
    whole = records[:5]
    counted = states(whole)
    assert counted["grown"]["recall_percent"][0] == counted["grown"]["precision_percent"][0] == 50
    assert counted["grown"]["recall_percent"][1:] == [0, 100] and counted["grown"]["said"] == {
        "grown": 1,
        "unchanged": 1,
    }
    row = figures(whole)
    assert row["present"] == 2 and row["absent"] == 3 and row["hit_percent"] == 100
    assert row["false_found_percent"] == pytest.approx(100 / 3) and row["within_error90_percent"] == 50
    assert row["within_radius_percent"] == 50 and row["within_10_mm_percent"] == 100
    table = goal_lines(summary(records))
    assert (
        "| hits | 97 to 100 | 100.0 | met |" in table and "| recall of *grown* % | 95 to 100 | 50.0 | missed |" in table
    )
    document = {"run": {"weights": "w" * 64}, "records": records, "summary": summary(records)}
    assert document["summary"]["groups"]["all"] == row
    assert "| grown | 2 | 50 (0 to 100) | 50 (0 to 100) | unchanged 1 |" in markdown(document)
    assert all(line in markdown(document) for line in table)
