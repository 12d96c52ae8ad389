"""Training of the compact anatomical embedding: ``samconvex train sam``.

The method of SAM (Yan et al., IEEE TMI 2022): two augmented views of a volume correspond through their sampling
geometry; InfoNCE on a coarse and a fine map with hard and diverse negatives. Part of the steps also takes points of two
patients' shared labels as positives (section IV-H of the paper). Averaged weights are written; everything needed to go
on is kept next to them.
"""

from __future__ import annotations

import copy
import json
import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import Cancelled, InputError, refusing
from ...networks import sam_2d, sam_compact
from ...networks.sam_2d import SAM2D
from ...networks.sam_compact import SAMCompact
from ...weights.checkpoints import as_float, check_finite, read_checkpoint
from ..data.cases import Case, load_cases
from ..steps import Steps, check_before_saving, restore
from .batches import Batch, BatchSource
from .losses import LossSettings, Vectors, contrastive_loss, sample_rows
from .radiographs import make_radiographs, view_errors
from .settings import SamSettings
from .validation import landmark_errors, summarize, warp_errors

LOGGER = logging.getLogger(__name__)
LONGEST_STEP_S = 10.0


@dataclass
class State:
    """Everything that changes during training."""

    network: SAMCompact
    average: SAMCompact
    optimizer: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0


def build_network(settings: SamSettings) -> SAMCompact:
    """A network with random weights."""
    kind = SAM2D if settings.dimension == 2 else SAMCompact
    network = kind(
        settings.widths, settings.blocks, settings.fine_channels, settings.coarse_channels, settings.spacing_mm
    )
    return network.channels_last()


def batch_loss(network: SAMCompact, batch: Batch, settings: SamSettings) -> tuple[Tensor, dict[str, float]]:
    """Loss of one batch, and its parts: ``self_*`` within volumes, ``label_*`` between patients."""
    with torch.autocast("cpu", torch.bfloat16, enabled=settings.bfloat16):
        fine_map, coarse_map = network.raw_features(batch.images)
    # One gather for all points of all views.
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
                view_of.append(torch.full((len(points.points),), 2 * k + v, dtype=torch.long))
    coordinates, item = torch.cat(where), torch.cat(view_of)
    everything = Vectors(
        sample_rows(fine_map, item, coordinates, network.fine_stride),
        sample_rows(coarse_map, item, coordinates, network.coarse_stride),
    )
    vectors = {key: everything.at(span) for key, span in spans.items()}
    options = LossSettings(settings.temperature, settings.hard, settings.diverse)
    ignore = settings.ignore_mm / settings.spacing_mm
    total = torch.zeros(())
    parts: dict[str, list[float]] = {}

    def add(name: str, result: tuple[Tensor, dict[str, float]], weight: float) -> None:
        nonlocal total
        total = total + result[0] * weight
        for key, value in result[1].items():
            parts.setdefault(f"{name}_{key}", []).append(value)

    for k in range(2):
        points, query = batch.candidates[k], batch.queries[k]
        if len(query) < 8:
            continue
        near = torch.cdist(points.points[query], points.points) < ignore
        for v in range(2):
            others, others_forbidden = _other_volume(batch, vectors, k, v, query, settings)
            mine, theirs = vectors["candidates", k, v], vectors["candidates", k, 1 - v]
            forbidden = near | ~points.visible[1 - v]
            add(
                "self",
                contrastive_loss(
                    mine.at(query), theirs.at(query), theirs, forbidden, options, others, others_forbidden
                ),
                0.25,
            )
    if batch.labeled is not None:
        # Case k's view v against case j's view w: every pair of views once, half of them in each direction.
        for k, v, j, w in ((0, 0, 1, 0), (0, 1, 1, 1), (1, 0, 0, 1), (1, 1, 0, 0)):
            seen = torch.nonzero(batch.labeled[k].visible[v] & batch.labeled[j].visible[w])[:, 0]
            if len(seen) < 4:
                continue
            near = (
                torch.cdist(batch.labeled[j].points[seen], batch.candidates[j].points) < batch.tolerance[seen][:, None]
            )
            forbidden = near | ~batch.candidates[j].visible[w]
            first, second = vectors["labeled", k, v].at(seen), vectors["labeled", j, w].at(seen)
            result = contrastive_loss(first, second, vectors["candidates", j, w], forbidden, options)
            add("label", result, 0.25 * settings.label_weight)
    return total, {key: sum(values) / len(values) for key, values in parts.items()}


