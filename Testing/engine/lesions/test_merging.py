"""Lesions that grow together are one; parts of one label and other grids are said."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from samconvex.io.images import write_volume
from samconvex.lesions.files import lesion_notes, read_lesions
from samconvex.lesions.findings import FOUND, UNCERTAIN, Finding, TrackingResult
from samconvex.lesions.lesion import Lesion
from samconvex.lesions.measurement import measure_lesion
from samconvex.lesions.merging import joined, touch
from samconvex.space.grid import Grid
from samconvex.space.volume import Volume

GRID = Grid((60, 40, 30), (1.0, 1.0, 1.0))


def _ball(x: float, radius: float, grid: Grid = GRID) -> Volume:
    points = grid.voxel_centers(dtype=torch.float64).numpy()
    inside = np.linalg.norm(points - np.array([x, 20.0, 15.0]), axis=-1) <= radius
    return Volume(torch.from_numpy(inside.astype(np.uint8))[None, None], grid, sitk.sitkUInt8, "balls")


class _Known:
    def __init__(self, contour: Volume) -> None:
        self.contour = contour


def _found(name: str, contour: Volume, state: str = FOUND) -> Finding:
    return Finding(name, 0, state, np.zeros(3), 0.9, 1.0, contour, contour, measure_lesion(contour))


def test_two_lesions_that_grow_together_are_measured_once() -> None:
    known = [_Known(_ball(20, 4)), _Known(_ball(36, 4)), _Known(_ball(52, 3))]
    later = [_found("a", _ball(20, 10)), _found("b", _ball(36, 10)), _found("c", _ball(52, 3))]
    a, b, c = joined(known, later, GRID)
    assert a.merged_with == ("b",) and b.merged_with == ("a",) and c is later[2]
    whole = _ball(20, 10).tensor | _ball(36, 10).tensor
    assert a.measurement.volume_ml == pytest.approx(float(whole.sum()) / 1000)
    assert a.measurement.longest_mm == pytest.approx(36, abs=1.5)
    assert b.measurement is None and b.suggested is None and b.state == FOUND
    assert "a has grown together with b" in a.reason and "measurement is that of a" in b.reason
    assert a.to_dict()["merged_with"] == ["b"] and "measurement" not in b.to_dict()


def test_a_chain_of_three_is_one() -> None:
    known = [_Known(_ball(x, 3)) for x in (14, 30, 46)]
    result = joined(known, [_found(name, _ball(x, 9)) for name, x in zip("abc", (14, 30, 46), strict=True)], GRID)
    assert [finding.merged_with for finding in result] == [("b", "c"), ("a", "c"), ("a", "b")]
    assert [finding.measurement is not None for finding in result] == [True, False, False]


def test_lesions_apart_touching_before_or_uncertain_stay_two() -> None:
    apart, close = [_Known(_ball(20, 4)), _Known(_ball(36, 4))], [_Known(_ball(20, 8)), _Known(_ball(36, 8))]
    grown = [_found("a", _ball(20, 10)), _found("b", _ball(36, 10))]
    assert not any(f.merged_with for f in joined(apart, [_found("a", _ball(20, 6)), _found("b", _ball(36, 6))], GRID))
    assert not any(f.merged_with for f in joined(close, grown, GRID))
    assert not any(f.merged_with for f in joined(apart, [grown[0], replace(grown[1], state=UNCERTAIN)], GRID))
    assert touch(_ball(20, 8), _ball(36, 8)) and not touch(_ball(20, 6), _ball(36, 6))


def test_separate_parts_of_one_label_are_said(tmp_path) -> None:
    tensor = _ball(10, 4).tensor + _ball(25, 4).tensor + 2 * _ball(45, 4).tensor
    tensor[0, 0, 0, 0, 0] = 2
    write_volume(Volume(tensor, GRID, sitk.sitkUInt8), tmp_path / "classes.nrrd")
    first, second = read_lesions(tmp_path / "classes.nrrd")
    assert "label 1 has 2 separate parts" in first.note
    assert second.note == ""
    # As a list of masks, which is how the panel gives its segments.
    (tmp_path / "list.json").write_text(json.dumps([{"name": n, "mask": "one.nrrd"} for n in ("a", "a")]))
    write_volume(Volume(tensor == 1, GRID, sitk.sitkUInt8), tmp_path / "one.nrrd")
    notes = [lesion.note for lesion in read_lesions(tmp_path / "list.json")]
    assert "a has 2 separate parts" in notes[0] and "a (2) has 2 separate parts" in notes[1]
    record = TrackingResult((first, second), (), {}, ("baseline",)).to_dict()["lesions"]
    assert record[0]["note"] == first.note and "note" not in record[1]


def test_lesions_on_another_grid_are_said(tmp_path) -> None:
    coarse = Grid((30, 20, 15), (2.0, 2.0, 2.0))
    image = Volume(torch.zeros(1, 1, *GRID.shape), GRID, source="baseline")
    for grid, said in ((GRID, False), (coarse, True)):
        write_volume(_ball(30, 6, grid), tmp_path / "l.nrrd")
        notes = lesion_notes(read_lesions(tmp_path / "l.nrrd"), image)
        assert any("l.nrrd is on another grid than baseline" in note for note in notes) == said
    assert lesion_notes([Lesion("p", np.zeros(3))], image) == []
