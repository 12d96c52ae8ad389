"""The images of an atlas: a CSV, read and checked whole before anything is computed."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ..cohort.manifest import Fault, beside, read_entries
from ..errors import InputError, SamConvexError, check_at_hand
from ..io.checks import grid_note, labels_note
from ..io.files import file_sha256
from ..io.frames import read_frame, read_frame_count
from ..io.images import read_labels, read_mask, read_volume
from ..progress import Progress
from ..space.grid import Grid
from ..space.volume import Volume

COLUMNS = ("image", "mask", "labels", "name")
_NAME = re.compile(r"[^\W_][\w.+ -]{0,99}")
_ENDING = re.compile(r"\.(nii\.gz|nii|nrrd|nhdr|mha|mhd|hdr|img)$", re.I)
# Of the voxels, for the brightness of images without Hounsfield units.
_BRIGHT = 0.98


@dataclass(frozen=True)
class Subject:
    """One image of the atlas.

    Attributes:
        row: where the user finds it: the line of a spreadsheet.
        name: unique, begins the names of its results.
        image, mask, labels: files; only what the mask marks counts.
        frame: of a 4D image.
    """

    row: int
    name: str
    image: str
    mask: str | None = None
    labels: str | None = None
    frame: int | None = None

    def volume(self) -> Volume:
        """The image.

        Raises:
            InputError: as :func:`samconvex.read_volume`.
        """
        return read_volume(self.image) if self.frame is None else read_frame(self.image, self.frame)


@dataclass(frozen=True)
class Facts:
    """What is known of an image once it was read.

    Attributes:
        grid: of the image. modality: "ct" or "mr".
        background: value outside it. brightness: 98 % of its voxels are darker.
        sha256: of the file. faults: what speaks against it. notes: what should be said of it.
    """

    grid: Grid | None = None
    modality: str = ""
    background: float = 0.0
    brightness: float = 0.0
    sha256: str = ""
    faults: tuple[Fault, ...] = ()
    notes: tuple[str, ...] = ()


class SubjectFaults(InputError):
    """Rows that cannot be used.

    Attributes:
        faults: all of them.
    """

    def __init__(self, path: str | os.PathLike, faults: Sequence[Fault]) -> None:
        self.faults = sorted(faults, key=lambda fault: fault.row)
        rows = len({fault.row for fault in faults})
        super().__init__(
            f"{rows} row{'s' if rows > 1 else ''} of {path} cannot be used and nothing was started; correct them."
        )


def read_subjects(path: str | os.PathLike) -> tuple[list[Subject], list[Fault]]:
    """All images of the list, every frame of a 4D image as one, and all faults of its cells.

    Args:
        path: CSV (comma, semicolon or tab) or JSON with the column image and, if wanted, mask, labels and name;
            relative paths start at its folder.

    Raises:
        InputError: missing, unreadable, or fewer than two images.
    """
    location = Path(path)
    check_at_hand(location, "of the list of images")
    entries, faults = read_entries(location)
    subjects: list[Subject] = []
    for entry in entries:
        for column in entry.cells:
            if column not in COLUMNS:
                faults.append(Fault(entry.number, column, f"means nothing here; the columns are {', '.join(COLUMNS)}."))
        try:
            subjects += _row(entry.number, entry.cells, location.absolute().parent)
        except InputError as error:
            faults.append(Fault(entry.number, "image", str(error)))
    faults += _names(subjects)
    if len(subjects) < 2 and not faults:
        raise InputError(f"{path} lists {len(subjects) or 'no'} image; an atlas needs at least two, one a row.")
    return subjects, faults


def _row(number: int, cells: Mapping[str, str], folder: Path) -> list[Subject]:
    """The image of a row, or the frames of its 4D image."""
    if "image" not in cells:
        raise InputError("The image is missing; name its file.")
    for column, cell in cells.items():
        if not isinstance(cell, str):
            raise InputError(f"{column} holds a list; give each image a row of its own.")
    files = {column: beside(folder, cells[column]) for column in ("image", "mask", "labels") if column in cells}
    known = _ENDING.sub("", Path(files["image"]).name)
    subject = Subject(number, cells.get("name", known), files["image"], files.get("mask"), files.get("labels"))
    frames = read_frame_count(subject.image)
    if frames == 1:
        return [subject]
    if subject.labels:
        raise InputError(f"{subject.image} is 4D; give each frame a row of its own where there are labels.")
    return [replace(subject, name=f"{subject.name}-{frame:03d}", frame=frame) for frame in range(frames)]


def _names(subjects: Sequence[Subject]) -> Iterator[Fault]:
    # Disks that do not tell capital from small letters must not mix up two results.
    counts = Counter(subject.name.lower() for subject in subjects)
    for subject in subjects:
        if not _NAME.fullmatch(subject.name):
            yield Fault(
                subject.row,
                "name",
                f"'{subject.name}' is no name for files; use letters, digits, and . + - _ after the first.",
            )
        elif counts[subject.name.lower()] > 1:
            yield Fault(subject.row, "name", f"The name '{subject.name}' occurs more than once; give another in name.")


def inspected(subject: Subject, progress: Progress | None = None) -> Facts:
    """Read everything of a subject once; what is wrong becomes faults."""
    try:
        volume = subject.volume()
        note = labels_note(volume, "give the image itself, and the label map in the column labels")
        if note:
            return Facts(faults=(Fault(subject.row, "image", note),))
    except SamConvexError as error:
        return Facts(faults=(Fault(subject.row, "image", str(error)),))
    faults: list[Fault] = []
    notes: list[str | None] = list(volume.notes)
    for column, path, read in (("mask", subject.mask, read_mask), ("labels", subject.labels, read_labels)):
        if path is None:
            continue
        try:
            further = read(path)
            notes += [*further.notes, grid_note(further, volume)]
        except SamConvexError as error:
            faults.append(Fault(subject.row, column, str(error)))
    return Facts(
        volume.grid,
        volume.modality,
        volume.background,
        _brightness(volume),
        file_sha256(subject.image),
        tuple(faults),
        tuple(note for note in notes if note),
    )


def _brightness(volume: Volume) -> float:
    """What 98 % of the voxels above the background do not exceed."""
    values = volume.tensor.flatten()[:: max(1, volume.tensor.numel() // 200_000)].float()
    values = values[values > volume.background]
    return float(np.quantile(values.numpy(), _BRIGHT)) if len(values) else 1.0


def scaled(volume: Volume, facts: Facts, brightness: float) -> Volume:
    """A float volume; where it holds no Hounsfield units, as bright as the others."""
    values = volume.as_float()
    if facts.modality != "ct":
        values = values * (brightness / facts.brightness if facts.brightness > 0 else 1.0)
    return volume.with_tensor(values.contiguous(), volume.grid)


def check_one_kind(facts: Sequence[Facts], subjects: Sequence[Subject]) -> list[Fault]:
    """A fault for every image that is another kind than most: a mean of both would show neither."""
    kinds = Counter(known.modality for known in facts)
    usual = kinds.most_common(1)[0][0]
    names = {"ct": "a CT in Hounsfield units", "mr": "no CT in Hounsfield units"}
    return [
        Fault(subject.row, "image", f"{subject.image} is {names[known.modality]}, most others are not; leave it out.")
        for subject, known in zip(subjects, facts, strict=True)
        if known.modality != usual
    ]


def copies(facts: Sequence[Facts], subjects: Sequence[Subject]) -> list[str]:
    """A sentence for every image that is there already under another name."""
    first: dict[tuple[str, int | None], Subject] = {}
    said = []
    for subject, known in zip(subjects, facts, strict=True):
        earlier = first.setdefault((known.sha256, subject.frame), subject)
        if earlier is not subject:
            said.append(f"{subject.name} is the same image as {earlier.name} and counts twice; check that it is meant.")
    return said


def marked(subject: Subject, like: Volume) -> torch.Tensor | None:
    """Bool (1, 1, D, H, W) on the grid of ``like``, which is the image itself; None without a mask."""
    if subject.mask is None:
        return None
    from ..space.transforms import Transform

    return Transform().warp_nearest(read_mask(subject.mask), like).tensor > 0