def _other_volume(
    batch: Batch, vectors: dict[tuple[str, int, int], Vectors], k: int, v: int, query: Tensor, settings: SamSettings
) -> tuple[Vectors | None, Tensor | None]:
    """Random points of the other case as negatives, without those that may be the same anatomy."""
    other = batch.candidates[1 - k]
    visible = torch.nonzero(other.visible[v])[:, 0]
    if not settings.others or len(visible) < 16 or batch.names[0] == batch.names[1]:
        return None, None
    chosen = visible[torch.randint(0, len(visible), (min(settings.others, len(visible)),))]
    negatives = vectors["candidates", 1 - k, v].at(chosen)
    if batch.mapped is not None:
        forbidden = torch.cdist(batch.mapped[k][query], other.points[chosen]) < 40.0 / settings.spacing_mm
    else:  # nothing known about the other anatomy: leave out what looks most alike
        with torch.no_grad():
            mine = vectors["candidates", k, v].at(query)
            alike = mine.fine @ negatives.fine.T + mine.coarse @ negatives.coarse.T
            forbidden = alike > alike.quantile(0.9, dim=1, keepdim=True)
    return negatives, forbidden


@torch.no_grad()
def _update_average(state: State, decay: float) -> None:
    decay = min(decay, (1 + state.step) / (10 + state.step))
    for mean, value in zip(state.average.state_dict().values(), state.network.state_dict().values(), strict=True):
        if mean.dtype.is_floating_point:
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".partial")
    torch.save(content, temporary)
    os.replace(temporary, path)


def save_weights(path: Path, network: SAMCompact, meta: dict[str, Any]) -> None:
    """Write a checkpoint of plain tensors and JSON values (half precision), atomically."""
    tensors = {k: (v.half() if v.dtype.is_floating_point else v).contiguous() for k, v in network.state_dict().items()}
    check_before_saving(tensors, path)
    module, modality = (sam_2d, "xray") if isinstance(network, SAM2D) else (sam_compact, "ct")
    content = {
        "format": module.CHECKPOINT_FORMAT,
        "version": module.CHECKPOINT_VERSION,
        "config": network.config,
        "state_dict": tensors,
        "meta": {"preprocessing": module.PREPROCESSING, "modality": modality, **meta},
    }
    _write(path, content)


def _resume_path(output: Path) -> Path:
    return output.with_name(output.stem + ".resume.pt")


def _save_state(output: Path, state: State, settings: SamSettings) -> None:
    _write(
        _resume_path(output),
        {
            "network": state.network.state_dict(),
            "average": state.average.state_dict(),
            "optimizer": state.optimizer.state_dict(),
            "step": state.step,
            "seconds": state.seconds,
            "settings": json.dumps(settings.to_dict()),
        },
    )


