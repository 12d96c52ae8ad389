"""The manifest: a CSV, also a European one, or JSON; every fault of every row is found before anything runs."""

from __future__ import annotations

import argparse
import csv
import difflib
import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import InputError, check_at_hand, refusing
from .commands import COMMANDS, DECIDED, FILES, PARTS, REGISTER, WRITTEN, Row, words

OWN = ("command", "name", "patient", "visit")
_SIDES = ("fixed_patient", "moving_patient")
_YES, _NO = ("yes", "true", "1", "x", "on"), ("no", "false", "0", "off")
_NAME = re.compile(r"[^\W_][\w.+ -]{0,99}")
# Names that Windows keeps for devices.
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.I)
_LIST = "|"
_ENDINGS = re.compile(r"\.(nii\.gz|nii|nrrd|nhdr|mha|mhd|hdr|img|h5|tfm|csv|mrk\.json|fcsv|txt|pts)$", re.I)


@dataclass(frozen=True)
class Fault:
    """What is wrong with one cell.

    Attributes:
        row: number of the row as the user counts, 0 for the manifest as a whole.
        column: name of the column, empty for the row as a whole.
        sentence: what is wrong and the way out.
    """

    row: int
    column: str
    sentence: str


@dataclass(frozen=True)
class Entry:
    """A row as it was written: its number and its cells that are not empty, by column."""

    number: int
    cells: Mapping[str, Any]


def read_manifest(
    path: str | os.PathLike,
    parsers: Mapping[str, argparse.ArgumentParser],
    defaults: Mapping[str, str] | None = None,
) -> tuple[list[Row], list[Fault]]:
    """All rows and all faults of their cells; a row with a fault is among the rows too where it has a name.

    Args:
        path: .csv (comma, semicolon or tab) or .json (a list of objects, or {"rows": list}).
        parsers: of each command; they raise InputError.
        defaults: cells of columns that a row leaves empty, for commands that have such an argument.

    Raises:
        InputError: missing, unreadable, no row at all, or a default of an argument that no command has.
    """
    for name in defaults or {}:
        if name in DECIDED or not any(action.dest == name for each in parsers.values() for action in each._actions):
            raise InputError(f"--set {name}: no row can have such an argument; the columns of the manifest are meant.")
    location = Path(path)
    check_at_hand(location, "of the manifest")
    entries, faults = read_entries(location)
    if not entries:
        raise InputError(f"{path} has no row; give one line per pair below the names of the columns.")
    rows = []
    for entry in entries:
        row, found = _row(entry, location.absolute().parent, parsers, defaults or {})
        rows.append(row)
        faults += found
    rows, doubles = _named(rows, {entry.number for entry in entries if entry.cells.get("name")})
    return rows, sorted(faults + doubles, key=lambda fault: fault.row)


def read_entries(path: Path) -> tuple[list[Entry], list[Fault]]:
    """The rows as they are written, column names in small letters with underscores, and what is wrong with the table.

    Raises:
        InputError: not readable as CSV or JSON.
    """
    with refusing(f"{path} could not be read; give a CSV file or JSON."):
        text = _decoded(path.read_bytes())
    if path.suffix.lower() == ".json":
        return _from_json(text, path)
    return _from_csv(text, path)


def _decoded(content: bytes) -> str:
    for encoding in ("utf-16",) if content[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "cp1252"):
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    return content.decode("latin-1")


def _from_json(text: str, path: Path) -> tuple[list[Entry], list[Fault]]:
    with refusing(f"{path} is no JSON; give a list of objects, one per row."):
        content = json.loads(text)
    listed = content.get("rows") if isinstance(content, dict) else content
    if not isinstance(listed, list):
        raise InputError(f'{path} holds no list of rows; give [{{"fixed": ..., "moving": ...}}, ...].')
    entries, faults = [], []
    for number, item in enumerate(listed, start=1):
        if not isinstance(item, dict):
            faults.append(Fault(number, "", f"Entry {number} is no object; give its columns by name."))
            item = {}
        cells = {_column(str(key)): _cell(value) for key, value in item.items()}
        entries.append(Entry(number, {key: value for key, value in cells.items() if value not in ("", None, [])}))
    return entries, faults


