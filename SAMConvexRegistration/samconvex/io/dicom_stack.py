"""DICOM slices and frames as one straight, even stack: what does not belong to it is left out and said, or refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ..errors import InputError
from .dicom_tags import Dataset, Header

# A voxel may lie this far from where its slice says it is.
TOLERANCE_MM = 1.0
# Rounding in DICOM headers stays far below; a gap of one missing slice is a whole spacing.
_UNEVEN = 0.1
_AGAIN = "export the series again with all its tags"

# What tells several passes or phases of one series apart, and where an enhanced file keeps it.
_KINDS = {
    "AcquisitionNumber": None,
    "FrameAcquisitionNumber": "FrameContent",
    "TemporalPosition": None,
    "TemporalPositionIndex": "FrameContent",
    "StackID": "FrameContent",
    "EchoNumber": None,
    "EchoTime": None,
    "EffectiveEchoTime": "MREcho",
    "DiffusionBValue": "MRDiffusion",
    "TriggerTime": None,
    "CardiacPhase": "CardiacSynchronization",
    "ConvolutionKernel": None,
    "ImageType": None,
    "FrameType": "CTImageFrameType",
    "AcquisitionTime": None,
}
_BINARY = {"TemporalPositionIndex": "I", "FrameAcquisitionNumber": "H", "EffectiveEchoTime": "d", "CardiacPhase": "d"}


@dataclass(frozen=True)
class Slice:
    """One frame of one file.

    Attributes:
        header: the file; ``frame`` counts its frames from 0.
        position: (3,) LPS mm of the first voxel's center.
        axes: (2, 3) directions of rows' and columns' steps (x, then y).
        spacing: mm along x and y.
        size: voxels along x and y.
        rescale: slope and intercept.
        kinds: what may tell passes and phases apart.
    """

    header: Header
    frame: int
    position: np.ndarray
    axes: np.ndarray
    spacing: tuple[float, float]
    size: tuple[int, int]
    rescale: tuple[float, float]
    kinds: dict[str, str]

    @property
    def name(self) -> str:
        """How messages call it."""
        path = str(self.header.path)
        return path if self.header.frames == 1 else f"frame {self.frame + 1} of {path}"

    @property
    def normal(self) -> np.ndarray:
        return np.cross(self.axes[0], self.axes[1])


def slices_of(header: Header) -> list[Slice]:
    """All frames of a file, in its order.

    Raises:
        InputError: a frame without position, orientation or spacing.
    """
    data = header.data
    groups = data.items("FrameGroups")
    if header.frames > 1 and len(groups) != header.frames:
        if groups or data.first("Detector") is None:
            raise InputError(
                f"{header.path} holds {header.frames} frames but no position for each of them; "
                "export the series as single slices."
            )
        return _nuclear_slices(header)
    shared = data.first("SharedGroups") or Dataset()
    return [_slice(header, frame, [*groups[frame : frame + 1], shared]) for frame in range(header.frames)]


def _slice(header: Header, frame: int, groups: Sequence[Dataset]) -> Slice:
    """``groups``: functional groups of the frame, then those of all frames; the file's own tags come last."""

    def find(sequence: str | None, tag: str) -> Dataset:
        for group in groups:
            item = group.first(sequence) if sequence else None
            if item is not None and tag in item.values:
                return item
        return header.data

    place = find("PlanePosition", "Position").numbers("Position")
    turn = find("PlaneOrientation", "Orientation").numbers("Orientation")
    spacing = find("PixelMeasures", "PixelSpacing").numbers("PixelSpacing")
    value = find("PixelValueTransformation", "RescaleSlope")
    kinds = {}
    for kind, sequence in _KINDS.items():
        text = _kind_text(find(sequence, kind), kind)
        if text:
            kinds[kind] = text
    return _checked(header, frame, place, turn, spacing, value, kinds)


def _kind_text(item: Dataset, kind: str) -> str:
    code = "d" if kind == "DiffusionBValue" else _BINARY.get(kind)
    raw = item.values.get(kind, b"")
    if code is None or not raw:
        return item.text(kind)
    order = "big" if item.big_endian else "little"
    if code == "d":
        number = item.double(kind)
        return "" if number is None else f"{number:g}"
    return str(int.from_bytes(raw[:4] if code == "I" else raw[:2], order))  # type: ignore[arg-type]


