"""Commissioning: every test's truth is the truth, a wrong registration fails, results are all or nothing."""

from __future__ import annotations

import argparse
import json
import math
import os
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from engine.phantom_fixtures import QUICK
from samconvex.anatomy.known import KNOWN
from samconvex.cli import commission as command
from samconvex.cli.main import main
from samconvex.commissioning.cases import CASES, Anatomy, Case, KnownPair, other_contrast
from samconvex.commissioning.judge import LIMITS, Limits, failures, judged
from samconvex.commissioning.run import commission
from samconvex.errors import CHECK_FAILED, Cancelled
from samconvex.progress import null_progress
from samconvex.registration.register import RegistrationResult, register
from samconvex.space.grid import Grid
from samconvex.space.sampling import sample
from samconvex.space.transforms import AffineTransform, Transform
from samconvex.space.volume import Volume
from samconvex.synthetic.sliding import SlidingMap

BREATH = next(case for case in CASES if case.name == "small-breath")
# Coarse, without network: a second; and limits for so coarse a registration, which the identity is far from keeping.
QUICK_BREATH = replace(next(case for case in CASES if case.name == "large-breath"), preset=QUICK)
COARSE = Limits(mean_mm=4.0, p95_mm=9.0, max_mm=18.0)


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return Anatomy.drawn(8.0, extent_mm=(384.0, 288.0, 200.0))


def doing_nothing(fixed: Volume, moving: Volume, **options: object) -> RegistrationResult:
    """A registration that is broken: it returns the identity and says that all is well."""
    return RegistrationResult(Transform(), Transform(), {"folding_percent": 0.0, "warnings": []})


def values_at(volume: Volume, points: np.ndarray) -> torch.Tensor:
    relative = torch.as_tensor(points - volume.grid.center, dtype=torch.float32)[None, None]
    return sample(volume.as_float(), volume.grid, relative, reference=volume.grid.center, fill=0.0).flatten()


def alike(pair: KnownPair, points: np.ndarray, at: np.ndarray) -> float:
    """Correlation of the fixed image at ``points`` with the moving image ``at`` others."""
    fixed = pair.fixed.tensor
    seen = pair.fixed.with_tensor(other_contrast(fixed)) if pair.moving.modality == "mr" else pair.fixed
    return float(torch.corrcoef(torch.stack([values_at(seen, points), values_at(pair.moving, at)]))[0, 1])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_moving_image_shows_the_fixed_one_at_the_true_place(anatomy: Anatomy, case: Case):
    pair = case.make(anatomy)
    there = pair.truth.map_points(pair.judged)
    assert len(pair.judged) > 1000 and pair.moving.grid.contains(there).all()
    assert alike(pair, pair.judged, there) > 0.85
    moves = np.linalg.norm(there - pair.judged, axis=1) > 4.0
    assert moves.any() == (case.name != "identity")
    if moves.any():
        gain = [alike(pair, pair.judged[moves], at[moves]) for at in (there, pair.judged)]
        assert 1 - gain[0] < 0.6 * (1 - gain[1])


def test_there_are_ten_judged_tests_and_four_quick_ones():
    assert len({case.name for case in CASES}) == len(CASES)
    assert sum(case.judged for case in CASES) >= 10
    assert [case.name for case in CASES if case.quick] == ["identity", "shift", "small-breath", "modality"]


def test_the_exact_map_passes_every_limit_and_carries_labels_and_points(anatomy: Anatomy):
    pair = BREATH.make(anatomy)
    field = pair.truth.displacement_field(anatomy.ct.grid)  # type: ignore[attr-defined]

    def exact(fixed: Volume, moving: Volume, **options: object) -> RegistrationResult:
        there = Transform((field,))
        return RegistrationResult(there, there.inverse(), {"folding_percent": 0.0})

    record = judged(BREATH, pair, exact, null_progress)
    assert record["failures"] == [] and record["passed"]
    assert record["error_mm"]["max"] < 0.2 and record["carried_points_mm"]["max"] < 0.3
    # Labels as coarse as this are carried to a voxel.
    assert record["carried_dice"] > 0.8
    wrong = judged(BREATH, pair, doing_nothing, null_progress)
    assert not wrong["passed"] and any(text.startswith("largest error") for text in wrong["failures"])


