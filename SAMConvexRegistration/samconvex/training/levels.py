"""The reference of body levels (``train levels``): places of embedded bodies whose level is known.

No network is trained: the shipped embeddings of bodies whose place along a reference body the configuration tells are
sampled, shortened to what tells them apart, and written as whole numbers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..align.pairs import body_points
from ..anatomy.cache import embed_cached
from ..anatomy.level import REFERENCE_FORMAT, REFERENCE_VERSION, UNKNOWN_MM
from ..errors import InputError, SamConvexError
from ..io.files import replaced
from ..io.images import read_volume
from ..weights.models import load_sam
from .data.cases import case_name, find_cases

LOGGER = logging.getLogger(__name__)


@dataclass
class LevelSettings:
    """How the reference is built.

    Attributes:
        include, exclude: patterns of relative paths to take and of case names never to touch.
        levels: case -> (offset, slope): level of a point = offset - slope * z, mm below the vertex of the reference
            body; z in LPS mm of the file. Cases without are left out.
        limbs: folders whose images show one limb, where the middle of the body is not known.
        lattice_mm: spacing of the places that are looked at.
        places: how many of each case are kept.
        length: of the shortened descriptors.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    levels: dict[str, tuple[float, float]] = field(default_factory=dict)
    limbs: tuple[str, ...] = ("mrct",)
    lattice_mm: float = 10.0
    places: int = 250
    length: int = 64
    seed: int = 0
    threads: int = 1


@dataclass(frozen=True)
class PlacedCase:
    """Places of one body.

    Attributes:
        points: (N, 3) LPS mm.
        vectors: (N, C) descriptors.
        levels, lateral, dorsal: (N,) mm, see :class:`samconvex.anatomy.level.BodyReference`.
        network: sha256 of the weights.
    """

    name: str
    points: np.ndarray
    vectors: torch.Tensor
    levels: np.ndarray
    lateral: np.ndarray
    dorsal: np.ndarray
    network: str


def collect(data: Path, settings: LevelSettings, progress: Callable[[str, float, str], None]) -> list[PlacedCase]:
    """The places of every case that has a level; unusable images are left out with a log line.

    Raises:
        InputError: nothing usable.
    """
    model = load_sam()
    cases = []
    found = find_cases(data, list(settings.include), list(settings.exclude))
    for number, (path, _) in enumerate(found):
        name = case_name(path)
        progress("data", number / len(found), path.name)
        if name not in settings.levels:
            continue
        try:
            embedding = embed_cached(read_volume(path), model)
        except SamConvexError as error:
            LOGGER.warning("left out: %s", error)
            continue
        points = body_points(embedding, settings.lattice_mm, limit=600)
        offset, slope = settings.levels[name]
        lateral = points[:, 0] - points[:, 0].mean()
        if path.parent.name in settings.limbs:
            lateral = np.full(len(points), UNKNOWN_MM)
        levels, dorsal = offset - slope * points[:, 2], points[:, 1] - points[:, 1].mean()
        vectors = embedding.descriptors(points)
        cases.append(PlacedCase(name, points, vectors, levels, lateral, dorsal, embedding.network))
    if not cases:
        raise InputError(f"{data} holds no CT that the configuration gives a level; look at its 'levels'.")
    return cases


def content(cases: Sequence[PlacedCase], settings: LevelSettings) -> dict[str, Any]:
    """What the file of a reference holds."""
    generator = np.random.default_rng(settings.seed)
    rows = [generator.choice(len(c.points), min(settings.places, len(c.points)), replace=False) for c in cases]
    vectors = torch.cat([case.vectors[row].float() for case, row in zip(cases, rows, strict=True)])
    # The directions in which places differ; dot products are all that is asked of descriptors.
    basis = torch.linalg.svd(vectors[::4], full_matrices=False).Vh[: settings.length].T.contiguous()
    short = torch.nn.functional.normalize(vectors @ basis, dim=1)
    scale = short.abs().amax(1, keepdim=True) / 127
    places = torch.from_numpy(
        np.stack(
            [
                np.concatenate([getattr(case, name)[row] for case, row in zip(cases, rows, strict=True)])
                for name in ("lateral", "dorsal", "levels")
            ],
            1,
        )
    )
    return {
        "format": REFERENCE_FORMAT,
        "version": REFERENCE_VERSION,
        "network": cases[0].network,
        "basis": basis.half(),
        "vectors": (short / scale).round().to(torch.int8),
        "places": places.half(),
        "meta": {"cases": [case.name for case in cases], "lattice_mm": settings.lattice_mm, "seed": settings.seed},
    }


def build(
    data: Path, output: Path, *, settings: LevelSettings, progress: Callable[[str, float, str], None]
) -> dict[str, int]:
    """Build the reference and write it at once; returns how many cases and places it has.

    Raises:
        InputError: no usable data. Cancelled: by ``progress``; nothing is written.
    """
    torch.set_num_threads(max(1, settings.threads))
    made = content(collect(data, settings, progress), settings)
    output.parent.mkdir(parents=True, exist_ok=True)
    with replaced(output) as temporary:
        torch.save(made, temporary)
    return {"cases": len(made["meta"]["cases"]), "places": len(made["places"])}
