"""How often the verdict on a registration is right: results known to be right, and many kinds of wrong ones.

``python Testing/benchmarks/studies/verdict.py --work FILE.jsonl``: registers every case that the file does not hold
yet and appends its evidence and its truth; then judges all of them. Without ``--work`` it judges the published cases
(results/verdict.json) by the limits as they are now. Patients are split in two: limits were chosen by
the first group ("fit"), the second ("held out") tells how good they are. A third ("new": other patients, and kinds of
wrong results that nobody thought of before) was registered once everything was fixed. No evaluation patient takes part.
``--sizes`` prints how much larger one patient is than another, by the centers of four organs: what no limit of the
scale may call wrong.

Right and wrong are decided by truth, not by kind: by the centroids of organs, by a known warp, or by what was done to
the images (a mirrored image has no right result). Cases between right and wrong are listed, not counted.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

REPOSITORY = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(REPOSITORY / "SAMConvexRegistration"), str(REPOSITORY / "Testing")]

from samconvex.errors import InputError  # noqa: E402
from samconvex.io.images import read_labels  # noqa: E402
from samconvex.registration.register import register  # noqa: E402
from samconvex.report.verdict import verdict  # noqa: E402
from samconvex.settings.presets import PRESETS  # noqa: E402
from samconvex.settings.registration import Settings  # noqa: E402

from benchmarks.data.pairs import data_folder  # noqa: E402
from benchmarks.studies.verdict_cases import HEADS, TUBULAR, Case, cases, centers  # noqa: E402

PUBLISHED = REPOSITORY / "Testing" / "benchmarks" / "results" / "verdict.json"


def collected(case: Case) -> dict:
    """One case's record: what the engine measured and what is true."""
    fixed, moving, extra, truth = case.made()
    record = {"kind": case.kind, "group": case.group, "name": case.name}
    begin = time.process_time()
    settings = case.settings if isinstance(case.settings, Settings) else PRESETS[case.settings]
    record["same_patient"] = settings.same_patient
    try:
        result = register(fixed, moving, preset=settings, device="cpu", **extra)
    except InputError as error:
        return {**record, "truth": "refused", "message": str(error)}
    record["processor_seconds"] = round(time.process_time() - begin, 2)
    told, error = (truth, None) if isinstance(truth, str) else truth(result)
    evidence = {k: round(v, 5) for k, v in result.report["verdict"]["evidence"].items()}
    return {**record, "truth": told, "error_mm": error, "evidence": evidence}


def sizes() -> None:
    """Print how many times larger one training patient of head and neck is than another, over all pairs."""
    data = data_folder()
    assert data is not None
    evaluated = (data / "headneck_pairs.csv").read_text(encoding="utf-8").replace(",", " ").split()
    spread = []
    for path in sorted((data / "headneck").glob("*_seg.nii.gz")):
        found = centers(read_labels(path), (*TUBULAR, 6)) if path.name.split("_")[0] not in evaluated else {}
        if len(found) == 4:
            points = np.stack(list(found.values()))
            spread.append(float(np.sqrt(((points - points.mean(0)) ** 2).sum(1).mean())))
    ratios = [a / b for i, a in enumerate(spread) for k, b in enumerate(spread) if i != k]
    shares = (0.5, 1, 2.5, 5, 95, 97.5, 99, 99.5)
    told = ", ".join(
        f"{share:g} %: {value:.3f}" for share, value in zip(shares, np.percentile(ratios, shares), strict=True)
    )
    print(f"{len(spread)} patients, {len(ratios)} ordered pairs; {told}; {min(ratios):.3f} to {max(ratios):.3f}")


def wilson(hits: int, count: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson, 1927)."""
    if not count:
        return 0.0, 1.0
    z, share = 1.96, hits / count
    center, width = share + z * z / (2 * count), z * ((share * (1 - share) + z * z / (4 * count)) / count) ** 0.5
    return (center - width) / (1 + z * z / count), (center + width) / (1 + z * z / count)


def judged(records: list[dict]) -> dict:
    """Shares of right and wrong results by level, per kind and altogether, of both groups of patients."""
    figures: dict = {}
    for group in HEADS:
        kinds: dict[str, dict] = {}
        for record in records:
            if record["group"] != group or record["truth"] == "refused":
                continue
            level = verdict(record["evidence"], same_patient=record["same_patient"])["level"]
            for name in (f"{record['truth']}: {record['kind']}", f"all {record['truth']}"):
                row = kinds.setdefault(name, {"n": 0, "good": 0, "check": 0, "do not use": 0})
                row["n"] += 1
                row[level] += 1
        for row in kinds.values():
            flagged = row["check"] + row["do not use"]
            row["flagged"] = round(flagged / row["n"], 4)
            row["interval"] = [round(limit, 4) for limit in wilson(flagged, row["n"])]
        if kinds:
            figures[group] = dict(sorted(kinds.items()))
    figures["refused"] = [f"{r['kind']}: {r['name']}" for r in records if r["truth"] == "refused"]
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, metavar="FILE.jsonl", help="one case a line; resumed; absent: judge only")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no case after so long")
    parser.add_argument("--only", default="", help="kinds that contain this")
    parser.add_argument("--group", choices=tuple(HEADS), help="patients of one group alone")
    parser.add_argument("--sizes", action="store_true", help="how much the sizes of patients differ")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="figures and cases")
    chosen = parser.parse_args()
    if chosen.sizes:
        sizes()
        return 0
    if chosen.work is None:
        records = json.loads(PUBLISHED.read_text(encoding="utf-8"))["cases"]
    elif data_folder() is None:
        parser.error("the images are absent; set SAMCONVEX_DATA, or leave out --work to judge the published cases")
    else:
        groups = tuple(HEADS) if chosen.group is None else (chosen.group,)
        records = completed(chosen.work, [case for case in cases(groups) if chosen.only in case.kind], chosen.minutes)
    figures = judged(records)
    if chosen.output is not None:
        lines = ",\n".join(json.dumps(record) for record in records)
        figures_text = json.dumps(figures, indent=1)
        chosen.output.write_text(f'{{"figures": {figures_text},\n"cases": [\n{lines}\n]}}\n', encoding="utf-8")
    print(json.dumps(figures, indent=1))
    return 0


def completed(work: Path, every: list[Case], minutes: float) -> list[dict]:
    """The records of a work file, and of the cases that it does not hold yet."""
    torch.set_num_threads(1)
    records = [json.loads(line) for line in work.read_text(encoding="utf-8").splitlines()] if work.exists() else []
    done = {(r["kind"], r["name"]) for r in records}
    begin = time.monotonic()
    for case in every:
        if (case.kind, case.name) in done or time.monotonic() - begin > 60 * minutes:
            continue
        record = collected(case)
        records.append(record)
        with open(work, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        print(f"{record['kind']} {record['name']}: {record['truth']} {record.get('error_mm')}", flush=True)
    return records


if __name__ == "__main__":
    raise SystemExit(main())
