"""An organ network started from an embedding's weights against a random start, with few labeled patients.

Table VIII of SAM (Yan et al., 2022). ``initialization.py run --embedding FILE`` trains both for every region and number
of patients, and ``initialization.py table`` compares the Dice of patients that neither learned from. Patients, crops,
steps, rate and seed are the same for both starts; what the embedding does not give (full resolution, the heads) starts
from the same random numbers. The embedding has to be one that saw no organ label and none of the held-out patients: one
that learned from labels knows the organs already. Finished runs are on disk, a line each, and a second call goes on.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import json
import random
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [
    str(Path(__file__).resolve().parents[2]),
    str(Path(__file__).resolve().parents[3] / "SAMConvexRegistration"),
]

from samconvex.errors import InputError  # noqa: E402
from samconvex.io.images import read_labels  # noqa: E402
from samconvex.networks.semantic import SemanticNet  # noqa: E402
from samconvex.training.data.images import load_images  # noqa: E402
from samconvex.training.semantic import SemanticSettings, held_out_dice, make_example, train  # noqa: E402
from samconvex.weights.checkpoints import read_checkpoint  # noqa: E402
from samconvex.weights.models import load_compact, load_network  # noqa: E402

from benchmarks.data.pairs import CONFIGS, EVALUATION_ABDOMENS, FOLDERS, REPOSITORY, data_folder  # noqa: E402
from benchmarks.results.paired import interval, wilcoxon  # noqa: E402

STARTS = ("random", "embedding")
# Held out of the embeddings' training too (configs/sam_trunk.json), but for the last: 14 patients leave 4 beside 10.
ABDOMENS_HELD_OUT = ("btcv03", "btcv06", "btcv11", "btcv13")
# Smaller than the recipe's crops, for more steps in the same time: 200 steps of 64^3 taught the mandible alone.
SHAPE = (48, 48, 48)


@dataclass(frozen=True)
class Region:
    """What is learned, and from whom.

    Attributes:
        folder: of the images, in the data folder.
        organs: of the labels 1, 2, ...
        tubular: labels whose lower end is arbitrary.
        training: names to learn from, the first N of them with N patients.
        held_out: names that are only evaluated.
    """

    name: str
    folder: str
    organs: tuple[str, ...]
    tubular: tuple[int, ...]
    training: tuple[str, ...]
    held_out: tuple[str, ...]


def region_of(name: str, data: Path) -> Region:
    """Head and neck, or the abdomen: those who label every organ come first, in an order drawn once."""
    recipe = json.loads((CONFIGS / "semantic_trunk.json").read_text(encoding="utf-8"))
    held_out = json.loads((CONFIGS / "semantic_ct.json").read_text(encoding="utf-8"))["validation"]
    folder = FOLDERS[name]
    group = recipe["label_groups"][folder]
    organs = tuple(group["labels"][str(k + 1)] for k in range(len(group["labels"])))
    tubular = tuple(organs.index(organ) + 1 for organ in group.get("tubular", ()))
    never = {*recipe["exclude"], *held_out, *ABDOMENS_HELD_OUT, *EVALUATION_ABDOMENS}
    names = sorted(path.name.removesuffix("_seg.nii.gz") for path in (data / folder).glob("*_seg.nii.gz"))
    kept = [case for case in names if case not in never]
    random.Random(0).shuffle(kept)

    def missing(case: str) -> bool:
        found = read_labels(data / folder / f"{case}_seg.nii.gz").tensor.unique().tolist()
        return not set(range(1, len(organs) + 1)) <= set(found)

    kept.sort(key=missing)
    return Region(
        name, folder, organs, tubular, tuple(kept), ABDOMENS_HELD_OUT if name == "abdomen" else tuple(held_out)
    )


def settings_of(region: Region, patients: int, embedding: dict[str, Any], seed: int) -> SemanticSettings:
    """The recipe of ``train semantic`` with the embedding's architecture; no negatives, one size of crops."""
    return SemanticSettings(
        include=tuple(f"{region.folder}/{case}_ct.nii.gz" for case in region.training[:patients]),
        organs=region.organs,
        tubular=region.tubular,
        shapes=(SHAPE,),
        widths=tuple(embedding["config"]["widths"]),
        blocks=tuple(embedding["config"]["blocks"]),
        threads=1,
        seed=seed,
    )


