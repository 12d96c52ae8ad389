"""The study behind the expected error: what it fits covers nine of ten errors of pairs that it did not see."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from benchmarks.data.pairs import data_folder
from benchmarks.studies.expected_error_cases import TEST, TRAINING, cases
from benchmarks.studies.expected_error_fit import FOLDS, _folds, bounds_of, calibrated, fitted, weights_of
from benchmarks.studies.expected_error_picture import curve, draw


def made_up(pairs: int, seed: int, *, group: str = "a", places: int = 150) -> list:
    """Errors whose 90th percentile is 2 exp(hint) mm; "noise" tells nothing."""
    random = np.random.default_rng(seed)
    rows = []
    for _ in range(pairs):
        hint, noise = random.uniform(0, 2, places), random.normal(size=places)
        errors = 2 * np.exp(hint) * random.exponential(1 / np.log(10), places)
        rows.append((group, {"hint": hint, "noise": noise}, errors))
    return rows


def test_the_fit_finds_the_quantile_and_leaves_noise_out() -> None:
    model = fitted(made_up(8, 0))
    bounds = bounds_of(model, {"hint": np.array([0.3, 1.0, 1.7]), "noise": np.zeros(3)})
    assert bounds == pytest.approx(2 * np.exp([0.3, 1.0, 1.7]), rel=0.3)
    assert sum(model.rises["hint"].heights) > 5 * sum(model.rises["noise"].heights if "noise" in model.rises else ())


def test_calibration_covers_nine_of_ten_errors_of_new_pairs() -> None:
    model, held_out = calibrated(made_up(8, 1), 0)
    assert len(held_out) == 8
    covered = [float((errors <= bounds).mean()) for bounds, errors in held_out]
    assert np.mean(covered) == pytest.approx(0.9, abs=0.01)
    fresh = [(errors <= bounds_of(model, maps)).mean() for _, maps, errors in made_up(20, 2)]
    assert np.mean(fresh) == pytest.approx(0.9, abs=0.03)


def test_every_group_and_every_pair_of_it_counts_alike() -> None:
    rows = made_up(3, 0) + made_up(1, 1, group="b", places=7)
    weights = weights_of(rows)
    assert [len(w) for w in weights] == [150, 150, 150, 7]
    assert [w.sum() for w in weights] == pytest.approx([1 / 3, 1 / 3, 1 / 3, 1.0])


def test_pairs_of_a_group_are_spread_over_the_folds() -> None:
    rows = made_up(2 * FOLDS, 0, places=2) + made_up(FOLDS, 0, group="b", places=2)
    folds = _folds(rows, 3)
    assert [folds[: 2 * FOLDS].count(f) for f in range(FOLDS)] == [2] * FOLDS
    assert sorted(folds[2 * FOLDS :]) == list(range(FOLDS))


def test_the_curve_of_a_true_bound_lies_on_the_diagonal(tmp_path) -> None:
    pairs = [(2 * np.exp(maps["hint"]), errors) for _, maps, errors in made_up(40, 5)]
    said, true = curve(pairs).T
    assert true == pytest.approx(said, rel=0.15)
    draw({"made up": pairs}, tmp_path / "diagram.png")
    assert (tmp_path / "diagram.png").stat().st_size > 5000


@pytest.mark.skipif(data_folder() is None, reason="the evaluation images are absent")
def test_nobody_is_fitted_and_tested() -> None:
    data = data_folder()
    assert data is not None
    patients: dict[str, set[str]] = {TRAINING: set(), TEST: set()}
    for case in cases(data):
        name = case.name.removesuffix("-preview").removesuffix("-warp").removesuffix("-breath")
        patients[case.split] |= set(name.split("-")) if name[:2] in ("hn", "bt") else {name}
    assert not patients[TRAINING] & patients[TEST]
    with open(data / "headneck_pairs.csv", newline="") as file:
        kept_out = {case for row in csv.DictReader(file) for case in row.values()}
    kept_out |= {f"btcv{n}" for n in range(14, 20)} | {"lidc0001", "rad_lung1", "rad_lung2", "ts_example"}
    assert not patients[TRAINING] & kept_out
