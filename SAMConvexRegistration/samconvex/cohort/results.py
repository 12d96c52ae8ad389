"""results.csv: every row of the manifest with its figures, read from the reports that the jobs wrote."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..io.files import replaced
from .table import DONE, Job

RESULTS = "results.csv"
COLUMNS = (
    "name",
    "row",
    "patient",
    "visit",
    "command",
    "status",
    "sentence",
    "verdict",
    "reasons",
    "dice_initial",
    "dice_final",
    "tre_initial_mm",
    "tre_final_mm",
    "expected_error_median_mm",
    "expected_error_p90_mm",
    "folding_percent",
    "sdlogj",
    "inverse_consistency_mm",
    "seconds",
    "peak_memory_mib",
    "warnings",
    "folder",
)
# Where each figure stands in report.json.
_FIGURES = {
    "verdict": ("verdict", "level"),
    "reasons": ("verdict", "reasons"),
    "dice_initial": ("dice", "initial_mean"),
    "dice_final": ("dice", "final_mean"),
    "tre_initial_mm": ("tre_mm", "initial", "mean"),
    "tre_final_mm": ("tre_mm", "final", "mean"),
    "expected_error_median_mm": ("expected_error_mm", "median"),
    "expected_error_p90_mm": ("expected_error_mm", "p90"),
    "folding_percent": ("folding_percent",),
    "sdlogj": ("sdlogj",),
    "inverse_consistency_mm": ("inverse_consistency_mm", "mean"),
}
# Between several sentences of one cell.
BETWEEN = " | "


def write_results(folder: Path, jobs: Iterable[Job], known: dict[str, dict[str, Any]] | None = None) -> Path:
    """Write ``results.csv`` anew, in one step; figures without data are empty cells.

    Args:
        known: lines of jobs that were done when it was last written, by name; their reports are not read again.

    Returns:
        Its path. Lengths are mm, times seconds, memory MiB, ``reasons`` and ``warnings`` separated by " | ".
    """
    path = folder / RESULTS
    with replaced(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n", restval="")
        writer.writeheader()
        for job in jobs:
            line = (known or {}).get(job.name) or {key: _cell(value) for key, value in _line(folder, job).items()}
            if known is not None and job.status == DONE:
                known[job.name] = line
            writer.writerow(line)
    return path


def _line(folder: Path, job: Job) -> dict[str, Any]:
    report = _report(folder / "jobs" / job.name / "report.json") if "report.json" in job.outputs else {}
    line = {
        "name": job.name,
        "row": job.row,
        "patient": job.patient,
        "visit": job.visit,
        "command": job.command,
        "status": job.status,
        "sentence": job.sentence,
        "seconds": job.seconds,
        "peak_memory_mib": job.peak_memory_mib,
        "warnings": [*job.warnings, *report.get("warnings", [])],
        "folder": f"jobs/{job.name}" if job.outputs else "",
    }
    return line | {column: _found(report, places) for column, places in _FIGURES.items()}


def _report(path: Path) -> Mapping[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _found(report: Mapping[str, Any], places: tuple[str, ...]) -> Any:
    value: Any = report
    for place in places:
        value = value.get(place) if isinstance(value, Mapping) else None
    return value


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return BETWEEN.join(dict.fromkeys(map(str, value)))
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else value
