"""One-shot matching: the same physical place, whatever grid a volume lies on, and honesty about what is not there."""

from __future__ import annotations

import argparse
import csv
import json
import re
import threading
from dataclasses import replace
from weakref import WeakKeyDictionary

import numpy as np
import pytest
from engine.sam_fixtures import GRID, body_points, random_model, random_weights, textured_body, turned
from samconvex.align import by_embeddings as affine_sam
from samconvex.align.local_maps import robust_local_maps
from samconvex.anatomy import level, sides
from samconvex.anatomy import search as embedding_search
from samconvex.anatomy.embed import embed
from samconvex.anatomy.level import OUTSIDE_MM, Anatomy
from samconvex.cli import match as match_command
from samconvex.errors import Cancelled, InputError
from samconvex.io.images import write_volume
from samconvex.landmarks import matching
from samconvex.landmarks.matching import Matches, bounded, match_points
from samconvex.landmarks.templates import nearest_to_mean
from samconvex.landmarks.voting import vote
from samconvex.space.transforms import AffineTransform


@pytest.fixture(scope="module")
def model():
    return random_model()


@pytest.fixture(scope="module")
def body():
    return textured_body()


@pytest.fixture(scope="module")
def embedding(body, model):
    return embed(body, model)


@pytest.mark.parametrize("mode", ["fast", "stable"])
def test_points_are_found_in_the_same_volume(body, embedding, mode):
    points = body_points(body, 40)
    matches = match_points(embedding, points, embedding, mode=mode)
    errors = np.linalg.norm(matches.points - points, axis=1)
    # Random features are not unique everywhere; where they are, the place is exact between voxels.
    assert np.median(errors) < 0.5 and np.percentile(errors, 90) < 1.5
    assert np.median(matches.cycle_mm) < 0.5


@pytest.mark.parametrize(
    ("degrees", "spacing", "flip"),
    [(0, (2.0, 2.0, 5.0), True), (25, (3.0, 3.0, 3.0), False), (-40, (2.5, 3.5, 4.5), True)],
)
def test_any_orientation_and_spacing_gives_the_same_place(body, embedding, model, degrees, spacing, flip):
    points = body_points(body, 40)
    matches = match_points(embedding, points, embed(turned(body, degrees, spacing, flip), model))
    errors = np.linalg.norm(matches.points - points, axis=1)
    assert np.median(errors) < 2.0 and np.percentile(errors, 90) < 5.0


def test_shifted_copy_is_found_shifted_by_the_same_amount(body, embedding, model):
    shift = np.array([37.5, -12.25, 81.0])
    grid = body.grid
    moved = body.with_tensor(body.tensor, type(grid)(grid.size, grid.spacing, tuple(np.asarray(grid.origin) + shift)))
    points = body_points(body, 30)
    matches = match_points(embedding, points, embed(moved, model))
    errors = np.linalg.norm(matches.points - points - shift, axis=1)
    assert np.median(errors) < 0.5 and np.percentile(errors, 90) < 1.5


def test_thousands_of_points_go_through_one_product_like_single_ones(body, embedding):
    points = body_points(body, 3000)
    many = match_points(embedding, points, embedding, mode="fast")
    few = match_points(embedding, points[2500:2510], embedding, mode="fast")
    np.testing.assert_allclose(many.points[2500:2510], few.points, atol=1e-3)


def test_matches_stay_in_the_body(embedding, body):
    corner = body.grid.voxels_to_points(np.array([[1.0, 1.0, 1.0]]))
    matches = match_points(embedding, corner, embedding, mode="fast")
    voxel = np.round(embedding.fine.grid.points_to_voxels(matches.points)[0]).astype(int)
    assert bool(embedding.body[voxel[2], voxel[1], voxel[0]])


def test_limits_decide_what_is_found(body, embedding, model):
    points = body_points(body, 10)
    other = embed(textured_body(5), model)
    strict = match_points(embedding, points, other, min_score=0.999)
    assert not strict.found.any() and np.isnan(strict.positions).all() and np.isfinite(strict.points).all()
    loose = match_points(embedding, points, other, min_score=-1, max_cycle_mm=1e6)
    assert loose.found.all()


def test_local_search_stays_near_the_prediction(body, embedding):
    points = body_points(body, 20, share=0.15)
    wrong = points + np.array([40.0, 0, 0])
    found, _ = embedding_search.nearest(embedding, embedding.descriptors(points), around=wrong, reach_mm=20.0)
    assert np.linalg.norm(found - wrong, axis=1).max() < 26.0
    right, _ = embedding_search.nearest(embedding, embedding.descriptors(points), around=points, reach_mm=20.0)
    assert np.percentile(np.linalg.norm(right - points, axis=1), 90) < 1.5


