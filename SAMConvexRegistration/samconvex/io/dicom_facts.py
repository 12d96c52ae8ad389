"""What a DICOM series says of itself: whose it is, when and how it was taken."""

from __future__ import annotations

import datetime
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from .dicom_tags import Header, read_header


@dataclass(frozen=True)
class SeriesFacts:
    """Facts of a series; "" or None where it does not say.

    Attributes:
        patient_id: PatientID. date: ISO day of acquisition, else of the series or study. modality: CT, MR, ...
        series: its description. slice_thickness_mm: SliceThickness.
    """

    patient_id: str = ""
    date: str | None = None
    modality: str = ""
    series: str = ""
    slice_thickness_mm: float | None = None


def series_facts(path: str | os.PathLike) -> SeriesFacts:
    """Facts of the largest series of a DICOM folder or of a DICOM file; none of another image.

    Raises:
        InputError: a damaged DICOM file.
    """
    location = Path(path)
    files = sorted(file for file in location.iterdir() if file.is_file()) if location.is_dir() else [location]
    headers = [header for file in files if (header := read_header(file)) is not None and header.pixels is not None]
    if not headers:
        return SeriesFacts()
    largest, _ = Counter(header.data.text("SeriesInstance") for header in headers).most_common(1)[0]
    first = next(header for header in headers if header.data.text("SeriesInstance") == largest)
    data = first.data
    thickness = data.number("SliceThickness")
    return SeriesFacts(
        data.text("Patient"),
        _day(first),
        data.text("Modality"),
        data.text("SeriesDescription"),
        thickness if thickness is not None and thickness > 0 else None,
    )


def _day(header: Header) -> str | None:
    for name in ("AcquisitionDate", "SeriesDate", "StudyDate"):
        try:
            return datetime.datetime.strptime(header.data.text(name), "%Y%m%d").date().isoformat()
        except ValueError:
            continue
    return None
