"""Pictures of documents, drawn where matplotlib is: in the peers' environment."""

from __future__ import annotations

import subprocess
from pathlib import Path

from ..methods.runs import PEERS_ENVIRONMENT, peers_python


def draw(document: Path) -> None:
    """The picture of a suite's document beside it, by matplotlib in the peers' environment; none without that."""
    if PEERS_ENVIRONMENT.exists():
        words = [str(Path(__file__).with_name("plot.py")), str(document), str(document.with_suffix(".png"))]
        subprocess.run([str(peers_python()), *words], check=False)
