"""What a SAM training run is made of; a JSON file with the same names overrides the defaults."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ...errors import InputError, refusing

OPTIMIZERS = ("adamw", "radam")


@dataclass
class SamSettings:
    """Recipe of the compact anatomical embedding.

    Attributes:
        dimension: 3 for CT, 2 for X-ray images, which are computed from the CTs (see radiographs.py).
        include, exclude: patterns of relative paths to take and of case names never to touch.
        validation: case names held out; each is matched into the next during training.
        group_shares: share of unlabeled steps per folder; empty weighs all cases alike.
        label_groups: folders whose labels mean the same across cases; empty means every folder.
        tubular: label values whose ends are arbitrary (spinal cord, esophagus), for every folder or folder by folder.
        label_share: share of steps whose two cases are compared through their labels.
        shapes: view sizes in voxels (z, y, x), multiples of 16.
        view_shift: how far, in view sizes, the two views of a case move apart.
        scale, rotation_deg, elastic_voxels, cut_probability, intensity: augmentation; see views.py and augmentation.py.
        radiographs: per CT, each from the front and from the side. same_share: share of steps that compare two of them.
        mask_probability: how often everything outside the body becomes air.
        window: Hounsfield units that half of the views are cut to, so that a cut set of cases looks like the others;
            empty: none. windowed: folders whose grey values were cut to it; half of their views get bone and lung back.
        candidates, queries, label_points: points per case, positives per case, labeled positives.
        ignore_mm: neighbors of a positive closer than this are no negatives.
        others: negatives from the other volume.
        temperature, hard, diverse: of InfoNCE, negatives that look most alike and random ones (the paper's n_neg and
            n_rand). combined_weight: of the term that compares both maps at once, which the paper does not have.
        optimizer: "adamw", or "radam" as published, without weight decay.
        average: decay of the averaged (EMA) weights that are written.
        workers: processes that prepare batches in advance; 0 prepares them between steps.
    """

    dimension: int = 3
    include: list[str] = field(default_factory=list)
    exclude: list[str] = field(default_factory=list)
    validation: list[str] = field(default_factory=list)
    group_shares: dict[str, float] = field(default_factory=dict)
    label_groups: list[str] = field(default_factory=list)
    tubular: list[int] | dict[str, list[int]] = field(default_factory=list)
    label_share: float = 0.6
    radiographs: int = 3
    same_share: float = 0.4
    spacing_mm: float = 2.0
    widths: list[int] = field(default_factory=lambda: [32, 64, 96, 96])
    blocks: list[int] = field(default_factory=lambda: [1, 2, 2, 2])
    fine_channels: int = 64
    coarse_channels: int = 64
    shapes: list[tuple[int, int, int]] = field(
        default_factory=lambda: [(80, 96, 96), (64, 96, 128), (96, 96, 96), (64, 112, 112)]
    )
    view_shift: float = 0.5
    scale: tuple[float, float] = (0.8, 1.25)
    rotation_deg: float = 20.0
    elastic_voxels: float = 3.0
    cut_probability: float = 0.3
    intensity: float = 1.0
    mask_probability: float = 0.6
    window: list[float] = field(default_factory=list)
    windowed: list[str] = field(default_factory=list)
    candidates: int = 1200
    queries: int = 160
    label_points: int = 120
    ignore_mm: float = 6.0
    others: int = 256
    temperature: float = 0.1
    hard: int = 200
    diverse: int = 300
    combined_weight: float = 1.0
    label_weight: float = 1.0
    optimizer: str = "adamw"
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.02
    warmup_steps: int = 150
    clip: float = 3.0
    average: float = 0.998
    bfloat16: bool = True
    workers: int = 1
    threads: int = 2
    seed: int = 0
    validate_every_s: float = 300.0
    save_every_s: float = 180.0

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> SamSettings:
        """Settings with some fields replaced.

        Raises:
            InputError: an unknown name or optimizer, or view sizes that the network cannot take.
        """
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise InputError(f"unknown training settings {', '.join(unknown)}; known are {', '.join(sorted(known))}.")
        settings = cls(**values)
        settings.shapes = [(int(d), int(h), int(w)) for d, h, w in settings.shapes]
        settings.scale = (float(settings.scale[0]), float(settings.scale[1]))
        if settings.dimension not in (2, 3):
            raise InputError("'dimension' must be 2 (X-ray) or 3 (CT).")
        if settings.dimension == 2:
            settings.shapes = [(1, h, w) for _, h, w in settings.shapes]
        if any(n % 16 for shape in settings.shapes for n in shape if n != 1):
            raise InputError("view sizes ('shapes') must be multiples of 16.")
        if settings.optimizer not in OPTIMIZERS:
            raise InputError(f"'optimizer' must be one of: {', '.join(OPTIMIZERS)}.")
        if len(settings.window) not in (0, 2):
            raise InputError("'window' must be two Hounsfield units, lower and upper.")
        return settings

    @classmethod
    def from_file(cls, path: Path) -> SamSettings:
        """Settings from a JSON file.

        Raises:
            InputError: missing or not a JSON object of known names.
        """
        with refusing(f"{path} is not a readable JSON file; correct it."):
            values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise InputError(f"{path} must hold one JSON object of training settings.")
        with refusing(f"{path} holds values that training settings cannot have; correct them."):
            return cls.from_dict(values)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)