def embedding_of(path: Path) -> dict[str, Any]:
    """What an embedding's weights file holds; ``meta`` has the settings of its training.

    Raises:
        InputError: no compact embedding of CT, or one that does not tell what it was trained on.
    """
    load_compact(path)
    found = read_checkpoint(path)
    if not found.get("meta", {}).get("settings"):
        raise InputError(f"{path} does not tell what it was trained on; give weights of `samconvex train sam`.")
    return found


def seen_by(embedding: dict[str, Any], region: Region) -> list[str]:
    """Held-out patients whose images, not labels, the embedding was trained on, by the settings that it carries."""
    settings = embedding["meta"]["settings"]
    never = [*settings["exclude"], *settings["validation"]]
    paths = {case: f"{region.folder}/{case}_ct.nii.gz" for case in region.held_out}
    taken = [case for case, path in paths.items() if any(fnmatch.fnmatch(path, p) for p in settings["include"])]
    return [case for case in taken if case not in never]


def saw_labels(embedding: dict[str, Any]) -> bool:
    """Whether organ labels took part in the embedding's training."""
    settings = embedding["meta"]["settings"]
    return bool(settings["label_groups"]) and settings["label_share"] > 0


def dice_of(weights: Path, data: Path, region: Region, settings: SemanticSettings) -> dict[str, dict[str, float]]:
    """Dice per held-out patient: of each organ that it labels, and their ``mean``."""
    network = load_network(SemanticNet, weights)
    found = {}
    for case in region.held_out:
        include = [f"{region.folder}/{case}_ct.nii.gz"]
        images = load_images(
            data, spacing=settings.spacing_mm, include=include, exclude=[], progress=lambda _fraction, _message: None
        )
        example = make_example(images[0], settings)
        if example is not None:
            found[case] = held_out_dice(network, [example])
    return found


