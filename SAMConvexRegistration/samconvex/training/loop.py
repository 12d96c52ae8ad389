"""The loop that the small recipes share: budget, log, resume, checkpoints, cancellation."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..errors import Cancelled, InputError, refusing
from .steps import Steps, check_before_saving, restore

# A paused process must not use up its budget.
LONGEST_STEP_S = 10.0
SAVE_EVERY_S = 120.0
LOG_EVERY = 10
Settings = TypeVar("Settings")


def read_settings(kind: type[Settings], path: Path | None) -> Settings:
    """Settings of a recipe, with the fields of a JSON file replaced.

    Raises:
        InputError: not a JSON object of known names.
    """
    if path is None:
        return kind()
    with refusing(f"{path} is not a readable JSON file; correct it."):
        values = json.loads(path.read_text(encoding="utf-8"))
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(known)) if isinstance(values, dict) else ["(no object)"]
    if unknown:
        raise InputError(f"{path}: unknown training settings {', '.join(unknown)}; known are {', '.join(known)}.")
    return kind(**{key: tuple(v) if isinstance(v, list) else v for key, v in values.items()})


def save_checkpoint(path: Path, network: nn.Module, form: str, version: int, meta: dict[str, Any]) -> None:
    """Plain tensors (half precision) and JSON values, written at once."""
    tensors = {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in network.state_dict().items()}
    check_before_saving(tensors, path)
    content = {"format": form, "version": version, "config": network.config, "state_dict": tensors, "meta": meta}
    _write(path, content)


def run_loop(
    network: nn.Module,
    step: Callable[[torch.Generator], tuple[Tensor, dict[str, float]] | None],
    output: Path,
    *,
    form: str,
    version: int,
    settings: Any,
    learning_rate: float,
    minutes: float | None,
    steps: int,
    resume: bool,
    validate: Callable[[], dict[str, float]],
    progress: Callable[[str, float, str], None],
    rate: Callable[[float], float] = lambda fraction: 1.0,
) -> dict[str, Any]:
    """Adam on ``step``'s loss until ``steps`` or ``minutes`` are used up; the weights lie in ``output`` afterwards.

    ``NAME.log.jsonl`` and ``NAME.resume.pt`` appear next to it. A ``step`` may return None where a draw was unusable.
    ``rate`` scales the learning rate by the share of the run that is done.

    Returns:
        ``step``, ``seconds``, and ``validation`` with the figures before and after.
    """
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    taken = Steps(network, optimizer)
    number, seconds = 0, 0.0
    before: dict[str, float] = {}
    resume_path = output.with_name(output.stem + ".resume.pt")
    if resume:
        number, seconds, before = _load_state(resume_path, network, optimizer)
    generator = torch.Generator().manual_seed(settings.seed + number)
    budget = minutes * 60 if minutes is not None else math.inf
    log = output.with_name(output.stem + ".log.jsonl")
    output.parent.mkdir(parents=True, exist_ok=True)

    def record(entry: dict[str, Any]) -> None:
        with log.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"step": number, "minutes": round(seconds / 60, 2), **entry}) + "\n")

    def save(after: dict[str, float]) -> None:
        meta = {
            "step": number,
            "minutes": round(seconds / 60, 1),
            "settings": asdict(settings),
            "validation": {"before": before, "after": after},
        }
        save_checkpoint(output, network, form, version, meta)
        state = {
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": number,
            "seconds": seconds,
            "before": json.dumps(before),
        }
        _write(resume_path, state)

    if not before:
        before = validate()
        record({"event": "before", **before})
    network.train()
    clock, saved, running = time.monotonic(), seconds, []
    try:
        while number < steps and seconds < budget:
            drawn = step(generator)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * rate(max(number / steps, seconds / budget))
            if drawn is not None and taken.take(drawn[0]) is not None:
                running.append({"loss": float(drawn[0].detach()), **drawn[1]})
            number += 1
            now = time.monotonic()
            seconds += min(now - clock, LONGEST_STEP_S)
            clock = now
            progress("train", min(1.0, max(number / steps, seconds / budget)), "")
            if number % LOG_EVERY == 0 and running:
                record({key: round(sum(r[key] for r in running) / len(running), 5) for key in running[0]})
                running = []
            if seconds - saved >= SAVE_EVERY_S:
                save({})
                saved = seconds
    except (Cancelled, KeyboardInterrupt) as stop:
        save({})
        raise Cancelled(
            f"Cancelled after step {number}; {output} holds the weights so far, --resume goes on."
        ) from stop
    network.eval()
    after = validate()
    record({"event": "after", **after})
    save(after)
    return {"step": number, "seconds": seconds, "validation": {"before": before, "after": after}}


def _write(path: Path, content: dict[str, Any]) -> None:
    temporary = path.with_name(path.name + ".partial")
    torch.save(content, temporary)
    os.replace(temporary, path)


def _load_state(path: Path, network: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, float, dict]:
    found: list[tuple[int, float, dict]] = []

    def read(saved: dict[str, Any]) -> None:
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        found.append((int(saved["step"]), float(saved["seconds"]), dict(json.loads(saved["before"]))))

    restore(path, read, network)
    return found[0]
