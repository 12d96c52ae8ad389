"""The expected error: evidence gathered, models fitted and calibrated, and tested on patients never seen.

    python Testing/benchmarks/studies/expected_error.py run --folder DIR     # hours; goes on where it stopped
    python Testing/benchmarks/studies/expected_error.py fit --folder DIR     # writes registration/error_models.py
    python Testing/benchmarks/studies/expected_error.py test --folder DIR    # figures, and the reliability diagram

``run`` keeps each transform, a line in ``registered.jsonl``, and one ``.npz`` for a pair, with the evidence at places
where the error is known. Fitting is a matter of a minute from there.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch

REPOSITORY = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(REPOSITORY / "SAMConvexRegistration"), str(REPOSITORY / "Testing")]

import samconvex as sc  # noqa: E402
from samconvex.anatomy.body import body_mask  # noqa: E402
from samconvex.progress import null_progress  # noqa: E402
from samconvex.registration.error_model import (  # noqa: E402
    BETWEEN_PATIENTS,
    LINEAR,
    PREVIEW,
    SAME_PATIENT,
    family_of,
    model_for,
)
from samconvex.registration.error_models import FAMILIES as SHIPPED  # noqa: E402
from samconvex.registration.expected_error import gathered  # noqa: E402
from samconvex.registration.options import Options  # noqa: E402
from samconvex.registration.prepare import begun, prepared  # noqa: E402
from samconvex.registration.regions import regions_of  # noqa: E402
from samconvex.report.metrics import (  # noqa: E402
    coverage_percent,
    rank_correlation,
    surface_errors,
    target_registration_error,
)
from samconvex.settings.presets import get_settings  # noqa: E402
from samconvex.space.sampling import sample  # noqa: E402
from samconvex.space.transforms import AffineTransform, Transform  # noqa: E402

from benchmarks.data.pairs import data_folder  # noqa: E402
from benchmarks.studies.expected_error_cases import SEED, TEST, TRAINING, Case, Loaded, Truth, cases  # noqa: E402
from benchmarks.studies.expected_error_fit import bounds_of, calibrated  # noqa: E402

TABLE = REPOSITORY / "SAMConvexRegistration" / "samconvex" / "registration" / "error_models.py"
PLACES = 1500
FAMILIES = {
    BETWEEN_PATIENTS: ("ct-inter-patient",),
    SAME_PATIENT: ("ct-lung-breathing", "ct-follow-up"),
    PREVIEW: ("fast-preview",),
    # What the other presets begin with.
    LINEAR: ("rigid", "affine"),
}
# Tubes whose ends everybody draws elsewhere: head and neck's cord and oesophagus; oesophagus, aorta, cava, portal vein.
TUBES = {"headneck": (2, 5), "abdomen": (5, 8, 9, 10)}
TUBE_END_MM = 12.0
# What a model needs beside the evidence that every registration has, richest first.
OF_ANY = ("mind_", "displacement_", "gradient", "volume_", "unseen_", "featureless_")
RICHNESS = (("sam_", "disagreement_", "semantic_"), ("sam_", "disagreement_"), ())


# --- runs -----------------------------------------------------------------------------------------------------------
def run(folder: Path, every: list[Case], threads: int) -> None:
    """Register every pair and gather its evidence, where that is not done yet."""
    torch.set_num_threads(threads)
    for case in every:
        source = folder / "runs" / f"{case.name}.h5"
        kinds = ("result",) if case.preset == "fast-preview" else ("result", "linear")
        left = [kind for kind in kinds if not _file(folder, case, kind).exists()]
        if source.exists() and not left:
            continue
        loaded = case.load()
        if not source.exists():
            _register(case, loaded, source, folder / "registered.jsonl")
        forward = Transform.load(source, loaded.fixed.grid)
        for kind in left:
            _save(_known(case, loaded, forward, kind), _file(folder, case, kind))


def _file(folder: Path, case: Case, kind: str) -> Path:
    """Where a pair's evidence is kept; ``kind``: "result", or "linear" for its linear part alone."""
    return folder / "evidence" / f"{case.name}-{kind}.npz"


def _save(content: dict[str, np.ndarray], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"partial-{target.name}")
    np.savez_compressed(partial, **content)
    os.replace(partial, target)


