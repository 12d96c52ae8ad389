"""Optimization steps that cannot spoil a network: what is not finite is left out, and never written or read."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError, refusing
from ..weights.checkpoints import check_finite, read_checkpoint

# A rare unlucky draw comes alone; what fails this often in a row will go on failing.
MOST_IN_A_ROW = 5


class Steps:
    """Takes optimizer steps; a loss or gradient that is not finite leaves the network as it was.

    Args:
        clip: the gradient's norm is limited to this.
    """

    def __init__(self, network: nn.Module, optimizer: torch.optim.Optimizer, clip: float = math.inf) -> None:
        self.network, self.optimizer, self.clip = network, optimizer, clip
        self.left_out = self._in_a_row = 0
        self._statistics = self._copied()

    def take(self, loss: Tensor) -> float | None:
        """One step down ``loss``; returns the gradient's norm, or None where the step was left out.

        Raises:
            InputError: several in a row had to be left out.
        """
        if bool(torch.isfinite(loss)):
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            norm = float(torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.clip))
            if math.isfinite(norm):
                self.optimizer.step()
                self._in_a_row, self._statistics = 0, self._copied()
                return norm
        # The forward pass has already averaged its numbers into the normalization layers.
        for name, buffer in self.network.named_buffers():
            buffer.copy_(self._statistics[name])
        self.left_out += 1
        self._in_a_row += 1
        if self._in_a_row >= MOST_IN_A_ROW:
            raise InputError(
                f"Training stopped: loss or gradient was not finite in {MOST_IN_A_ROW} steps in a row; lower "
                "learning_rate in --config and look for images with extreme values. The weights saved last are kept."
            )
        return None

    def _copied(self) -> dict[str, Tensor]:
        return {name: buffer.detach().clone() for name, buffer in self.network.named_buffers()}


def check_before_saving(tensors: dict[str, Tensor], path: Path) -> None:
    """Raise InputError, before anything is written, where a tensor holds what is not finite."""
    if not all(bool(torch.isfinite(value).all()) for value in tensors.values() if value.is_floating_point()):
        raise InputError(
            f"{path} was not written: the weights are no longer finite numbers; lower learning_rate in --config."
        )


def restore(path: Path, read: Callable[[Any], None], *networks: nn.Module) -> None:
    """Call ``read`` with the content of a resume file, and check the networks that it filled.

    Raises:
        InputError: missing, damaged or of another configuration, or weights that are not finite.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist; start without --resume first.")
    with refusing(f"{path} does not fit this configuration or is damaged; start without --resume."):
        read(read_checkpoint(path))
    for network in networks:
        check_finite(network, path)
