"""DICOM segmentation objects (SEG) as label maps: their own frames, segments and geometry."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..errors import InputError
from .dicom_stack import TOLERANCE_MM, Slice, slices_of
from .dicom_tags import Dataset, Header, read_header

_SEGMENTATION, _LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"
_MOST_VOXELS = 1 << 31


def is_segmentation(header: Header) -> bool:
    return header.sop_class in (_SEGMENTATION, _LABEL_MAP)


def segment_names(path: str | os.PathLike) -> dict[int, str]:
    """Names by segment number of a SEG file, or of the one in a folder; empty for other files."""
    location = Path(path)
    files = sorted(file for file in location.iterdir() if file.is_file()) if location.is_dir() else [location]
    headers = [header for file in files if (header := read_header(file)) is not None and is_segmentation(header)]
    if len(headers) != 1:
        return {}
    # A label map lists its background as segment 0.
    names = {item.short("SegmentNumber"): item.text("SegmentLabel") for item in headers[0].data.items("Segments")}
    return {number: name for number, name in names.items() if number > 0 and name}


def read_segmentation(header: Header) -> tuple[sitk.Image, tuple[str, ...]]:
    """A label map whose values are the segments' numbers, on the grid of its frames (and one empty slice around).

    Raises:
        InputError: fractional, overlapping or compressed segments; frames on no common grid.
    """
    if header.data.text("SegmentationType") == "FRACTIONAL":
        raise InputError(f"{header.path} is a fractional segmentation; export it as a binary one or as a label map.")
    frames = slices_of(header)
    places = _places(frames, header)
    values = _values(header)
    first = frames[int(np.argmin(places))]
    depth = int(places.max()) + 3
    if depth * first.size[0] * first.size[1] > _MOST_VOXELS:
        raise InputError(f"{header.path} spans {depth} slices, which cannot be; export it again.")
    labels = np.zeros((depth, first.size[1], first.size[0]), np.int32)
    for place, frame, segment in zip(places, values, _segments(header), strict=True):
        new = frame.astype(np.int32) if segment is None else np.where(frame != 0, segment, 0).astype(np.int32)
        old = labels[place + 1]
        clash = (old != 0) & (new != 0) & (old != new)
        if clash.any():
            pair = sorted({int(old[clash][0]), int(new[clash][0])})
            raise InputError(
                f"Segments {pair[0]} and {pair[1]} of {header.path} overlap, which a label map cannot hold; "
                "export them as separate segmentations."
            )
        labels[place + 1] = np.where(new != 0, new, old)
    return _on_grid(labels, first, _step(frames, header)), ()


def _on_grid(labels: np.ndarray, first: Slice, step: float) -> sitk.Image:
    image = sitk.GetImageFromArray(labels.astype(np.uint8) if labels.max(initial=0) < 256 else labels)
    image.SetSpacing((*first.spacing, step))
    # The empty slice before the first.
    image.SetOrigin((first.position - step * first.normal).tolist())
    image.SetDirection(np.stack([*first.axes, first.normal], 1).ravel().tolist())
    return image


def _values(header: Header) -> np.ndarray:
    """(frames, rows, columns) as stored."""
    values = header.native_pixels()
    if values is not None:
        return values
    if header.data.short("BitsAllocated") == 1 or header.pixels is None:
        raise InputError(f"{header.path} is compressed; export the segmentation uncompressed.")
    try:
        array = sitk.GetArrayFromImage(sitk.ReadImage(str(header.path), imageIO="GDCMImageIO"))
    except RuntimeError as error:
        raise InputError(f"{header.path} could not be decoded; export the segmentation uncompressed.") from error
    return array.reshape(header.frames, *array.shape[-2:])


def _segments(header: Header) -> list[int | None]:
    """The segment of every frame; None where voxels hold the segments' numbers."""
    if header.sop_class == _LABEL_MAP or header.data.text("SegmentationType") == "LABELMAP":
        return [None] * header.frames
    shared = header.data.first("SharedGroups") or Dataset()
    groups = header.data.items("FrameGroups") or [Dataset()]
    found: list[int | None] = []
    for group in groups:
        item = group.first("SegmentIdentification") or shared.first("SegmentIdentification")
        number = item.short("ReferencedSegment") if item is not None else 0
        if number == 0:
            raise InputError(f"{header.path} does not say which segment a frame belongs to; export it again.")
        found.append(number)
    return found


def _step(frames: list[Slice], header: Header) -> float:
    """Distance of the slices: as stated, else the smallest between frames."""
    along = np.unique(np.round([frame.position @ frames[0].normal for frame in frames], 3))
    stated = [_stated(header, tag) for tag in ("SpacingBetweenSlices", "SliceThickness")]
    smallest = float(np.diff(along).min()) if len(along) > 1 else 0.0
    for step in (stated[0], smallest, stated[1]):
        steps = (along - along[0]) / step if step > 0 else np.array([np.inf])
        if np.abs(steps - np.round(steps)).max() * step <= TOLERANCE_MM and step <= (smallest or step) + TOLERANCE_MM:
            return step
    raise InputError(
        f"{header.path} has frames that lie on no even grid (up to {smallest:.2f} mm apart); "
        "export the segmentation as a label map (NIfTI or NRRD)."
    )


def _stated(header: Header, tag: str) -> float:
    shared = header.data.first("SharedGroups") or Dataset()
    groups = [*header.data.items("FrameGroups")[:1], shared]
    items = [item for group in groups if (item := group.first("PixelMeasures")) is not None]
    return next((abs(value) for item in [*items, header.data] if (value := item.number(tag))), 0.0)


def _places(frames: list[Slice], header: Header) -> np.ndarray:
    """(N,) slice of every frame, from 0, on the one grid of all.

    Raises:
        InputError: a frame lies off that grid by more than the tolerance.
    """
    first, step = frames[0], _step(frames, header)
    shifts = np.array([frame.position - first.position for frame in frames])
    along = shifts @ first.normal
    places = np.round((along - along.min()) / step).astype(int)
    ideal = (along.min() + places * step)[:, None] * first.normal
    corner = np.array(first.size) - 1
    turned = [
        np.linalg.norm((frame.axes.T * frame.spacing - first.axes.T * first.spacing) @ corner) for frame in frames
    ]
    errors = np.linalg.norm(shifts - ideal, axis=1) + turned
    if errors.max() > TOLERANCE_MM:
        worst = frames[int(np.argmax(errors))]
        raise InputError(
            f"{worst.name} lies {errors.max():.1f} mm off the grid of the other frames; "
            "export the segmentation as a label map (NIfTI or NRRD)."
        )
    return places
