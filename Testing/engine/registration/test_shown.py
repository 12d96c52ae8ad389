"""Which parts of the body two images show: said before the work, first in the report, at no cost of its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import samconvex as sc
import torch
from engine.phantom_fixtures import QUICK
from samconvex.anatomy.level import Anatomy, regions_of
from samconvex.registration import register as registering
from samconvex.registration import shown as module
from samconvex.registration.options import Options
from samconvex.registration.pair import Pair
from samconvex.registration.run import Run
from samconvex.registration.shown import shown
from samconvex.settings.presets import get_settings


def anatomy(low: float, high: float) -> Anatomy:
    heights = tuple(np.linspace(-high, -low, 5))
    return Anatomy(True, "", 1.0, "upright", (0.0, -1.0), heights, tuple(-z for z in heights), regions_of(low, high))


def run_of(preset, told: list[str]) -> Run:
    run = Run(Options(preset), get_settings(preset), torch.device("cpu"), lambda *said: None, ["earlier"])
    run.tell = told.append
    return run


@pytest.fixture
def answers(monkeypatch):
    """What is said of fixed and moving, without any network."""
    given = [anatomy(0, 250), anatomy(460, 640)]
    monkeypatch.setattr(module, "embed_cached", lambda image, model, **options: image.source)
    monkeypatch.setattr(module, "anatomy_of", lambda source: given[source == "moving"])
    return given


@pytest.fixture
def pair(phantom) -> Pair:
    return Pair(replace(phantom.ct, source="fixed"), replace(phantom.ct, source="moving"))


def test_nothing_in_common_is_told_at_once_and_comes_first(answers, pair):
    told: list[str] = []
    run = run_of("ct-inter-patient", told)
    record = shown(pair, run)
    assert told == run.warnings[:1] and run.warnings[1] == "earlier"
    assert told[0].startswith("fixed shows the head and neck, moving the abdomen: nothing in common")
    assert record["common_percent"] == 0.0
    assert record["fixed"]["regions"] == ["head", "neck"] and record["moving"]["regions"] == ["abdomen"]


def test_the_same_part_is_reported_without_a_warning(answers, pair):
    answers[1] = anatomy(50, 300)
    told: list[str] = []
    run = run_of("ct-inter-patient", told)
    assert shown(pair, run)["common_percent"] == pytest.approx(80.0)
    assert told == [] and run.warnings == ["earlier"]


def test_where_nothing_is_embedded_nothing_is_embedded_for_it(pair, monkeypatch):
    def embedded(*images, **options):
        raise AssertionError("an embedding was computed for the level alone")

    monkeypatch.setattr(module, "embed_cached", embedded)
    assert shown(pair, run_of("mr-ct", [])) == {}


def test_the_report_holds_the_anatomy_and_the_warning_is_its_first(phantom, breath, monkeypatch):
    said = {"fixed": {"recognised": True}, "moving": {"recognised": True}, "common_percent": 0.0}

    def first(pair, run):
        run.warnings[:0] = ["nothing in common"]
        run.tell("nothing in common")
        return said

    monkeypatch.setattr(registering, "shown", first)
    told: list[str] = []
    report = sc.register(phantom.ct, breath[0], preset=QUICK, tell=told.append).report
    assert report["anatomy"] == said and report["warnings"][0] == told[0] == "nothing in common"
