"""Ablation, robustness, scaling and landscapes: every run is kept, compared with the right one, and told as it is."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from benchmarks import publish
from benchmarks.data.pairs import Case, Pair
from benchmarks.results.records import remember_command
from benchmarks.suites import ablation, landscapes, robustness, scaling, surfaces, xray
from benchmarks.suites.variants import family_of, paper_rows, variants, with_features
from samconvex import Grid, Volume
from samconvex.settings.registration import Level, Settings
from samconvex.space.transforms import AffineTransform, Transform

SHIFT = np.array([6.0, 0.0, -4.0])
GRID = Grid((24, 20, 16), (2.0, 2.0, 2.0), (-10.0, 5.0, 30.0))
BASE = Settings(
    "mine",
    "",
    affine="sam",
    refine="adam",
    levels=(
        Level(12.0, 3, features=("sam",)),
        Level(6.0, 3, features=("sam", "mind"), weights=(1.0, 2.0)),
        Level(3.0, 1, features=("mind",)),
    ),
)


def ball(center: np.ndarray) -> Volume:
    distance = GRID.voxel_centers(reference=center).norm(dim=-1)
    return Volume((distance < 9.0).to(torch.uint8)[None, None], GRID, sitk.sitkUInt8)


def shifted_case() -> Case:
    labels = ball(GRID.center - SHIFT / 2), ball(GRID.center + SHIFT / 2)
    images = [label.with_tensor(label.tensor.float() * 100) for label in labels]
    return Case(images[0], images[1], labels=labels)


PAIR = Pair("shifted", "head-neck", "ct-inter-patient", shifted_case)


def named(settings: Settings = BASE) -> dict[str, Settings]:
    return dict(variants(settings))


def test_variants_take_one_ingredient_away():
    rows = named()
    assert rows["preset"] == BASE and rows["affine only"].levels == ()
    assert [level.features for level in rows["without mind"].levels] == [("sam",)] * 3
    assert [level.features for level in rows["without sam"].levels] == [("mind",)] * 3
    assert rows["equal weights of features"].levels[1].weights == ()
    assert [level.radius for level in rows["radii + 1"].levels] == [4, 4, 2]
    assert [level.spacing for level in rows["without the 6 mm level"].levels] == [12.0, 3.0]
    assert rows["without Adam"].refine == "none" and rows["learning-free affine"].affine == "moments"
    assert rows["embeddings: coarse part"].levels[1].features == ("sam-coarse", "mind")


def test_variants_that_change_nothing_are_left_out():
    rows = variants(BASE)
    assert "without semantic" not in named() and "with Adam" not in named()
    plain = [replace(settings, name="", description="") for _, settings in rows]
    assert all(settings not in plain[:number] for number, settings in enumerate(plain))
    assert len({name for name, _ in rows}) == len(rows)


def test_a_level_left_without_features_takes_those_of_its_nearest_level():
    changed = with_features(BASE, lambda name: family_of(name) == "mind")
    assert [(level.features, level.weights) for level in changed.levels] == [
        (("mind",), (2.0,)),
        (("mind",), (2.0,)),
        (("mind",), ()),
    ]


def test_the_papers_designs_are_there():
    rows = dict(paper_rows())
    radii = {name: [level.radius for level in settings.levels] for name, settings in rows.items()}
    assert radii["paper, N=[3]"] == [3] and radii["paper, N=[6]"] == [6] and radii["paper, N=[3,3]"] == [3, 3]
    assert rows["paper"].refine == "none" and rows["paper + Adam"].refine == "adam"
    assert rows["paper, N=[6]"].levels[0].spacing == rows["paper"].levels[-1].spacing


def run_ablation(folder: Path, calls: list, *, fail: str = "", base: Settings = BASE) -> list[dict]:
    rows = [(name, settings) for name, settings in variants(base) if name in ("preset", "affine only", "without Adam")]

    def run(case: Case, settings: Settings, start: Transform) -> tuple[Transform, float]:
        name = next((name for name, row in rows if row == settings), "?")
        calls.append(name)
        if name == fail:
            raise RuntimeError("no memory")
        share = 1.0 if settings.refine == "adam" else 0.5
        return Transform((AffineTransform(np.eye(3), share * SHIFT),)), 3.0

    starts = folder / "given"
    starts.mkdir(parents=True, exist_ok=True)
    Transform().save(starts / "shifted.tfm")
    start = partial(ablation.kept_start, folder=folder, starts=starts)
    return ablation.run_all([PAIR], rows, folder, run, start, resume=True)


def test_every_variant_is_compared_with_the_preset_and_kept(tmp_path):
    calls: list[str] = []
    records = run_ablation(tmp_path, calls)
    # The images are embedded by a run that does not count.
    assert calls == ["preset", "preset", "affine only", "without Adam"]
    assert records[0]["dice_mean"] > 0.99 > records[2]["dice_mean"] and records[0]["seconds"] == 3.0
    run_ablation(tmp_path, calls)
    assert len(calls) == 4
    document = ablation.write_results(tmp_path)
    page = "\n".join(ablation.page_lines(document))
    change = records[2]["dice_mean"] - records[0]["dice_mean"]
    assert f"| {change:+.3f} |" in next(line for line in page.splitlines() if line.startswith("| without Adam"))
    assert [record["method"] for record in document["records"]] == ["preset", "affine only", "without Adam"]


def test_a_variant_that_fails_does_not_stop_the_others_and_is_tried_again(tmp_path):
    calls: list[str] = []
    records = run_ablation(tmp_path, calls, fail="affine only")
    assert records[1]["failed"] == "RuntimeError: no memory" and "dice_mean" in records[2]
    assert "- shifted, affine only: RuntimeError: no memory" in ablation.page_lines(ablation.write_results(tmp_path))
    calls.clear()
    run_ablation(tmp_path, calls)
    assert calls == ["affine only"]


def test_a_changed_preset_is_measured_anew(tmp_path):
    calls: list[str] = []
    run_ablation(tmp_path, calls)
    calls.clear()
    run_ablation(tmp_path, calls, base=replace(BASE, coupling=0.5))
    assert "preset" in calls and "without Adam" in calls


def test_disturbances_have_their_size_and_repeat():
    image = shifted_case().fixed
    for size in (0.5, 1.0):
        change = robustness.disturbance(image, size, 7)
        turned = np.degrees(np.arccos((np.trace(change.matrix) - 1) / 2))
        moved = change.map_points(image.grid.center[None])[0] - image.grid.center
        assert turned == pytest.approx(30 * size) and np.linalg.norm(moved) == pytest.approx(80 * size)
        assert np.allclose(change.matrix @ change.matrix.T, np.eye(3))
        assert np.array_equal(robustness.disturbance(image, size, 7).translation, change.translation)
    other = robustness.disturbance(image, 1.0, 8)
    assert not np.allclose(other.matrix, robustness.disturbance(image, 1.0, 7).matrix)


def test_disturbed_starts_act_before_the_undisturbed_one(tmp_path):
    given = tmp_path / "given"
    given.mkdir()
    Transform((AffineTransform(np.diag([1.1, 0.9, 1.0]), SHIFT),)).save(given / "shifted.tfm")
    pairs = robustness.disturbed_pairs(PAIR, [0.5, 1.0], 2, tmp_path / "starts", given)
    assert [pair.group for pair in pairs] == [
        robustness.UNDISTURBED,
        *["15 degrees, 40 mm"] * 2,
        *["30 degrees, 80 mm"] * 2,
    ]
    assert {robustness.base_of(pair.name) for pair in pairs} == {"shifted"}
    start, disturbed = (Transform.load(tmp_path / "starts" / f"{pairs[n].name}.tfm") for n in (0, 3))
    back = start.inverse().map_points(disturbed.map_points(GRID.center[None]))[0]
    assert np.linalg.norm(back - GRID.center) == pytest.approx(80.0)


def test_kept_is_counted_against_the_same_methods_undisturbed_result():
    def record(pair: str, group: str, method: str, dice: float | None) -> dict:
        found = {"failed": "no"} if dice is None else {"dice_mean": dice}
        return {"pair": pair, "group": group, "method": method, **found}

    none, most = robustness.UNDISTURBED, robustness.group_of(1.0)
    records = [
        record("a", none, "samconvex", 0.70),
        record("a@1-0", most, "samconvex", 0.69),
        record("a@1-1", most, "samconvex", 0.75),
        record("b@1-0", most, "samconvex", 0.1),
        record("a", none, "convexadam", 0.60),
        record("a@1-0", most, "convexadam", 0.57),
        record("a@1-1", most, "convexadam", None),
    ]
    ours, peer = robustness.summarize(records)
    assert (ours["runs"], ours["kept"], ours["failed"]) == (2, 1.0, 0)
    assert (peer["runs"], peer["kept"], peer["failed"]) == (2, 0.0, 1)
    assert peer["worst change"] == pytest.approx(-0.03) and ours["mean"] == pytest.approx(0.72)
    assert any(
        "| convexadam | 2 | 0 % | 0.600 | 0.570 | -0.030 | 1 |" in line
        for line in robustness.page_lines({"records": records})
    )


def test_sizes_differ_in_voxels_or_in_field_of_view():
    image = shifted_case().fixed
    finer, part = scaling.sized(image, 1.0, 1.0), scaling.sized(image, 2.0, 0.5)
    assert finer.grid.spacing == (1.0, 1.0, 1.0) and finer.grid.voxel_count > 7 * image.grid.voxel_count
    assert part.grid.size[:2] == image.grid.size[:2] and part.grid.size[2] == image.grid.size[2] // 2
    names = [pair.name for pair in scaling.sizes(None, "fast-preview")]
    assert len(set(names)) == len(names) == len(scaling.SPACINGS_MM) + len(scaling.SHARES) + 1


def test_the_named_size_is_filled_by_a_pair_of_that_size():
    case = scaling.sizes(None, "fast-preview")[-1].load()
    for image in (case.fixed, case.moving):
        assert image.grid.size == scaling.NAMED_SIZE and set(image.grid.spacing) == {scaling.FIELD_MM}
        assert float((image.tensor > -300).float().mean()) > 0.2


def test_scaling_tells_seconds_per_million_voxels():
    record = {"group": "finer voxels", "method": "m", "voxels": 2_000_000, "seconds": 5.0, "peak_memory_mib": 900.0}
    assert "| finer voxels | m | 2.00 | 5.0 | 2.50 | 900 |" in scaling.page_lines({"records": [record]})


def test_landscapes_move_the_image_by_what_they_say(tmp_path):
    image = shifted_case().fixed
    seen: list[torch.Tensor] = []

    def describe(volume: Volume) -> dict[str, torch.Tensor]:
        weights = volume.tensor[0, 0].flatten()
        centers = volume.grid.voxel_centers(reference=GRID.center).view(-1, 3)
        seen.append(((weights[:, None] * centers).sum(0) / weights.sum())[None])
        return {name: seen[-1] for name in landscapes.FEATURES}

    landscapes.measure(image, GRID, "x", tmp_path, describe, resume=False)
    document = landscapes.write_results(tmp_path, "image")
    shifts = {record["amount"]: record["loss"]["SAM"] for record in document["landscapes"] if record["kind"] == "shift"}
    assert shifts[4.0] == pytest.approx(0.5 * 4.0**2, rel=0.02)
    # The image itself, then 2 mm in both senses along x.
    assert torch.allclose((seen[1] - seen[2]).abs(), torch.tensor([[4.0, 0.0, 0.0]]), atol=0.1)
    before = (tmp_path / "landscapes.json").read_text(encoding="utf-8")
    landscapes.measure(image, GRID, "x", tmp_path, lambda volume: pytest.fail("measured again"), resume=True)
    assert before == json.dumps(landscapes.write_results(tmp_path, "image"), indent=1)
    assert len(landscapes.page_lines(document)) > len(landscapes.FEATURES)


def test_a_loss_is_useful_as_far_as_it_rises_steadily():
    assert landscapes.steady_to([0, 2, 4, 8], [0, 0.3, 0.9, 0.9]) == 4
    assert landscapes.steady_to([0, 2, 4], [0, 0.5, 1.0]) == 4
    assert landscapes.loss(torch.eye(3), -torch.eye(3)) == 2.0


def test_surfaces_turn_the_image_about_both_axes(tmp_path):
    seen: list[torch.Tensor] = []

    def describe(volume: Volume) -> dict[str, torch.Tensor]:
        weights = volume.tensor[0, 0].flatten().float()
        centers = volume.grid.voxel_centers(reference=GRID.center).view(-1, 3)
        seen.append(((weights[:, None] * centers).sum(0) / weights.sum())[None])
        return {name: seen[-1] for name in landscapes.FEATURES}

    image = ball(np.asarray(GRID.center) + [8.0, 0.0, 0.0])
    surfaces.measure(image, GRID, "xz", tmp_path, describe, resume=False)
    document = surfaces.write_results(tmp_path, "image", "xz")
    surface = np.array(document["surfaces"]["SAM"])
    middle = len(surface) // 2
    # About x the ball's middle stays; about z it moves along a circle: the record of a turn is the chord, squared.
    assert surface[-1, middle] == pytest.approx(0.0, abs=0.05) and surface[middle, middle] == 0.0
    moved = float(seen[0].norm())
    assert surface[middle, -1] == pytest.approx(0.5 * (2 * moved * np.sin(np.radians(30.0))) ** 2, rel=0.1)
    surfaces.measure(image, GRID, "xz", tmp_path, lambda volume: pytest.fail("measured again"), resume=True)
    assert len(surfaces.page_lines(document)) > len(landscapes.FEATURES)


def test_the_way_down_a_surface_leads_back_or_not():
    degrees = np.array(surfaces.DEGREES)
    bowl = degrees[:, None] ** 2 + degrees[None] ** 2
    assert surfaces.falls_back(bowl).all()
    trapped = bowl.copy()
    trapped[0, 0] = -1.0
    left = ~surfaces.falls_back(trapped)
    assert left[0, 0] and left[1, 1] and not left[4, 4] and 0 < left.sum() < bowl.size / 2


def test_a_suites_page_is_published(tmp_path):
    calls: list[str] = []
    run_ablation(tmp_path / "ablation", calls)
    remember_command(tmp_path / "ablation", "ablation", ["--pairs", "1"])
    ablation.write_results(tmp_path / "ablation")
    assert publish.publish(tmp_path, tmp_path / "RESULTS.md", tmp_path / "pictures")
    text = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert "## What each ingredient contributes" in text
    assert "    samconvex benchmark --suite ablation --pairs 1\n" in text


def test_the_command_hands_publishing_to_the_suites_of_the_page(monkeypatch):
    handed: list[tuple] = []
    for suite in (ablation, xray):
        monkeypatch.setattr(suite, "main", lambda *arguments: handed.append(arguments) or 0)
    command = importlib.import_module("benchmarks.__main__")
    assert command.main(["--suite", "ablation", "--list"]) == command.main(["--suite", "xray"]) == 0
    assert handed == [(["--list"], publish.publish), ([],)]
