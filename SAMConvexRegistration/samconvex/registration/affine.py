"""The linear part of a registration: from embeddings where they are sure, else learning-free; alone or both ways."""

from __future__ import annotations

from dataclasses import replace

import torch

from ..errors import InputError
from ..space.intensity import looks_like_ct
from ..space.linear import disagreement_mm, limited, mean_affine
from ..space.transforms import AffineTransform, Transform
from ..weights.models import load_sam, weights_for
from .features import not_for, organs_of, turn_of
from .pair import Pair
from .run import Run

# Affine alignments of the two directions that end this near their start, at the corners of the image, are averaged.
_AGREEING_MM = 60.0


def align(pair: Pair, run: Run, device: torch.device) -> tuple[Transform, dict]:
    """The linear part and its details; symmetric: the mean of both directions, or the surer one if they disagree.

    An initial transform maps fixed to moving points; the result is then a correction that acts before it.

    Raises:
        InputError: unknown affine stage. Cancelled: by the run's progress.
    """
    initial = run.options.start
    there, details = _one_way(pair, initial, run, device)
    # An initial transform prefers its own direction.
    if not run.settings.symmetric or initial.parts or not there.parts:
        return there, details
    back, others = _one_way(pair.exchanged(), initial, run, device)
    first, second = there.parts[0], back.parts[0]
    assert isinstance(first, AffineTransform) and isinstance(second, AffineTransform)
    apart = disagreement_mm(first, second, pair.fixed.grid.corners())
    details = {**details, "there_and_back_mm": apart}
    if apart <= _AGREEING_MM:
        return Transform((mean_affine(first, second),)), details
    run.warnings.append(
        f"The affine alignments of the two directions disagree ({apart:.0f} mm); the surer one was taken."
    )
    if others.get("confidence", 0.0) > details.get("confidence", 0.0):
        return Transform((second.inverse(),)), {**others, "there_and_back_mm": apart}
    return there, details


def _one_way(pair: Pair, initial: Transform, run: Run, device: torch.device) -> tuple[Transform, dict]:
    settings = run.settings
    if settings.affine not in ("none", "moments", "sam"):
        raise InputError(f"There is no affine stage {settings.affine!r}; choose none, moments or sam.")
    if settings.affine == "none":
        return initial, {}
    if initial.parts:
        moving = initial.warp_volume(pair.moving, pair.fixed.grid.canonical(settings.working_spacing))
        mask = None if pair.moving_mask is None else initial.warp_nearest(pair.moving_mask, moving.grid)
        pair = replace(pair, moving=moving, moving_mask=mask)
    run.progress("affine", 0.0)
    start: AffineTransform | None = None
    details: dict = {}
    if settings.affine == "sam":
        start, details = _from_embeddings(pair, run, device)
        if start is not None and settings.polish_affine != "images":
            matrix = limited(start.matrix, settings.affine_model)
            center = pair.fixed.grid.center
            start = AffineTransform(matrix, start.map_points(center[None])[0] - matrix @ center)
            if settings.polish_affine == "organs":
                start, organs = _by_organs(pair, start, run, device)
                details = {**details, **organs}
            return initial.after(Transform((start,))), {"method": "sam", **details}
    from ..align.by_images import moments_affine

    found = moments_affine(
        pair.fixed,
        pair.moving,
        fixed_mask=pair.fixed_mask,
        moving_mask=pair.moving_mask,
        model=settings.affine_model,
        start=start,
        exact=not settings.deforms,
        device=str(device),
        seed=run.options.seed,
        progress=run.progress,
    )
    if start is not None:
        # Anatomy and images are two witnesses of one pose.
        apart = disagreement_mm(start, found.transform.inverse(), pair.fixed.grid.corners())
        return initial.after(Transform((found.transform,))), {
            "method": "sam, refined by the images",
            **details,
            "apart_mm": apart,
        }
    angles = found.details.get("turned_deg")
    if angles is not None:
        run.warnings.append(turned_note(pair, angles))
    if found.confidence < 0.5:
        reason = found.details.get("reason", "")
        run.warnings.append(f"The affine alignment is uncertain (confidence {found.confidence:.2f}): {reason}")
    details = {"method": "moments", **details, "confidence": found.confidence, **found.details}
    transform = found.transform
    if settings.affine == "sam" and settings.polish_affine == "organs":
        transform, organs = _by_organs(pair, transform, run, device)
        details |= organs
    return initial.after(Transform((transform,))), details


def turned_note(pair: Pair, angles: list[int]) -> str:
    """What a person must hear of an image that lies otherwise than its header says."""
    turn = ", ".join(f"{angle} deg about {axis}" for angle, axis in zip(angles, "xyz", strict=True) if angle)
    return (
        f"{pair.moving.name} lies turned ({turn}) against {pair.fixed.name}: one of their headers is wrong, or the "
        "patient lay otherwise. It was turned for the alignment; check the sides."
    )


def _by_organs(pair: Pair, start: AffineTransform, run: Run, device: torch.device) -> tuple[AffineTransform, dict]:
    """The affine map under which organs overlap best, and how well; ``start`` for images that have none."""
    from ..align.by_organs import organ_affine

    def unless_cancelled(stage: str = "", fraction: float = 0.0, message: str = "") -> None:
        run.progress("affine", 0.99)

    if not (looks_like_ct(pair.fixed) and looks_like_ct(pair.moving)):
        return start, {}
    turned = turn_of(Transform((start,)), pair.fixed, pair.moving)
    try:
        organs = organs_of((pair.fixed, pair.moving), turned, run.options.weights, device, unless_cancelled)
    except InputError:  # such as a crop without any outline of a body; the features say so, where they are asked for
        return start, {}
    images = (pair.fixed, pair.moving)
    return organ_affine(
        *organs, start, lambda _share: unless_cancelled(), model=run.settings.affine_model, images=images
    )


def _from_embeddings(pair: Pair, run: Run, device: torch.device) -> tuple[AffineTransform | None, dict]:
    """SAM-affine and its details; None, with a warning, where the embeddings cannot be used or are not sure."""
    from ..align.by_embeddings import CONFIDENT, sam_affine

    model = load_sam(weights_for("sam", run.options.weights))
    other = not_for(model, pair.fixed, pair.moving)
    details: dict = {}
    if other is not None:
        if not (run.settings.deforms or run.settings.modality):  # a linear preset for any images: nothing is amiss
            return None, {}
        reason = f"{other.name} is no CT in Hounsfield units"
    else:
        try:
            transform, details = sam_affine(
                pair.fixed,
                pair.moving,
                weights=model,
                fixed_mask=pair.fixed_mask,
                moving_mask=pair.moving_mask,
                device=device,
                progress=run.progress,
            )
        except InputError as error:  # such as a crop without any outline of a body
            reason, details = str(error), {"confidence": 0.0}
        else:
            if details["confidence"] >= CONFIDENT:
                if "turned_deg" in details:
                    run.warnings.append(turned_note(pair, details["turned_deg"]))
                return transform, details
            reason = details["reason"]
    run.warnings.append(
        f"Position and size could not be aligned by matched anatomy ({reason}); they were aligned by the images alone."
    )
    return None, {"embeddings_confidence": details["confidence"]} if details else {}