def _from_csv(text: str, path: Path) -> tuple[list[Entry], list[Fault]]:
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(",;\t", key=first.count)
    with refusing(lambda error: f"{path} is no CSV ({error}); close every quotation mark, one row a line."):
        # Strict: without it a quotation mark that is not closed swallows all rows below, and nobody is told.
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    header: list[str] | None = None
    entries, faults = [], []
    for number, line in enumerate(lines, start=1):
        cells = [cell.strip() for cell in line]
        if not any(cells):
            continue
        if header is None:
            header = [_column(cell) for cell in cells]
            for name, count in Counter(filter(None, header)).items():
                if count > 1:
                    faults.append(Fault(number, name, f"The column {name} is there {count} times; keep one."))
            continue
        if any(cells[len(header) :]):
            faults.append(Fault(number, "", f"The row has {len(cells)} cells, the header {len(header)}; quote texts."))
        named = {key: _decimal(cell, delimiter) for key, cell in zip(header, cells, strict=False) if key and cell}
        entries.append(Entry(number, named))
    return entries, faults


def _decimal(cell: str, delimiter: str) -> str:
    """A number with the decimal comma of European spreadsheets, which separate cells by semicolons, with a point."""
    return cell.replace(",", ".") if delimiter == ";" and re.fullmatch(r"-?\d+,\d+", cell) else cell


def _column(text: str) -> str:
    return text.strip().lower().lstrip("-").replace("-", "_").replace(" ", "_")


def _cell(value: Any) -> Any:
    """A JSON value as the cell of a CSV would be, lists kept."""
    if isinstance(value, list):
        return [_cell(one) for one in value]
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value).strip()


def _row(
    entry: Entry, base: Path, parsers: Mapping[str, argparse.ArgumentParser], defaults: Mapping[str, str]
) -> tuple[Row, list[Fault]]:
    """The row and the faults of its cells."""
    cells, faults = dict(entry.cells), []
    command = str(cells.pop("command", REGISTER)).lower()
    own = {key: str(cells.pop(key, "")) for key in OWN[1:]}
    sides = {key.removesuffix("_patient"): str(cells.pop(key)) for key in _SIDES if key in cells}
    if command not in parsers:
        sentence = f"There is no command {command!r} for a cohort; choose one of: {', '.join(COMMANDS)}."
        return Row(entry.number, own["name"], command, {}, own["patient"], own["visit"]), [
            Fault(entry.number, "command", sentence)
        ]
    known = {action.dest: action for action in parsers[command]._actions if action.dest != "help"}
    if own["patient"] and "patient" in known:
        cells["patient"] = own["patient"]
    for whole, parts in PARTS.get(command, {}).items():
        several = known.pop(whole)
        known |= {part: argparse.Action([], part, "+" if part == parts[-1] else None) for part in parts}
        cells = _parted(cells, whole, parts, several)
    values: dict[str, Any] = {}
    for column, cell in ({name: cell for name, cell in defaults.items() if name in known} | cells).items():
        if column not in known or column in DECIDED:
            faults.append(Fault(entry.number, column, _not_a_column(column, command, known)))
            continue
        try:
            value = _value(cell, known[column], column)
            if column in WRITTEN and not _NAME.fullmatch(value):
                raise InputError(f"{value} is no name of a file; give one without a folder, it comes into jobs/NAME.")
        except InputError as error:
            faults.append(Fault(entry.number, column, str(error)))
            continue
        values[column] = _placed(value, base, FILES[command].get(column))
    faults += _refused(entry.number, command, values, parsers[command])
    return Row(entry.number, own["name"], command, values, own["patient"], own["visit"], sides), faults


def _parted(cells: dict[str, Any], whole: str, parts: tuple[str, ...], action: argparse.Action) -> dict[str, Any]:
    """The cells with a list of all files, which the single command takes, as the columns that say what each is."""
    if whole not in cells:
        return cells
    listed = _value(cells[whole], action, whole)
    # A course brings the earlier images and lesions.
    first = len(parts) - 1 if "course" not in cells else 0
    named = dict(zip(parts, listed[:first], strict=False)) | {parts[-1]: listed[first:]}
    return {name: cell for name, cell in cells.items() if name != whole} | {k: v for k, v in named.items() if v}


def _not_a_column(column: str, command: str, known: Mapping[str, argparse.Action]) -> str:
    if column in DECIDED:
        return f"{column} cannot be a column: {DECIDED[column]}; remove it."
    near = difflib.get_close_matches(column, [*known, *OWN, *_SIDES], 1)
    meant = f" (did you mean {near[0]}?)" if near else ""
    return f"{command} has no argument {column}{meant}; 'samconvex {command} --help' lists them."


