"""Which lesions RECIST 1.1 measures: what is measurable, which ones to follow as targets, and what counts of them.

Eisenhauer et al., New response evaluation criteria in solid tumours, Eur J Cancer 45, 2009, sections 3.1 (measurable),
4.2 (targets and non-targets) and 4.3.2 (nodes, too small to measure, split and merged). A proposal for a person.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

MOST_TARGETS = 5
MOST_PER_ORGAN = 2
MEASURABLE_MM = 10.0
TARGET_NODE_MM = 15.0
NORMAL_NODE_MM = 10.0
# Slices up to this thickness measure from MEASURABLE_MM on, thicker ones from twice their thickness on.
THIN_SLICE_MM = 5.0
# What a lesion counts that is seen but too small to measure (section 4.3.2).
TOO_SMALL_MM = 5.0
# Lymph nodes count as one organ, wherever they lie.
NODES_ORGAN = "lymph nodes"
TARGET, NON_TARGET, NORMAL = "target", "non-target", "normal"


@dataclass(frozen=True)
class Candidate:
    """A lesion as the baseline (or, a new one, its first visit) shows it.

    Attributes:
        longest_mm, short_axis_mm: diameters in mm; None where not measured.
        node: a lymph node, whose short axis counts. organ: where it lies, "" unknown.
        slice_mm: slice thickness of the image in mm; None unknown.
    """

    name: str
    longest_mm: float | None
    short_axis_mm: float | None = None
    node: bool = False
    organ: str = ""
    slice_mm: float | None = None

    @property
    def counted_mm(self) -> float | None:
        """The diameter that counts in mm."""
        return counted_diameter(self.node, self.longest_mm, self.short_axis_mm)

    @property
    def site(self) -> str:
        """The organ that the limit of two counts."""
        return NODES_ORGAN if self.node else self.organ.strip().lower()


@dataclass(frozen=True)
class Proposal:
    """The role proposed for a lesion: "target", "non-target" or "normal" (a node that is no lesion), and why."""

    name: str
    role: str
    reason: str


def counted_diameter(node: bool, longest_mm: float | None, short_axis_mm: float | None) -> float | None:
    """The diameter that counts in mm: a lymph node's short axis, the longest diameter of anything else."""
    return short_axis_mm if node else longest_mm


def counted_fragments(node: bool, fragments: Iterable[tuple[float, float]]) -> float:
    """mm that a lesion counts that has split: the sum over its fragments' (longest, short axis) diameters."""
    return sum(short if node else longest for longest, short in fragments)


def counted_of_merged(
    diameters: Mapping[str, float | None], groups: Iterable[Collection[str]]
) -> dict[str, float | None]:
    """Diameters in mm in which lesions that have become one mass count once.

    Args:
        diameters: what was measured. groups: names that have merged; the first that has a diameter holds the mass's.

    Returns:
        The same with 0 for the other members; the mass's diameter stands with its first measured member.
    """
    counted = dict(diameters)
    for group in groups:
        members = [name for name in group if name in counted]
        holder = next((name for name in members if counted[name] is not None), None)
        if holder is not None:
            counted.update((name, 0.0) for name in members if name != holder)
    return counted


def limit_mm(node: bool, slice_mm: float | None) -> float:
    """mm from which a lesion can be a target: 10 (a node 15), on slices above 5 mm at least twice their thickness."""
    limit = TARGET_NODE_MM if node else MEASURABLE_MM
    return max(limit, 2 * slice_mm) if slice_mm is not None and slice_mm > THIN_SLICE_MM else limit


def measurability(lesion: Candidate) -> Proposal:
    """What a lesion can be by its size alone, and the rule that says so."""
    value, limit = lesion.counted_mm, limit_mm(lesion.node, lesion.slice_mm)
    which = "short axis" if lesion.node else "longest diameter"
    if value is None:
        return Proposal(lesion.name, NON_TARGET, f"Its {which} was not measured.")
    if lesion.node and value < NORMAL_NODE_MM:
        return Proposal(
            lesion.name, NORMAL, f"A lymph node with a short axis of {value:.1f} mm, below 10 mm, is normal."
        )
    slices = (
        "" if limit in (MEASURABLE_MM, TARGET_NODE_MM) else f", twice the slice thickness of {lesion.slice_mm:g} mm"
    )
    if value < limit:
        return Proposal(lesion.name, NON_TARGET, f"Its {which} of {value:.1f} mm is below {limit:g} mm{slices}.")
    return Proposal(lesion.name, TARGET, f"Its {which} of {value:.1f} mm is at least {limit:g} mm{slices}.")


def propose_targets(lesions: Iterable[Candidate]) -> list[Proposal]:
    """A role for every lesion, in their order.

    The largest measurable lesion of each organ comes first, so that every organ is represented, then the second of
    each, until there are five. Of unnamed organs nothing is known: their lesions fill up by size.
    """
    lesions = list(lesions)
    sizes = {lesion.name: measurability(lesion) for lesion in lesions}
    measurable = [lesion for lesion in lesions if sizes[lesion.name].role == TARGET]
    measurable.sort(key=lambda lesion: -(lesion.counted_mm or 0.0))
    rank: Counter[str] = Counter()
    order: list[tuple[int, int, Candidate]] = []
    for row, lesion in enumerate(measurable):
        place = rank[lesion.site] if lesion.site else 0
        rank[lesion.site] += 1
        order.append((place, row, lesion))
    allowed = [lesion for place, _row, lesion in sorted(order, key=lambda entry: entry[:2]) if place < MOST_PER_ORGAN]
    chosen = {lesion.name for lesion in allowed[:MOST_TARGETS]}
    return [_proposal(lesion, sizes[lesion.name], lesion.name in chosen, rank) for lesion in lesions]


def _proposal(lesion: Candidate, size: Proposal, chosen: bool, count: Counter[str]) -> Proposal:
    if size.role != TARGET or chosen:
        return size
    if lesion.site and count[lesion.site] > MOST_PER_ORGAN:
        return Proposal(lesion.name, NON_TARGET, f"Larger ones of {lesion.site} are targets; at most two an organ.")
    return Proposal(lesion.name, NON_TARGET, "Five others are targets, at most five.")


def target_violations(targets: Iterable[Candidate]) -> list[str]:
    """What the chosen targets have against the rules, one sentence each; empty where they keep them.

    Args:
        targets: the lesions that were chosen, as the baseline shows them.
    """
    targets = list(targets)
    said = []
    if len(targets) > MOST_TARGETS:
        said.append(f"{len(targets)} targets are chosen, at most five count; make some non-target.")
    for site, count in Counter(lesion.site for lesion in targets).items():
        if site and count > MOST_PER_ORGAN:
            said.append(f"{count} targets lie in {site}, at most two an organ; make some non-target.")
    for lesion in targets:
        size = measurability(lesion)
        if size.role != TARGET:
            said.append(f"{lesion.name} cannot be a target: {size.reason[0].lower()}{size.reason[1:]}")
    unnamed = [lesion.name for lesion in targets if not lesion.site]
    if len(unnamed) > MOST_PER_ORGAN:
        said.append(f"The organ of {', '.join(unnamed)} is not named; two an organ cannot be checked.")
    return said
