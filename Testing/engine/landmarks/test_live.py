"""Templates kept in folders, several templates that vote, and the process that answers while the mouse moves."""

from __future__ import annotations

import argparse
import io
import json
import queue
import threading

import numpy as np
import pytest
import torch
from engine.sam_fixtures import body_points, random_model, textured_body
from samconvex.anatomy.cache import embed_cached
from samconvex.cli import match as match_command
from samconvex.errors import InputError
from samconvex.io.images import write_volume
from samconvex.io.points import PointSet, write_points
from samconvex.landmarks import live as live_matching
from samconvex.landmarks import templates as template_library
from samconvex.landmarks.matching import Matches, match_points
from samconvex.landmarks.voting import vote


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAMCONVEX_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A saved template, its volume and its points."""
    volume = textured_body(0)
    points = PointSet(body_points(volume, 4), ("a", "b", "c", "d"))
    folder = tmp_path_factory.mktemp("library") / "chest"
    embedding = embed_cached(volume, random_model(), disk=False)
    template_library.save_template(folder, "Chest", points, embedding, description="four points")
    return folder, volume, points


def test_a_template_finds_its_points_without_its_image(template):
    folder, volume, points = template
    loaded = template_library.load_template(folder)
    assert (loaded.name, loaded.description, loaded.points.labels) == ("Chest", "four points", points.labels)
    np.testing.assert_allclose(loaded.points.positions, points.positions, atol=1e-3)
    query = embed_cached(volume, random_model(), disk=False)
    matches = match_points(loaded.embedding, loaded.points.positions, query, mode="fast")
    direct = match_points(query, points.positions, query, mode="fast")
    # A random network cannot tell every place from its like: only points that lead back are exact.
    sure = direct.cycle_mm < 2.0
    assert sure.sum() >= 3
    assert np.linalg.norm(matches.points - direct.points, axis=1)[sure].max() < 0.5
    assert np.linalg.norm(matches.points - points.positions, axis=1)[sure].max() < 1.0


@pytest.mark.parametrize("damage", ["embedding", "exchanged", "description", "format", "points"])
def test_a_damaged_template_is_refused_with_its_file(template, tmp_path, damage):
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(template[0], folder)
    if damage == "embedding":
        content = bytearray((folder / "embedding.npz").read_bytes())
        content[len(content) // 2] ^= 255
        (folder / "embedding.npz").write_bytes(bytes(content))
    elif damage == "exchanged":
        with np.load(folder / "embedding.npz") as content:
            arrays = {**content, "body": ~content["body"]}
        np.savez_compressed(folder / "embedding.npz", **arrays)
    else:
        values = json.loads((folder / "template.json").read_text(encoding="utf-8"))
        changed = {
            "description": "{",
            "format": json.dumps({**values, "format": 99}),
            "points": json.dumps({**values, "points": [{"label": "a"}]}),
        }[damage]
        (folder / "template.json").write_text(changed)
    with pytest.raises(InputError, match="copy"):
        template_library.load_template(folder)


def test_a_template_of_other_weights_needs_its_image(template, tmp_path):
    folder, volume, points = template
    other = random_model(1)
    with pytest.raises(InputError, match="another network"):
        template_library.template_embedding(folder, other)
    image = tmp_path / "image.mha"
    write_volume(volume, image)
    embedding = embed_cached(volume, random_model(), disk=False)
    template_library.save_template(tmp_path / "kept", "Kept", points, embedding, image=image)
    assert template_library.template_embedding(tmp_path / "kept", other).network == other.sha256


def answers(points, score=0.9, cycle=1.0, found=True):
    count = len(points)
    return Matches(np.array(points, float), np.full(count, score), np.full(count, cycle), np.full(count, found))


def test_most_templates_outvote_one_that_is_far_off():
    result = vote([answers([[0, 0, 0]]), answers([[2, 0, 0]]), answers([[80, 0, 0]], score=0.95)])
    assert result.votes[0] == 2 and abs(result.matches.points[0, 0] - 1.0) < 0.2
    assert result.spread_mm[0] == pytest.approx(1.0, abs=0.2)


def test_a_point_that_only_one_template_has_is_still_found():
    result = vote([answers([[5, 5, 5]]), answers([[0, 0, 0]], score=0.0, found=False)])
    assert result.matches.found[0] and result.votes[0] == 1
    np.testing.assert_allclose(result.matches.points[0], [5, 5, 5])
    nobody = vote([answers([[5, 5, 5]], score=0.3, found=False), answers([[9, 9, 9]], score=0.2, found=False)])
    assert not nobody.matches.found[0] and nobody.votes[0] == 0
    np.testing.assert_allclose(nobody.matches.points[0], [5, 5, 5])


def test_points_of_several_templates_belong_together_by_label():
    first = PointSet(np.zeros((3, 3)), ("a", "", "b"))
    second = PointSet(np.zeros((3, 3)), ("b", "c", ""))
    labels, rows = match_command.common_points([first, second])
    assert labels == ("a", "", "b", "c", "")
    assert rows == [[0, 1, 2, None, None], [None, None, 0, 1, 2]]


def test_match_takes_template_folders_and_votes(template, tmp_path, monkeypatch):
    folder, volume, points = template
    monkeypatch.setattr("samconvex.weights.models.load_sam", lambda name=None: random_model())
    write_volume(volume, tmp_path / "query.mha")
    moved = PointSet(points.positions[1:3] + [0.0, 0.0, 1.0], ("b", "c"))
    write_points(moved, tmp_path / "more.csv")
    parser = argparse.ArgumentParser()
    match_command.add_match_arguments(parser)
    args = parser.parse_args(
        [
            str(folder),
            str(folder / "points.mrk.json"),
            str(tmp_path / "query.mha"),
            "-o",
            str(tmp_path / "out.json"),
            "--also",
            str(folder),
            str(tmp_path / "more.csv"),
            "--mode",
            "fast",
            "--progress",
            "none",
            "--min-score",
            "0.2",
        ]
    )
    args.cancelled = threading.Event()
    assert match_command.run_match(args) == 0
    entries = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))[str(tmp_path / "query.mha")]
    assert [entry["label"] for entry in entries] == list("abcd")
    assert [entry["votes"] for entry in entries] == [1, 2, 2, 1]
    assert abs(entries[1]["point"][2] - points.positions[1][2] - 0.5) < 0.6


@pytest.fixture
def matcher(template, monkeypatch):
    monkeypatch.setattr(live_matching, "load_sam", lambda name=None: random_model())
    matcher = live_matching.LiveMatcher()
    matcher.answer({"do": "load", "name": "A", "path": str(template[0])})
    matcher.answer({"do": "load", "name": "B", "path": str(template[0])})
    return matcher


def test_a_forgotten_volume_is_unknown(matcher, template):
    request = {"do": "match", "from": "A", "to": "B", "point": template[2].positions[0].tolist()}
    assert "point" in matcher.answer(request)
    matcher.answer({"do": "forget", "name": "A"})
    with pytest.raises(KeyError):
        matcher.answer(request)


def test_a_point_is_answered_and_its_similarity_peaks_there(matcher, template, tmp_path):
    point = template[2].positions[0].tolist()
    found = matcher.answer({"do": "match", "from": "A", "to": "B", "point": point})
    assert found["found"] and np.linalg.norm(np.subtract(found["point"], point)) < 1.0
    answer = matcher.answer(
        {
            "do": "similarity",
            "from": "A",
            "to": "B",
            "point": point,
            "path": str(tmp_path / "map.npy"),
        }
    )
    scores = np.load(answer["path"])
    peak = np.array(np.unravel_index(scores.argmax(), scores.shape))[::-1]
    place = np.array(answer["grid"]["origin"]) + peak * answer["grid"]["spacing"]
    assert scores.dtype == np.uint8 and scores.max() > 80
    assert np.linalg.norm(place - point) < 12.0
    with pytest.raises(InputError, match="outside"):
        matcher.answer({"do": "match", "from": "A", "to": "B", "point": [1e4, 0, 0]})


class Lines:
    """Standard input that gives all lines once, then waits to be closed."""

    def __init__(self, *requests):
        self._lines = queue.Queue()
        for request in requests:
            self._lines.put(json.dumps(request) + "\n")

    def close(self):
        self._lines.put(None)

    def __iter__(self):
        return iter(self._lines.get, None)


class SlowMatcher:
    """Notes what was really computed; the first request waits until all others are there."""

    def __init__(self, source):
        self.asked, self._source = [], source

    def answer(self, request, report=None):
        self.asked.append(request["id"])
        while request["id"] == 1 and not self._source._lines.empty():
            threading.Event().wait(0.01)
        threading.Event().wait(0.05)
        if request["id"] == 4:
            self._source.close()
        if request["do"] == "bad":
            raise KeyError("bad")
        return {"value": request["id"]}


def test_the_latest_request_wins():
    source = Lines(*({"id": number, "do": "match"} for number in (1, 2, 3, 4)))
    matcher, target = SlowMatcher(source), io.StringIO()
    live_matching.serve(matcher, source, target)
    said = {line["id"]: line for line in map(json.loads, target.getvalue().splitlines()) if "id" in line}
    # The first may have been overtaken too.
    assert matcher.asked in ([1, 4], [4])
    assert said[2] == {"id": 2, "skipped": True} and said[3]["skipped"] and said[4]["value"] == 4


def test_a_wrong_request_is_answered_and_the_next_one_too():
    source = Lines({"id": 3, "do": "bad"}, {"id": 4, "do": "match"})
    target = io.StringIO()
    live_matching.serve(SlowMatcher(source), source, target)
    lines = [json.loads(line) for line in target.getvalue().splitlines()]
    assert "cannot be answered" in next(line for line in lines if line.get("id") == 3)["error"]
    assert lines[-1] == {"id": 4, "done": True, "value": 4}


def test_one_point_costs_no_conversion_of_the_whole_map():
    embedding = embed_cached(textured_body(0), random_model(), disk=False)
    points = body_points(textured_body(0), 30, share=0.6)
    together = embedding.descriptors(points)
    single = torch.cat([embedding.descriptors(point[None]) for point in points])
    assert (together - single).abs().max() < 1e-4
