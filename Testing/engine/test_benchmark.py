"""The benchmark measures every method alike, keeps finished runs, and says what failed."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from benchmarks.data.label_landmarks import ABDOMEN, label_landmarks
from benchmarks.data.pairs import Case, Pair, breathing_case, choose_pairs
from benchmarks.methods import job, runs
from benchmarks.methods.assess import assess
from benchmarks.results import tables
from benchmarks.suites import landmarks, registration
from samconvex import Grid, Volume
from samconvex.space.field import DisplacementField
from samconvex.space.transforms import AffineTransform, Transform
from samconvex.space.volume import FeatureMap

SHIFT = np.array([6.0, 0.0, -4.0])
GRID = Grid((24, 20, 16), (2.0, 2.0, 2.0), (-10.0, 5.0, 30.0))


def ball(center: np.ndarray, grid: Grid = GRID) -> Volume:
    distance = (grid.voxel_centers(reference=center)).norm(dim=-1)
    return Volume((distance < 9.0).to(torch.uint8)[None, None], grid, sitk.sitkUInt8)


def shifted_case() -> Case:
    """Fixed and moving differ by SHIFT; everything about the truth is known."""
    center = GRID.center - SHIFT / 2
    labels = ball(center), ball(center + SHIFT)
    images = [label.with_tensor(label.tensor.float() * 100) for label in labels]
    points = center + np.array([[0.0, 0, 0], [2, 1, 0]])
    return Case(
        images[0],
        images[1],
        labels=labels,
        points=(points, points + SHIFT),
        truth=lambda p: p + SHIFT,
        truth_points=points,
    )


PAIR = Pair("shifted", "head-neck", "ct-inter-patient", shifted_case)


@pytest.fixture
def starts(tmp_path: Path) -> Path:
    """A common start that takes half of the shift."""
    folder = tmp_path / "starts"
    folder.mkdir()
    Transform((AffineTransform(np.eye(3), SHIFT / 2),)).save(folder / "shifted.tfm")
    return folder


def other_half(method: str, pair: Pair, job_folder: Path, output: Path) -> dict:
    """A method that finds exactly what the start left over, and returns it as the peers do."""
    grid = Grid.from_sitk(sitk.ReadImage(str(job_folder / "fixed.nii.gz")))
    tensor = torch.as_tensor(SHIFT / 2, dtype=torch.float32).view(1, 3, 1, 1, 1).expand(1, 3, *grid.shape)
    sitk.WriteImage(DisplacementField(tensor, grid).to_sitk_image(), str(output / "field.mha"))
    return {"seconds": 4.0 if method == "convexadam" else 1.0, "process_seconds": 5.0, "peak_memory_mib": 10.0}


def run(tmp_path: Path, starts: Path, launch, methods=("convexadam", "samconvex"), resume=False) -> list[dict]:
    return runs.run_all([PAIR], methods, tmp_path / "out", launch, resume=resume, starts=starts)


def test_a_field_on_the_prepared_images_is_composed_with_the_start(tmp_path, starts):
    start, found, _ = run(tmp_path, starts, other_half)
    assert start["method"] == "start" and start["tre_mm"]["mean"] == pytest.approx(np.linalg.norm(SHIFT) / 2, abs=1e-3)
    assert start["dice_mean"] < 0.8
    assert found["tre_mm"]["max"] < 1e-3 and found["known_error_mm"]["max"] < 1e-3
    assert found["dice_mean"] == pytest.approx(1.0) and found["hd95_mean_mm"] == pytest.approx(0.0)
    assert found["folding_percent"] == 0.0 and found["sdlogj"] < 1e-3


def test_an_own_pipeline_is_not_composed_with_the_start(tmp_path, starts):
    own = run(tmp_path, starts, other_half, methods=("samconvex-own",))[1]
    assert own["tre_mm"]["mean"] == pytest.approx(np.linalg.norm(SHIFT) / 2, abs=1e-3)


def test_everybody_gets_the_moving_image_after_the_start(tmp_path, starts):
    run(tmp_path, starts, other_half)
    folder = tmp_path / "out" / "work" / "shifted"
    fixed, moving, native = (
        sitk.ReadImage(str(folder / f"{name}.nii.gz")) for name in ("fixed", "moving", "moving_native")
    )
    assert Grid.from_sitk(fixed) == Grid.from_sitk(moving)
    ball_center = sitk.GetArrayFromImage(moving)
    weights = ball_center / ball_center.sum()
    index = [(np.indices(weights.shape)[axis] * weights).sum() for axis in (2, 1, 0)]
    expected = shifted_case().points[0][0] + SHIFT / 2
    assert np.allclose(moving.TransformContinuousIndexToPhysicalPoint(index), expected, atol=0.3)
    assert native.GetSize() == GRID.size


def test_methods_with_organs_get_the_moving_ones_after_the_start(tmp_path, starts, monkeypatch):
    asked: list[str] = []

    def organ_probabilities(volume: Volume) -> FeatureMap:
        # The ball itself is the second organ; the first is hinted at, the third is nowhere.
        asked.append(volume.name)
        ball = volume.as_float() / 100
        return FeatureMap(torch.cat([0.3 * ball, ball, 0 * ball], 1).half(), volume.grid)

    monkeypatch.setattr(job, "organ_probabilities", organ_probabilities)
    run(tmp_path, starts, other_half)
    assert not asked
    run(tmp_path, starts, other_half, methods=("convexadam-organs",))
    assert len(asked) == 2
    folder = tmp_path / "out" / "work" / "shifted"
    with np.load(folder / "organs.npz") as stored:
        for side in ("fixed", "moving"):
            image = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"{side}.nii.gz")))
            assert stored[side].shape == (1, *image.shape)
            assert np.abs(stored[side][0] / 255 - image / image.max()).max() < 0.01


def test_resume_repeats_no_finished_run_and_repeats_failed_ones(tmp_path, starts):
    calls = []

    def launch(method, *rest):
        calls.append(method)
        return {"failed": "crashed"} if method == "convexadam" and len(calls) == 1 else other_half(method, *rest)

    first = run(tmp_path, starts, launch)
    assert first[1]["failed"] == "crashed" and "dice_mean" not in first[1]
    second = run(tmp_path, starts, launch, resume=True)
    assert calls == ["convexadam", "samconvex", "convexadam"]
    assert second[1]["dice_mean"] == pytest.approx(1.0)
    run(tmp_path, starts, launch, resume=True)
    assert len(calls) == 3


def test_a_stop_keeps_what_is_finished(tmp_path, starts):
    def launch(method, *rest):
        if method == "samconvex":
            raise KeyboardInterrupt
        return other_half(method, *rest)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, starts, launch)
    records = registration.write_results(tmp_path / "out")["records"]
    assert [record["method"] for record in records] == ["start", "convexadam"]


def test_a_half_written_record_is_not_finished(tmp_path):
    (tmp_path / "x.json").write_text('{"pair": ')
    assert not runs.is_finished(tmp_path / "x.json", "given")
    assert not runs.is_finished(tmp_path / "absent.json", "given")


def test_runs_from_another_start_are_repeated(tmp_path, starts, monkeypatch):
    calls = []

    def launch(method, *rest):
        calls.append(method)
        return other_half(method, *rest)

    exact = Transform((AffineTransform(np.eye(3), SHIFT),))
    monkeypatch.setattr(runs, "common_start", lambda case, preset: exact)
    run(tmp_path, starts, launch, methods=("greedy",))
    moved = runs.run_all([PAIR], ["greedy"], tmp_path / "out", launch, resume=True)
    assert calls == ["greedy", "greedy"] and moved[0]["start"] == "affine sam"
    assert moved[0]["tre_mm"]["mean"] < 1e-3
    runs.run_all([PAIR], ["greedy"], tmp_path / "out", launch, resume=True)
    assert len(calls) == 2


def test_the_common_start_is_the_affine_of_the_preset(monkeypatch):
    used = []

    def register(fixed, moving, *, preset, **options):
        used.append((preset, options))
        return SimpleNamespace(fixed_to_moving=Transform())

    monkeypatch.setattr(job, "register", register)
    case = shifted_case()
    job.common_start(case, "ct-inter-patient")
    job.common_start(replace(case, masks=case.labels), "brain-mr")
    assert [(settings.affine, settings.levels, settings.refine) for settings, _ in used] == [
        ("sam", (), "none"),
        ("moments", (), "none"),
    ]
    assert used[1][1]["moving_mask"] is case.labels[1]


def test_results_hold_means_ratios_and_every_pair(tmp_path, starts):
    run(tmp_path, starts, other_half)
    document = registration.write_results(tmp_path / "out")
    assert document["time_ratios"] == {"samconvex": 4.0}
    row = next(row for row in document["summary"] if row["method"] == "convexadam")
    assert row["pairs"] == 1 and row["failed"] == 0 and row["Dice"] == pytest.approx(1.0)
    page = (tmp_path / "out" / "registration.md").read_text(encoding="utf-8")
    assert "## head-neck: means" in page and "### shifted" in page
    assert json.loads((tmp_path / "out" / "registration.json").read_text(encoding="utf-8"))["machine"].startswith(
        "Machine: "
    )


def test_means_leave_out_failed_pairs_and_count_them():
    records = [
        {"pair": "a", "group": "lung", "method": "m", "tre_mm": {"mean": 1.0, "p95": 2.0}, "seconds": 2.0},
        {"pair": "b", "group": "lung", "method": "m", "tre_mm": {"mean": 3.0, "p95": 4.0}, "seconds": 4.0},
        {"pair": "c", "group": "lung", "method": "m", "failed": "no"},
    ]
    (row,) = tables.summarize(records)
    assert (row["pairs"], row["failed"], row["TRE mm mean"], row["seconds"]) == (2, 1, 2.0, 3.0)
    assert "Dice" not in row


def test_every_table_line_has_the_same_number_of_cells():
    rows = [{"method": "a", "Dice": 0.5}, {"method": "b", "TRE mm mean": 1.0}]
    lines = tables.table(rows, ("method",))
    assert {line.count("|") for line in lines} == {4}


def test_a_lost_organ_counts_zero_and_one_that_only_one_image_shows_does_not_count():
    case = shifted_case()
    fixed, moving = case.labels
    fixed.tensor[0, 0, 0, 0, 0] = 7
    lost = Transform((AffineTransform(np.eye(3), np.array([500.0, 0, 0])),))
    figures = assess(Case(case.fixed, case.moving, labels=(fixed, moving)), lost, GRID)
    assert figures["dice"] == {"1": 0.0} and figures["hd95_mm"] == {} and "hd95_mean_mm" not in figures


def test_common_grid_keeps_cubes_and_turns_anything_else_into_cubes_over_the_same_extent():
    assert job.common_grid(ball(GRID.center)) == GRID
    flat = Grid((30, 24, 12), (1.5, 1.5, 5.0), (0, 0, 0), (1, 0, 0, 0, -1, 0, 0, 0, 1))
    grid = job.common_grid(ball(flat.center, flat))
    assert (
        grid.spacing == (2.5, 2.5, 2.5)
        and grid.is_axis_aligned
        and grid.contains(flat.voxels_to_points(np.array([[0, 0, 0], [29, 23, 11]]))).all()
    )


def test_a_known_breath_is_judged_where_both_images_show_the_body():
    tensor = torch.full((1, 1, 40, 40, 50), -1000, dtype=torch.int16)
    tensor[:, :, :, 8:32, 8:42] = 40
    fixed = Volume(tensor, Grid((50, 40, 40), (8.0, 8.0, 8.0)), sitk.sitkInt16)
    case = breathing_case(fixed, seed=0)
    assert case.truth is not None and len(case.truth_points) > 1000
    assert case.moving.grid.contains(case.truth(case.truth_points)).all()
    figures = assess(case, Transform(), fixed.grid)
    assert 15 < figures["known_error_mm"]["max"] <= 30


def test_process_records_and_failures(tmp_path):
    good = f"""