def test_every_limit_is_kept():
    figures = {"mean": 0.1, "median": 0.1, "p95": 0.1, "max": 0.1}
    good = {"error_mm": figures, "inverse_consistency_mm": figures, "folding_percent": 0.0, "file_mm": 0.0}
    good |= {"judged": True, "motion_mm": {"mean": 8.0}}
    good |= {"carried_points_mm": figures, "carried_dice": 0.9}
    assert failures(good, LIMITS) == []
    bad = [
        {"error_mm": {**figures, "mean": 2.1}},
        {"error_mm": {**figures, "p95": 2.1}},
        {"error_mm": {**figures, "max": 5.1}},
        {"error_mm": {**figures, "max": math.nan}},
        {"inverse_consistency_mm": {**figures, "p95": 3.1}},
        {"folding_percent": 0.01},
        {"file_mm": 0.02},
        {"carried_points_mm": {**figures, "mean": 2.1}},
        {"carried_points_mm": {**figures, "max": 5.1}},
        {"carried_dice": 0.79},
        {"carried_dice": math.nan},
    ]
    for change in bad:
        assert len(failures({**good, **change}, LIMITS)) == 1, change


def test_a_told_error_fails_only_where_half_of_the_motion_is_left():
    figures = {"mean": 3.9, "median": 3.9, "p95": 9.0, "max": 20.0}
    exact = {"mean": 0.1, "p95": 0.1, "max": 0.1}
    told = {"judged": False, "error_mm": figures, "motion_mm": {"mean": 8.0}, "inverse_consistency_mm": exact}
    told |= {"folding_percent": 0.0, "file_mm": 0.0}
    assert failures(told) == []
    assert failures({**told, "motion_mm": {"mean": 7.0}}) == ["mean error: 3.90 mm, limit 3.5"]
    assert len(failures({**told, "folding_percent": 0.1})) == 1 and len(failures({**told, "judged": True})) == 3


def test_the_expected_error_is_compared_with_the_actual_one(anatomy: Anatomy):
    """Of a result that is wrong by the whole motion, the bound covers the points that moved less than it says."""
    pair = BREATH.make(anatomy)
    # Rises towards the head, linearly: exact between its nodes.
    grid = Grid.covering(anatomy.ct.grid.corners(), 20.0)
    heights = grid.voxel_centers(reference=(0.0, 0.0, 0.0))[..., 2]
    bound = Volume((4.0 + heights / 40.0)[None, None], grid)

    def unsure(fixed: Volume, moving: Volume, **options: object) -> RegistrationResult:
        return replace(doing_nothing(fixed, moving), expected_error=bound)

    record = judged(BREATH, pair, unsure, null_progress)
    motion = np.linalg.norm(pair.truth.map_points(pair.judged) - pair.judged, axis=1)
    share = 100 * (motion <= 4.0 + pair.judged[:, 2] / 40.0).mean()
    assert 20 < share < 95 and record["below_expected_percent"] == pytest.approx(share, abs=0.1)
    assert record["expected_error_mm"]["max"] == pytest.approx(4.0 + pair.judged[:, 2].max() / 40.0)
    assert "expected_error_mm" not in judged(BREATH, pair, doing_nothing, null_progress)


