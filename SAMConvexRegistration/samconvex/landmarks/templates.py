"""Landmark templates kept for years: a folder with points, their embedding and, on request, where the image lies.

    template.json     name, description, points (LPS mm), checksum of the embedding, reference to the image
    embedding.npz     8-bit embedding; enough to find the points in other images, no image can be seen in it
    points.mrk.json   the points, for Slicer and other programs

Everything is checked on loading; nothing is unpickled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..anatomy.cache import embed_cached
from ..anatomy.embedding import SamEmbedding
from ..errors import InputError, refusing
from ..io.files import file_sha256
from ..io.images import read_volume
from ..io.outputs import output_folder
from ..io.points import PointSet, write_points
from ..progress import Progress
from ..space.grid import grid_of, plain_grid
from ..space.volume import FeatureMap, Volume
from ..version import __version__
from ..weights.models import SamModel

DESCRIPTION_FILE = "template.json"
EMBEDDING_FILE = "embedding.npz"
POINTS_FILE = "points.mrk.json"
FORMAT = 1
# Embeddings of whole bodies stay far below this; it keeps a wrong file from filling memory.
LARGEST_EMBEDDING_BYTES = 2 << 30
_PARTS = ("fine", "coarse")


@dataclass(frozen=True)
class Template:
    """A template as it was saved.

    Attributes:
        points: the landmarks, LPS mm.
        image: path of the image they were placed in, or None where only the embedding was kept.
    """

    name: str
    description: str
    points: PointSet
    embedding: SamEmbedding
    image: Path | None
    folder: Path


def is_template(path: str | os.PathLike) -> bool:
    """True where a folder holds a saved template."""
    return os.path.isfile(os.path.join(path, DESCRIPTION_FILE))


def save_template(
    folder: str | os.PathLike,
    name: str,
    points: PointSet,
    embedding: SamEmbedding,
    *,
    description: str = "",
    image: str | os.PathLike | None = None,
    overwrite: bool = False,
) -> None:
    """Write a template folder, all files at once.

    Args:
        image: file that the template was made from; its path and checksum are kept, never its content.

    Raises:
        InputError: no points, or a point outside the image; a folder in use. ResourceError: the disk refused.
    """
    known = points.positions[points.defined]
    if not len(known):
        raise InputError(f"The template {name} has no point with a position; place at least one.")
    outside = ~embedding.grid.contains(known)
    if outside.any():
        raise InputError(f"Point {int(np.argmax(outside)) + 1} of {len(known)} lies outside the template volume.")
    with output_folder(folder, overwrite=overwrite) as staging:
        content: dict[str, np.ndarray] = {"body": np.packbits(embedding.body.cpu().numpy())}
        for part in _PARTS:
            vectors, scale = _quantized(getattr(embedding, part).tensor.cpu())
            content[part], content[f"{part}_scale"] = vectors.numpy(), scale.numpy()
        np.savez_compressed(staging / EMBEDDING_FILE, allow_pickle=False, **content)
        write_points(points, staging / POINTS_FILE)
        values = {
            "format": FORMAT,
            "version": __version__,
            "name": name,
            "description": description,
            "points": [
                {"label": label, "position": [round(float(v), 4) for v in position]}
                for label, position in zip(points.labels, points.positions, strict=True)
                if np.isfinite(position).all()
            ],
            "network": embedding.network,
            "calibration": embedding.calibration,
            "grids": {
                "volume": plain_grid(embedding.grid),
                **{part: plain_grid(getattr(embedding, part).grid) for part in _PARTS},
            },
            "embedding_sha256": file_sha256(staging / EMBEDDING_FILE),
            "image": None if image is None else {"path": str(image), "sha256": file_sha256(Path(image))},
        }
        text = json.dumps(values, indent=2, allow_nan=False) + "\n"
        (staging / DESCRIPTION_FILE).write_text(text, encoding="utf-8")


def _quantized(vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(1, C, D, H, W) as int8 with one scale per voxel; cosines change by less than 0.001."""
    scale = vectors.float().abs().amax(1, keepdim=True).clamp_(min=1e-6) / 127
    return (vectors.float() / scale).round_().to(torch.int8), scale.half()