def _checked(
    header: Header,
    frame: int,
    place: list[float],
    turn: list[float],
    spacing: list[float],
    value: Dataset,
    kinds: dict[str, str],
) -> Slice:
    path = header.path
    where = path if header.frames == 1 else f"frame {frame + 1} of {path}"
    if len(place) != 3:
        raise InputError(f"{where} states no position (ImagePositionPatient); {_AGAIN}.")
    axes = np.array(turn).reshape(2, 3) if len(turn) == 6 else np.zeros((2, 3))
    if np.abs(axes @ axes.T - np.eye(2)).max() > 0.01:
        raise InputError(f"{where} states no valid orientation (ImageOrientationPatient); {_AGAIN}.")
    if len(spacing) != 2 or min(spacing) <= 0:
        raise InputError(f"{where} states no spacing (PixelSpacing); {_AGAIN}.")
    axes[0] /= np.linalg.norm(axes[0])
    axes[1] -= axes[0] * (axes[0] @ axes[1])
    axes[1] /= np.linalg.norm(axes[1])
    rescale = (value.number("RescaleSlope", 1.0) or 1.0, value.number("RescaleIntercept", 0.0) or 0.0)
    size = (header.data.short("Columns"), header.data.short("Rows"))
    return Slice(header, frame, np.array(place), axes, (spacing[1], spacing[0]), size, rescale, kinds)


def _nuclear_slices(header: Header) -> list[Slice]:
    """Frames of a nuclear medicine tomogram: one position, then steps along the normal."""
    detector = header.data.first("Detector") or Dataset()
    step = header.data.number("SpacingBetweenSlices") or header.data.number("SliceThickness")
    if not step:
        raise InputError(f"{header.path} states no spacing of its frames (SpacingBetweenSlices); {_AGAIN}.")
    place, turn = detector.numbers("Position"), detector.numbers("Orientation")
    spacing = header.data.numbers("PixelSpacing")
    first = _checked(header, 0, place, turn, spacing, header.data, {})
    return [
        Slice(
            header,
            frame,
            first.position + frame * step * first.normal,
            first.axes,
            first.spacing,
            first.size,
            first.rescale,
            {},
        )
        for frame in range(header.frames)
    ]


@dataclass(frozen=True)
class Stack:
    """Slices in the order of their positions, and what was left out."""

    slices: list[Slice]
    notes: tuple[str, ...]


def choose_stack(
    slices: list[Slice], name: str, modality: str = "", same: Callable[[Slice, Slice], bool] | None = None
) -> Stack:
    """The stack that ``slices`` form; scouts and further passes are left out where it is clear which they are.

    Args:
        name: the folder or file, for messages.
        same: tells whether two slices hold the same pixels.

    Raises:
        InputError: it is not clear, or the slices form no straight and even stack; names a file and its error in mm.
    """
    slices, notes = _without_copies(slices, name)
    slices, more = _of_one_plane(slices, name)
    notes += more
    slices = _sorted(slices)
    if _is_uneven(slices) or _passes_interleave(slices, modality):
        parts = _parted(slices)
        if parts is not None:
            kind, value, chosen, values = parts
            notes += (
                f"{name} holds {len(values)} passes or phases in one series ({kind} {', '.join(values)}); "
                f"{value} was read ({len(chosen)} slices). Export another alone to use it.",
            )
            slices = chosen
        elif same is not None and len(kept := _without_repeats(slices, same)) < len(slices):
            notes += (f"{name} holds {len(slices) - len(kept)} slices twice; the copies were left out.",)
            slices = kept
    try:
        return Stack(slices, notes + _check(slices, name))
    except InputError as error:
        # What was left out may be what lacks.
        raise InputError(" ".join([str(error), *notes])) from error


def _without_copies(slices: list[Slice], name: str) -> tuple[list[Slice], tuple[str, ...]]:
    """Without files that hold an image that another file of the folder holds too."""
    kept: dict[tuple, Slice] = {}
    for item in slices:
        uid = item.header.data.text("SOPInstance") or str(item.header.path)
        kept.setdefault((uid, item.frame, *item.position), item)
    lost = len(slices) - len(kept)
    notes = (f"{name} holds {lost} slices twice (the same image in two files); the copies were left out.",)
    return list(kept.values()), notes if lost else ()


