"""Organ probabilities of an image, by the shipped network."""

from __future__ import annotations

import os

import torch

from ..device import cpu_has_bfloat16, ran_out_of_memory
from ..errors import ResourceError
from ..networks.semantic import HU_RANGE, prepare
from ..progress import Progress, stage
from ..space.intensity import check_ct
from ..space.volume import FeatureMap, Volume, resample
from ..weights.models import SemanticModel, load_semantic
from .body import body_mask
from .cache import content_key
from .embed import body_grid, tiles
from .known import KNOWN


def organ_probabilities(
    volume: Volume,
    model: SemanticModel | str | os.PathLike | None = None,
    *,
    device: torch.device | str = "cpu",
    mask: Volume | None = None,
    progress: Progress | None = None,
) -> FeatureMap:
    """Probability of each organ on a 3 mm grid around the body; the last answers stay in memory.

    Args:
        volume: CT in Hounsfield units, any geometry.
        model: a loaded network, a weights name or file; None is the shipped one.
        mask: what counts as body, instead of :func:`samconvex.anatomy.body.body_mask`.

    Returns:
        Half precision (1, organs, D, H, W), identity direction, zero outside the body.

    Raises:
        InputError: no CT, no body, unusable weights. ResourceError: the device ran out of memory. Cancelled: by
            ``progress``.
    """
    model = model if isinstance(model, SemanticModel) else load_semantic(model)
    check_ct(volume)
    key = f"{content_key(volume, model, mask)}-{torch.device(device).type}"
    found = KNOWN.organs.get(key)
    if found is None:
        try:
            found = _computed(volume, model, torch.device(device), mask, progress)
        except RuntimeError as error:
            if ran_out_of_memory(error):
                raise ResourceError(
                    f"The organs of {volume.name} need more memory than {device} has; crop the volume or use another "
                    "device."
                ) from error
            raise
        KNOWN.organs.keep(key, found)
    return found


@torch.inference_mode()
def _computed(
    volume: Volume, model: SemanticModel, device: torch.device, mask: Volume | None, progress: Progress | None
) -> FeatureMap:
    report = stage(progress, "embedding")
    report(0.0)
    grid, _, near = body_grid(volume, mask if mask is not None else body_mask(volume), model)
    report(0.2)
    values = prepare(resample(volume, grid).tensor.masked_fill_(~near, HU_RANGE[0]))
    report(0.4)
    network = model.network.to(device)
    low_precision = torch.float16 if device.type == "cuda" else torch.bfloat16
    autocast = torch.autocast(device.type, low_precision, enabled=device.type == "cuda" or cpu_has_bfloat16())
    parts = []
    for z0, z1, first, last in tiles(values.shape[2:], model):
        with autocast:
            logits = network(values[:, :, first:last].to(device))
        inside = near[:, :, z0:z1].to(device)
        parts.append(torch.sigmoid(logits[:, :, z0 - first : z1 - first]).mul_(inside).half())
        report(0.4 + 0.6 * z1 / values.shape[2])
    # A copy, because tensors of inference mode refuse gradients, also those of what is computed from them.
    with torch.inference_mode(False):
        return FeatureMap(torch.cat(parts, 2).clone(), grid)
