"""Registration, landmark matching and lesion tracking with self-supervised anatomical embeddings.

Frame: LPS millimeters. A registration transform maps points of the fixed image to the moving image.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .version import __version__ as __version__

if TYPE_CHECKING:
    from .errors import Cancelled, InputError, ResourceError, SamConvexError
    from .io.images import read_labels, read_volume, write_volume
    from .landmarks.matching import Matches, match_points
    from .lesions.files import read_lesions
    from .lesions.findings import Finding, TrackingResult
    from .lesions.lesion import Lesion
    from .lesions.tracking import track_lesions
    from .registration.register import RegistrationResult, register
    from .settings.presets import PRESETS
    from .settings.registration import Settings
    from .space.grid import Grid
    from .space.transforms import AffineTransform, Transform
    from .space.volume import Volume

__all__ = [
    "PRESETS",
    "AffineTransform",
    "Cancelled",
    "Finding",
    "Grid",
    "InputError",
    "Lesion",
    "Matches",
    "RegistrationResult",
    "ResourceError",
    "SamConvexError",
    "Settings",
    "TrackingResult",
    "Transform",
    "Volume",
    "match_points",
    "read_labels",
    "read_lesions",
    "read_volume",
    "register",
    "track_lesions",
    "write_volume",
]

# Names load on first use: the command line's help and Slicer's start must not wait seconds for torch.
_MODULES = {
    "PRESETS": "settings.presets",
    "AffineTransform": "space.transforms",
    "Finding": "lesions.findings",
    "Lesion": "lesions.lesion",
    "Matches": "landmarks.matching",
    "RegistrationResult": "registration.register",
    "Settings": "settings.registration",
    "TrackingResult": "lesions.findings",
    "Transform": "space.transforms",
    "match_points": "landmarks.matching",
    "read_lesions": "lesions.files",
    "register": "registration.register",
    "track_lesions": "lesions.tracking",
    "Cancelled": "errors",
    "Grid": "space.grid",
    "InputError": "errors",
    "ResourceError": "errors",
    "SamConvexError": "errors",
    "Volume": "space.volume",
    "read_labels": "io.images",
    "read_volume": "io.images",
    "write_volume": "io.images",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
