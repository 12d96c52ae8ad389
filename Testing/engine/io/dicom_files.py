"""Small DICOM series, enhanced files and other objects, written with pydicom."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

CT, MR, PET = (UID(f"1.2.840.10008.5.1.4.1.1.{end}") for end in ("2", "4", "128"))
ENHANCED_CT = UID("1.2.840.10008.5.1.4.1.1.2.1")
SHAPE, SPACING, STEP = (12, 11, 10), (1.5, 2.0), 3.0
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def voxels(depth: int = SHAPE[0], seed: int = 0) -> np.ndarray:
    """(depth, rows, columns) int16, unlike in every slice."""
    return np.random.default_rng(seed).integers(-1000, 1000, (depth, *SHAPE[1:])).astype(np.int16)


def places(depth: int = SHAPE[0], step: float = STEP, start: float = -20.0) -> list[tuple[float, float, float]]:
    return [(5.0, -7.0, start + step * index) for index in range(depth)]


def new_object(sop: str = CT, series: str = "1.2.3.1", modality: str = "CT") -> Dataset:
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = sop, generate_uid()
    data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = "1.2.3", series, "1.2.9"
    data.Modality, data.PatientID, data.PatientName, data.InstanceNumber = modality, "X", "X^X", 1
    data.PatientBirthDate = data.PatientSex = data.StudyID = data.AccessionNumber = data.StudyDate = ""
    data.StudyTime = data.ReferringPhysicianName = data.PositionReferenceIndicator = data.Manufacturer = ""
    return data


def save(data: Dataset, path: Path, syntax: UID = ExplicitVRLittleEndian) -> Path:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = data.SOPClassUID, data.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    data.file_meta = meta
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(str(path), enforce_file_format=True)
    return path


def set_pixels(data: Dataset, array: np.ndarray) -> None:
    data.Rows, data.Columns = array.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
    data.PixelRepresentation = int(array.dtype.kind == "i")
    data.PixelData = array.tobytes()
    data["PixelData"].VR = "OW"


def write_series(
    folder: Path,
    array: np.ndarray,
    positions: Sequence[tuple[float, float, float]],
    *,
    series: str = "1.2.3.1",
    prefix: str = "im",
    sop: str = CT,
    orientation: Sequence[float] = AXIAL,
    tweak: Callable[[Dataset, int], None] | None = None,
    syntax: UID = ExplicitVRLittleEndian,
) -> Path:
    """One file a slice; ``tweak`` may change each before it is written."""
    for index, (pixels, place) in enumerate(zip(array, positions, strict=True)):
        data = new_object(sop, series)
        data.InstanceNumber = index + 1
        set_pixels(data, pixels)
        data.PixelSpacing, data.SliceThickness = [SPACING[1], SPACING[0]], STEP
        data.ImagePositionPatient, data.ImageOrientationPatient = list(place), list(orientation)
        data.RescaleSlope, data.RescaleIntercept = "1", "0"
        if tweak is not None:
            tweak(data, index)
        save(data, folder / f"{prefix}{index:03d}.dcm", syntax)
    return folder


def write_enhanced(
    path: Path,
    array: np.ndarray,
    positions: Sequence[tuple[float, float, float]],
    *,
    tweak: Callable[[Dataset, int], None] | None = None,
    syntax: UID = ExplicitVRLittleEndian,
) -> Path:
    """One file of many frames; ``tweak`` may change the functional groups of each frame."""
    data = new_object(ENHANCED_CT)
    set_pixels(data, array)
    data.NumberOfFrames = len(array)
    shared, orientation, measures, value = Dataset(), Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = list(AXIAL)
    measures.PixelSpacing, measures.SliceThickness = [SPACING[1], SPACING[0]], STEP
    value.RescaleSlope, value.RescaleIntercept, value.RescaleType = "2", "-1000", "HU"
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    shared.PixelValueTransformationSequence = [value]
    data.SharedFunctionalGroupsSequence = [shared]
    data.PerFrameFunctionalGroupsSequence = []
    for index, place in enumerate(positions):
        group, content, plane = Dataset(), Dataset(), Dataset()
        content.DimensionIndexValues = [1, index + 1]
        plane.ImagePositionPatient = list(place)
        group.FrameContentSequence, group.PlanePositionSequence = [content], [plane]
        if tweak is not None:
            tweak(group, index)
        data.PerFrameFunctionalGroupsSequence.append(group)
    return save(data, path, syntax)


def read(path: Path) -> Dataset:
    return pydicom.dcmread(path)