def _value(cell: Any, action: argparse.Action, column: str) -> Any:
    """The cell as the parser's action takes it: text, True or False, a list, or a list of groups."""
    if action.nargs == 0:
        text = str(cell).lower()
        if text not in _YES + _NO:
            raise InputError(f"{cell!r} is neither yes nor no; correct the cell.")
        return text in _YES
    repeated = type(action).__name__ == "_AppendAction"
    several = repeated or action.nargs not in (None, "?")
    if isinstance(cell, list) and not several:
        raise InputError(f"{column} takes one value, not a list; give each its own row.")
    listed = cell if isinstance(cell, list) else str(cell).split(_LIST) if several else None
    if listed is None:
        return str(cell)
    flat = [str(text).strip() for one in listed for text in (one if isinstance(one, list) else [one])]
    flat = [text for text in flat if text]
    if not repeated or not isinstance(action.nargs, int):
        return flat
    if len(flat) % action.nargs:
        raise InputError(f"{column} takes groups of {action.nargs}, separated by {_LIST}; {len(flat)} do not divide.")
    return [flat[start : start + action.nargs] for start in range(0, len(flat), action.nargs)]


def _placed(value: Any, base: Path, kind: str | None) -> Any:
    """The value with paths that do not depend on the current folder; a name of weights stays one."""
    if kind is None or isinstance(value, bool):
        return value
    if isinstance(value, list):
        return [_placed(one, base, kind) for one in value]
    path = beside(base, value)
    return value if kind == "weights" and not os.path.isfile(path) else path


def beside(base: Path, text: str) -> str:
    """The path of a cell: ~ is the user's folder, relative ones start at ``base``, the folder of the table."""
    return os.path.normpath(base / Path(text).expanduser())


def _refused(number: int, command: str, values: dict[str, Any], parser: argparse.ArgumentParser) -> list[Fault]:
    """Every argument that the command's own parser refuses; what it refuses is taken out of ``values``."""
    faults = []
    parts = PARTS.get(command, {})
    needed = [
        name
        for action in parser._actions
        if not action.option_strings
        for name in parts.get(action.dest, (action.dest,))
        # A course brings the earlier images and lesions.
        if not (values.get("course") and name in ("baseline", "lesions"))
    ]
    for column in [name for name in needed if not values.get(name)]:
        faults.append(Fault(number, column, f"{command} needs {column}; fill the cell."))
    stand_ins = {name: [name] if isinstance(values.get(name), list) else name for name in needed}
    for column in [name for name in values if name not in needed]:
        trial = {**stand_ins, column: values[column], "output": "out"}
        try:
            parser.parse_args(words(command, trial, parser)[1:])
        except InputError as error:
            faults.append(Fault(number, column, str(error)))
            del values[column]
    return faults


def _named(rows: list[Row], given: set[int]) -> tuple[list[Row], list[Fault]]:
    """The rows, each with a name of its own, and the faults of the names that were given."""
    rows = [row if row.number in given else replace(row, name=_usual_name(row)) for row in rows]
    taken = Counter(row.name.casefold() for row in rows)
    rows = [
        replace(row, name=f"{row.name}-row{row.number}")
        if row.number not in given and taken[row.name.casefold()] > 1
        else row
        for row in rows
    ]
    faults: list[Fault] = []
    first: dict[str, int] = {}
    for row in rows:
        if not _NAME.fullmatch(row.name) or row.name.endswith((".", " ")) or _DEVICES.fullmatch(row.name):
            sentence = f"{row.name!r} cannot be the name of a folder; use letters, digits, '-', '_' and '.'."
            faults.append(Fault(row.number, "name", sentence))
        earlier = first.setdefault(row.name.casefold(), row.number)
        if earlier != row.number:
            sentence = f"{row.name!r} is the name of row {earlier} too, and its output; give each its own name."
            faults.append(Fault(row.number, "name", sentence))
    return rows, faults


def _usual_name(row: Row) -> str:
    """A name from the patient and visit, or else from the files."""
    parts = [part for part in (row.patient, row.visit) if part]
    if not parts:
        pair = [row.values.get(key) for key in _NAMING.get(row.command, ())]
        parts = [_ENDINGS.sub("", Path(one[0] if isinstance(one, list) else one).name) for one in pair if one]
    name = re.sub(r"[^\w.-]+", "_", "-".join(parts)).strip("._-")[:80].rstrip("._-")
    return name or f"row{row.number}"


_NAMING = {
    REGISTER: ("moving", "fixed"),
    "match": ("queries", "points"),
    "track": ("baseline", "follow_ups"),
    "apply": ("input", "transform"),
}


def fault_table(faults: Iterable[Fault]) -> str:
    """All faults for the eye: row, column and sentence, aligned."""
    lines = [("row", "column", "what is wrong")]
    lines += [(str(fault.row) if fault.row else "-", fault.column or "-", fault.sentence) for fault in faults]
    widths = [max(len(line[place]) for line in lines) for place in (0, 1)]
    return "\n".join(f"{row:>{widths[0]}}  {column:<{widths[1]}}  {text}" for row, column, text in lines)
