"""Training of the compact anatomical embedding: ``samconvex train sam``.

The method of SAM (Yan et al., IEEE TMI 2022): two augmented views of a volume correspond through their sampling
geometry; InfoNCE on a coarse and a fine map with hard and diverse negatives. Part of the steps also takes points of two
patients' shared labels as positives (section IV-H of the paper). Averaged weights are written; everything needed to go
on is kept next to them.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...device import chosen_device
from ...errors import InputError
from ...networks import sam_2d, sam_compact
from ...networks.sam_2d import SAM2D
from ...networks.sam_compact import SAMCompact
from ...weights.checkpoints import read_checkpoint
from ..data.cases import Case, load_cases
from ..data.prepared import prepared
from ..loop import Drawn, Loop, Plan, half_precise, save_checkpoint
from .batches import Batch, BatchSource, Renderer, draw_with_images
from .losses import LossSettings, Vectors, contrastive_loss, sample_rows
from .radiographs import make_radiographs, view_errors
from .settings import SamSettings
from .validation import landmark_errors, summarize, warp_errors

# Draws in a row whose views share hardly anything, before the recipe is found unusable.
MOST_TRIES = 200
Progress = Callable[[str, float, str], None]


def build_network(settings: SamSettings) -> SAMCompact:
    """A network with random weights."""
    kind = SAM2D if settings.dimension == 2 else SAMCompact
    network = kind(
        settings.widths, settings.blocks, settings.fine_channels, settings.coarse_channels, settings.spacing_mm
    )
    return network.channels_last()


def batch_loss(
    network: SAMCompact, images: Tensor, batch: Batch, settings: SamSettings
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of one batch, and its parts: ``self_*`` within volumes, ``label_*`` between patients.

    Args:
        images: (4, 1, d, h, w), what the batch's views see.
    """
    vectors = _vectors(network, images, batch, settings)
    options = LossSettings(settings.temperature, settings.hard, settings.diverse, settings.combined_weight)
    total = images.new_zeros(())
    parts: dict[str, list[Tensor]] = {}
    terms = (
        ("self", 0.25, _within_volumes(batch, vectors, settings, options)),
        ("label", 0.25 * settings.label_weight, _between_patients(batch, vectors, options)),
    )
    for name, weight, results in terms:
        for loss, figures in results:
            total = total + loss * weight
            for key, value in figures.items():
                parts.setdefault(f"{name}_{key}", []).append(value)
    return total, {key: torch.stack(values).mean() for key, values in parts.items()}


def _vectors(
    network: SAMCompact, images: Tensor, batch: Batch, settings: SamSettings
) -> dict[tuple[str, int, int], Vectors]:
    """Embeddings of the points: by "candidates" or "labeled", case and view; one gather for all of them."""
    with half_precise(images.device, settings.bfloat16):
        fine_map, coarse_map = network.raw_features(images)
    where: list[Tensor] = []
    view_of: list[Tensor] = []
    spans: dict[tuple[str, int, int], slice] = {}
    start = 0
    sets = [("candidates", batch.candidates)] + ([("labeled", batch.labeled)] if batch.labeled is not None else [])
    for kind, members in sets:
        for k, points in enumerate(members):
            for v in range(2):
                spans[kind, k, v] = slice(start, start + len(points.points))
                start += len(points.points)
                where.append(points.places[v])
                view_of.append(points.points.new_full((len(points.points),), 2 * k + v, dtype=torch.long))
    coordinates, item = torch.cat(where), torch.cat(view_of)
    everything = Vectors(
        sample_rows(fine_map, item, coordinates, network.fine_stride),
        sample_rows(coarse_map, item, coordinates, network.coarse_stride),
    )
    return {key: everything.at(span) for key, span in spans.items()}


def _within_volumes(
    batch: Batch, vectors: dict[tuple[str, int, int], Vectors], settings: SamSettings, options: LossSettings
) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """Loss of each case's points in one view against the other view, both ways."""
    ignore = settings.ignore_mm / settings.spacing_mm
    for k in range(2):
        points, query = batch.candidates[k], batch.queries[k]
        if len(query) < 8:
            continue
        near = torch.cdist(points.points[query], points.points) < ignore
        for v in range(2):
            others, others_forbidden = _other_volume(batch, vectors, k, v, query, settings)
            mine, theirs = vectors["candidates", k, v], vectors["candidates", k, 1 - v]
            forbidden = near | ~points.visible[1 - v]
            yield contrastive_loss(
                mine.at(query), theirs.at(query), theirs, forbidden, options, others, others_forbidden
            )


