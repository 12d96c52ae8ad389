"""The loop of every recipe: budget, rate, averaged weights, log, validation, resume, checkpoints, cancellation."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ..device import cpu_has_bfloat16
from ..errors import Cancelled, InputError
from ..io.files import replaced
from ..weights.checkpoints import not_finite, read_checkpoint

# A paused process must not use up its budget.
LONGEST_STEP_S = 10.0
# A rare unlucky draw comes alone; what is not finite this often in a row stays so.
MOST_IN_A_ROW = 5
Settings = TypeVar("Settings")
# Loss and figures for the log; None where a draw was unusable.
Drawn = tuple[Tensor, Mapping[str, Tensor | float]] | None


def read_settings(kind: type[Settings], path: Path | None) -> Settings:
    """Settings of a recipe, with the fields of a JSON file replaced.

    Raises:
        InputError: not a JSON object of known names.
    """
    if path is None:
        return kind()
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not a readable JSON file ({error}).") from error
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(known)) if isinstance(values, dict) else ["(no object)"]
    if unknown:
        raise InputError(f"{path}: unknown training settings {', '.join(unknown)}; known are {', '.join(known)}.")
    return kind(**{key: tuple(v) if isinstance(v, list) else v for key, v in values.items()})


def save_checkpoint(path: Path, network: nn.Module, form: str, version: int, meta: dict[str, Any]) -> None:
    """Plain tensors (half precision where their values fit) and JSON values, written at once.

    Raises:
        InputError: weights that are not finite; nothing was written.
    """
    tensors = {k: _compact(v).cpu().contiguous() for k, v in network.state_dict().items()}
    _write(path, {"format": form, "version": version, "config": network.config, "state_dict": tensors, "meta": meta})


def _compact(value: Tensor) -> Tensor:
    """In half precision, but for what is beyond it: a running variance may be, before features settle."""
    if not value.is_floating_point() or not value.numel():
        return value
    fits = float(value.abs().max()) <= torch.finfo(torch.float16).max
    return value.half() if fits else value.float()


def half_precise(device: torch.device, wanted: bool = True) -> torch.autocast:
    """Convolutions in bfloat16 where the device multiplies it in hardware; a step takes a fraction of the time."""
    has = torch.cuda.is_bf16_supported(False) if device.type == "cuda" else cpu_has_bfloat16()
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted and has)


def writer(form: str, version: int) -> Callable[[Path, nn.Module, dict[str, Any]], None]:
    """:func:`save_checkpoint` of one format."""
    return lambda path, network, meta: save_checkpoint(path, network, form, version, meta)


@dataclass(frozen=True)
class Plan:
    """How a network is trained.

    Attributes:
        settings: of the recipe, with a ``seed``; written into the checkpoint.
        optimizer: of the network's parameters.
        rate: learning rate from the number of steps done and the share of the run that is done.
        save: writes the weights of a network with its meta data to a file.
        validate: figures of a network; measured before and after training; None without.
        minutes, steps: whichever is used up first ends the run.
        average: decay of the averaged weights that are validated and written; None writes the network's own.
        clip: largest norm of the gradient; None clips nothing.
        validate_every_s, save_every_s: seconds of work between. With the first, nothing is measured before training.
        log_every, digits: steps of a line of the log, digits of its figures.
        log_rate: the log also tells the learning rate.
    """

    settings: Any
    optimizer: torch.optim.Optimizer
    rate: Callable[[int, float], float]
    save: Callable[[Path, nn.Module, dict[str, Any]], None]
    validate: Callable[[nn.Module], dict[str, Any]] | None
    minutes: float | None = None
    steps: int | None = None
    average: float | None = None
    clip: float | None = None
    validate_every_s: float | None = None
    save_every_s: float = 120.0
    log_every: int = 10
    digits: int = 5
    log_rate: bool = False


def warm_cosine(peak: float, warmup: float) -> Callable[[int, float], float]:
    """A :attr:`Plan.rate`: up to ``peak`` within the share ``warmup`` of the run, by a cosine down to a hundredth."""

    def rate(_step: int, share: float) -> float:
        warm = min(1.0, 0.05 + share / warmup)
        return peak * (warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share))))

    return rate


def averaged(network: nn.Module, decay: float) -> AveragedModel:
    """Exponential mean of weights and buffers that forgets its start sooner: it counts as the first of the means."""

    @torch.no_grad()
    def mean(averages: Sequence[Tensor], values: Sequence[Tensor], count: Tensor | int) -> None:
        if averages[0].is_floating_point():
            share = 1 - min(decay, (1 + int(count)) / (10 + int(count)))
            torch._foreach_lerp_(list(averages), list(values), share)
        else:
            torch._foreach_copy_(list(averages), list(values))

    model = AveragedModel(network, multi_avg_fn=mean, use_buffers=True)
    model.n_averaged.fill_(1)
    return model


class Loop:
    """Trains a network as planned; ``NAME.log.jsonl`` and ``NAME.resume.pt`` appear next to the weights.

    Args:
        output: weights file.
        resume: go on from ``NAME.resume.pt``.

    Attributes:
        number, seconds: steps and time of work since the very start.

    Raises:
        InputError: nothing to go on from, or a file that does not fit.
    """

    def __init__(self, network: nn.Module, output: Path, plan: Plan, *, resume: bool = False) -> None:
        self.network, self.output, self.plan = network, output, plan
        self.average = averaged(network, plan.average) if plan.average is not None else None
        self.number, self.seconds = 0, 0.0
        self.before: dict[str, Any] = {}
        self.latest: dict[str, Any] = {}
        self._resume_path = output.with_name(output.stem + ".resume.pt")
        self._log = output.with_name(output.stem + ".log.jsonl")
        # Figures of a GPU stay there until a line is written: asking for each would stop it.
        self._running: dict[str, list[Tensor | float]] = {}
        self._left_out = self._good = 0
        self._clock = time.monotonic()
        if resume:
            self._load()
        self._validated = self._saved = self.seconds
        output.parent.mkdir(parents=True, exist_ok=True)

    @property
    def result(self) -> nn.Module:
        """The network that is validated and written."""
        return self.network if self.average is None else self.average.module

    @property
    def share(self) -> float:
        """How much of the run is done, 0 to 1."""
        budget = self.plan.minutes * 60 if self.plan.minutes is not None else math.inf
        return min(1.0, max(self.number / (self.plan.steps or math.inf), self.seconds / budget))

    def record(self, entry: dict[str, Any]) -> None:
        """Add a line to the log."""
        line = {"step": self.number, "minutes": round(self.seconds / 60, 2), **entry}
        with self._log.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")

    def run(
        self, draw: Callable[[torch.Generator], Drawn], progress: Callable[[str, float, str], None]
    ) -> dict[str, Any]:
        """Train until steps or minutes are used up; the weights lie in ``output`` afterwards.

        Returns:
            ``step``, ``seconds``, and ``validation`` with the figures before and after.

        Raises:
            Cancelled: the weights so far are kept. InputError: no finite loss and gradient any more; the last good
            weights are kept.
        """
        generator = torch.Generator().manual_seed(self.plan.settings.seed + self.number)
        between = self.plan.validate_every_s
        if between is None and not self.before:
            self.before = self._validate("before")
        self.network.train()
        self._clock = time.monotonic()
        try:
            while self.share < 1.0:
                self._step(draw, generator)
                progress("train", self.share, self._report())
                if between is not None and self.seconds - self._validated >= between:
                    self.latest = self._validate("validation")
                    self._validated, self._clock = self.seconds, time.monotonic()
                if self.seconds - self._saved >= self.plan.save_every_s:
                    self._save()
        except (Cancelled, KeyboardInterrupt) as stop:
            self._save()
            raise Cancelled(
                f"Cancelled after step {self.number}; {self.output} holds the weights so far, --resume goes on."
            ) from stop
        self.network.eval()
        # What is measured now may take long; whoever stops it loses nothing.
        self._save()
        self.latest = self._validate("after" if between is None else "validation")
        self._save()
        validation = {"before": self.before, "after": self.latest}
        return {"step": self.number, "seconds": self.seconds, "validation": validation}

    def _step(self, draw: Callable[[torch.Generator], Drawn], generator: torch.Generator) -> None:
        # Running means of a batch that is not finite would stay in the network.
        buffers = [buffer.clone() for buffer in self.network.buffers()]
        rate = self.plan.rate(self.number, self.share)
        for group in self.plan.optimizer.param_groups:
            group["lr"] = rate
        drawn = draw(generator)
        figures = None if drawn is None else self._descend(*drawn)
        if figures is not None:
            self._left_out, self._good = 0, self.number + 1
            if self.average is not None:
                self.average.update_parameters(self.network)
        elif drawn is not None:
            for buffer, kept in zip(self.network.buffers(), buffers, strict=True):
                buffer.copy_(kept)
            self._leave_out()
        self.number += 1
        now = time.monotonic()
        self.seconds += min(now - self._clock, LONGEST_STEP_S)
        self._clock = now
        for key, value in (figures or {}).items():
            self._running.setdefault(key, []).append(value)

    def _descend(self, loss: Tensor, parts: Mapping[str, Tensor | float]) -> dict[str, Tensor | float] | None:
        """One step of the optimizer, and the figures of the log; None, and no step, where something is not finite."""
        self.plan.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        largest = math.inf if self.plan.clip is None else self.plan.clip
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), largest)
        # A GPU is waited for once in a step, here.
        if not bool(torch.isfinite(loss.detach()) & torch.isfinite(norm)):
            return None
        self.plan.optimizer.step()
        return {"loss": loss.detach(), **parts, **({} if self.plan.clip is None else {"gradient": norm})}

    def _leave_out(self) -> None:
        self._left_out += 1
        if self._left_out < MOST_IN_A_ROW:
            return
        kept = f"no step was taken, and {self.output} is as it was"
        if self._good:
            self._save()
            kept = f"{self.output} holds the weights of step {self._good}"
        raise InputError(
            f"Loss or gradient was not finite {self._left_out} times in a row; {kept}. Look for images with extreme "
            "values, or lower 'learning_rate'."
        )

    def _report(self) -> str:
        """Write the means since the last line to the log; what to say about it."""
        if self.number % self.plan.log_every or not self._running:
            return ""
        means = {key: float(sum(values)) / len(values) for key, values in self._running.items()}
        last = float(self._running["loss"][-1])
        rate = {"lr": self.plan.optimizer.param_groups[0]["lr"]} if self.plan.log_rate else {}
        self.record({**rate, **{key: round(value, self.plan.digits) for key, value in means.items()}})
        self._running = {}
        return f"step {self.number}, loss {last:.2f}"

    def _validate(self, event: str) -> dict[str, Any]:
        if self.plan.validate is None:
            return {}
        figures = self.plan.validate(self.result)
        self.record({"event": event, **figures})
        return figures

    def _save(self) -> None:
        meta = {
            "step": self.number,
            "minutes": round(self.seconds / 60, 1),
            "settings": asdict(self.plan.settings),
            "validation": {"before": self.before, "after": self.latest},
        }
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.plan.optimizer.state_dict(),
            "step": self.number,
            "seconds": self.seconds,
            "settings": json.dumps(asdict(self.plan.settings)),
            "before": json.dumps(self.before),
        }
        if self.average is not None:
            state["average"] = self.average.module.state_dict()
        self.plan.save(self.output, self.result, meta)
        _write(self._resume_path, state)
        self._saved = self.seconds

    def _load(self) -> None:
        path = self._resume_path
        if not path.exists():
            raise InputError(f"{path} does not exist; start without --resume first.")
        try:
            saved = read_checkpoint(path)
        except InputError as error:
            raise InputError(f"{error} Without --resume, training starts anew.") from error
        try:
            self.network.load_state_dict(saved["network"])
            self.plan.optimizer.load_state_dict(saved["optimizer"])
            self.number, self.seconds = int(saved["step"]), float(saved["seconds"])
            self._good = self.number
            self.before = json.loads(saved.get("before", "{}"))
            if self.average is not None:
                self.average.module.load_state_dict(saved["average"])
                self.average.n_averaged.fill_(self.number + 1)
        except (AttributeError, KeyError, TypeError, RuntimeError, ValueError) as error:
            raise InputError(
                f"{path} does not fit this configuration or is damaged; start without --resume."
            ) from error


def _write(path: Path, content: dict[str, Any]) -> None:
    broken = not_finite(content)
    if broken is not None:
        raise InputError(
            f"{path} was not written, its weights are not finite ({broken}); lower 'learning_rate' and start again."
        )
    with replaced(path) as temporary:
        torch.save(content, temporary)
