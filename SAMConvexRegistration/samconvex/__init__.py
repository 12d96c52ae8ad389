"""Registration, landmark matching and lesion tracking with self-supervised anatomical embeddings.

Frame: LPS millimeters. A registration transform maps points of the fixed image to the moving image.
"""

from __future__ import annotations

from .errors import Cancelled, InputError, ResourceError, SamConvexError
from .geometry import Grid
from .volume import Volume, read_labels, read_volume, write_volume

__version__ = "0.1.0"

__all__ = [
    "Cancelled",
    "Grid",
    "InputError",
    "ResourceError",
    "SamConvexError",
    "Volume",
    "read_labels",
    "read_volume",
    "write_volume",
]
