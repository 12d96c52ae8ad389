"""From single runs to summaries, Markdown and the plot's data. Pure functions of the records."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from .paired import wilcoxon

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
# What a group is judged by, the first that its records have: title, path, +1 where more is better, decimals.
MERITS: tuple[tuple[str, tuple[str, ...], int, int], ...] = (
    ("Dice", ("dice_mean",), 1, 3),
    ("TRE mm mean", ("tre_mm", "mean"), -1, 2),
    ("known-warp error mm mean", ("known_error_mm", "mean"), -1, 2),
)
# Columns of the means behind the time.
FASTER = "times faster than convexAdam"


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

    A method that failed on a pair says so in ``failed``; its means then cover fewer pairs, which ``pairs`` shows. Of
    the group's figure of merit also the standard deviation over the pairs (``SD``), the ``worst`` pair's, and on how
    many pairs the result is ``worse than start``.
    """
    rows = []
    for group in _in_order(record["group"] for record in records):
        members = [record for record in records if record["group"] == group]
        merit = merit_of(members)
        starts = {} if merit is None else by_pair(members, "start", merit[1])
        ratios = time_ratios(members)
        for method in _in_order(record["method"] for record in members):
            runs = [record for record in members if record["method"] == method]
            done = [record for record in runs if "failed" not in record]
            row: dict = {"group": group, "method": method, "pairs": len(done), "failed": len(runs) - len(done)}
            for title, path, _ in COLUMNS:
                numbers = [number for record in done if (number := value(record, path)) is not None]
                if numbers:
                    row[title] = float(np.mean(numbers))
            if merit is not None and (found := by_pair(done, method, merit[1])):
                _, _, sign, _ = merit
                row["SD"] = float(np.std(list(found.values()), ddof=1)) if len(found) > 1 else 0.0
                row["worst"] = sign * min(sign * number for number in found.values())
                if method != "start" and starts:
                    worse = [pair for pair, number in found.items() if sign * (number - starts.get(pair, number)) < 0]
                    row["worse than start"] = len(worse)
            if method in ratios:
                row[FASTER] = ratios[method]
            rows.append(row)
    return rows


def merit_of(members: list[dict]) -> tuple[str, tuple[str, ...], int, int] | None:
    """The figure that a group's records are judged by."""
    return next((merit for merit in MERITS if any(value(record, merit[1]) is not None for record in members)), None)


def by_pair(records: list[dict], method: str, path: Iterable[str]) -> dict[str, float]:
    """A method's number for every pair that has one."""
    return {
        record["pair"]: number
        for record in records
        if record["method"] == method and (number := value(record, path)) is not None
    }


def compare(records: list[dict], ours: str = "samconvex") -> list[dict]:
    """``ours`` against every other method of a group on the pairs that both finished.

    Each row: ``difference``, the mean advantage of ours in the group's ``figure`` (positive is better), ``better`` and
    ``pairs``, and ``p`` of Wilcoxon's signed-rank test, two-sided.
    """
    rows = []
    for group in _in_order(record["group"] for record in records):
        members = [record for record in records if record["group"] == group]
        merit = merit_of(members)
        if merit is None:
            continue
        title, path, sign, _ = merit
        own = by_pair(members, ours, path)
        for method in _in_order(record["method"] for record in members):
            other = by_pair(members, method, path)
            pairs = [pair for pair in own if pair in other]
            if method == ours or len(pairs) < 2:
                continue
            gains = [sign * (own[pair] - other[pair]) for pair in pairs]
            rows.append(
                {
                    "group": group,
                    "method": method,
                    "figure": title,
                    "pairs": len(pairs),
                    "difference": float(np.mean(gains)),
                    "better": sum(gain > 0 for gain in gains),
                    "p": wilcoxon(gains),
                }
            )
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
    lines = [
        "# Registration benchmark",
        "",
        "Written by `samconvex benchmark --suite registration`; do not edit.",
        "",
        document["machine"],
        "",
        *explanation(records),
        "",
        versions_line(records),
        "",
    ]
    summary = document["summary"]
    for group in _in_order(row["group"] for row in summary):
        rows = [row for row in summary if row["group"] == group]
        lines += [f"## {group}: means", "", *table(rows, ("method", "pairs")), ""]
        lines += comparison_lines(document.get("comparisons", []), group)
    if document["time_ratios"]:
        lines += ["## Times faster than convexAdam (median over pairs of the same run)", ""]
        lines += [f"- {method}: {ratio:.1f}" for method, ratio in document["time_ratios"].items()] + [""]
    lines += ["## Every pair", ""]
    for pair in _in_order(record["pair"] for record in records):
        rows = [_row(record) for record in records if record["pair"] == pair]
        lines += [f"### {pair}", "", *table(rows, ("method",)), ""]
    return "\n".join(lines + failure_lines(records))


