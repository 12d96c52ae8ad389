"""Pictures of documents, drawn where matplotlib is: in the peers' environment."""

from __future__ import annotations

import subprocess
from pathlib import Path

from ..methods.runs import PEERS_ENVIRONMENT, peers_python
from .plot import DRAWINGS


def pictures_of(suite: str) -> list[str]:
    """Names of a suite's pictures, without ending: the first is called like the suite."""
    return [name for name in DRAWINGS if name == suite or name.startswith(f"{suite}-")]


def draw(document: Path) -> None:
    """The pictures of a suite's document beside it, by matplotlib in the peers' environment; none without that."""
    if PEERS_ENVIRONMENT.exists():
        for name in pictures_of(document.stem):
            words = [str(Path(__file__).with_name("plot.py")), str(document), str(document.with_name(f"{name}.png"))]
            subprocess.run([str(peers_python()), *words], check=False)
