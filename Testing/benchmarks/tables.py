"""From single runs to summaries, Markdown and the plot's data. Pure functions of the records."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

# Column title, path in a record, decimals.
COLUMNS: tuple[tuple[str, tuple[str, ...], int], ...] = (
    ("Dice", ("dice_mean",), 3),
    ("HD95 mm", ("hd95_mean_mm",), 1),
    ("TRE mm mean", ("tre_mm", "mean"), 2),
    ("TRE mm p95", ("tre_mm", "p95"), 2),
    ("known-warp error mm mean", ("known_error_mm", "mean"), 2),
    ("p95", ("known_error_mm", "p95"), 2),
    ("SDlogJ", ("sdlogj",), 2),
    ("SDlogJ Learn2Reg", ("sdlogj_learn2reg",), 3),
    ("folding %", ("folding_percent",), 3),
    ("seconds", ("seconds",), 1),
    ("CPU s", ("cpu_seconds",), 1),
    ("process s", ("process_seconds",), 1),
    ("peak MiB", ("peak_memory_mib",), 0),
)


def value(record: dict, path: Iterable[str]) -> float | None:
    """The number at ``path``, or None where the record has none."""
    item: object = record
    for key in path:
        if not isinstance(item, dict) or key not in item:
            return None
        item = item[key]
    return float(item) if isinstance(item, (int, float)) else None


def summarize(records: list[dict]) -> list[dict]:
    """One row per (group, method): the mean of every column over that group's finished pairs.

    A method that failed on a pair says so in ``failed``; its means then cover fewer pairs, which ``pairs`` shows.
    """
    rows = []
    for group in _in_order(record["group"] for record in records):
        members = [record for record in records if record["group"] == group]
        for method in _in_order(record["method"] for record in members):
            runs = [record for record in members if record["method"] == method]
            done = [record for record in runs if "failed" not in record]
            row: dict = {"group": group, "method": method, "pairs": len(done), "failed": len(runs) - len(done)}
            for title, path, _ in COLUMNS:
                numbers = [number for record in done if (number := value(record, path)) is not None]
                if numbers:
                    row[title] = float(np.mean(numbers))
            rows.append(row)
    return rows


def time_ratios(records: list[dict], reference: str = "convexadam") -> dict[str, float]:
    """Median over pairs of (seconds of ``reference``) / (seconds of a method), same run, same machine, same pair."""
    times: dict[str, dict[str, float]] = {}
    for record in records:
        if (seconds := value(record, ("seconds",))) is not None and "failed" not in record:
            times.setdefault(record["pair"], {})[record["method"]] = seconds
    ratios: dict[str, list[float]] = {}
    for of_pair in times.values():
        if reference in of_pair:
            for method, seconds in of_pair.items():
                ratios.setdefault(method, []).append(of_pair[reference] / seconds)
    return {method: float(np.median(numbers)) for method, numbers in ratios.items() if method != reference}


def markdown(document: dict) -> str:
    """The results page: a summary per kind of pair, then every pair."""
    records = document["records"]
    threads = "/".join(sorted({str(record["threads"]) for record in records if "threads" in record})) or "some"
    lines = [
        "# Registration benchmark", "",
        "Written by `samconvex benchmark --suite registration`; do not edit.", "",
        document["machine"], "",
        "Every method gets the same two images on one grid, the moving one resampled through the same start (the",
        "affine of our preset: SAM-affine between CTs; row `start`); rows ending in `-own` run on the native images",
        "from their own affine.",
        f"`seconds` is the registration alone, images in memory, {threads} threads; `CPU s` its processor time;",
        "`process s` includes interpreter, imports and files; `peak MiB` is the largest resident set of the process.",
        "Distances in mm. All figures are computed by the same code from the transform that a method returns.", "",
    ]
    versions = {record["method"]: record["version"] for record in records if "version" in record}
    lines += ["Versions: " + "; ".join(f"{method}: {text}" for method, text in versions.items()) + ".", ""]
    summary = document["summary"]
    for group in _in_order(row["group"] for row in summary):
        rows = [row for row in summary if row["group"] == group]
        lines += [f"## {group}: means", "", *_table(rows, ("method", "pairs")), ""]
    if document["time_ratios"]:
        lines += ["## Times faster than convexAdam (median over pairs of the same run)", ""]
        lines += [f"- {method}: {ratio:.1f}" for method, ratio in document["time_ratios"].items()] + [""]
    lines += ["## Every pair", ""]
    for pair in _in_order(record["pair"] for record in records):
        rows = [_row(record) for record in records if record["pair"] == pair]
        lines += [f"### {pair}", "", *_table(rows, ("method",)), ""]
    failures = [record for record in records if "failed" in record]
    if failures:
        lines += ["## Failed runs", ""]
        lines += [f"- {record['pair']}, {record['method']}: {record['failed']}" for record in failures] + [""]
    return "\n".join(lines)


def _row(record: dict) -> dict:
    row: dict = {"method": record["method"]}
    for title, path, _ in COLUMNS:
        if (number := value(record, path)) is not None:
            row[title] = number
    return row


def _table(rows: list[dict], names: tuple[str, ...]) -> list[str]:
    """Markdown lines; columns that no row fills are left out."""
    columns = [(title, decimals) for title, _, decimals in COLUMNS if any(title in row for row in rows)]
    lines = [" | ".join(["", *names, *(title for title, _ in columns), ""]).strip()]
    lines.append("|" + "---|" * len(names) + "---:|" * len(columns))
    for row in rows:
        cells = [str(row.get(name, "")) for name in names]
        cells += [f"{row[title]:.{decimals}f}" if title in row else "" for title, decimals in columns]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _in_order(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
