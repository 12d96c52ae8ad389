"""What the stages of one registration share: settings, device, progress, clock and warnings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from ..device import or_on_cpu
from ..progress import Clock, Progress
from ..settings.registration import Settings
from .options import Options

T = TypeVar("T")


@dataclass
class Run:
    """A registration under way.

    Attributes:
        options: what was asked.
        settings: what is done: the options' settings, made smaller where memory is short, less the features that the
            images do not have.
        device: where it computes; the CPU once the memory of the GPU has run out.
        progress: told what is going on; raises Cancelled.
        warnings: sentences for the user, in the order in which they arose.
        clock: seconds of every stage.
        coarse: what became of a first step by matched points, for the report.
        tell: called with a sentence that should not wait for the report.
    """

    options: Options
    settings: Settings
    device: torch.device
    progress: Progress
    warnings: list[str]
    clock: Clock = field(default_factory=Clock)
    coarse: dict[str, Any] = field(default_factory=dict)
    tell: Callable[[str], None] = lambda sentence: None

    def computed(self, work: Callable[[torch.device], T]) -> T:
        """What ``work(device)`` gives, on the CPU from now on where the memory of the GPU does not suffice."""
        result, self.device = or_on_cpu(work, self.device, self.warnings)
        return result