import json, os, pathlib
words = {{"seconds": 1.5, "threads seen": os.environ["OMP_NUM_THREADS"],
         "disk cache off": os.environ.get("SAMCONVEX_NO_DISK_CACHE")}}
pathlib.Path({str(tmp_path / "run.json")!r}).write_text(json.dumps(words))
"""
    record = runs.run_process([sys.executable, "-c", good], tmp_path, 1)
    assert record["seconds"] == 1.5 and record["process_seconds"] > 0
    assert record["threads seen"] == "1" and record["disk cache off"] == "1"
    bad = runs.run_process([sys.executable, "-c", "raise SystemExit('no such thing')"], tmp_path, 1)
    assert bad == {"failed": "exit status 1: no such thing"}


def test_method_names_stand_for_presets_and_peers(tmp_path):
    assert runs.preset_of("samconvex", "ct-lung-breathing") == "ct-lung-breathing"
    assert runs.preset_of("samconvex-fast-preview-own", "x") == "fast-preview"
    assert runs.preset_of("elastix-of-ours", "x") is None
    own = runs.command_of("samconvex-own", "ct-inter-patient", tmp_path, tmp_path, 2)
    assert "--own" in own and "ct-inter-patient" in own
    assert ".venv-peers" in runs.command_of("greedy", "x", tmp_path, tmp_path, 2)[0]


def test_without_the_data_folder_phantoms_stand_in():
    assert {pair.group for pair in choose_pairs(6, None)} == {"phantom", "known warp"}


def test_the_data_folder_gives_the_promised_pairs(shared_data):
    groups = [pair.group for pair in choose_pairs(6, shared_data)]
    assert [groups.count(group) for group in ("head-neck", "lung", "known warp", "liver MR")] == [6, 1, 4, 4]
    livers = [pair.load() for pair in choose_pairs(0, shared_data) if pair.group == "liver MR"]
    for case in livers:
        assert case.points is not None and len(case.points[0]) == len(case.points[1]) > 45
        # Both states lie in one frame: landmarks move by a breath.
        apart = np.linalg.norm(case.points[0] - case.points[1], axis=1)
        assert 1.0 < apart.mean() < 25.0


def test_all_pairs_of_the_evaluation_abdomens_are_offered(shared_data):
    names = [pair.name for pair in choose_pairs(0, shared_data, 15) if pair.group == "abdomen"]
    assert len(set(names)) == 15 and all(name[:6] < name[7:] for name in names)
    case = next(pair for pair in choose_pairs(0, shared_data, 1) if pair.group == "abdomen").load()
    assert case.fixed.name != case.moving.name and case.labels is not None
    assert {int(label) for label in case.labels[0].tensor.unique()} >= set(range(14))


def test_landmark_tables_give_an_interval_over_pairs():
    points = [
        {"pair": pair, "group": "abdomen", "method": "sam", "name": f"{name} center", "error": error, "found": True}
        for pair, errors in {"a": (1.0, 2.0, 3.0), "b": (11.0, 12.0, 13.0)}.items()
        for name, error in zip(("liver", "spleen", "pancreas"), errors, strict=True)
    ]
    assert landmarks.median_interval(points) == (2.0, 12.0)
    assert landmarks.median_interval(points[:3]) == (1.0, 3.0)
    runs = [{"pair": pair, "group": "abdomen", "method": "sam", "seconds": 1.0} for pair in "ab"]
    page = landmarks.markdown({"weights": "0" * 64, "points": points, "runs": runs, "cuts": []})
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in rows[:3]}) == 1 and "| 2.0 to 12.0 |" in rows[2]


def test_abdominal_landmarks_are_centers_of_whole_organs():
    array = np.zeros((12, 10, 10), np.int16)
    array[3:8, 2:6, 2:6], array[0:6, 6:9, 6:9], array[2:11, 8, 1:4] = 6, 1, 5
    labels = Volume(torch.from_numpy(array)[None, None], Grid((10, 10, 12), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0)))
    found = label_landmarks(labels, ABDOMEN)
    # The spleen is cut by the first slice, the esophagus is a tube.
    assert list(found) == ["liver center"]
    np.testing.assert_allclose(found["liver center"], [7.0, 7.0, 10.0])


@pytest.mark.parametrize("upwards", [1.0, -1.0])
def test_labels_without_names_give_centers_and_the_ends_that_are_seen(upwards):
    array = np.zeros((12, 10, 10), np.int16)
    array[3:9, 2:6, 2:6], array[0:6, 6:9, 6:9], array[0:12, 0, 0:4] = 6, 1, 5
    grid = Grid((10, 10, 12), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, upwards))
    found = label_landmarks(Volume(torch.from_numpy(array)[None, None], grid), None)
    seen = "top" if upwards > 0 else "bottom"
    assert set(found) == {"label 6 center", "label 6 top", "label 6 bottom", f"label 1 {seen}"}
    np.testing.assert_allclose(found["label 6 top"], [7.0, 7.0, 15.0 if upwards > 0 else -7.0])
    np.testing.assert_allclose(found[f"label 1 {seen}"], [14.0, 14.0, upwards * 9.0])