def explanation(records: list[dict]) -> list[str]:
    """What was compared, and what the columns mean."""
    threads = "/".join(sorted({str(record["threads"]) for record in records if "threads" in record})) or "some"
    return [
        "Every method gets the same two images on one grid, the moving one resampled through the same start (the",
        "affine of our preset: SAM-affine between CTs; row `start`); rows ending in `-own` run on the native images",
        "from their own affine. `SD`, `worst` and `worse than start` (a count) are over pairs.",
        f"`seconds` is the registration alone, images in memory, {threads} threads; `CPU s` its processor time;",
        "`process s` includes interpreter, imports and files; `peak MiB` is the largest resident set of the process.",
        "Distances in mm. All figures are computed by the same code from the transform that a method returns.",
    ]


def versions_line(records: list[dict]) -> str:
    """What ran, or nothing where no record says."""
    versions: dict[str, list[str]] = {}
    for record in records:
        if "version" in record and record["version"] not in versions.setdefault(record["method"], []):
            versions[record["method"]].append(record["version"])
    named = "; ".join(f"{method}: {', '.join(texts)}" for method, texts in versions.items())
    return f"Versions: {named}." if named else ""


def failure_lines(records: list[dict]) -> list[str]:
    """The runs that failed and why; nothing where none did."""
    failures = [record for record in records if "failed" in record]
    if not failures:
        return []
    lines = [f"- {record['pair']}, {record['method']}: {record['failed']}" for record in failures]
    return ["## Failed runs", "", *lines, ""]


def matrix_lines(members: list[dict]) -> list[str]:
    """The figure of merit of a group: a line per pair, a column per method; nothing where no record has one."""
    merit = merit_of(members)
    if merit is None:
        return []
    title, path, _, decimals = merit
    methods = {method: by_pair(members, method, path) for method in _in_order(record["method"] for record in members)}
    methods = {method: numbers for method, numbers in methods.items() if numbers}
    lines = [
        f"| {title} | " + " | ".join(methods) + " |",
        "|---|" + "---:|" * len(methods),
    ]
    for pair in _in_order(record["pair"] for record in members):
        cells = [f"{numbers[pair]:.{decimals}f}" if pair in numbers else "" for numbers in methods.values()]
        lines.append(f"| {pair} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def comparison_lines(rows: list[dict], group: str, ours: str = "samconvex") -> list[str]:
    """Table of :func:`compare`'s rows of one group; nothing where there is none."""
    rows = [row for row in rows if row["group"] == group]
    if not rows:
        return []
    decimals = next(merit[3] for merit in MERITS if merit[0] == rows[0]["figure"])
    lines = [
        f"Advantage of {ours} in {rows[0]['figure']} (positive: better); p of Wilcoxon's signed-rank test, two-sided,",
        "exact:",
        "",
        "| against | mean advantage | better on | p |",
        "|---|---:|---:|---:|",
    ]
    for row in rows:
        gain = f"{row['difference']:+.{decimals}f}"
        lines.append(f"| {row['method']} | {gain} | {row['better']} of {row['pairs']} | {_probability(row['p'])} |")
    return [*lines, ""]


def _probability(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else f"{p:.1e}"


def _row(record: dict) -> dict:
    row: dict = {"method": record["method"]}
    for title, path, _ in COLUMNS:
        if (number := value(record, path)) is not None:
            row[title] = number
    return row


def table(rows: list[dict], names: tuple[str, ...]) -> list[str]:
    """Markdown lines; columns that no row fills are left out."""
    columns = [(title, decimals) for title, decimals in _columns(rows) if any(title in row for row in rows)]
    lines = [" | ".join(["", *names, *(title for title, _ in columns), ""]).strip()]
    lines.append("|" + "---|" * len(names) + "---:|" * len(columns))
    for row in rows:
        cells = [str(row.get(name, "")) for name in names]
        cells += [f"{row[title]:.{decimals}f}" if title in row else "" for title, decimals in columns]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _columns(rows: list[dict]) -> list[tuple[str, int]]:
    """Titles and decimals; what describes the figure of merit stands behind it."""
    merit = next((title for title, *_ in MERITS if any(title in row for row in rows)), None)
    columns: list[tuple[str, int]] = []
    for title, _, decimals in COLUMNS:
        columns.append((title, decimals))
        if title == merit:
            columns += [("SD", decimals), ("worst", decimals), ("worse than start", 0)]
        if title == "seconds":
            columns.append((FASTER, 1))
    return columns


def _in_order(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