def _between_patients(
    batch: Batch, vectors: dict[tuple[str, int, int], Vectors], options: LossSettings
) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """Loss of labeled points: case k's view v against case j's view w.

    Every pair of views comes once, half of them in each direction.
    """
    if batch.labeled is None:
        return
    for k, v, j, w in ((0, 0, 1, 0), (0, 1, 1, 1), (1, 0, 0, 1), (1, 1, 0, 0)):
        seen = torch.nonzero(batch.labeled[k].visible[v] & batch.labeled[j].visible[w])[:, 0]
        if len(seen) < 4:
            continue
        near = torch.cdist(batch.labeled[j].points[seen], batch.candidates[j].points) < batch.tolerance[seen][:, None]
        forbidden = near | ~batch.candidates[j].visible[w]
        first, second = vectors["labeled", k, v].at(seen), vectors["labeled", j, w].at(seen)
        yield contrastive_loss(first, second, vectors["candidates", j, w], forbidden, options)


def _other_volume(
    batch: Batch, vectors: dict[tuple[str, int, int], Vectors], k: int, v: int, query: Tensor, settings: SamSettings
) -> tuple[Vectors | None, Tensor | None]:
    """Random points of the other case as negatives, without those that may be the same anatomy."""
    other = batch.candidates[1 - k]
    visible = torch.nonzero(other.visible[v])[:, 0]
    if not settings.others or len(visible) < 16 or batch.names[0] == batch.names[1]:
        return None, None
    chosen = visible[torch.randint(0, len(visible), (min(settings.others, len(visible)),), device=visible.device)]
    negatives = vectors["candidates", 1 - k, v].at(chosen)
    if batch.mapped is not None:
        forbidden = torch.cdist(batch.mapped[k][query], other.points[chosen]) < 40.0 / settings.spacing_mm
    else:  # nothing known about the other anatomy: leave out what looks most alike
        with torch.no_grad():
            mine = vectors["candidates", k, v].at(query)
            alike = mine.fine @ negatives.fine.T + mine.coarse @ negatives.coarse.T
            forbidden = alike > alike.quantile(0.9, dim=1, keepdim=True)
    return negatives, forbidden


def save_weights(path: Path, network: SAMCompact, meta: dict[str, Any]) -> None:
    """Write a checkpoint of plain tensors and JSON values (half precision), at once.

    Raises:
        InputError: as :func:`save_checkpoint`.
    """
    module, modality = (sam_2d, "xray") if isinstance(network, SAM2D) else (sam_compact, "ct")
    meta = {"preprocessing": module.PREPROCESSING, "modality": modality, **meta}
    save_checkpoint(path, network, module.CHECKPOINT_FORMAT, module.CHECKPOINT_VERSION, meta)


def validate(network: SAMCompact, cases: list[Case]) -> dict[str, object]:
    """Landmark error between held-out patients where labels allow, and under known warps or between two views."""
    if isinstance(network, SAM2D):
        first = {view: [c for c in cases if c.name.endswith(f"#0 {view}")] for view in ("front", "side")}
        return {
            **{f"landmarks_{view}": summarize(landmark_errors(network, chosen)) for view, chosen in first.items()},
            "views": summarize(view_errors(network, cases)),
        }
    groups: dict[str, list[Case]] = {}
    for case in cases:
        groups.setdefault(case.group, []).append(case)
    # A number means another organ in another folder.
    single = len(groups) == 1
    return {
        **{
            "landmarks" if single else f"landmarks_{group}": summarize(landmark_errors(network, members))
            for group, members in groups.items()
        },
        **{
            "warps" if single else f"warps_{group}": summarize(warp_errors(network, members[:4]))
            for group, members in groups.items()
        },
    }