def test_local_search_without_body_in_reach_looks_everywhere(body, embedding):
    points = body_points(body, 10)
    found, _ = embedding_search.nearest(
        embedding, embedding.descriptors(points), around=points + np.array([2000.0, 0, 0]), reach_mm=20.0
    )
    assert np.median(np.linalg.norm(found - points, axis=1)) < 0.5


def guided(monkeypatch, affine, confidence=0.9):
    """Let every pair's SAM-affine be ``affine``; returns the list of calls."""
    calls = []

    def sam_affine(template, query):
        calls.append((template, query))
        return affine, {"confidence": confidence}

    monkeypatch.setattr(affine_sam, "sam_affine", sam_affine)
    monkeypatch.setattr(affine_sam, "_known_pairs", WeakKeyDictionary())
    return calls


def test_a_sure_affine_keeps_the_matches_in_its_reach_and_an_unsure_one_does_not(body, embedding, monkeypatch):
    points = body_points(body, 12, share=0.15)
    shifted = AffineTransform(np.eye(3), [60.0, 0, 0])
    guided(monkeypatch, shifted)
    near = match_points(embedding, points, embedding).points
    assert np.linalg.norm(near - points - [60.0, 0, 0], axis=1).max() < 1.3 * matching.REACH_MM
    guided(monkeypatch, shifted, confidence=0.2)
    assert np.median(np.linalg.norm(match_points(embedding, points, embedding).points - points, axis=1)) < 0.5


def test_what_lies_far_beyond_the_query_is_not_found_whatever_looks_alike(body, embedding, model, monkeypatch):
    guided(monkeypatch, AffineTransform.identity())
    keep = int(body.grid.size[2] * 0.4)
    part = body.with_tensor(body.tensor[:, :, :keep].clone(), body.grid.cropped((0, 0, 0), (*body.grid.size[:2], keep)))
    points = body_points(body, 60)
    top = body.grid.voxels_to_points(np.array([[0.0, 0.0, keep - 0.5]]))[0, 2]
    found = match_points(embedding, points, embed(part, model), min_score=-1, max_cycle_mm=1e6).found
    beyond = points[:, 2] > top + matching.REACH_MM + 1
    assert beyond.sum() > 3 and not found[beyond].any() and found[points[:, 2] < top].all()


def test_a_second_question_about_a_pair_needs_no_second_affine(body, embedding, monkeypatch):
    calls = guided(monkeypatch, AffineTransform.identity())
    for _ in range(2):
        match_points(embedding, body_points(body, 3), embedding)
    assert len(calls) == 1


def test_neighborhood_vote_ignores_wrong_neighbors():
    random = np.random.default_rng(0)
    point = np.array([[10.0, 20.0, 30.0]])
    sources = point[:, None] + random.uniform(-12, 12, (1, 27, 3))
    targets = sources + [5.0, -7.0, 11.0]
    targets[0, :9] += random.uniform(40, 90, (9, 3))
    answer, spread, _ = robust_local_maps(point, sources, targets, np.ones((1, 27)), point)
    np.testing.assert_allclose(answer[0], point[0] + [5.0, -7.0, 11.0], atol=0.5)
    assert spread[0] < 1


def test_unusable_arguments_are_refused(embedding, body):
    with pytest.raises(InputError, match="finite"):
        match_points(embedding, np.array([[np.nan, 0, 0]]), embedding)
    with pytest.raises(InputError, match="N rows"):
        match_points(embedding, np.zeros(3), embedding)
    with pytest.raises(InputError, match="outside the template"):
        match_points(embedding, np.array([[9999.0, 0, 0]]), embedding)
    with pytest.raises(InputError, match="mode"):
        match_points(embedding, body_points(body, 1), embedding, mode="psychic")
    with pytest.raises(InputError, match="different networks"):
        match_points(embedding, body_points(body, 1), embed(body, random_model(3)))
    assert len(match_points(embedding, np.zeros((0, 3)), embedding)) == 0


