"""The study of the feed-forward networks: what it measures of a pair, and what its table says of made-up records."""

from __future__ import annotations

from dataclasses import replace

import pytest
from benchmarks.data.pairs import EVALUATION_ABDOMENS, Case, data_folder
from benchmarks.studies import feed_forward
from engine.phantom_fixtures import QUICK
from samconvex.networks.lapirn import CHECKPOINT_FORMAT, CHECKPOINT_VERSION, LapIRN
from samconvex.settings.presets import PRESETS
from samconvex.training.loop import save_checkpoint


def record(pair: str, method: str, dice: float, seconds: float = 10.0, group: str = "abdomen") -> dict:
    return {
        "pair": pair,
        "group": group,
        "method": method,
        "dice": dice,
        "organs": {},
        "sdlogj": None if method == "affine" else 0.5,
        "folding_percent": None if method == "affine" else 0.0,
        "seconds": seconds,
        "network_seconds": 1.5 if method == "LapIRN" else None,
        "peak_mib": 1000.0 * dice,
    }


def test_the_affines_seconds_count_for_what_starts_from_it():
    records = [record("a", "affine", 0.2), record("a", "LapIRN", 0.4, 3.0)]
    records += [record("b", "affine", 0.4, 20.0), record("b", "LapIRN", 0.3, 5.0)]
    records.append(record("c", "affine", 0.9))  # its network is not measured yet
    rows = {row["method"]: row for row in feed_forward.table(records)}
    assert rows["LapIRN"]["n"] == 2 and rows["LapIRN"]["dice"] == pytest.approx(0.35)
    assert rows["LapIRN"]["seconds"] == pytest.approx((13 + 25) / 2) and rows["affine"]["seconds"] == pytest.approx(15)
    assert rows["LapIRN"]["better"] == 1 and rows["LapIRN"]["worst"] == pytest.approx(0.3)
    assert rows["LapIRN"]["network"] == pytest.approx(1.5) and rows["affine"]["sdlogj"] is None
    lines = feed_forward.printed(list(rows.values())).splitlines()
    assert len({line.count("|") for line in lines}) == 1 and "| 0.350 | 0.071 |" in lines[3]


def test_a_stopped_run_goes_on_from_the_affine_it_has(tmp_path, phantom, breath):
    network = LapIRN(start_channels=1, spacing_mm=16.0)
    save_checkpoint(tmp_path / "lapirn.pt", network, CHECKPOINT_FORMAT, CHECKPOINT_VERSION, {})
    alone = replace(QUICK, levels=(), field_spacing=16.0, initial_network=str(tmp_path / "lapirn.pt"))
    wanted = {"affine": replace(PRESETS["affine"], affine="none"), "LapIRN": alone}
    moved = breath[0]
    case = Case(phantom.ct, moved, labels=(phantom.labels, phantom.labels))
    pair = feed_forward.Pair("phantom", "abdomen", "affine", lambda: case)
    feed_forward.run(tmp_path, [pair], {"affine": wanted["affine"]})
    feed_forward.run(tmp_path, [pair], wanted)
    feed_forward.run(tmp_path, [replace(pair, load=lambda: pytest.fail("all is there"))], wanted)
    found = feed_forward.read(tmp_path / "records.jsonl")
    assert [r["method"] for r in found] == ["affine", "LapIRN"] and (tmp_path / "phantom.tfm").is_file()
    assert found[0]["network_seconds"] is None and 0 < found[1]["network_seconds"] < found[1]["seconds"]
    assert found[1]["sdlogj"] is not None and found[1]["peak_mib"] > 100


def test_a_stopped_run_has_pairs_of_both_groups():
    groups = ("head-neck", "head-neck", "lung", "abdomen", "head-neck")
    pairs = [feed_forward.Pair(str(n), group, "affine", pytest.fail) for n, group in enumerate(groups)]
    assert [pair.name for pair in feed_forward.in_turn(pairs)] == ["0", "3", "1", "4"]


def test_what_decides_has_no_evaluation_patient():
    patients = {name for _, *names in feed_forward.TRAINING for name in names}
    assert not set(EVALUATION_ABDOMENS) & patients
    data = data_folder()
    if data is not None:
        assert not set((data / "headneck_pairs.csv").read_text().replace("\n", ",").split(",")) & patients
