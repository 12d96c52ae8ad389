"""What the rows ask of one image alone, whatever its partners: found once, before the first row that needs it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..anatomy.cache import embed_cached
from ..anatomy.organs import organ_probabilities
from ..device import chosen_device
from ..errors import InputError, ResourceError
from ..io.images import read_volume
from ..landmarks.templates import is_template
from ..registration.features import not_for
from ..registration.magnify import Magnification
from ..registration.options import networks_used
from ..registration.prepare import as_worked_on
from ..settings.registration import Settings
from ..weights.models import load_sam, load_semantic, weights_for
from .commands import REGISTER, Row, options_of


@dataclass(frozen=True)
class Ahead:
    """What to find of an image.

    Attributes:
        settings: of the registrations that will ask; None for matching and tracking, which embed the image as it is.
        weights, device: of the rows.
    """

    path: str
    settings: Settings | None
    weights: str | None
    device: str


def wanted(rows: Iterable[Row], contents: Mapping[str, str]) -> list[Ahead]:
    """What at least two rows will ask for.

    Args:
        contents: checksums by path; copies of a file count as one.
    """
    asked: Counter[tuple[str, Settings | None, str | None, str]] = Counter()
    places: dict[tuple[str, Settings | None, str | None, str], Ahead] = {}
    for row in rows:
        for path, settings in _asks(row):
            weights, device = row.values.get("weights"), str(row.values.get("device", "auto"))
            key = (contents.get(path, path), settings, weights, device)
            asked[key] += 1
            places.setdefault(key, Ahead(path, settings, weights, device))
    return [places[key] for key, count in asked.items() if count > 1]


def _asks(row: Row) -> list[tuple[str, Settings | None]]:
    if row.command == REGISTER:
        # A start moves the image before it is embedded.
        if row.values.get("initial_transform"):
            return []
        settings = options_of(row).settings()
        if not networks_used(settings) & {"sam", "semantic"}:
            return []
        return [(path, settings) for _, kind, path in row.files() if kind == "image"]
    images = [path for _, kind, path in row.files() if kind in ("image", "slice", "template")]
    return [(path, None) for path in images if not is_template(path)] if row.command in ("match", "track") else []


def find_ahead(ahead: Ahead) -> None:
    """Find embedding and organs and leave them where the rows will look; what cannot be found, the rows will tell."""
    try:
        image = read_volume(ahead.path, slices=ahead.settings is None)
        device = chosen_device(ahead.device)
        model = load_sam(weights_for("sam", ahead.weights))
        if ahead.settings is None:
            embed_cached(image, model, device=device)
            return
        if Magnification.of(image, image).factor != 1.0 or not_for(model, image, image) is not None:
            return
        used, work = networks_used(ahead.settings), as_worked_on(image, ahead.settings)
        if "sam" in used:
            embed_cached(work, model, device=device)
        if "semantic" in used:
            organ_probabilities(work, load_semantic(weights_for("semantic", ahead.weights)), device=device)
    except (InputError, ResourceError):
        pass
