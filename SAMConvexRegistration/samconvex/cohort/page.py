"""index.html of a cohort: every row with its figures and a small picture, the worst first; opened without a server."""

from __future__ import annotations

import base64
import contextlib
import csv
import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image

from ..errors import InputError, ResourceError
from ..io.files import replaced
from ..report.picture import panels_of
from ..report.verdict import CHECK, DO_NOT_USE, GOOD
from .page_style import SCRIPT, STYLE
from .results import BETWEEN, RESULTS
from .table import PROVENANCE

PAGE, PICTURES = "index.html", "page"
# Column of the report's picture that is shown small: both images after the registration.
_AFTER = 4
_PICTURE_HEIGHT, _MOST_WIDTH = 96, 320

# Worst first: class of the style sheet and word on the page; rows of one kind follow by their expected error.
STATES = (
    ("failed", "Failed"),
    ("reject", "Do not use"),
    ("check", "Check"),
    ("good", "Good"),
    ("done", "Done"),
    ("waiting", "Waiting"),
)
_VERDICTS = {DO_NOT_USE: "reject", CHECK: "check", GOOD: "good"}


@dataclass(frozen=True)
class Figure:
    """A column of numbers: its name in results.csv, its title and unit, and the digits shown."""

    name: str
    title: str
    digits: int


FIGURES = (
    Figure("expected_error_median_mm", "Expected error, mm", 1),
    Figure("expected_error_p90_mm", "in 9 of 10 places, mm", 1),
    Figure("dice_initial", "Dice before", 3),
    Figure("dice_final", "Dice after", 3),
    Figure("tre_initial_mm", "Points before, mm", 1),
    Figure("tre_final_mm", "Points after, mm", 1),
    Figure("folding_percent", "Folding, %", 2),
    Figure("sdlogj", "SDlogJ", 3),
    Figure("inverse_consistency_mm", "There and back, mm", 2),
    Figure("seconds", "Time, s", 0),
    Figure("peak_memory_mib", "Memory, MiB", 0),
)
_WORDS = (("patient", "Patient"), ("visit", "Visit"), ("command", "Command"))


def write_page(folder: str | os.PathLike) -> Path:
    """Write ``index.html`` and its small pictures (``page/``) from ``results.csv`` and the rows' ``report.png``.

    Args:
        folder: of a cohort. Pictures that are as old as their report.png are kept, the others are made anew.

    Returns:
        Where the page lies.

    Raises:
        InputError: there is no results.csv, or it is none. ResourceError: the disk refused.
    """
    target = Path(folder)
    rows = worst_first(read_results(target))
    try:
        pictures = [_picture(target, row) for row in rows]
        _remove_others(target / PICTURES, pictures)
        with replaced(target / PAGE) as neighbor:
            neighbor.write_text(_page(rows, pictures, target), encoding="utf-8")
    except OSError as error:
        raise ResourceError(
            f"{target / PAGE} could not be written ({error.strerror or error}); check the disk and its permissions."
        ) from error
    return target / PAGE


def read_results(folder: Path) -> list[dict[str, str]]:
    """The rows of ``results.csv``, text by column.

    Raises:
        InputError: missing, unreadable, or without the columns name and status.
    """
    path = folder / RESULTS
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = set(reader.fieldnames or ())
            # What stands beyond the last column, or is missing before it, is no reason to show nothing.
            rows = [{key: value or "" for key, value in row.items() if key} for row in reader]
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; give the output folder of `samconvex cohort`.") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path} could not be read as a table; write it anew with `samconvex cohort report`."
        ) from error
    if not {"name", "status"} <= columns:
        raise InputError(f"{path} lacks the columns name and status; write it anew with `samconvex cohort report`.")
    return rows


