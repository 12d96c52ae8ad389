"""Two images that belong together."""

from __future__ import annotations

from dataclasses import dataclass

from ..space.volume import Volume


@dataclass(frozen=True)
class Pair:
    """Two images and their masks (None: none was given)."""

    fixed: Volume
    moving: Volume
    fixed_mask: Volume | None = None
    moving_mask: Volume | None = None

    def exchanged(self) -> Pair:
        return Pair(self.moving, self.fixed, self.moving_mask, self.fixed_mask)
