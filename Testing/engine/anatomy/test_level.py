"""Level in a body, how it lies and what is not shown, on bodies whose descriptors are made of their places."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from samconvex.anatomy import level
from samconvex.anatomy.level import (
    Anatomy,
    BodyReference,
    common_anatomy,
    judged,
    level_not_shown,
    read_reference,
    reference_of,
    regions_of,
    warnings_about,
)
from samconvex.errors import InputError
from samconvex.training.levels import LevelSettings, PlacedCase, content

CHANNELS = 48


def described(places: np.ndarray) -> torch.Tensor:
    """Unit vectors that are alike where places (N, 3; lateral, dorsal, level in mm) are near."""
    generator = torch.Generator().manual_seed(0)
    frequencies = torch.randn(3, CHANNELS // 2, generator=generator).double() / 60
    phases = torch.from_numpy(places) @ frequencies
    return torch.nn.functional.normalize(torch.cat([phases.sin(), phases.cos()], 1).float(), dim=1)


def places_of(low: float, high: float, seed: int, count: int = 400) -> np.ndarray:
    """(N, 3) lateral, dorsal and level of a body that is shown from level ``low`` to ``high``."""
    generator = np.random.default_rng(seed)
    return generator.uniform((-150, -90, low), (150, 90, high), (count, 3))


@pytest.fixture(scope="module")
def reference() -> BodyReference:
    cases = []
    for seed in range(8):
        places = places_of(0, 900, seed, 900)
        cases.append(PlacedCase(f"c{seed}", places, described(places), *places.T[[2, 0, 1]], "net"))
    return reference_of(content(cases, LevelSettings(places=600, length=CHANNELS)))


def seen(
    places: np.ndarray, turn: np.ndarray, reference: BodyReference, vectors: torch.Tensor | None = None
) -> Anatomy:
    """What is said of a body whose points lie turned by ``turn`` against an upright one whose vertex is at z 500."""
    upright = places * np.array([1.0, 1.0, -1.0]) + np.array([0, 0, 500.0])
    points = (upright - upright.mean(0)) @ turn.T + np.array([40.0, -300.0, 1000.0])
    vectors = described(places) if vectors is None else vectors
    return judged(points, vectors, np.unique(points[:, 2]), reference)


@pytest.mark.parametrize(
    ("turn", "name"),
    [
        (np.eye(3), "upright"),
        (np.diag([-1.0, 1.0, -1.0]), "feet first"),
    ],
)
@pytest.mark.parametrize(("low", "high"), [(20.0, 260.0), (300.0, 700.0), (500.0, 640.0)])
def test_levels_and_orientation_are_found(reference, turn, name, low, high):
    places = places_of(low, high, 100)
    found = seen(places, turn, reference)
    assert found.is_clear and found.orientation == name
    assert found.span_mm == pytest.approx((low, high), abs=15)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_body_along_another_axis_is_not_recognised(reference, axis):
    order = [2, 1, 0] if axis == 0 else [0, 2, 1]
    found = seen(places_of(250, 700, 100), np.eye(3)[order], reference)
    assert not found.recognised
    sentence = warnings_about(shown(0, 250), found)[0]
    assert sentence.startswith("fixed shows the head and neck, but moving shows no body") and "turned" in sentence
    assert warnings_about(found, found) == []


def test_noise_is_no_body(reference):
    places = places_of(0, 400, 100)
    vectors = torch.nn.functional.normalize(torch.randn(len(places), CHANNELS, generator=torch.Generator()), dim=1)
    assert not seen(places, np.eye(3), reference, vectors).is_clear


def shown(low: float, high: float, *, confidence: float = 1.0) -> Anatomy:
    """An upright image of the levels from ``low`` to ``high``, with the vertex at z 0."""
    heights = tuple(np.linspace(-high, -low, 9))
    levels = tuple(-z for z in heights)
    return Anatomy(True, "", confidence, "upright", (0.0, -1.0), heights, levels, regions_of(low, high))


def test_what_two_images_have_in_common():
    assert common_anatomy(shown(0, 200), shown(100, 500)) == pytest.approx(0.5)
    assert common_anatomy(shown(0, 200), shown(400, 600)) == 0
    assert common_anatomy(shown(100, 200), shown(0, 600)) == 1
    assert common_anatomy(shown(0, 200), shown(400, 600, confidence=0.2)) is None
    assert common_anatomy(shown(0, 200), Anatomy(False)) is None


def test_nothing_in_common_is_the_first_sentence_and_names_both_regions():
    sentences = warnings_about(shown(0, 250), replace(shown(460, 640), orientation="feet first"))
    assert sentences[0].startswith("fixed shows the head and neck, moving the abdomen: nothing in common")
    assert sentences[1].startswith("moving lies feet first") and len(sentences) == 2
    assert warnings_about(shown(0, 300), shown(100, 500)) == []
    assert warnings_about(shown(0, 300), shown(460, 640, confidence=0.4)) == []
    assert warnings_about(shown(0, 300), Anatomy(False, "the reference of body levels is not installed")) == []


def test_points_beyond_the_levels_shown_are_outside():
    points = np.array([[0, 0, -100.0], [0, 0, -350.0], [0, 0, -520.0]])
    assert level_not_shown(points, shown(0, 900), shown(300, 480)).tolist() == [True, False, False]
    assert level_not_shown(points, shown(0, 900), shown(300, 470)).tolist() == [True, False, True]
    assert not level_not_shown(points, Anatomy(False), shown(300, 470)).any()
    assert not level_not_shown(points, None, shown(300, 470)).any()


@pytest.mark.parametrize(
    ("low", "high", "names"),
    [
        (0, 160, ("head",)),
        (-30, 290, ("head", "neck")),
        (280, 640, ("chest", "abdomen")),
        (1000, 1010, ("thigh",)),
    ],
)
def test_regions_by_level(low, high, names):
    assert regions_of(low, high) == names


def test_files_that_hold_no_reference_are_refused(tmp_path):
    path = tmp_path / "other.pt"
    torch.save({"format": "something"}, path)
    with pytest.raises(InputError, match=r"other.pt holds no reference of body levels"):
        read_reference(path)
    places = places_of(0, 900, 0)
    made = content([PlacedCase("c", places, described(places), *places.T[[2, 0, 1]], "net")], LevelSettings(length=8))
    torch.save({**made, "version": 99}, path)
    with pytest.raises(InputError, match="version 99"):
        read_reference(path)
    torch.save({**made, "places": made["places"][:-1]}, path)
    with pytest.raises(InputError, match="damaged"):
        read_reference(path)
    torch.save(made, path)
    assert len(read_reference(path).vectors) == 250


def test_without_the_file_nothing_is_said(monkeypatch):
    monkeypatch.setattr(level, "known_weights", list)
    found = level.anatomy_of(object())
    assert not found.recognised and "not installed" in found.reason
    assert found.record() == {"recognised": False, "reason": found.reason}