def _register(case: Case, loaded: Loaded, target: Path, log: Path) -> None:
    began, processor = time.perf_counter(), time.process_time()
    result = sc.register(loaded.fixed, loaded.moving, preset=case.preset, **_masks(loaded))
    line = {
        "name": case.name,
        "seconds": time.perf_counter() - began,
        "processor_seconds": time.process_time() - processor,
        "report": result.report,
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"partial-{target.name}")
    result.fixed_to_moving.save(partial)
    os.replace(partial, target)
    with open(log, "a") as file:
        file.write(json.dumps(line) + "\n")
    print(case.name, f"{line['processor_seconds']:.0f} s", flush=True)


def _masks(loaded: Loaded) -> dict:
    return {} if loaded.masks is None else {"fixed_mask": loaded.masks[0], "moving_mask": loaded.masks[1]}


def _known(case: Case, loaded: Loaded, forward: Transform, kind: str) -> dict[str, np.ndarray]:
    """Evidence by name, "errors" in mm and "points", at places where the error is known."""
    initial = Transform(tuple(part for part in forward.parts if isinstance(part, AffineTransform)))
    settings = get_settings(case.preset)
    if kind == "linear":
        forward, settings = initial, settings.linear_part
    run, _ = begun(loaded.fixed, loaded.moving, Options(preset=settings, **_masks(loaded)), null_progress)
    images = prepared(loaded.fixed, loaded.moving, run)
    regions = regions_of(images.work, images.fixed_body, initial, False, [], (images.fixed, images.moving))
    evidence = gathered(run, images, initial, forward, regions, torch.device("cpu"))
    points, errors = known_errors(case, loaded.fixed, forward, loaded.truth)
    relative = torch.as_tensor(points - evidence.grid.center, dtype=torch.float32)[None, None]
    content = {"errors": errors, "points": points}
    for name, tensor in evidence.maps.items():
        values = sample(tensor, evidence.grid, relative, reference=evidence.grid.center)
        content[name] = values.flatten().numpy()
    return content


# --- truth ----------------------------------------------------------------------------------------------------------
def known_errors(case: Case, fixed: sc.Volume, forward: Transform, truth: Truth) -> tuple[np.ndarray, np.ndarray]:
    """(N, 3) LPS mm where the error is known, and (N,) mm."""
    random = np.random.default_rng(SEED)
    if truth.points is not None:
        return truth.points[0], target_registration_error(forward, *truth.points)
    if truth.map is not None:
        points = body_mask(fixed).points()
        points = points[fixed.grid.contains(points)]
        points = points[random.permutation(len(points))[:PLACES]]
        return points, np.linalg.norm(forward.map_points(points) - truth.map(points), axis=1)
    assert truth.labels is not None
    points, errors, labels = surface_errors(forward, *truth.labels)
    kept = _not_at_ends(case, points, labels, forward.map_points(points), truth)
    points, errors, labels = points[kept], errors[kept], labels[kept]
    if not len(points):
        return points, errors
    # As many of every organ: a liver has a hundred times the surface of an adrenal gland.
    share = PLACES // max(1, len(np.unique(labels)))
    rows = [random.permutation(np.nonzero(labels == label)[0])[:share] for label in np.unique(labels)]
    chosen = np.sort(np.concatenate(rows))
    return points[chosen], errors[chosen]


def _not_at_ends(case: Case, points: np.ndarray, labels: np.ndarray, mapped: np.ndarray, truth: Truth) -> np.ndarray:
    """(N,) bool: not where a tube's contours end in either image."""
    kept = np.ones(len(points), dtype=bool)
    assert truth.labels is not None
    for label in TUBES[case.group]:
        of_it = labels == label
        if not of_it.any():
            continue
        for places, volume in ((points, truth.labels[0]), (mapped, truth.labels[1])):
            heights = volume.with_tensor((volume.tensor == label).to(torch.uint8)).points()[:, 2]
            inside = (places[:, 2] > heights.min() + TUBE_END_MM) & (places[:, 2] < heights.max() - TUBE_END_MM)
            kept &= ~of_it | inside
    return kept


# --- fit and test ---------------------------------------------------------------------------------------------------
def gathered_rows(folder: Path, every: list[Case], split: str, family: str) -> list[tuple[Case, dict, np.ndarray]]:
    """(case, evidence by name, errors) of the split's pairs that tell of a family."""
    kind = "linear" if family == LINEAR else "result"
    found = []
    for case in every:
        path = _file(folder, case, kind)
        if case.split != split or not path.exists():
            continue
        if family != LINEAR and family_of(get_settings(case.preset)) != family:
            continue
        with np.load(path) as file:
            maps = {name: file[name] for name in file.files if name not in ("errors", "points")}
            if len(file["errors"]):
                found.append((case, maps, file["errors"]))
    return found


