"""The rows of the ablation table: a preset, and the same with one ingredient taken away or changed.

To add a row, add a (name, Settings) to :func:`variants`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from samconvex.settings.presets import PRESETS
from samconvex.settings.registration import Level, Settings, with_overrides
from samconvex.settings.strength import adjusted

# The families of features: a name's part before the hyphen.
FAMILIES = ("sam", "mind", "semantic", "hu")
PAPER = "paper"


def variants(base: Settings) -> list[tuple[str, Settings]]:
    """``base`` first, then every change of it; rows that would repeat an earlier one are left out."""
    rows = [("preset", base), ("affine only", base.linear_part)]
    without = {family: with_features(base, lambda name, own=family: family_of(name) != own) for family in FAMILIES}
    without["semantic"] = without_organs(base)
    rows += [(f"without {family}", settings) for family, settings in without.items()]
    for family in FAMILIES:
        rows.append((f"{family} alone", with_features(base, lambda name, family=family: family_of(name) == family)))
    rows += [
        ("embeddings: fine part", _renamed(base, {"sam": "sam-fine"})),
        ("embeddings: coarse part", _renamed(base, {"sam": "sam-coarse"})),
        ("equal weights of features", _levels(base, lambda level: replace(level, weights=()))),
    ]
    for number, level in enumerate(base.levels):
        if len(base.levels) > 1:
            left = base.levels[:number] + base.levels[number + 1 :]
            rows.append((f"without the {level.spacing:g} mm level", replace(base, levels=left)))
    rows += [
        ("radii - 1", _levels(base, lambda level: replace(level, radius=max(1, level.radius - 1)))),
        ("radii + 1", _levels(base, lambda level: replace(level, radius=level.radius + 1))),
        ("coupling / 3", replace(base, coupling=base.coupling / 3)),
        ("coupling x 3", replace(base, coupling=base.coupling * 3)),
        ("without Adam", replace(base, refine="none")),
        ("with Adam", replace(base, refine="adam")),
        ("without semantic, with Adam", replace(without["semantic"], refine="adam")),
        ("both directions" if not base.symmetric else "one direction", replace(base, symmetric=not base.symmetric)),
        ("levels in one direction", _levels(base, lambda level: replace(level, consistent=False))),
        ("folds left", replace(base, fold_free=False)),
        ("affine by embeddings alone", replace(base, polish_affine="")),
        ("learning-free affine", with_overrides(base, affine="moments")),
    ]
    best = adjusted(base, quality="best")
    if base.coarse != "none":
        rows.append(("without SAM-coarse", replace(base, coarse="none")))
    rows.append(("best quality", best))
    rows.append(("best quality, without semantic", without_organs(best)))
    rows += paper_rows()
    kept: dict[str, Settings] = {}
    for name, settings in rows:
        # The name and description of a preset decide nothing.
        plain = replace(settings, name="", description="")
        if plain not in [replace(other, name="", description="") for other in kept.values()]:
            kept[name] = settings
    return list(kept.items())


def without_organs(base: Settings) -> Settings:
    """No level compares organ probabilities, and they have no part in the start either."""
    return replace(with_features(base, lambda name: family_of(name) != "semantic"), polish_affine="")


def paper_rows() -> list[tuple[str, Settings]]:
    """SAMConvex's own settings and pyramid designs (Li et al., MICCAI 2023, Tables 2 and 3), in kind."""
    base = PRESETS[PAPER]
    rows = [("paper", replace(base, refine="none")), ("paper + Adam", replace(base, refine="adam"))]
    for radii in ((3,), (6,), (3, 3)):
        levels = tuple(replace(level, radius=r) for level, r in zip(base.levels[-len(radii) :], radii, strict=True))
        name = ",".join(map(str, radii))
        rows.append((f"paper, N=[{name}]", replace(base, levels=levels, refine="none")))
    rows.append(("paper + Adam, learning-free affine", with_overrides(base, affine="moments", refine="adam")))
    return rows


def family_of(feature: str) -> str:
    """ "sam-fine" -> "sam"."""
    return feature.split("-")[0]


def with_features(base: Settings, keep: Callable[[str], bool]) -> Settings:
    """Every level with the features that ``keep`` accepts; a level left without any gets those of its neighbors.

    Without embeddings there is no first step by them. ``base`` itself where no level has a feature to keep.
    """
    left = [
        [(name, weight) for name, weight in zip(level.features, _weights(level), strict=True) if keep(name)]
        for level in base.levels
    ]
    if not any(left):
        return base
    levels = []
    for number, level in enumerate(base.levels):
        _, nearest = min((abs(number - other), other) for other in range(len(left)) if left[other])
        names, weights = zip(*left[nearest], strict=True)
        levels.append(replace(level, features=names, weights=() if set(weights) == {1.0} else weights))
    return replace(base, levels=tuple(levels), coarse=base.coarse if keep("sam") else "none")


def _weights(level: Level) -> tuple[float, ...]:
    return level.weights or (1.0,) * len(level.features)


def _renamed(base: Settings, names: dict[str, str]) -> Settings:
    return _levels(base, lambda level: replace(level, features=tuple(names.get(name, name) for name in level.features)))


def _levels(base: Settings, change: Callable[[Level], Level]) -> Settings:
    return replace(base, levels=tuple(change(level) for level in base.levels))