def test_nothing_that_an_earlier_run_remembered_is_judged(anatomy: Anatomy, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SAMCONVEX_NO_DISK_CACHE", raising=False)
    KNOWN.organs.keep("of an earlier run", "organs")
    seen = []

    def watching(fixed: Volume, moving: Volume, **options: object) -> RegistrationResult:
        seen.append((os.environ.get("SAMCONVEX_NO_DISK_CACHE"), KNOWN.organs.get("of an earlier run")))
        return doing_nothing(fixed, moving)

    commission(watching, anatomy=anatomy, cases=[BREATH], progress=null_progress)
    assert seen == [("1", None)] and "SAMCONVEX_NO_DISK_CACHE" not in os.environ


def test_all_tests_but_the_noisy_one_share_their_fixed_scan(anatomy: Anatomy):
    """So that its embedding is asked once; and the moving scan has noise of its own."""
    first, second = (case.make(anatomy) for case in CASES[:2])
    assert torch.equal(first.fixed.tensor, second.fixed.tensor)
    apart = (first.fixed.tensor - first.moving.tensor).double().std()
    assert apart == pytest.approx(2**0.5 * 14.0, rel=0.1)


def arguments(folder: Path, **changes: object) -> argparse.Namespace:
    words = {"output": str(folder), "overwrite": False, "quick": True, "device": "cpu", "threads": None}
    return argparse.Namespace(**{**words, "progress": "none", "cancelled": threading.Event(), **changes})


def test_the_command_passes_a_working_registration_and_fails_a_broken_one(
    anatomy: Anatomy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    few = {"anatomy": anatomy, "cases": [QUICK_BREATH], "limits": COARSE}
    assert command.run(arguments(tmp_path / "good"), register, **few) == 0
    assert "Commissioning passed" in capsys.readouterr().out
    assert command.run(arguments(tmp_path / "bad"), doing_nothing, **few) == CHECK_FAILED
    text = capsys.readouterr().out
    assert "Large breath: mean error: " in text and "Commissioning failed" in text
    for name in ("good", "bad"):
        document = json.loads((tmp_path / name / "commission.json").read_text(encoding="utf-8"))
        assert document["verdict"] == {"good": "passed", "bad": "failed"}[name]
        assert {"date", "version", "device", "threads", "environment", "limits", "seconds"} <= set(document)
        assert all(len(entry["sha256"]) == 64 for entry in document["weights"].values()) and document["weights"]
        assert document["tests"][0]["motion_mm"]["max"] == pytest.approx(15.0, abs=0.5)
        page = sitk.ReadImage(str(tmp_path / name / "commission.png"))
        assert page.GetSize() == (1500, 1060)


def test_changed_weights_fail(anatomy: Anatomy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from samconvex.weights import registry

    real = registry.verify()
    monkeypatch.setattr(registry, "verify", lambda name=None: [(entry, "changed") for entry, _ in real])
    assert command.run(arguments(tmp_path / "out"), doing_nothing, anatomy=anatomy, cases=[]) == CHECK_FAILED
    assert "are changed; install them again" in (tmp_path / "out" / "commission.json").read_text(encoding="utf-8")


def test_a_cancelled_run_and_a_folder_in_use_leave_everything_as_it_was(anatomy: Anatomy, tmp_path: Path, capsys):
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(Cancelled):
        command.run(arguments(tmp_path / "out", cancelled=stopped), register, anatomy=anatomy, cases=[QUICK_BREATH])
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "theirs.txt").write_text("theirs")
    assert main(["commission", str(tmp_path), "--quick"]) == 2
    assert "is not empty; give another output folder or --overwrite" in capsys.readouterr().err


def test_a_sliding_map_is_torn_at_its_wall_alone_and_inverted_exactly():
    sliding = SlidingMap((5.0, -10.0), (80.0, 50.0), 20.0, 45.0, -12.0)
    random = np.random.default_rng(0)
    points = random.uniform(-120, 120, (4000, 3))
    moved = sliding.map_points(points)
    np.testing.assert_allclose(sliding.unmap_points(moved), points, atol=1e-6)
    assert np.abs((moved - points)[:, :2]).max() == 0 and (moved - points)[:, 2].min() < -11.0
    wall = np.array([[5.0 + 80.0 * math.cos(a), -10.0 + 50.0 * math.sin(a), 20.0] for a in np.linspace(0, 6, 9)])
    assert sliding.wall_distance(wall).max() < 1e-9
    inside, outside = (np.array([5.0, -10.0, 20.0]) + f * (wall - [5.0, -10.0, 20.0]) for f in (0.99, 1.01))
    assert np.allclose(sliding.map_points(inside)[:, 2], 8.0) and np.allclose(sliding.map_points(outside), outside)


def test_the_written_transform_is_the_one_judged(anatomy: Anatomy):
    """A field whose file says otherwise than the map in memory would be caught: the figure is measured, not assumed."""

    class Lying(Transform):
        def save(self, path) -> None:
            Transform((AffineTransform(np.eye(3), np.array([0.0, 3.0, 4.0])),)).save(path)

    def lying(fixed: Volume, moving: Volume, **options: object) -> RegistrationResult:
        return RegistrationResult(Lying(), Transform(), {})

    identity = next(case for case in CASES if case.name == "identity")
    record = judged(identity, identity.make(anatomy), lying, null_progress)
    assert record["file_mm"] == pytest.approx(5.0) and not record["passed"]