def fit(folder: Path, every: list[Case], only: str | None = None) -> None:
    """Fit all families, or one; the others then stay as they are shipped."""
    families = dict(SHIPPED)
    for family, presets in FAMILIES.items():
        if only not in (None, family):
            continue
        rows = gathered_rows(folder, every, TRAINING, family)
        models: list[dict] = []
        for needed in RICHNESS:
            usable = [row for row in rows if all(any(n.startswith(p) for n in row[1]) for p in needed)]
            if not usable:
                continue
            common = set.intersection(*(set(maps) for _, maps, _ in usable))
            names = sorted(name for name in common if name.startswith((*OF_ANY, *needed)))
            data = [(case.group, {name: maps[name] for name in names}, errors) for case, maps, errors in usable]
            model, held_out = calibrated(data, SEED)
            models.append(model.plain())
            print(f"{family} {needed}: {len(data)} pairs, {sum(len(e) for *_, e in data)} places; held out:")
            for group in ("all", *sorted({row[0] for row in data})):
                pairs = [h for h, row in zip(held_out, data, strict=True) if group in ("all", row[0])]
                print(f"{group:>16} {summary(pairs)}")
        families[family] = {"presets": list(presets), "models": models}
    write_table(families)


def write_table(families: dict) -> None:
    """The fitted models as the engine reads them; ``ruff format`` breaks its lines."""
    text = json.dumps(families, indent=1)
    TABLE.write_text(
        f'"""Written by Testing/benchmarks/studies/expected_error.py fit; do not edit."""\n\nFAMILIES: dict = {text}\n'
    )


def summary(pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict:
    """Coverage, mean bound and rank correlation over the pairs of (bounds, errors), with what pairs tell of chance."""
    covered = [coverage_percent(bounds, errors) for bounds, errors in pairs]
    bounds, errors = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    random = np.random.default_rng(SEED)
    drawn = [np.mean(random.choice(covered, len(covered))) for _ in range(2000)]
    return {
        "pairs": len(pairs),
        "places": len(errors),
        "coverage": round(float(np.mean(covered)), 1),
        "interval": [round(float(q), 1) for q in np.percentile(drawn, [2.5, 97.5])],
        "worst_pair": round(min(covered), 1),
        "mean_bound_mm": round(float(bounds.mean()), 2),
        "mean_error_mm": round(float(errors.mean()), 2),
        "p90_error_mm": round(float(np.percentile(errors, 90)), 2),
        "spearman": round(rank_correlation(bounds, errors), 3),
        "spearman_within": round(float(np.nanmean([rank_correlation(*pair) for pair in pairs])), 3),
    }


def test(folder: Path, every: list[Case], picture: Path) -> None:
    from benchmarks.studies.expected_error_picture import draw

    figures: dict = {}
    shown: dict[str, list] = {}
    for family in FAMILIES:
        groups: dict[str, list] = {}
        for case, maps, errors in gathered_rows(folder, every, TEST, family):
            bounds = bounds_of(model_for(SHIPPED[family]["models"], maps), maps)
            for group in ("all", case.group):
                groups.setdefault(group, []).append((bounds, errors))
        figures[family] = {group: summary(pairs) for group, pairs in groups.items()}
        if family != LINEAR:
            for group, pairs in groups.items():
                if group == "all":
                    continue
                shown.setdefault(f"{group} ({family})", []).extend(pairs)
        for group, line in figures[family].items():
            print(f"{family:>18}{group:>16} {line}")
    (folder / "test.json").write_text(json.dumps(figures, indent=1))
    draw(shown, picture)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=("run", "fit", "test"))
    parser.add_argument("--folder", type=Path, required=True, help="where runs and evidence are kept")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=(TRAINING, TEST), help="one split alone")
    parser.add_argument("--family", choices=tuple(FAMILIES), help="fit this family alone")
    parser.add_argument(
        "--picture", type=Path, default=REPOSITORY / "Resources" / "Screenshots" / "expected-error-reliability.png"
    )
    chosen = parser.parse_args()
    data = data_folder()
    if data is None:
        print("the evaluation images are absent; set SAMCONVEX_DATA")
        return 2
    every = [case for case in cases(data) if chosen.only in (None, case.split)]
    if chosen.mode == "run":
        run(chosen.folder, every, chosen.threads)
    elif chosen.mode == "fit":
        fit(chosen.folder, every, chosen.family)
    else:
        test(chosen.folder, every, chosen.picture)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
