"""Which columns of a manifest are files, what each holds, and the words of the command line that a row stands for."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..io.points import is_point_file
from ..registration.options import Options

REGISTER = "register"
# What each file of a command holds, by the names of its arguments: "image", "slice" (an image, 2D welcome), "labels",
# "mask", "points", "lesions", "transform", "template", "course", "grid" (an image whose header counts), "weights" (a
# name or a file).
FILES: dict[str, dict[str, str]] = {
    REGISTER: {
        "fixed": "image",
        "moving": "image",
        "moving_labels": "labels",
        "fixed_labels": "labels",
        "moving_points": "points",
        "fixed_points": "points",
        "initial_transform": "transform",
        "fixed_mask": "mask",
        "moving_mask": "mask",
        "protect": "labels",
        "weights": "weights",
        "initial_network": "weights",
    },
    "match": {"template": "template", "points": "points", "queries": "slice", "also": "template", "weights": "weights"},
    "track": {
        "baseline": "image",
        "lesions": "lesions",
        "follow_ups": "image",
        "course": "course",
        "weights": "weights",
    },
    "apply": {"transform": "transform", "input": "input", "like": "grid"},
}
COMMANDS = tuple(FILES)
# Arguments that name a further file to write: a cell gives its name, the file lies with the row's other results.
WRITTEN = ("dicom_sr",)
# Columns that stand for one positional argument of a command, in this order; the last takes what is left.
PARTS = {"track": {"files": ("baseline", "lesions", "follow_ups")}}
# What the cohort itself decides for every row.
DECIDED = {
    "output": "results go to jobs/NAME of the output folder",
    "overwrite": "give --resume or --overwrite to the cohort",
    "progress": "the cohort shows its own",
    "threads": "--workers of the cohort divides the cores",
}


@dataclass(frozen=True)
class Row:
    """A row of the manifest.

    Attributes:
        number: where the user finds it: the line of a spreadsheet, or the place in a JSON list from 1.
        name: unique; its results lie in ``jobs/NAME``.
        command: one of :data:`COMMANDS`.
        values: by the command's argument names: text, True, a list of texts, or a list of lists (repeated options).
        patient, visit: of the row; sides: of single images, by argument name.
    """

    number: int
    name: str
    command: str
    values: Mapping[str, Any]
    patient: str = ""
    visit: str = ""
    sides: Mapping[str, str] = field(default_factory=dict)

    def files(self) -> Iterator[tuple[str, str, str]]:
        """(argument, kind, path) of every file; weights by name are none."""
        for argument, kind in FILES[self.command].items():
            for number, path in enumerate(_flat(self.values.get(argument))):
                if kind == "weights" and not Path(path).is_file():
                    continue
                # Of --also, templates and their points take turns.
                yield argument, "points" if argument == "also" and number % 2 else self._kind(kind, path), path

    def _kind(self, kind: str, path: str) -> str:
        if kind != "input":
            return kind
        if is_point_file(path):
            return "points"
        return "labels" if self.values.get("labels") else "volume"

    def output(self, folder: Path) -> Path:
        """What the command's ``--output`` is, below the cohort's ``folder``."""
        place = self.folder(folder)
        if self.command == "match" and len(self.values["queries"]) == 1:
            return place / "points.csv"
        if self.command == "apply":
            source = self.values["input"]
            if not is_point_file(source):
                return place / "carried.nii.gz"
            return place / ("carried.mrk.json" if source.lower().endswith(".mrk.json") else "carried.csv")
        return place

    def folder(self, folder: Path) -> Path:
        """Where the row's results lie."""
        return folder / "jobs" / self.name


def preset_of(row: Row) -> str:
    """The preset of a registration."""
    return str(row.values.get("preset", "ct-inter-patient"))


def options_of(row: Row) -> Options:
    """What decides the settings of a registration; its images, labels and points are left out.

    Raises:
        InputError: an unknown preset.
    """
    chosen = {name: row.values[name] for name in _CHOICES if row.values.get(name)}
    return Options(preset_of(row), **chosen)


_CHOICES = (
    "strength",
    "quality",
    "features",
    "affine",
    "refine",
    "coarse",
    "initial_network",
    "symmetric",
    "protect_mode",
    "weights",
)


def said(row: Row, folder: Path, parser: argparse.ArgumentParser) -> list[str]:
    """:func:`words` of a row whose results go below the cohort's ``folder``."""
    own = {name: str(row.folder(folder) / row.values[name]) for name in WRITTEN if row.values.get(name)}
    decided = {"output": str(row.output(folder)), "overwrite": True, "progress": "none"}
    return words(row.command, {**row.values, **own, **decided}, parser)


def words(command: str, values: Mapping[str, Any], parser: argparse.ArgumentParser) -> list[str]:
    """The words after ``samconvex`` for ``values``: positional ones first, then options as ``--name=value``."""
    placed: list[str] = []
    options: list[str] = []
    parts = PARTS.get(command, {})
    for action in parser._actions:
        value = values.get(action.dest)
        if action.dest in parts:
            value = [text for part in parts[action.dest] for text in _flat(values.get(part))]
        if value is None or value is False or value == "":
            continue
        if not action.option_strings:
            placed += _flat(value)
        elif action.nargs == 0:
            options.append(action.option_strings[-1])
        elif isinstance(value, list):
            for group in value if any(isinstance(one, list) for one in value) else [value]:
                options += [action.option_strings[-1], *group]
        else:
            options.append(f"{action.option_strings[-1]}={value}")
    return [command, *placed, *options]


def _flat(value: Any) -> list[str]:
    if value is None or isinstance(value, bool):
        return []
    if isinstance(value, list):
        return [text for one in value for text in _flat(one)]
    return [str(value)]
