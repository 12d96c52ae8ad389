"""A process that keeps embeddings and answers at once where a point lies in another volume.

    python -m samconvex.landmarks.live [--threads N] [--device NAME]

One JSON object per line in each direction. Requests carry an ``id`` that their answer repeats:

    {"id": 1, "do": "load", "name": "A", "path": "a.mha"}           volume, or a template folder
    {"id": 2, "do": "match", "from": "A", "to": "B", "point": [x, y, z], "minimum_score": null}
    {"id": 3, "do": "similarity", "from": "A", "to": "B", "point": [x, y, z], "path": "map.npy"}
    {"id": 4, "do": "forget", "name": "A"}

Answers hold ``"done": true`` and what was asked for, ``"skipped": true`` where a newer request of the same kind was
already waiting (the latest wins), or ``"error"`` with one sentence; loading reports ``stage`` and ``fraction`` before.
Points are LPS mm. The process ends with its input.
"""

from __future__ import annotations

import argparse
import json
import queue
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch

from ..anatomy.cache import embed_cached
from ..anatomy.embedding import SamEmbedding
from ..device import chosen_device
from ..errors import SamConvexError
from ..space.grid import plain_grid
from ..weights.models import load_sam
from .matching import match_points
from .templates import template_embedding

# Only the newest of these counts: the pointer has moved on.
_SUPERSEDED = ("match", "similarity")


class LiveMatcher:
    """Named embeddings and the requests about them.

    Args:
        weights: name or file of the network; None is the shipped one.
    """

    def __init__(self, weights: str | None = None, device: str = "cpu") -> None:
        self._model = load_sam(weights)
        self._device = device
        self._embeddings: dict[str, SamEmbedding] = {}
        self._threads = torch.get_num_threads()

    def answer(self, request: dict[str, Any], report: Any = None) -> dict[str, Any]:
        """What a request gives back; see the module.

        Raises:
            SamConvexError: unusable volume, point or name. KeyError, TypeError, ValueError: a request that is none.
        """
        action = {
            "load": self._load,
            "match": self._match,
            "similarity": self._similarity,
            "forget": self._forget,
        }[request["do"]]
        return action(request, report)

    def _load(self, request: dict[str, Any], report: Any) -> dict[str, Any]:
        source = template_embedding(request["path"], self._model, device=self._device, progress=report)
        if not isinstance(source, SamEmbedding):
            source = embed_cached(source, self._model, device=self._device, progress=report)
        # What searching needs is made now, not at the first question: vectors, and the affine map to the others.
        voxels = len(source.search.voxels)
        for other in self._embeddings.values():
            for first, second in ((source, other), (other, source)):
                if first.network == second.network:
                    match_points(first, first.grid.center[None], second, mode="live")
        self._embeddings[request["name"]] = source
        return {"voxels": voxels, "search_grid": plain_grid(source.fine.grid)}

    def _match(self, request: dict[str, Any], report: Any) -> dict[str, Any]:
        # One point is too little work to share: threads would wait for each other longer than they compute.
        torch.set_num_threads(1)
        try:
            matches = match_points(
                self._embeddings[request["from"]],
                np.array([request["point"]], dtype=float),
                self._embeddings[request["to"]],
                mode="live",
                min_score=request.get("minimum_score"),
            )
        finally:
            torch.set_num_threads(self._threads)
        return {
            "point": [round(float(value), 3) for value in matches.points[0]],
            "score": round(float(matches.score[0]), 4),
            "cycle_mm": round(float(matches.cycle_mm[0]), 2),
            "found": bool(matches.found[0]),
            "state": matches.state[0],
        }

    def _similarity(self, request: dict[str, Any], report: Any) -> dict[str, Any]:
        query = self._embeddings[request["to"]]
        point = np.array([request["point"]], dtype=float)
        np.save(request["path"], similarity_map(self._embeddings[request["from"]], point, query), allow_pickle=False)
        return {"path": request["path"], "grid": plain_grid(query.fine.grid)}

    def _forget(self, request: dict[str, Any], report: Any) -> dict[str, Any]:
        self._embeddings.pop(request["name"], None)
        return {}


def similarity_map(template: SamEmbedding, point: np.ndarray, query: SamEmbedding) -> np.ndarray:
    """uint8 (d, h, w) on the query's fine grid: 100 times the cosine with the point's descriptor, 0 outside the body.

    Args:
        point: (1, 3) LPS mm in the template.
    """
    index = query.search
    scores = index.vectors @ template.descriptors(point)[0].to(index.vectors)
    dense = torch.zeros(index.dense.numel(), dtype=torch.uint8, device=scores.device)
    dense[index.voxels] = (scores.float().clamp(0, 1) * 100).round().to(torch.uint8)
    return dense.view(index.dense.shape).cpu().numpy()


def serve(matcher: LiveMatcher, source: TextIO, target: TextIO) -> None:
    """Answer requests until ``source`` ends."""
    waiting: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in source:
            waiting.put(line)
        waiting.put(None)

    threading.Thread(target=read, daemon=True).start()

    def say(values: dict[str, Any]) -> None:
        target.write(json.dumps(values) + "\n")
        target.flush()

    pending: list[dict[str, Any]] = []
    say({"ready": True})
    while True:
        while not pending or not waiting.empty():
            line = waiting.get()
            if line is None:
                return
            try:
                pending.append(dict(json.loads(line)))
            except (ValueError, TypeError):
                say({"error": "A request is one JSON object per line."})
        request = pending.pop(0)
        number = request.get("id")
        if request.get("do") in _SUPERSEDED and any(later.get("do") == request["do"] for later in pending):
            say({"id": number, "skipped": True})
            continue

        def report(stage: str, fraction: float, message: str = "", number: Any = number) -> None:
            say({"id": number, "stage": stage, "fraction": round(fraction, 3)})

        try:
            say({"id": number, "done": True, **matcher.answer(request, report)})
        except SamConvexError as error:
            say({"id": number, "error": str(error)})
        except (KeyError, TypeError, ValueError) as error:
            say({"id": number, "error": f"The request cannot be answered ({type(error).__name__}: {error})."})


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve standard input and output."""
    parser = argparse.ArgumentParser(prog="python -m samconvex.landmarks.live")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all cores)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--weights")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    device = str(chosen_device(options.device))
    weights = None if options.weights is None else str(Path(options.weights))
    serve(LiveMatcher(weights, device), sys.stdin, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