def load_template(folder: str | os.PathLike, device: torch.device | str = "cpu") -> Template:
    """Read a template folder.

    Raises:
        InputError: a file is missing, damaged or from a newer version.
    """
    path = Path(folder)
    values = _read_description(path)
    where = path / EMBEDDING_FILE
    if not where.is_file() or where.stat().st_size > LARGEST_EMBEDDING_BYTES:
        raise InputError(f"{where} is missing or far too large; copy the template folder again.")
    if file_sha256(where) != values["embedding_sha256"]:
        raise InputError(f"{where} is damaged (checksum); copy the template folder again.")
    with refusing(f"{path} is no usable template; save it again."):
        grids = {name: grid_of(grid) for name, grid in values["grids"].items()}
        with np.load(where, allow_pickle=False) as content:
            maps = {}
            for part in _PARTS:
                vectors = torch.from_numpy(content[part]).float()
                vectors *= torch.from_numpy(content[f"{part}_scale"]).float()
                if tuple(vectors.shape[2:]) != grids[part].shape:
                    raise ValueError(part)
                maps[part] = FeatureMap(vectors.half().to(device), grids[part])
            fine = grids["fine"]
            body = np.unpackbits(content["body"], count=fine.voxel_count).reshape(fine.shape).astype(bool)
        points = PointSet(
            np.array([point["position"] for point in values["points"]], dtype=float).reshape(-1, 3),
            tuple(str(point["label"]) for point in values["points"]),
            source=str(path),
        )
        calibration = {str(key): float(value) for key, value in values["calibration"].items()}
        embedding = SamEmbedding(
            maps["fine"],
            maps["coarse"],
            torch.from_numpy(body).to(device),
            str(values["network"]),
            grids["volume"],
            calibration,
        )
    image = values.get("image")
    return Template(
        str(values.get("name", path.name)),
        str(values.get("description", "")),
        points,
        embedding,
        Path(image["path"]) if isinstance(image, dict) and image.get("path") else None,
        path,
    )


def template_embedding(
    source: str | os.PathLike, model: SamModel, *, device: torch.device | str = "cpu", progress: Progress | None = None
) -> SamEmbedding | Volume:
    """A template for :func:`samconvex.landmarks.matching.match_points`: an image, or a template folder's embedding.

    A template that another network embedded is embedded again from its image, if that is still where it was.

    Raises:
        InputError: as load_template and read_volume; or another network's embedding without its image.
    """
    if not is_template(source):
        return read_volume(source, slices=True)
    template = load_template(source, device)
    # X-ray images have a network of their own; matching checks that the query's is the same.
    if template.embedding.network == model.sha256 or template.embedding.grid.size[2] == 1:
        return template.embedding
    if template.image is None or not template.image.is_file():
        raise InputError(
            f"{source} was embedded by another network and its image is not at hand; make the template again, or "
            "match with the weights it was made with (--weights)."
        )
    return embed_cached(read_volume(template.image, slices=True), model, device=device, progress=progress)


def nearest_to_mean(embeddings: Sequence[SamEmbedding], points: Sequence[np.ndarray]) -> int:
    """Which of several templates of the same landmarks is most usual: the best to find them in others from.

    Its descriptors are on average most alike to the mean of all templates' descriptors (Yan et al., 2022, section IV).

    Args:
        embeddings: of one network, at least one.
        points: (N, 3) LPS mm in each template, the same landmarks in the same order.

    Raises:
        InputError: other numbers of points, or several networks.
    """
    if len({len(one) for one in points}) != 1 or len(points) != len(embeddings):
        raise InputError("Every template needs the same landmarks; leave out those that lack some.")
    if len({embedding.network for embedding in embeddings}) != 1:
        raise InputError("The templates were embedded by different networks; embed them again by one.")
    vectors = torch.stack([e.descriptors(p).float().cpu() for e, p in zip(embeddings, points, strict=True)])
    mean = torch.nn.functional.normalize(vectors.mean(0), dim=-1)
    return int((vectors * mean).sum(-1).mean(1).argmax())


def _read_description(path: Path) -> dict[str, Any]:
    where = path / DESCRIPTION_FILE
    with refusing(f"{where} is missing or no template description; save the template again."):
        values = json.loads(where.read_text(encoding="utf-8"))
        version, checksum = int(values["format"]), str(values["embedding_sha256"])
    if version > FORMAT:
        raise InputError(f"{where} was written by a newer version; update this software.")
    return {**values, "embedding_sha256": checksum}