def _of_one_plane(slices: list[Slice], name: str) -> tuple[list[Slice], tuple[str, ...]]:
    """The slices of one size, spacing and orientation, without localizers."""
    groups: list[list[Slice]] = []
    for item in slices:
        for group in groups:
            if _same_plane(item, group[0]):
                group.append(item)
                break
        else:
            groups.append([item])
    if len(groups) == 1:
        return slices, ()
    groups.sort(key=len, reverse=True)
    rest = [item for group in groups[1:] for item in group]
    scouts = all("LOCALIZER" in item.kinds.get("ImageType", "") for item in rest)
    if len(groups[0]) < 3 or (len(groups[0]) < 2 * len(rest) and not scouts):
        sizes = ", ".join(str(len(group)) for group in groups)
        raise InputError(
            f"{name} holds stacks of several orientations, sizes or spacings in one series ({sizes} slices); "
            "export one of them alone."
        )
    return groups[0], (
        f"{len(rest)} slices of another orientation, size or spacing than the other {len(groups[0])} were left out "
        f"(a scout?): {rest[0].name}.",
    )


def _same_plane(first: Slice, second: Slice) -> bool:
    return (
        first.size == second.size
        and np.allclose(first.spacing, second.spacing, rtol=0.01)
        and bool(np.abs(first.axes - second.axes).max() < 0.02)
        and ("LOCALIZER" in first.kinds.get("ImageType", "")) == ("LOCALIZER" in second.kinds.get("ImageType", ""))
    )


def _sorted(slices: list[Slice]) -> list[Slice]:
    normal = slices[0].normal
    return sorted(slices, key=lambda item: float(item.position @ normal))


def _steps(slices: list[Slice]) -> np.ndarray:
    return np.diff([item.position @ slices[0].normal for item in slices])


def _is_double(steps: np.ndarray) -> bool:
    usual = float(np.median(steps))
    return bool(usual < 1e-3 or steps.min() < 0.01 * usual)


def _is_uneven(slices: list[Slice]) -> bool:
    if len(slices) < 3:
        return len(slices) == 2 and bool(_steps(slices)[0] < 1e-3)
    steps = _steps(slices)
    return _is_double(steps) or bool(np.ptp(steps) > _UNEVEN * np.median(steps)) or _errors(slices).max() > TOLERANCE_MM


def _errors(slices: list[Slice]) -> np.ndarray:
    """(N,) mm: how far the voxels of each slice lie at most from the grid that the stack makes."""
    first = slices[0]
    step = (slices[-1].position - first.position) @ first.normal / max(1, len(slices) - 1) * first.normal
    errors = []
    for index, item in enumerate(slices):
        corners = [
            (item.axes.T * item.spacing - first.axes.T * first.spacing)
            @ (np.array(corner) * (np.array(first.size) - 1))
            for corner in ((0, 0), (1, 0), (0, 1), (1, 1))
        ]
        off = item.position - first.position - index * step
        errors.append(max(float(np.linalg.norm(off + corner)) for corner in corners))
    return np.array(errors)


def _passes_interleave(slices: list[Slice], modality: str) -> bool:
    """True where an even CT stack is made of two acquisitions that lie within each other."""
    ranges: dict[str, list[int]] = {}
    for index, item in enumerate(slices):
        ranges.setdefault(item.kinds.get("AcquisitionNumber", ""), []).append(index)
    if modality != "CT" or len(ranges) < 2 or min(map(len, ranges.values())) < 3:
        return False
    spans = sorted((min(index), max(index)) for index in ranges.values())
    return any(second[0] < first[1] for first, second in zip(spans, spans[1:], strict=False))


