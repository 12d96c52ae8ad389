"""The verdict on a registration: good, check or do not use, with reasons in a clinician's words.

Evidence (:mod:`samconvex.registration.evidence`) goes in, a level and sentences come out; nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

GOOD, CHECK, DO_NOT_USE = "good", "check", "do not use"
LEVELS = (GOOD, CHECK, DO_NOT_USE)


@dataclass(frozen=True)
class Limit:
    """From where on a figure speaks against a registration.

    Attributes:
        figure: name of the evidence.
        check, reject: limits of "check" and "do not use"; None where the figure alone never says so.
        reason: what a clinician reads; ``{value}`` is the figure.
        high: large values are bad, else small ones.
        same: for images of one patient (True), of different ones (False), or of any (None).
        group: of the reasons with one group only the gravest is told.
    """

    figure: str
    check: float | None
    reject: float | None
    reason: str
    high: bool = True
    same: bool | None = None
    group: str = ""


_PLACES = "What lies together in the two images is not the same anatomy ({value:.0f} % of the places looked up agree)."
_ELSEWHERE = "The anatomy looks different where the result lays one image on the other."
_EDGES = "Edges and structures of the two images do not lie on each other ({value:.0f} % do)."
_NO_BETTER = "Where the result lays the images on each other they agree hardly better than anywhere around."
_OUTLINE = "The outlines of the two bodies do not lie on each other (overlap {value:.2f})."
_BONES = "Bones do not lie on each other (overlap {value:.2f})."
_UNRELATED = "The brightness of one image hardly tells that of the other."
_SIZE = "One image had to be enlarged or shrunk (factor {value:.2f}): a spacing may be wrong."
_STRETCH = (
    "One direction had to be stretched {value:.2f} times more than another: slices may be missing or a spacing wrong."
)
_SQUEEZED = "In {value:.0f} % of the body, tissue was squeezed or stretched beyond two and a half times its volume."
_CHANGED = "A place of {value:.0f} ml shows other tissue than before: something grew, was removed or filled."
_PATIENT = "For images of one patient they differ too much after the registration: is it the same patient?"
_TURNED = "One image lies turned against the other: check its header, and the sides."
_ORDER = "The slices of an image do not follow each other: some may be out of order."
_INVENTED = "Over {value:.0f} mm the slices of an image were interpolated, not measured."
_LOW = False
# Chosen on the "fit" patients of Testing/benchmarks/studies/verdict.py, between the worst right and the best wrong
# results, and tested on its others (results/verdict.json). Those of folding, overlap, Dice and points are what the
# field asks for (points: AAPM TG-132 wants 2 mm on average; five times that is no registration). Those of the share
# covered, of outlines, of gain and of slices made up let right results of training patients pass that were paired by
# chance (verdict_by_chance.py); those of places looked up and of volume let more abdomens of training patients pass
# (ct-inter-patient, Dice 0.46 to 0.63: 26 to 51 % and 14 to 22 %), where no flag of results/verdict.json was lost.
# Between modalities edges never reject: on real MR and CT of one patient (truth unknown) they agree as little as on
# wrong pairs.
LIMITS: tuple[Limit, ...] = (
    Limit("mirrored", None, 0.5, "The result exchanges left and right."),
    Limit("mirrored_image", 0.5, None, "Left and right seem to be exchanged in one image."),
    Limit("turned", 0.5, None, _TURNED, group="turned"),
    Limit("lies_otherwise", 0.5, None, _TURNED, group="turned"),
    Limit("turn_deg", 45.0, None, _TURNED, group="turned"),
    Limit("other_modality", 0.5, None, "The preset is meant for another kind of image than these."),
    Limit("common_percent", 20.0, 3.0, "The two images have little of the body in common ({value:.0f} %).", _LOW),
    Limit("covered_percent", 20.0, 10.0, "Only {value:.0f} % of the body is seen in both images.", _LOW),
    Limit("anatomy_there_percent", 30.0, 15.0, _PLACES, _LOW, group="anatomy"),
    Limit("anatomy_similarity", 0.55, 0.35, _ELSEWHERE, _LOW, group="anatomy"),
    Limit("anatomy_similarity", 0.87, None, _PATIENT, _LOW, same=True, group="patient"),
    Limit("near_percent", 22.0, 12.0, _EDGES, _LOW, group="edges"),
    Limit("near_percent", 60.0, None, _PATIENT, _LOW, same=True, group="patient"),
    Limit("near_gain", 0.25, 0.15, _NO_BETTER, _LOW, group="edges"),
    Limit("across_near_percent", 22.0, None, _EDGES, _LOW, group="edges"),
    Limit("across_near_gain", 0.3, None, _NO_BETTER, _LOW, group="edges"),
    Limit("shared_information", 0.07, 0.03, _UNRELATED, _LOW),
    Limit("body_agreement", 0.45, 0.3, _OUTLINE, _LOW),
    Limit("bone_agreement", 0.3, 0.15, _BONES, _LOW),
    # Of 5256 pairs of training patients 3 % differ as much by the centers of their organs (verdict.py --sizes).
    Limit("scale", 1.2, 1.45, _SIZE, same=False, group="size"),
    Limit("scale", 0.8, 0.69, _SIZE, _LOW, same=False, group="size"),
    Limit("scale", 1.06, 1.15, _SIZE, same=True, group="size"),
    Limit("scale", 0.94, 0.87, _SIZE, _LOW, same=True, group="size"),
    Limit("stretch", 1.33, 1.8, _STRETCH, same=False),
    Limit("stretch", 1.13, 1.4, _STRETCH, same=True),
    Limit("extreme_volume_percent", 25.0, 40.0, _SQUEEZED, same=False),
    Limit("extreme_volume_percent", 5.0, 20.0, _SQUEEZED, same=True),
    Limit("changed_ml", 3.0, None, _CHANGED, same=True),
    Limit("slices_disorder", 0.78, 0.95, _ORDER),
    Limit("slices_invented_mm", 25.0, None, _INVENTED),
    Limit("folding_percent", 0.1, 5.0, "Tissue is folded over itself ({value:.1f} % of the body)."),
    Limit("inverse_p95_mm", 5.0, 20.0, "There and back again does not end where it began (off by {value:.0f} mm)."),
    Limit("dice", 0.4, 0.15, "The outlined structures hardly overlap (mean Dice {value:.2f}).", _LOW),
    Limit("worst_dice", 0.02, None, "One outlined structure does not overlap at all.", _LOW),
    Limit("dice_gain", -0.05, None, "The outlined structures overlap less than before the registration.", _LOW),
    Limit("point_error_mm", 10.0, 20.0, "The given points are still {value:.0f} mm apart."),
)
# Any of these shows that images were compared at all.
_COMPARED = ("anatomy_there_percent", "near_percent", "across_near_percent")
NOT_COMPARED = "Too little could be compared to judge the result; look at it."


def verdict(evidence: Mapping[str, float], *, same_patient: bool = False) -> dict[str, Any]:
    """Level and reasons.

    Args:
        evidence: figures by name; those that could not be measured are absent.
        same_patient: the images are said to show one patient.

    Returns:
        ``level`` (one of :data:`LEVELS`), ``reasons`` (sentences, the gravest first; empty where it is good) and the
        ``evidence``.
    """
    found: list[tuple[int, str, str]] = []
    for limit in LIMITS:
        if limit.figure not in evidence or limit.same not in (None, same_patient):
            continue
        value = evidence[limit.figure]
        grade = 2 if _beyond(value, limit.reject, limit.high) else int(_beyond(value, limit.check, limit.high))
        if grade:
            found.append((grade, limit.group or limit.figure, limit.reason.format(value=value)))
    if not any(name in evidence for name in _COMPARED):
        found.append((1, "compared", NOT_COMPARED))
    found.sort(key=lambda reason: -reason[0])
    told: dict[str, str] = {}
    for _, group, sentence in found:
        told.setdefault(group, sentence)
    level = LEVELS[max((grade for grade, _, _ in found), default=0)]
    return {"level": level, "reasons": list(told.values()), "evidence": dict(evidence)}


def _beyond(value: float, bound: float | None, high: bool) -> bool:
    if bound is None:
        return False
    return value >= bound if high else value <= bound


def sentence(judged: Mapping[str, Any]) -> str:
    """The verdict as one line: the level, loudly, and the reasons."""
    return " ".join([f"VERDICT: {str(judged['level']).upper()}.", *judged["reasons"]])
