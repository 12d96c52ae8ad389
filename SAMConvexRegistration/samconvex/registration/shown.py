"""Which parts of the body both images show: said before the long work, where it embeds the images anyway."""

from __future__ import annotations

from typing import Any

import torch

from ..anatomy.cache import embed_cached
from ..anatomy.level import Anatomy, anatomy_of, common_anatomy, warnings_about
from ..errors import InputError
from ..settings.features import networks_of
from ..weights.models import load_sam, weights_for
from .features import not_for
from .pair import Pair
from .run import Run


def shown(pair: Pair, run: Run) -> dict[str, Any]:
    """``anatomy`` of the report; what a person must hear at once becomes the first of the run's warnings.

    Empty where the images are not embedded: nothing is computed for this alone.

    Raises:
        InputError: unusable weights. Cancelled: by the run's progress.
    """
    used = networks_of(run.settings.compared)
    if run.settings.affine != "sam" and "sam" not in used:
        return {}
    model = load_sam(weights_for("sam", run.options.weights))
    if pair.fixed.is_slice or not_for(model, pair.fixed, pair.moving) is not None:
        return {}

    def both(device: torch.device) -> tuple[Anatomy, Anatomy]:
        first, second = (
            anatomy_of(embed_cached(image, model, device=device, progress=run.progress))
            for image in (pair.fixed, pair.moving)
        )
        return first, second

    try:
        with run.clock("affine"):
            fixed, moving = run.computed(both)
    except InputError:  # such as a crop without any outline of a body; the affine says what comes of it
        return {}
    sentences = warnings_about(fixed, moving)
    run.warnings[:0] = sentences
    for sentence in sentences:
        run.tell(sentence)
    share = common_anatomy(fixed, moving)
    return {
        "fixed": fixed.record(),
        "moving": moving.record(),
        "common_percent": None if share is None else round(100 * share, 1),
    }