def _parted(slices: list[Slice]) -> tuple[str, str, list[Slice], list[str]] | None:
    """The largest of the even stacks that one or two tags part ``slices`` into: tag, value, slices, all values."""
    known = [kind for kind in _KINDS if len({item.kinds.get(kind) for item in slices}) > 1]
    for names in [*((kind,) for kind in known), *combinations(known, 2)]:
        groups: dict[tuple[str, ...], list[Slice]] = {}
        for item in slices:
            groups.setdefault(tuple(item.kinds.get(kind, "") for kind in names), []).append(item)
        large = {value: group for value, group in groups.items() if len(group) >= 3}
        left = len(slices) - sum(map(len, large.values()))
        if len(groups) < 2 or not large or left > len(slices) // 4:
            continue
        if any(_is_uneven(group) for group in large.values()):
            continue
        values = sorted(large, key=_natural)
        value = max(values, key=lambda value: len(large[value]))
        shown = [" and ".join(part for part in item if part) or "none" for item in values]
        return " and ".join(names), shown[values.index(value)], large[value], shown
    return None


def _natural(value: tuple[str, ...]) -> tuple:
    """Numbers in the order of their size, before texts."""
    return tuple((0, float(part), "") if part.replace(".", "", 1).isdigit() else (1, 0.0, part) for part in value)


def _without_repeats(slices: list[Slice], same: Callable[[Slice, Slice], bool]) -> list[Slice]:
    """Without slices that show the same as the one before them at the same position."""
    kept: list[Slice] = []
    for item in slices:
        again = [other for other in kept[-4:] if np.linalg.norm(other.position - item.position) < 1e-2]
        if not any(same(other, item) for other in again):
            kept.append(item)
    return kept


def _check(slices: list[Slice], name: str) -> tuple[str, ...]:
    """Notes on a nearly even stack; raises InputError on another."""
    if len(slices) < 2:
        return ()
    steps = _steps(slices)
    usual = float(np.median(steps))
    if _is_double(steps):
        at = int(np.argmin(steps))
        raise InputError(
            f"{name} holds several slices at one position ({slices[at].name} and {slices[at + 1].name}); "
            "export a single phase of one series."
        )
    errors = _errors(slices)
    worst = slices[int(np.argmax(errors))]
    if steps.max() > 1.5 * usual and _slices_lack(steps, usual):
        at = int(np.argmax(steps))
        raise InputError(
            f"{name} lacks slices (a gap of {steps.max():.1f} mm among slices {usual:.1f} mm apart) after "
            f"{slices[at].name}; export the whole series again."
        )
    shift = slices[-1].position - slices[0].position
    shift = shift - (shift @ slices[0].normal) * slices[0].normal
    if np.linalg.norm(shift) > TOLERANCE_MM:
        angle = np.degrees(np.arctan2(np.linalg.norm(shift), steps.sum()))
        raise InputError(
            f"{name} was scanned with a tilted gantry ({angle:.0f} degrees); {slices[-1].name} lies "
            f"{np.linalg.norm(shift):.1f} mm aside. Straighten it first, for example by loading it in "
            "3D Slicer and saving it as NRRD with the acquisition transform applied."
        )
    if errors.max() > TOLERANCE_MM or steps.max() > 1.5 * usual:
        raise InputError(
            f"{name} has slices {steps.min():.2f} to {steps.max():.2f} mm apart, which no even grid holds "
            f"({worst.name} would lie {errors.max():.1f} mm off); make it even first, for example by loading it in "
            "3D Slicer and saving it as NRRD with the acquisition transform applied."
        )
    if np.ptp(steps) > _UNEVEN * usual:
        return (
            f"The slices of {name} are unevenly spaced ({steps.min():.2f} to {steps.max():.2f} mm); "
            f"they lie up to {errors.max():.2f} mm from their places.",
        )
    return ()


def _slices_lack(steps: np.ndarray, usual: float) -> bool:
    """True where few gaps are whole multiples of the usual step; a run of wide ones is another spacing instead."""
    wide = steps > 1.5 * usual
    multiple = np.abs(steps / usual - np.round(steps / usual)) < 0.15
    runs = wide[2:] & wide[1:-1] & wide[:-2] & (np.ptp([steps[2:], steps[1:-1], steps[:-2]], axis=0) < 0.1 * usual)
    return bool(multiple[wide].all() and wide.sum() <= max(1, 0.2 * len(steps)) and not runs.any())
