"""The frames of 4D images, each as a volume."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import InputError, check_at_hand, refusing
from ..space.grid import Grid
from ..space.image_files import place_notes, read_header, read_image
from ..space.volume import Volume, check_volume
from .dicom import is_dicom


def read_frame_count(path: str | os.PathLike) -> int:
    """How many 3D frames an image file has, by its header; 1 for a DICOM folder, which is one series.

    Raises:
        InputError: missing, or no image of 3 or 4 dimensions.
    """
    check_at_hand(path, folder=True)
    if is_dicom(Path(path)):
        return 1
    size = read_header(path).GetSize()
    if len(size) not in (3, 4):
        raise InputError(f"{path} is {len(size)}D; give a 3D image, or a 4D one of several frames.")
    return size[3] if len(size) == 4 else 1


def read_frame(path: str | os.PathLike, frame: int) -> Volume:
    """One frame, from 0, of a 4D image.

    Raises:
        InputError: as :func:`samconvex.read_volume`, or there is no such frame.
    """
    check_at_hand(path)
    with refusing(f"{path} could not be read as a 4D image; save it again as NIfTI or NRRD."):
        image = read_image(path)
        frames = image.GetSize()[3] if image.GetDimension() == 4 else 0
        if not 0 <= frame < frames:
            raise InputError(f"{path} has {frames} frames; there is no frame {frame}.")
        volume = Volume.from_sitk(image[:, :, :, frame], f"{path} (frame {frame})")
        notes = place_notes(Path(path), Grid.from_sitk(image[:, :, :, frame]))
    check_volume(volume)
    return Volume(volume.tensor, volume.grid, volume.pixel_id, volume.source, notes)
