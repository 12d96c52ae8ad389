"""Lesion tracking for the Slicer module: lesions of any kind in one request file, contours and figures out.

    python -m samconvex.tracking_job REQUEST.json

The request holds ``baseline`` and ``follow_ups`` (image files), ``lesions`` (``name`` with ``point``, ``box``, ``line``
or ``mask``; LPS mm), ``output`` (folder) and optionally ``minimum_score`` and ``device``. The folder then holds
``tracking.json`` (as :meth:`samconvex.tracking.TrackingResult.to_dict`) and the contours that its entries name as
``carried`` and ``suggested``. Progress and exit status are those of ``samconvex``.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .cancellation import PATIENCE_S, leave_now, run_cancellable
from .cli import guarded
from .console import ConsoleProgress
from .errors import Cancelled, InputError
from .outputs import output_folder

if TYPE_CHECKING:
    from .lesions import Lesion

RESULT_FILE = "tracking.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the request that the only argument names."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if len(words) != 1:
        print("usage: python -m samconvex.tracking_job REQUEST.json", file=sys.stderr)
        return InputError.exit_status
    status = guarded(lambda: run_cancellable(lambda cancelled: run(Path(words[0]), cancelled), PATIENCE_S))
    if arguments is None and status == Cancelled.exit_status:
        leave_now(status)
    return status


def run(path: Path, cancelled: threading.Event) -> int:
    """Track as the request says; all files appear together at the end."""
    request = json.loads(path.read_text(encoding="utf-8"))
    import torch

    from .tracking import track_lesions
    from .volume import read_volume, write_volume

    device = request.get("device", "auto")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    plan = (("read", 1.0), ("embedding", 4.0), ("tracking", 10.0), ("write", 1.0))
    progress = ConsoleProgress("json", plan, cancelled)
    progress("read", 0.0)
    baseline = read_volume(request["baseline"])
    follow_ups = [read_volume(name) for name in request["follow_ups"]]
    lesions = [read_lesion(entry) for entry in request["lesions"]]
    result = track_lesions(
        baseline, lesions, follow_ups, minimum_score=request.get("minimum_score"), device=device, progress=progress
    )
    progress("write", 0.0)
    values = result.to_dict()
    with output_folder(request["output"]) as staging:
        for lesion, record in zip(result.lesions, values["lesions"], strict=True):
            for finding, entry in zip(result.of(lesion.name), record["timepoints"], strict=True):
                for kind in ("carried", "suggested"):
                    contour = getattr(finding, kind)
                    if contour is not None:
                        entry[kind] = f"{kind}-{result.lesions.index(lesion)}-{finding.follow_up}.mha"
                        write_volume(contour, staging / entry[kind])
        (staging / RESULT_FILE).write_text(json.dumps(values, indent=1, allow_nan=False), encoding="utf-8")
    progress.finish()
    return 0


def read_lesion(entry: dict[str, Any]) -> Lesion:
    """A lesion as the request describes it.

    Raises:
        InputError: no place, or one without extent.
    """
    from .lesions import Lesion
    from .volume import read_labels

    name = str(entry["name"])
    if "mask" in entry:
        return Lesion.from_mask(name, read_labels(entry["mask"]))
    if "box" in entry:
        return Lesion.from_box(name, np.array(entry["box"], dtype=float))
    if "line" in entry:
        return Lesion.from_diameters(name, np.array(entry["line"], dtype=float))
    if "point" in entry:
        return Lesion(name, np.array(entry["point"], dtype=float))
    raise InputError(f"{name} has no place; give a point, box, line or mask.")


if __name__ == "__main__":
    sys.exit(main())