def train(
    data: str | os.PathLike | list[Case],
    output: str | os.PathLike,
    *,
    settings: SamSettings | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    resume: bool = False,
    start_from: str | os.PathLike | None = None,
    cache: str | os.PathLike | None = None,
    device: str = "cpu",
    progress: Callable[[str, float, str], None] | None = None,
) -> dict[str, Any]:
    """Train the compact network on the CTs of a folder, or on radiographs of them, and write its averaged weights.

    Args:
        data: folder of CTs, optionally with label maps next to them; or cases that are already in memory.
        output: weights file; ``NAME.log.jsonl`` and ``NAME.resume.pt`` appear next to it.
        minutes, steps: whichever comes first ends the training; default 60 minutes. The learning rate follows it down.
        resume: go on from ``NAME.resume.pt``; minutes count from the very start.
        start_from: weights to begin with instead of random ones.
        cache: folder for preprocessed volumes.
        device: of :func:`samconvex.device.chosen_device`.
        progress: called with (stage, fraction, message); raising Cancelled writes the weights so far and stops.

    Returns:
        ``step``, ``seconds`` and the last ``validation``.

    Raises:
        InputError: unusable data, settings or files. ResourceError: no such device.
    """
    settings = settings or SamSettings()
    where = chosen_device(device)
    if minutes is None and steps is None:
        minutes = 60.0
    report = progress or (lambda stage, fraction, message: None)
    torch.manual_seed(settings.seed)
    torch.set_num_threads(settings.threads)
    training, held_out = _split_cases(data, settings, Path(cache) if cache else None, report)
    network = build_network(settings)
    if start_from is not None:
        _load_start(network, Path(start_from))
    network.to(where)
    plan = _plan(network, training, held_out, settings, minutes, steps)
    loop = Loop(network, Path(output), plan, resume=resume)
    source, renderer = BatchSource(training, settings, settings.seed), Renderer(training, settings, where)
    # A GPU computes itself what the views see.
    draw_beside = partial(draw_with_images, source=source, renderer=renderer if where.type == "cpu" else None)
    batches = prepared(draw_beside, loop.number, settings.workers)

    def draw(_generator: torch.Generator) -> Drawn:
        for batch, images in itertools.islice(batches, MOST_TRIES):
            images = renderer.images(batch) if images is None else images
            loss, parts = batch_loss(network, images, batch.to(where), settings)
            if loss.requires_grad:
                return loss, parts
        raise InputError(
            f"{MOST_TRIES} pairs of views in a row share hardly anything; choose larger 'shapes' or more 'candidates'."
        )

    counts = {"training_cases": len(training), "held_out": len(held_out)}
    loop.record({"event": "start", **counts, "settings": settings.to_dict(), "resume": resume})
    try:
        result = loop.run(draw, report)
    finally:
        batches.close()
    loop.record({"event": "end"})
    return {**result, "validation": result["validation"]["after"]}


def _split_cases(
    data: str | os.PathLike | list[Case], settings: SamSettings, cache: Path | None, report: Progress
) -> tuple[list[Case], list[Case]]:
    """Cases to train on, and those held out."""
    if isinstance(data, list):
        cases = data
    else:
        cases = load_cases(
            Path(data),
            spacing=settings.spacing_mm,
            include=settings.include,
            exclude=settings.exclude,
            tubular=settings.tubular,
            cache=cache,
            progress=lambda fraction, message: report("data", fraction, message),
        )
    if settings.dimension == 2:
        cases = make_radiographs(cases, settings, lambda fraction: report("data", fraction, "projections"))
    training = [c for c in cases if c.patient not in settings.validation]
    if not training:
        raise InputError("every case is held out for validation; nothing is left to train on.")
    return training, [c for c in cases if c.patient in settings.validation]


def _plan(
    network: SAMCompact,
    training: list[Case],
    held_out: list[Case],
    settings: SamSettings,
    minutes: float | None,
    steps: int | None,
) -> Plan:
    def rate(step: int, share: float) -> float:
        warm = settings.learning_rate * min(1.0, (step + 1) / settings.warmup_steps)
        return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))

    def save(path: Path, averaged: nn.Module, meta: dict[str, Any]) -> None:
        assert isinstance(averaged, SAMCompact)
        latest = {"training_cases": len(training), "validation": meta["validation"]["after"]}
        save_weights(path, averaged, {**meta, **latest})

    def figures(averaged: nn.Module) -> dict[str, object]:
        assert isinstance(averaged, SAMCompact)
        return validate(averaged, held_out)

    return Plan(
        settings,
        _optimizer(network, settings),
        rate,
        save,
        figures if held_out else None,
        minutes,
        steps,
        average=settings.average,
        clip=settings.clip,
        validate_every_s=settings.validate_every_s,
        save_every_s=settings.save_every_s,
        log_every=25,
        digits=4,
        log_rate=True,
    )


def _optimizer(network: SAMCompact, settings: SamSettings) -> torch.optim.Optimizer:
    if settings.optimizer == "radam":
        return torch.optim.RAdam(network.parameters(), lr=settings.learning_rate)
    return torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)


def _load_start(network: SAMCompact, path: Path) -> None:
    content = read_checkpoint(path)
    try:
        network.load_state_dict(content["state_dict"])
    except Exception as error:  # whatever torch says about a foreign file, the user needs one sentence
        raise InputError(f"{path} does not hold weights of this network size.") from error