def run(
    data: Path, region: Region, patients: int, start: str, embedding: Path, *, steps: int, seed: int, folder: Path
) -> dict[str, Any]:
    """Train from one start and evaluate; the record, also added to ``runs.jsonl``. Known runs are not repeated."""
    known = embedding_of(embedding)
    settings = settings_of(region, patients, known, seed)
    key = {"region": region.name, "patients": patients, "start": start, "steps": steps, "seed": seed}
    key["crop"] = [settings.batch, *settings.shapes[0]]
    key["embedding"] = hashlib.sha256(embedding.read_bytes()).hexdigest()[:12]
    for record in records_of(folder):
        if {name: record[name] for name in key} == key:
            return record
    weights = folder / f"{region.name}-{patients}-{start}-{seed}-{key['embedding']}.pt"
    if not is_trained(weights, settings, steps):
        # A broken-off training starts anew: going on would draw other crops than the other start gets.
        train(data, weights, settings=settings, steps=steps, start_from=embedding if start == "embedding" else None)
    record = {
        **key,
        "training": list(region.training[:patients]),
        "labels_seen": saw_labels(known),
        "images_seen": seen_by(known, region),
        "dice": dice_of(weights, data, region, settings),
    }
    with (folder / "runs.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(record) + "\n")
    return record


def is_trained(weights: Path, settings: SemanticSettings, steps: int) -> bool:
    """Whether a file holds weights after all ``steps`` under these settings: only the evaluation is missing then."""
    if not weights.is_file():
        return False
    meta = read_checkpoint(weights)["meta"]
    return meta["step"] == steps and json.dumps(meta["settings"]) == json.dumps(asdict(settings))


def records_of(folder: Path) -> list[dict[str, Any]]:
    """The finished runs."""
    file = folder / "runs.jsonl"
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []


def by_patient(records: list[dict[str, Any]]) -> dict[str, float]:
    """Mean Dice of every held-out patient over runs of several seeds."""
    cases = records[0]["dice"]
    return {case: float(np.mean([record["dice"][case]["mean"] for record in records])) for case in cases}


def table(records: list[dict[str, Any]]) -> list[str]:
    """A line per region and number of patients: mean Dice from both starts, and their difference patient by patient.

    A patient counts with the mean of the organs that it labels and of the seeds that both starts ran; the interval is
    of a bootstrap over the held-out patients, p of Wilcoxon's signed-rank test.
    """
    groups: dict[tuple, dict[str, dict[int, dict]]] = {}
    for record in records:
        group = tuple(record[name] for name in ("region", "patients", "steps", "embedding")) + tuple(record["crop"])
        groups.setdefault(group, {start: {} for start in STARTS})[record["start"]][record["seed"]] = record
    lines = [
        "| region | labeled | steps x crops | seeds | held out | random | embedding | difference (95 %) | better | p |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    remarks = []
    for (region, patients, steps, _, *crop), runs in groups.items():
        seeds = sorted(set(runs["random"]) & set(runs["embedding"]))
        if not seeds:
            continue
        without, with_it = (by_patient([runs[start][seed] for seed in seeds]) for start in STARTS)
        gains = [with_it[case] - without[case] for case in without]
        low, high = interval(gains)
        means = " | ".join(f"{np.mean(list(found.values())):.3f}" for found in (without, with_it))
        lines.append(
            f"| {region} | {patients} | {steps} x {crop[0]} of {crop[1]}^3 | {len(seeds)} | {len(gains)} | {means} "
            f"| {np.mean(gains):+.3f} ({low:+.3f} to {high:+.3f}) | {sum(gain > 0 for gain in gains)} "
            f"| {wilcoxon(gains):.4f} |"
        )
        remarks += remarks_on(runs["embedding"][seeds[0]])
    return [*lines, *dict.fromkeys(remarks)]


def remarks_on(record: dict[str, Any]) -> list[str]:
    """What makes a comparison less than fair."""
    seen = ", ".join(record["images_seen"])
    return [
        *([f"The embedding ({record['embedding']}) learned from organ labels."] if record["labels_seen"] else []),
        *([f"The embedding saw the images, without labels, of the held-out {seen}."] if seen else []),
    ]


def organ_table(records: list[dict[str, Any]]) -> list[str]:
    """Mean Dice of each organ over the held-out patients and seeds, a column per run from both starts."""
    lines = []
    for region in dict.fromkeys(record["region"] for record in records):
        members = [record for record in records if record["region"] == region]
        columns: dict[str, dict[str, list[float]]] = {}
        for record in members:
            found = columns.setdefault(f"{record['patients']} {record['start']}", {})
            for dice in record["dice"].values():
                for organ, number in dice.items():
                    found.setdefault(organ, []).append(number)
        organs = dict.fromkeys(organ for found in columns.values() for organ in found)
        lines += ["", f"| {region} | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
        for organ in organs:
            cells = [f"{np.mean(found[organ]):.3f}" if organ in found else "" for found in columns.values()]
            lines.append(f"| {organ} | " + " | ".join(cells) + " |")
    return lines


def main() -> int:
    """Train what is missing, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument(
        "--embedding", type=Path, metavar="FILE", help="weights of `samconvex train sam` without labels"
    )
    parser.add_argument("--regions", nargs="+", choices=tuple(FOLDERS), default=list(FOLDERS))
    parser.add_argument("--patients", nargs="+", type=int, default=[5, 10], metavar="N", help="labeled ones; 0: all")
    parser.add_argument("--steps", type=int, default=600, help="of each training, two crops each (default 600)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=REPOSITORY / "benchmark-output" / "initialization")
    chosen = parser.parse_args()
    if chosen.what == "table":
        records = records_of(chosen.output)
        if not records:
            parser.error(f"{chosen.output} holds no finished run; `run` comes first")
        print("\n".join([*table(records), *organ_table(records)]))
        return 0
    data = data_folder()
    if data is None:
        parser.error("this needs the images (SAMCONVEX_DATA)")
    if chosen.embedding is None:
        parser.error(
            "--embedding is missing: weights of `samconvex train sam` with 'label_groups' [] or 'label_share' 0"
        )
    try:
        embedding_of(chosen.embedding)
    except InputError as error:
        parser.error(str(error))
    regions = [region_of(name, data) for name in chosen.regions]
    for region in regions:
        if max(chosen.patients) > len(region.training):
            parser.error(f"{region.name} has {len(region.training)} patients to learn from, not {max(chosen.patients)}")
    chosen.output.mkdir(parents=True, exist_ok=True)
    for patients in chosen.patients:
        for region in regions:
            for start in STARTS:
                count = patients or len(region.training)
                record = run(
                    data,
                    region,
                    count,
                    start,
                    chosen.embedding,
                    steps=chosen.steps,
                    seed=chosen.seed,
                    folder=chosen.output,
                )
                means = [found["mean"] for found in record["dice"].values()]
                print(f"{region.name}, {count} patients, {start}: Dice {np.mean(means):.3f}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