def worst_first(rows: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """Failed, do not use, check, then all others; within each the largest expected error first; waiting rows last."""
    rank = {name: number for number, (name, _) in enumerate(STATES)}
    rank["done"] = rank["good"]

    def key(row: Mapping[str, str]) -> tuple[int, float]:
        expected = number_of(row, "expected_error_median_mm")
        return rank[state_of(row)], math.inf if expected is None else -expected

    return sorted(rows, key=key)


def state_of(row: Mapping[str, str]) -> str:
    """A name of :data:`STATES`: what became of the row and, where it has one, its verdict."""
    status = row.get("status", "")
    if status == "done":
        return _VERDICTS.get(row.get("verdict", ""), "done")
    return "failed" if status == "failed" else "waiting"


def number_of(row: Mapping[str, str], name: str) -> float | None:
    """A finite number, or None."""
    with contextlib.suppress(ValueError):
        value = float(row.get(name) or "nan")
        return value if math.isfinite(value) else None
    return None


# --- pictures -------------------------------------------------------------------------------------------------------
def _picture(folder: Path, row: Mapping[str, str]) -> tuple[str, tuple[int, int]] | None:
    """Address below ``folder`` and size in pixels of a row's small picture; None where there is no report.png."""
    place = row.get("folder", "")
    source = folder / place / "report.png"
    if not place or row.get("status") != "done" or not source.is_file():
        return None
    name = f"{hashlib.sha256(place.encode()).hexdigest()[:16]}.jpg"
    target = folder / PICTURES / name
    date = source.stat().st_mtime_ns
    try:
        if target.is_file() and target.stat().st_mtime_ns == date:
            with Image.open(target) as image:
                return f"{PICTURES}/{name}", image.size
        small = _small(source)
    # Pillow raises these for damaged files (SyntaxError: a broken PNG); the row's figures are shown all the same.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    target.parent.mkdir(exist_ok=True)
    with replaced(target, ".jpg") as neighbor:
        small.save(neighbor, quality=80)
        os.utime(neighbor, ns=(date, date))
    return f"{PICTURES}/{name}", small.size


def _small(source: Path) -> Image.Image:
    """Both images after the registration, the three planes side by side."""
    with Image.open(source) as image:
        page = np.asarray(image.convert("RGB"))
    panels = panels_of(page, _AFTER)
    if not panels:
        raise ValueError("no page of a registration")
    scaled = []
    for panel in panels:
        width = round(panel.shape[1] * _PICTURE_HEIGHT / panel.shape[0])
        scaled.append(Image.fromarray(panel).resize((max(width, 1), _PICTURE_HEIGHT), Image.Resampling.LANCZOS))
    strip = Image.new("RGB", (sum(image.width for image in scaled), _PICTURE_HEIGHT))
    left = 0
    for image in scaled:
        strip.paste(image, (left, 0))
        left += image.width
    strip.thumbnail((_MOST_WIDTH, _PICTURE_HEIGHT))
    return strip


def _remove_others(folder: Path, pictures: Sequence[tuple[str, tuple[int, int]] | None]) -> None:
    """Pictures of rows that are no longer there."""
    kept = {picture[0].rsplit("/", 1)[1] for picture in pictures if picture}
    for path in folder.glob("*.jpg"):
        if path.name not in kept and not path.name.startswith("."):
            path.unlink(missing_ok=True)


# --- page -----------------------------------------------------------------------------------------------------------
def _page(rows: Sequence[Mapping[str, str]], pictures: Sequence[Any], folder: Path) -> str:
    words = [(name, title) for name, title in _WORDS if any(row.get(name) for row in rows)]
    figures = [figure for figure in FIGURES if any(number_of(row, figure.name) is not None for row in rows)]
    if len({row.get("command") for row in rows}) < 2:
        words = [(name, title) for name, title in words if name != "command"]
    counts = Counter(map(state_of, rows))
    chips = "".join(
        f'<button type="button" class="{name}" data-state="{name}" aria-pressed="false">{counts[name]} '
        f"{title.lower()}</button>"
        for name, title in STATES
        if counts[name]
    )
    titles = [("name", "Name"), ("state", "State"), ("why", "Why"), *words]
    heads = '<th scope="col" data-by="picture"><span>Picture</span></th>' + "".join(
        f'<th scope="col" data-by="{name}"><button type="button">{title}</button></th>' for name, title in titles
    )
    heads += "".join(
        f'<th scope="col" class="n" data-by="{figure.name}"><button type="button">{figure.title}</button></th>'
        for figure in figures
    )
    lines = "\n".join(_row(row, picture, words, figures) for row, picture in zip(rows, pictures, strict=True))
    name = escape(folder.resolve().name)
    checksum = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    # Whatever a name or a sentence holds, no other script runs and nothing is fetched from elsewhere.
    policy = f"default-src 'none'; img-src 'self' file:; style-src 'unsafe-inline'; script-src 'sha256-{checksum}'"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Cohort {name}</title>
<style>{STYLE}</style>
</head>
<body>
<header>
<h1>Cohort {name}</h1>
<p>{_provenance(folder)}<a href="{RESULTS}">{RESULTS}</a></p>
<div class="tools" role="search">
<label for="words">Filter</label>
<input id="words" type="search" placeholder="name, patient, reason" autocomplete="off">
{chips}
<span id="shown" role="status">{len(rows)} of {len(rows)} rows</span>
</div>
</header>
<main>
<div class="frame" role="region" aria-label="Rows of the cohort" tabindex="0">
<table>
<caption>The worst first. A title sorts by its column. Pictures: green fixed, pink moving, gray both.</caption>
<thead><tr>{heads}</tr></thead>
<tbody>
{lines}
</tbody>
</table>
</div>
</main>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _row(row: Mapping[str, str], picture: Any, words: Sequence[tuple[str, str]], figures: Sequence[Figure]) -> str:
    state = state_of(row)
    title = dict(STATES)[state]
    place = row.get("folder", "")
    name = escape(row.get("name", ""))
    shown = ""
    if picture is not None:
        address, (width, height) = picture
        shown = (
            f'<a href="{_link(f"{place}/report.png")}"><img src="{_link(address)}" width="{width}" height="{height}" '
            f'loading="lazy" alt="Both images after the registration, {name}"></a>'
        )
    linked = f'<a href="{_link(f"{place}/")}">{name}</a>' if place and row.get("status") == "done" else name
    cells = [
        f"<td>{shown}</td>",
        f'<th scope="row">{linked}</th>',
        f'<td class="state {state}" data-v="{[known for known, _ in STATES].index(state)}">{title}</td>',
        f'<td class="why">{_why(row)}</td>',
        *(f"<td>{escape(row.get(column, ''))}</td>" for column, _ in words),
    ]
    for figure in figures:
        value = number_of(row, figure.name)
        text = "" if value is None else f"{value:.{figure.digits}f}"
        cells.append(f'<td class="n" data-v="{"" if value is None else repr(value)}">{text}</td>')
    return f'<tr data-is="{state}">{"".join(cells)}</tr>'


def _why(row: Mapping[str, str]) -> str:
    """The sentence of a failure or the reasons of the verdict, then the warnings, each once; then the log."""
    told = [text.strip() for name in ("sentence", "reasons", "warnings") for text in row.get(name, "").split(BETWEEN)]
    lines = [f"<p>{escape(text)}</p>" for text in dict.fromkeys(told) if text]
    if row.get("status") == "failed":
        log = f"logs/{row.get('name', '')}.log"
        lines.append(f'<p><a href="{_link(log)}">log</a></p>')
    return "".join(lines)


def _link(path: str) -> str:
    """A relative address for an attribute; the leading ./ keeps a name with a colon from being a scheme."""
    return escape("./" + quote(path))


def _provenance(folder: Path) -> str:
    """Version and date of the last run, where cohort.json tells them."""
    try:
        known = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
        told = [f"samconvex {known['version']}", str(known["runs"][-1]["date"])]
    except (OSError, ValueError, LookupError, TypeError):
        return ""
    return "".join(f"{escape(text)} · " for text in told if text) + f'<a href="{PROVENANCE}">{PROVENANCE}</a> · '