def test_wrong_modality_is_refused(body, model):
    mr = body.with_tensor((body.tensor + 1000) // 4)
    with pytest.raises(InputError, match="no CT"):
        embed(mr, model)


def test_cancelling_stops_the_work(body, model):
    def cancel(stage, fraction, message=""):
        if fraction > 0.1:
            raise Cancelled()

    with pytest.raises(Cancelled):
        embed(body, model, progress=cancel)


def test_tiles_equal_the_whole(body, model):
    import dataclasses

    whole = embed(body, model)
    tiled = embed(body, dataclasses.replace(model, tile_voxels=96 * 96 * 80, halo=32))
    inside = whole.body
    cosine = (whole.fine.tensor.float() * tiled.fine.tensor.float()).sum(1)[0][inside]
    assert float(cosine.quantile(0.05)) > 0.99


@pytest.fixture
def files(tmp_path, body, monkeypatch):
    monkeypatch.setenv("SAMCONVEX_HOME", str(tmp_path / "home"))

    random_weights(tmp_path / "w.pt")
    write_volume(body, tmp_path / "template.nii.gz")
    write_volume(turned(body, 10, (4.0, 4.0, 4.0)), tmp_path / "query.nii.gz")
    rows = "\n".join(",".join(f"{v:.3f}" for v in p) + f",P{i}" for i, p in enumerate(body_points(body, 3)))
    (tmp_path / "points.csv").write_text("x,y,z,label\n" + rows + "\n,,,lost\n")
    return tmp_path


def run(files, *words):
    parser = argparse.ArgumentParser()
    match_command.add_match_arguments(parser)
    words = [str(files / w) if (files / w).exists() else w for w in words]
    args = parser.parse_args([*words, "--weights", str(files / "w.pt"), "--progress", "none"])
    args.cancelled = threading.Event()
    return match_command.run_match(args)


def test_command_writes_the_promised_columns(files, body):
    out = files / "out.csv"
    words = ("template.nii.gz", "points.csv", "query.nii.gz", "-o", str(out), "--min-score", "0.2")
    assert run(files, *words) == 0
    rows = list(csv.DictReader(out.open()))
    assert list(rows[0]) == ["label", "x", "y", "z", "score", "cycle_mm", "found", "state", "error90_mm"]
    assert [r["label"] for r in rows] == ["P0", "P1", "P2", "lost"]
    assert rows[3]["found"] == "false" and rows[3]["x"] == rows[3]["score"] == ""
    # Nothing is known of the level of an invented body: what is lost is not called outside.
    assert {(r["found"], r["state"]) for r in rows} <= {("true", "found"), ("false", "not found")}
    assert all((r["error90_mm"] != "") == (r["found"] == "true") for r in rows)
    truth = body_points(body, 3)
    near = [
        np.linalg.norm(np.array([float(r[a]) for a in "xyz"]) - t) < 6.0
        for r, t in zip(rows, truth, strict=False)
        if r["found"] == "true"
    ]
    assert sum(near) >= 1
    with pytest.raises(InputError, match="--overwrite"):
        run(files, *words)


def test_what_reading_noticed_stands_in_the_json_too(files, body, capsys):
    write_volume(body, files / "odd.nrrd")
    content = (files / "odd.nrrd").read_bytes()
    (files / "odd.nrrd").write_bytes(re.sub(rb"space origin: [^\n]*\n", b"", content))
    run(files, "template.nii.gz", "points.csv", "odd.nrrd", "-o", str(files / "out.json"))
    document = json.loads((files / "out.json").read_text(encoding="utf-8"))
    assert [len(document[str(files / "odd.nrrd")]), len(document["warnings"])] == [4, 1]
    assert "odd.nrrd states no position" in document["warnings"][0]
    assert document["warnings"][0] in capsys.readouterr().err


def test_command_marks_lost_points_undefined_in_markups(files):
    out = files / "out.mrk.json"
    run(files, "template.nii.gz", "points.csv", "query.nii.gz", "-o", str(out), "--min-score", "1")
    points = json.loads(out.read_text(encoding="utf-8"))["markups"][0]["controlPoints"]
    assert [p["positionStatus"] for p in points] == ["undefined"] * 4


def test_command_writes_one_file_per_query(files):
    run(files, "template.nii.gz", "points.csv", "query.nii.gz", "template.nii.gz", "-o", str(files / "m.csv"))
    assert (files / "m_query.csv").is_file() and (files / "m_template.csv").is_file()


def test_what_the_query_does_not_show_is_outside_and_never_found(body, embedding, monkeypatch):
    """The upper half of the body is asked for in an image that, by its level, shows the lower half alone."""
    heights = np.unique(body_points(body, 200)[:, 2])
    middle = float(np.median(heights))
    whole = Anatomy(True, "", 1.0, "upright", (0.0, -1.0), tuple(heights), tuple(-heights), ("chest",))
    lower = tuple(z for z in heights if z < middle)
    half = replace(whole, z_mm=lower, levels_mm=tuple(-z for z in lower))
    points = body_points(body, 40)
    answers = iter([whole, half, whole, whole])
    monkeypatch.setattr(matching, "anatomy_of", lambda embedding: next(answers))
    found = match_points(embedding, points, embedding, mode="fast", min_score=-1, max_cycle_mm=1e6)
    beyond = points[:, 2] > max(lower) + OUTSIDE_MM
    assert beyond.any() and not beyond.all()
    assert [state == "outside" for state in found.state] == beyond.tolist()
    assert (found.found == ~beyond).all() and np.isnan(found.error90_mm[beyond]).all()
    assert set(match_points(embedding, points, embedding, mode="fast", max_cycle_mm=-1).state) == {"not found"}


def test_the_bound_grows_as_matches_look_worse():
    scores = bounded(np.linspace(0.2, 1.0, 20), np.zeros(20))
    cycles = bounded(np.full(20, 0.99), np.linspace(0, 30, 20))
    assert (np.diff(scores) <= 0).all() and scores[0] > scores[-1] > 0
    assert (np.diff(cycles) >= 0).all() and cycles[-1] > cycles[0]


def test_templates_say_outside_only_together():
    def answer(found, score, outside):
        return Matches(np.zeros((1, 3)), np.array([score]), np.zeros(1), np.array([found]), np.array([outside]))

    assert vote([answer(False, 0.5, True), answer(False, 0.5, True)]).matches.state == ["outside"]
    assert vote([answer(False, 0.5, True), answer(False, 0.6, False)]).matches.state == ["not found"]
    assert vote([answer(False, 0.5, True), answer(False, 0.0, False)]).matches.state == ["outside"]  # one lacks it
    assert vote([answer(False, 0.5, True), answer(True, 0.9, False)]).matches.state == ["found"]


def said_before_matching(files, monkeypatch, capsys) -> str:
    """What the command says of the two images before it looks for the first point."""

    def matched(*arguments, **options):
        raise InputError("matching began")

    monkeypatch.setattr(matching, "match_points", matched)
    with pytest.raises(InputError, match="matching began"):
        run(files, "template.nii.gz", "points.csv", "query.nii.gz", "-o", str(files / "none.csv"))
    return capsys.readouterr().err


def test_command_says_before_matching_that_nothing_is_common(files, monkeypatch, capsys):
    heights = (-100.0, 0.0)
    head = Anatomy(True, "", 1.0, "upright", (0.0, -1.0), heights, (0.0, 100.0), ("head",))
    belly = replace(head, levels_mm=(500.0, 600.0), regions=("abdomen",))
    answers = iter([head, belly])
    monkeypatch.setattr(level, "anatomy_of", lambda embedding: next(answers))
    said = said_before_matching(files, monkeypatch, capsys)
    assert "the template shows the head" in said and "the abdomen: nothing in common" in said


def test_a_point_outside_its_template_does_not_cost_the_others(files, body, capsys):
    (files / "some.csv").write_text((files / "points.csv").read_text() + "9999,0,0,far\n")
    assert run(files, "template.nii.gz", "some.csv", "query.nii.gz", "-o", str(files / "some_out.csv")) == 0
    assert run(files, "template.nii.gz", "points.csv", "query.nii.gz", "-o", str(files / "out.csv")) == 0
    some, every = (list(csv.DictReader((files / name).open())) for name in ("some_out.csv", "out.csv"))
    assert some[:-1] == every
    assert some[-1]["label"] == "far" and some[-1]["found"] == "false" and some[-1]["x"] == ""
    assert "outside" in capsys.readouterr().err.split("point 5 (far)")[0]


def test_command_says_before_matching_that_a_scan_is_mirrored(files, monkeypatch, capsys):
    heights = (-100.0, 0.0)
    head = Anatomy(True, "", 1.0, "upright", (0.0, -1.0), heights, (0.0, 100.0), ("head",))
    monkeypatch.setattr(level, "anatomy_of", lambda embedding: head)
    monkeypatch.setattr(sides, "is_mirrored", lambda volume, feet_first: "query" in volume.name)
    said = said_before_matching(files, monkeypatch, capsys)
    assert "query.nii.gz is mirrored: left and right are swapped" in said and "the template is mirrored" not in said


def test_the_most_usual_of_several_templates_is_nearest_to_their_mean():
    usual, odd = (embed(textured_body(seed), random_model()) for seed in (0, 1))
    points = GRID.center + np.array([[10.0, -8.0, 12.0], [-24.0, 6.0, -20.0], [0.0, 0.0, 0.0], [18.0, 14.0, -30.0]])
    # Two agree and one does not, wherever it stands.
    assert nearest_to_mean([odd, usual, usual], [points] * 3) > 0
    assert nearest_to_mean([usual, usual, odd], [points] * 3) < 2
    # Of one image, too, the usual places win.
    assert nearest_to_mean([usual] * 3, [points, points[::-1], points]) != 1
    with pytest.raises(InputError, match="same landmarks"):
        nearest_to_mean([usual, odd], [points, points[:2]])
    with pytest.raises(InputError, match="different networks"):
        nearest_to_mean([usual, replace(odd, network="other")], [points] * 2)
