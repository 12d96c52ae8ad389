"""report.json follows its schema, is strict JSON, and says what truly was read."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from engine.report_schema import schema_errors
from samconvex.io.files import file_sha256
from samconvex.memory import peak_memory_mib
from samconvex.report.document import build_report, plain, save_report
from samconvex.report.verdict import verdict
from samconvex.space.grid import Grid
from samconvex.space.volume import Volume


@dataclass(frozen=True)
class _Level:
    spacing_mm: float = 4.0
    radius: tuple[int, ...] = (2, 3)


@dataclass(frozen=True)
class _Settings:
    levels: tuple[_Level, ...] = (_Level(), _Level(2.0))


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    (tmp_path / "image.nii.gz").write_bytes(b"voxels")
    grid = Grid((8, 9, 10), (1.0, 2.0, 3.0))
    return Volume(torch.zeros(1, 1, 10, 9, 8), grid, source=str(tmp_path / "image.nii.gz"))


def _full(volume: Volume) -> dict:
    return build_report(
        version="1.2",
        fixed=volume,
        moving=volume,
        preset="ct-inter-patient",
        settings=_Settings(),
        device="cpu",
        threads=2,
        stage_seconds={"affine": 1.0, "convex": np.float32(2.5)},
        total_seconds=3.5,
        peak_memory_mib=peak_memory_mib(),
        regularity={"folding_percent": 0.0, "sdlogj": 0.1, "sdlogj_learn2reg": 0.05},
        inverse_consistency_mm={"mean": 0.1, "p95": 0.2, "max": 0.3},
        overlap_percent=98.5,
        dice_initial={1: 0.25, 2: 0.75},
        dice_final={1: 0.5, 2: 1.0},
        tre_initial_mm=np.array([3.0, 4.0, 8.0]),
        tre_final_mm=np.array([1.0, 2.0, 3.0]),
        further={"verdict": verdict({"near_percent": 80.0})},
        expected_error_mm={
            "median": 2.0,
            "p90": np.float64(4.0),
            "max": 9.0,
            "family": "linear",
            "own_calibration": False,
        },
        warnings=["one", "one", "two"],
    )


def test_a_full_report_follows_the_schema(volume: Volume) -> None:
    report = _full(volume)
    assert schema_errors(report) == []
    assert report["dice"]["initial"] == {"1": 0.25, "2": 0.75}
    assert (report["dice"]["initial_mean"], report["dice"]["final_mean"]) == (0.5, 0.75)
    assert report["tre_mm"]["n"] == 3
    assert report["tre_mm"]["final"]["mean"] == pytest.approx(2.0)
    assert report["inputs"]["fixed"]["size"] == [8, 9, 10]
    assert report["settings"]["levels"][1] == {"spacing_mm": 2.0, "radius": [2, 3]}
    assert report["warnings"] == ["one", "two"]


def test_fields_without_data_are_absent(volume: Volume) -> None:
    report = build_report(version="1.2", fixed=volume, moving=volume)
    assert {"dice", "tre_mm", "inverse_consistency_mm", "preset", "seconds"}.isdisjoint(report)


@pytest.mark.parametrize(
    "key",
    [
        "version",
        "settings",
        "inputs",
        "seconds",
        "sdlogj",
        "inverse_consistency_mm",
        "expected_error_mm",
        "overlap_percent",
        "warnings",
    ],
)
def test_a_missing_or_wrong_field_is_found(volume: Volume, key: str) -> None:
    report = _full(volume)
    report[key] = object()
    assert any(key in error for error in schema_errors(report))
    del report[key]
    assert schema_errors(report) == [f": {key!r} is a required property"]


def test_the_file_is_strict_json_in_any_language(volume: Volume, tmp_path: Path) -> None:
    odd = {"nan": float("nan"), "array": np.arange(3), "path": Path("a")}
    report = _full(volume) | {"odd": odd, "warnings": ["größer"]}
    save_report(report, tmp_path / "report.json")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    back = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert back["odd"] == {"array": [0, 1, 2], "path": "a"}
    assert back["warnings"] == ["größer"]


def test_inputs_are_named_by_the_digest_of_their_bytes(volume: Volume, tmp_path: Path) -> None:
    assert _full(volume)["inputs"]["moving"]["sha256"] == hashlib.sha256(b"voxels").hexdigest()
    series = tmp_path / "series"
    series.mkdir()
    (series / "2.dcm").write_bytes(b"two")
    (series / "1.dcm").write_bytes(b"one")
    assert file_sha256(series) == hashlib.sha256(b"onetwo").hexdigest()


def test_peak_memory_is_this_process_and_not_its_parents() -> None:
    before = peak_memory_mib()
    block = np.ones(64 * 2**20, np.uint8)
    assert peak_memory_mib() >= max(before, block.nbytes / 2**20)
    # A child that imports nothing needs a few MiB; some counters of the system would show the parent's.
    code = "import sys; sys.path.insert(0, sys.argv[1]); from samconvex.memory import *; print(peak_memory_mib())"
    engine = str(Path(sys.modules["samconvex"].__file__ or "").parents[1])
    child = subprocess.run([sys.executable, "-c", code, engine], capture_output=True, text=True, check=True)
    assert 1 < float(child.stdout) < before


def test_plain_keeps_integers_and_booleans() -> None:
    assert plain({"a": np.int64(3), "b": np.bool_(True), "c": (1, 2.5)}) == {"a": 3, "b": True, "c": [1, 2.5]}
