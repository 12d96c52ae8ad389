"""The one table of features: what each is called, which images it suits, which network makes it, how large it is.

Engine, forecast, command line and Slicer's panel read it; what makes the descriptors is in :mod:`samconvex.features`
and found by these names in ``registration/features.py``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Feature:
    """A descriptor that the solvers can compare.

    Attributes:
        name: as in a level's ``features`` and in ``--features``.
        of_ct: only CT in Hounsfield units has it.
        network: family of the network that makes it, None without one.
        channels: of its map.
        read: made once for each image and read where points come to lie, instead of made anew of every warped image.
        strided: made anew, but on the level's own grid alone, however finely the image is looked at.
    """

    name: str
    of_ct: bool = False
    network: str | None = None
    channels: int = 0
    read: bool = False
    strided: bool = False


FEATURES: dict[str, Feature] = {
    feature.name: feature
    for feature in (
        Feature("mind", channels=12),
        Feature("hu", of_ct=True, channels=3),
        Feature("dns", network="masr", channels=24, read=True),
        Feature("featcnn", network="featcnn", channels=12),
        Feature("sam", of_ct=True, network="sam", channels=32, read=True),
        Feature("sam-fine", of_ct=True, network="sam", channels=32, read=True),
        Feature("sam-coarse", of_ct=True, network="sam", channels=32, read=True),
        Feature("sam-anew", of_ct=True, network="sam", channels=256, strided=True),
        Feature("sam-anew-fine", of_ct=True, network="sam", channels=128, strided=True),
        Feature("semantic", of_ct=True, network="semantic", channels=7, read=True),
    )
}


@dataclass(frozen=True)
class Choice:
    """A feature or a sum of some that people are offered.

    Attributes:
        key: under which scenes and stored presets keep it.
        name: value of ``--features``.
        label, explanation: what the panel says of it.
    """

    key: str
    name: str
    label: str
    explanation: str


def _(text: str) -> str:
    """Marks what Slicer's panel shows, for its translators."""
    return text


CHOICES: tuple[Choice, ...] = (
    Choice(
        "MIND",
        "mind",
        _("MIND (any modality)"),
        _("Self-similarity, without learning: choose it for MR, for two modalities, and wherever nothing else suits."),
    ),
    Choice(
        "DNS",
        "dns",
        _("DNS (MR and CT, learned)"),
        _("Learned self-similarity: choose it for unlike images of one patient, such as MR and CT; slower than MIND."),
    ),
    Choice(
        "FEATCNN",
        "featcnn",
        _("FeatCNN (MR, learned)"),
        _(
            "A network that imitates MIND: choose it for images like the hippocampus MRs it was trained on, or to "
            "compare methods."
        ),
    ),
    Choice(
        "MIND_HU",
        "mind+hu",
        _("MIND + Hounsfield (CT)"),
        _(
            "Self-similarity and brightness: choose it for two CTs of one patient with the same contrast agent, or "
            "without any."
        ),
    ),
    Choice(
        "SAM_MIND",
        "sam+mind",
        _("SAM + MIND (CT)"),
        _(
            "Anatomical embeddings and self-similarity: choose it for CTs of different patients outside head and neck, "
            "or far from each other."
        ),
    ),
    Choice(
        "SAM_MIND_ORGANS",
        "sam+mind+semantic",
        _("SAM + MIND + organs (CT)"),
        _(
            "Anatomical embeddings, self-similarity and seven organs: choose it for head-and-neck CTs with a preset "
            "that does not compare organs."
        ),
    ),
    Choice(
        "SAM",
        "sam",
        _("SAM alone (CT)"),
        _("Anatomical embeddings alone: choose it to compare with the SAMConvex paper."),
    ),
)


def unknown_feature(name: str) -> str:
    """The sentence for a name that is not in the table."""
    return f"There is no feature {name!r}; choose {', '.join(FEATURES)} or a sum such as sam+mind."


def networks_of(names: Iterable[str]) -> set[str]:
    """Families of the networks that make the named features."""
    return {FEATURES[name].network or "" for name in names if name in FEATURES} - {""}


def channels_at(names: Iterable[str]) -> tuple[int, int]:
    """Most channels that are made at once of all voxels of a warped image, and channels of all maps together."""
    known = [FEATURES[name] for name in names if name in FEATURES]
    anew = (f.channels for f in known if not f.read and not f.strided)
    return max(anew, default=0), sum(f.channels for f in known)