def _load_state(output: Path, state: State) -> None:
    path = _resume_path(output)

    def read(saved: dict[str, Any]) -> None:
        state.network.load_state_dict(saved["network"])
        state.average.load_state_dict(saved["average"])
        state.optimizer.load_state_dict(saved["optimizer"])
        state.step, state.seconds = int(saved["step"]), float(saved["seconds"])

    restore(path, read, state.network, state.average)


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
        progress: called with (stage, fraction, message); raising Cancelled writes the weights so far and stops.

    Returns:
        ``step``, ``seconds`` and the last ``validation``.

    Raises:
        InputError: unusable data, settings or files.
    """
    settings = settings or SamSettings()
    output = Path(output)
    if minutes is None and steps is None:
        minutes = 60.0
    budget = minutes * 60 if minutes is not None else math.inf
    report = progress or (lambda stage, fraction, message: None)
    torch.manual_seed(settings.seed)
    torch.set_num_threads(settings.threads)
    if isinstance(data, list):
        cases = data
    else:
        cases = load_cases(
            Path(data),
            spacing=settings.spacing_mm,
            include=settings.include,
            exclude=settings.exclude,
            tubular=settings.tubular,
            cache=Path(cache) if cache else None,
            progress=lambda fraction, message: report("data", fraction, message),
        )
    if settings.dimension == 2:
        cases = make_radiographs(cases, settings, lambda fraction: report("data", fraction, "projections"))
    held_out = [c for c in cases if c.patient in settings.validation]
    training = [c for c in cases if c.patient not in settings.validation]
    if not training:
        raise InputError("every case is held out for validation; nothing is left to train on.")
    network = build_network(settings)
    if start_from is not None:
        _load_start(network, Path(start_from))
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    state = State(network, copy.deepcopy(network), optimizer)
    if resume:
        _load_state(output, state)
    taken = Steps(network, optimizer, settings.clip)
    log_path = output.with_name(output.stem + ".log.jsonl")
    log_path.parent.mkdir(parents=True, exist_ok=True)
    source = BatchSource(training, settings, settings.seed + state.step)
    batches = source.stream(settings.ahead)
    last_validation: dict[str, object] = {}
    saved_at = validated_at = state.seconds
    running: dict[str, list[float]] = {}

    def fraction() -> float:
        return min(1.0, max(state.seconds / budget, state.step / steps if steps else 0.0))

    def record(entry: dict[str, Any]) -> None:
        with log_path.open("a") as stream:
            stream.write(json.dumps({"step": state.step, "minutes": round(state.seconds / 60, 2), **entry}) + "\n")

    def save() -> None:
        meta = {
            "step": state.step,
            "minutes": round(state.seconds / 60, 1),
            "settings": settings.to_dict(),
            "training_cases": len(training),
            "validation": last_validation,
        }
        save_weights(output, state.average, meta)
        _save_state(output, state, settings)

    record(
        {
            "event": "start",
            "training_cases": len(training),
            "held_out": len(held_out),
            "settings": settings.to_dict(),
            "resume": resume,
        }
    )
    network.train()
    clock = time.monotonic()
    try:
        while fraction() < 1.0:
            batch = next(batches)
            rate = settings.learning_rate * min(1.0, (state.step + 1) / settings.warmup_steps)
            rate *= 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * fraction()))
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss, parts = batch_loss(network, batch, settings)
            norm = taken.take(loss) if loss.requires_grad else None
            if norm is not None:
                parts["gradient"] = norm
                state.step += 1
                _update_average(state, settings.average)
            now = time.monotonic()
            # A paused process must not use up its budget.
            state.seconds += min(now - clock, LONGEST_STEP_S)
            clock = now
            for key, value in {"loss": float(loss.detach()), **parts}.items():
                running.setdefault(key, []).append(value)
            message = f"step {state.step}, loss {float(loss.detach()):.2f}" if state.step % 25 == 0 else ""
            report("train", fraction(), message)
            if state.step % 25 == 0:
                record({"lr": rate, **{k: round(sum(v) / len(v), 4) for k, v in running.items()}})
                running = {}
            if held_out and state.seconds - validated_at >= settings.validate_every_s:
                last_validation = validate(state.average, held_out)
                record({"event": "validation", **last_validation})
                validated_at = state.seconds
                clock = time.monotonic()
            if state.seconds - saved_at >= settings.save_every_s:
                save()
                saved_at = state.seconds
    except (Cancelled, KeyboardInterrupt) as stop:
        save()
        raise Cancelled(
            f"Cancelled after step {state.step}; {output} holds the weights so far, --resume goes on."
        ) from stop
    finally:
        batches.close()
    if held_out:
        last_validation = validate(state.average, held_out)
        record({"event": "validation", **last_validation})
    save()
    record({"event": "end"})
    return {"step": state.step, "seconds": state.seconds, "validation": last_validation}


def _load_start(network: SAMCompact, path: Path) -> None:
    with refusing(f"{path} does not hold weights of this network size."):
        network.load_state_dict(as_float(read_checkpoint(path)["state_dict"]))
    check_finite(network, path)
